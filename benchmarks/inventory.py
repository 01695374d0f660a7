"""How long an inventory takes, and in how much memory: a Parquet report of millions of rows, and blobs that are listed.

A report is made up in a temporary folder and read into the sandbox's Postgres by a process of its own, so that its peak
of memory is that of the reading alone.
"""

import argparse
import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import numpy as np
import psycopg
import pyarrow as pa
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from pyarrow import parquet

from migration_pipeline.adapters.azure.inventory_report import read_report
from migration_pipeline.adapters.azure.listing import AzureListing
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.inventory import list_source, read
from migration_pipeline.sandbox import Sandbox

_ROW_GROUP = 250_000
_VERSIONS = ("original", "large", "medium", "small", "blurred", "blurred_small")
_MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)


def make_report(path: Path, rows: int) -> None:
    """A report as Azure's rules with the recommended schema fields give it."""
    rng = np.random.default_rng(7)
    schema = pa.schema([
        ("Name", pa.string()), ("Creation-Time", pa.int64()), ("Last-Modified", pa.int64()),
        ("Content-Length", pa.int64()), ("Content-MD5", pa.string()), ("Etag", pa.string()), ("BlobType", pa.string()),
        ("AccessTier", pa.string()),
    ])  # fmt: skip
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _ROW_GROUP):
            count = min(_ROW_GROUP, rows - start)
            photos = rng.integers(0, 2**62, count)
            names = [
                f"photos/{(start + i) // 30}/{photos[i]:016x}/{_VERSIONS[i % len(_VERSIONS)]}.jpg" for i in range(count)
            ]
            written = rng.integers(1_600_000_000_000, 1_760_000_000_000, count)
            digests = [f"{value:022x}=="[-24:] for value in photos.tolist()]
            etags = [f"0x8D{value:015X}" for value in photos.tolist()]
            tiers = rng.choice(["Hot", "Cool", "Archive"], count, p=[0.7, 0.25, 0.05])
            columns = [names, written, written, rng.integers(2000, 2_000_000, count), digests, etags]
            columns += [["BlockBlob"] * count, tiers]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema), _ROW_GROUP)


def load(url: str, schema: str, path: Path) -> None:
    """Read a report into a ledger, in this process, and print what that took."""
    began, cpu = time.monotonic(), time.process_time()
    with closing(PostgresLedger(url, schema)) as ledger, ledger.listings.hold():
        begun = read(ledger, read_report([path], _MADE_AT), ["photos"], lambda _: None)
        seconds = time.monotonic() - began
        listing = ledger.inventory.newest_listing(["photos"])
        peak = _peak_megabytes()
        assert listing is not None  # noqa: S101 - else there is nothing to measure
        print(json.dumps({  # noqa: T201 - for the process that started this one
            "rows": listing.blobs, "seconds": round(seconds, 1), "rows_a_second": round(listing.blobs / seconds),
            "cpu_seconds_of_the_reader": round(time.process_time() - cpu, 1), "peak_megabytes": round(peak, 1),
            "listing": begun.listing_id,
        }))  # fmt: skip


def list_(url: str, schema: str, account_url: str, container: str) -> None:
    """List a container into a ledger, in this process, and print what that took."""
    credentials = AzureCredentials(os.environ["AZURE_STORAGE_KEY"])
    began, cpu = time.monotonic(), time.process_time()
    with closing(PostgresLedger(url, schema)) as ledger, ledger.listings.hold():
        list_source(ledger, AzureListing(account_url, credentials), [container], lambda _: None)
        seconds = time.monotonic() - began
        listing = ledger.inventory.newest_listing([container])
        peak = _peak_megabytes()
        assert listing is not None  # noqa: S101 - as above
        print(json.dumps({  # noqa: T201 - as above
            "blobs": listing.blobs, "seconds": round(seconds, 1), "blobs_a_second": round(listing.blobs / seconds),
            "cpu_seconds_of_the_lister": round(time.process_time() - cpu, 1), "peak_megabytes": round(peak, 1),
        }))  # fmt: skip


def _peak_megabytes() -> float:
    # Not ru_maxrss where there is this: in Linux, that begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        if found is not None:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_a_process(*arguments: str, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 - this very module
        [sys.executable, "-m", "benchmarks.inventory", *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _upload(account_url: str, key: str, container: str, blobs: int) -> float:
    sas = generate_container_sas(
        account_url.rpartition("/")[2], container, account_key=key,
        permission=ContainerSasPermissions(create=True, write=True), expiry=datetime.now(UTC) + timedelta(hours=2),
    )  # fmt: skip
    began, todo = time.monotonic(), iter(range(blobs))
    headers = {"x-ms-version": "2021-12-02", "x-ms-blob-type": "BlockBlob"}

    async def place(session: aiohttp.ClientSession) -> None:
        for number in todo:
            url = f"{account_url}/{container}/{number // 30}/{random.Random(number).getrandbits(64):016x}.jpg?{sas}"  # noqa: S311 - names
            async with session.put(url, data=b"x", headers=headers) as response:
                response.raise_for_status()

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(place(session))
    return time.monotonic() - began


def measure(reports: list[int], blobs: int) -> dict[str, Any]:
    """Everything, on servers of this machine."""
    with Sandbox() as sandbox, tempfile.TemporaryDirectory() as folder:
        results: dict[str, Any] = {"made_at": datetime.now(UTC).isoformat(timespec="seconds")}
        for rows in reports:
            path = Path(folder) / f"{rows}.parquet"
            make_report(path, rows)
            url = sandbox.create_database(f"rows{rows}")
            found = _in_a_process("load", url, "migration", str(path), environment=sandbox.environment)
            with psycopg.connect(url) as connection:
                size = connection.execute("SELECT pg_database_size(current_database())").fetchall()[0][0]
            sizes = {"report_megabytes": round(path.stat().st_size / 1e6), "database_megabytes": round(size / 1e6)}
            results.setdefault("reports", []).append(found | sizes)
            path.unlink()
        if blobs:
            container, account_url = f"many{uuid4().hex[:8]}", sandbox.azure_account_url
            key = sandbox.environment["AZURE_STORAGE_KEY"]
            with BlobServiceClient(account_url, credential=key) as service:
                service.create_container(container)
            uploading = asyncio.run(_upload(account_url, key, container, blobs))
            url = sandbox.create_database("listed")
            found = _in_a_process("list", url, "migration", account_url, container, environment=sandbox.environment)
            results["listed"] = found | {"uploading_took": round(uploading, 1)}
    return results


def main() -> None:
    """Read arguments, measure, and write the results."""
    if sys.argv[1:2] == ["load"]:
        load(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    if sys.argv[1:2] == ["list"]:
        list_(*sys.argv[2:6])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--blobs", type=int, default=200_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = measure(arguments.rows, arguments.blobs)
    if arguments.out and arguments.out.exists():
        # What was left out this time stays as it was measured before.
        results = json.loads(arguments.out.read_text(encoding="utf-8")) | results
    text = json.dumps(results, indent=2)
    print(text)  # noqa: T201 - what was asked for
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
