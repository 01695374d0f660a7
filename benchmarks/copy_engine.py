"""`make bench`: our copy engine beside rclone and the vendors' SDKs, on real servers of this machine.

An engine's start-up, measured with a single file, is taken off its CPU time.
The servers take most of two cores, so that files a second say little of an engine: CPU seconds of the client do, and
wall time where latency is added. Engines take turns within each round, and the median of the rounds counts.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import boto3
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings
from rich.console import Console
from rich.table import Table

from benchmarks.engines import ENGINES, Task
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy

RESULTS = Path(__file__).with_name("results") / "copy_engine.json"
KB, MB = 1000, 1_000_000
OURS = "migration_pipeline"


class Load(NamedTuple):
    """Files of one kind."""

    name: str
    sizes: Sequence[int]
    count: int


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    load: Load
    latency_ms: int = 0
    processes: int = 1
    in_flight: int = 64
    engines: tuple[str, ...] = tuple(ENGINES)


@dataclass(frozen=True, slots=True)
class Row:
    """One engine in one case; medians of the rounds.

    Attributes:
        peak_rss_mb: of all of the client's processes together.
        verified: every object was there after each round, with the bytes of its blob.
    """

    engine: str
    load: str
    size_bytes: int
    latency_ms: int
    in_flight: int
    processes: int
    files: int
    files_per_s: float
    cpu_ms_per_file: float
    mb_per_s: float
    peak_rss_mb: float
    verified: bool


# Thumbnails in several sizes, and one original for each set of them.
_VERSIONS = [5 * KB, 9 * KB, 14 * KB, 20 * KB, 60 * KB, 900 * KB]
SMALL = Load("10 KB", [10 * KB], 1200)
MIDDLE = Load("100 KB", [100 * KB], 1200)
BIG = Load("1 MB", [MB], 250)
MIX = Load("mix of versions", _VERSIONS, 900)
FULL = tuple(
    Case(load, latency_ms=latency_ms, processes=processes)
    for processes, latency_ms, load in product((1, 2), (0, 30), (SMALL, MIDDLE, BIG, MIX))
)
QUICK = (Case(MIDDLE._replace(count=300)),)


def main() -> None:
    """Run the comparison and write its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small case, in half a minute; writes no results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="measure nothing; print README's table of the results")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(table_of(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    rows: list[Row] = []
    with Bench() as bench:
        for case in QUICK if options.quick else FULL:
            rows += bench.compare(case, 1 if options.quick else options.rounds)
            show(rows[-len(case.engines) :])
        if not options.quick:
            rows.append(bench.large_file())
            show(rows[-1:])
            rows += bench.latency()
            show_latency(rows[-5:])
    ratios = ratios_of(rows)
    Console().print(ratios)
    if not options.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        written = {"machine": machine(), "rows": [asdict(row) for row in rows], "ratios": ratios}
        RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if wrong := [f"{row.engine} ({_case(row)})" for row in rows if not row.verified]:
        sys.exit(f"Not every object has its blob's bytes: {', '.join(wrong)}")


class Bench:
    """The servers, and the files in them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: dict[str, list[str]] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._started: dict[str, Spent] = {}
        self._runs = 0

    def __enter__(self) -> Self:
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._sandbox = self._stack.enter_context(Sandbox())
        os.environ.update(self._sandbox.environment, BENCH_FOLDER=self._folder)
        self._azure = self._stack.enter_context(
            BlobServiceClient(self._sandbox.azure_account_url, credential=os.environ["AZURE_STORAGE_KEY"])
        )
        self._s3 = boto3.client("s3", endpoint_url=self._sandbox.s3_endpoint_url, region_name="us-east-1")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def compare(self, case: Case, rounds: int) -> list[Row]:
        """All engines in turn, in so many rounds."""
        measured: dict[str, list[Row]] = {engine: [] for engine in case.engines}
        for _ in range(rounds):
            for engine in case.engines:
                measured[engine].append(self._measure(engine, case))
        return [median(rows) for rows in measured.values()]

    def large_file(self) -> Row:
        """A file of 2 GB among small ones: memory is bounded by settings, not by files."""
        case = Case(Load("2 GB and 300 of 100 KB", [100 * KB], 300))
        container, names = self._files(case.load)
        block, digest = random.Random(1).randbytes(8 * MB), hashlib.md5(usedforsecurity=False)  # noqa: S311 - bytes
        blob, blocks = container.get_blob_client("large"), []
        for number in range(250):
            digest.update(block)
            blocks.append(f"{number:06}")
            blob.stage_block(blocks[-1], block)
        settings = ContentSettings(content_type="video/mp4", content_md5=bytearray(digest.digest()))
        blob.commit_block_list(blocks, content_settings=settings)
        self._digests[case.load.name, "large"] = digest.hexdigest()
        return self._measure(OURS, case, names=["large", *names], size=2000 * MB + 300 * 100 * KB)

    def _measure(self, engine: str, case: Case, *, names: Sequence[str] = (), size: int = 0) -> Row:
        container, made = self._files(case.load)
        names = names or made
        self._runs += 1
        with self._endpoints(case.latency_ms) as (account_url, endpoint_url):
            task = Task(
                account_url=account_url,
                account_key=os.environ["AZURE_STORAGE_KEY"],
                endpoint_url=endpoint_url,
                container=container.container_name,
                bucket=self._sandbox.bucket,
                prefix=f"run{self._runs}/",
                names=[],
                in_flight=case.in_flight // case.processes,
            )
            shares = [replace(task, names=list(names[n :: case.processes])) for n in range(case.processes)]
            start = self._start_up(engine, replace(task, names=list(names[:1]), prefix=f"start{self._runs}/"))
            with ThreadPoolExecutor() as pool:
                spent = list(pool.map(lambda share: run_engine(engine, share), shares))
        seconds = max(one.seconds for one in spent) - start.seconds
        verified = self._clear(task.prefix, {name: self._digests[case.load.name, name] for name in names})
        total = size or sum(case.load.sizes[n % len(case.load.sizes)] for n in range(len(names)))
        return Row(
            engine,
            case.load.name,
            round(total / len(names)),
            case.latency_ms,
            case.in_flight,
            case.processes,
            len(names),
            round(len(names) / seconds, 1),
            round(1000 * (sum(one.cpu for one in spent) - len(spent) * start.cpu) / len(names), 3),
            round(total / seconds / MB, 1),
            round(sum(one.rss for one in spent), 1),
            verified=verified,
        )

    def _start_up(self, engine: str, task: Task) -> "Spent":
        """A run with a single file, once for each engine: what copying more of them does not cost."""
        if engine not in self._started:
            runs = [run_engine(engine, replace(task, prefix=f"{task.prefix}{n}/")) for n in range(3)]
            self._started[engine] = min(runs, key=lambda one: one.cpu)
        return self._started[engine]

    def latency(self) -> list[Row]:
        """How near the rate comes to so many times that of one file alone, with 30 ms added to each request."""
        rows = []
        for in_flight in (1, 8, 16, 32, 64):
            load = Load("100 KB, latency", [100 * KB], 60 * min(in_flight, 16))
            case = Case(load._replace(name=f"100 KB in flight {in_flight}"), latency_ms=30, in_flight=in_flight)
            rows.append(self._measure(OURS, case))
        return rows

    @contextmanager
    def _endpoints(self, latency_ms: int) -> Iterator[tuple[str, str]]:
        account, endpoint = self._sandbox.azure_account_url, self._sandbox.s3_endpoint_url
        if not latency_ms:
            yield account, endpoint
            return
        delay = [Fault("delay", seconds=latency_ms / 1000)]
        azure_port, s3_port = (urlsplit(url).port or 0 for url in (account, endpoint))
        with FaultProxy(azure_port, delay) as azure, FaultProxy(s3_port, delay) as s3:
            yield (
                account.replace(f":{azure_port}", f":{azure.port}"),
                endpoint.replace(f":{s3_port}", f":{s3.port}"),
            )

    def _files(self, load: Load) -> tuple[ContainerClient, list[str]]:
        container = self._azure.get_container_client("bench" + hashlib.sha256(load.name.encode()).hexdigest()[:8])
        if load.name not in self._made:
            container.create_container()
            made = random.Random(load.name)  # noqa: S311 - bytes
            bodies = {size: made.randbytes(size) for size in load.sizes}
            self._made[load.name] = [f"{n:06}.jpg" for n in range(load.count)]
            digests = {size: hashlib.md5(body, usedforsecurity=False).hexdigest() for size, body in bodies.items()}
            for number, name in enumerate(self._made[load.name]):
                self._digests[load.name, name] = digests[load.sizes[number % len(load.sizes)]]

            def upload(number: int) -> None:
                body = bodies[load.sizes[number % len(load.sizes)]]
                md5 = bytearray(hashlib.md5(body, usedforsecurity=False).digest())
                settings = ContentSettings(content_type="image/jpeg", content_md5=md5)
                container.upload_blob(self._made[load.name][number], body, content_settings=settings)

            with ThreadPoolExecutor(16) as pool:
                list(pool.map(upload, range(load.count)))
        return container, self._made[load.name]

    def _clear(self, prefix: str, expected: Mapping[str, str]) -> bool:
        """Remove what a run wrote; whether it was everything, with the digests that it must have."""
        found: dict[str, str] = {}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._sandbox.bucket, Prefix=prefix):
            keys = [item["Key"] for item in page.get("Contents", [])]
            found |= {
                item["Key"].removeprefix(prefix): self._digest(item["Key"], item["ETag"].strip('"'))
                for item in page.get("Contents", [])
            }
            objects = [{"Key": key} for key in keys]
            self._s3.delete_objects(Bucket=self._sandbox.bucket, Delete={"Objects": objects, "Quiet": True})
        return found == expected

    def _digest(self, key: str, etag: str) -> str:
        """The store's own MD5 of what it holds; of an upload in parts it has none, so that is read."""
        if "-" not in etag:
            return etag
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self._s3.get_object(Bucket=self._sandbox.bucket, Key=key)["Body"].iter_chunks(MB):
            digest.update(chunk)
        return digest.hexdigest()


class Spent(NamedTuple):
    """Of the engine's process and of all that it started: CPU seconds, peak memory in MB, seconds."""

    cpu: float
    rss: float
    seconds: float


def run_engine(engine: str, task: Task) -> Spent:
    """An engine in a process of its own, and what it spent."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile("w", dir=os.environ["BENCH_FOLDER"], suffix=".json") as given:
        json.dump(asdict(task), given)
        given.flush()
        command = [_python(engine), "-m", "benchmarks.engines", engine, given.name]
        said = subprocess.check_output([sys.executable, "-I", "-S", "-c", _LAUNCHER, *command])  # noqa: S603 - our own interpreter
    failed, cpu, kilobytes = json.loads(said)
    if failed:
        sys.exit(f"{engine} failed")
    return Spent(cpu, kilobytes / 1000, time.monotonic() - began)


def _python(engine: str) -> str:
    """Aiobotocore holds boto3 back, so it has an environment of its own: `make bench` makes it."""
    return str(Path(sys.prefix, "peers", "bin", "python")) if "aiobotocore" in engine else sys.executable


# Linux counts what the starting process held at that moment to the peak of the one it starts. So a small process starts
# the engine, and not this one, which holds bodies.
_LAUNCHER = """
import json, resource, subprocess, sys
failed = subprocess.call(sys.argv[1:], stdout=sys.stderr)
spent = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([failed, spent.ru_utime + spent.ru_stime, spent.ru_maxrss]))
"""


def median(rows: Sequence[Row]) -> Row:
    """The rounds as one."""
    figures = ("files_per_s", "cpu_ms_per_file", "mb_per_s", "peak_rss_mb")
    return replace(
        rows[0],
        verified=all(row.verified for row in rows),
        **{name: round(statistics.median(getattr(row, name) for row in rows), 3) for name in figures},
    )


def ratios_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Files per CPU second of ours over each other engine's, by case."""
    ours = {_case(row): row for row in rows if row.engine == OURS}
    ratios: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.engine != OURS and _case(row) in ours:
            ratio = row.cpu_ms_per_file / ours[_case(row)].cpu_ms_per_file
            ratios.setdefault(_case(row), {})[row.engine] = round(ratio, 2)
    return ratios


def _case(row: Row) -> str:
    return f"{row.load}, {row.latency_ms} ms, {row.processes} processes"


def show(rows: Sequence[Row]) -> None:
    """A table for people."""
    table = Table(title=_case(rows[0]))
    for name in ("engine", "files/s", "CPU ms/file", "MB/s", "peak MB", "verified"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for row in rows:
        figures = (row.files_per_s, row.cpu_ms_per_file, row.mb_per_s, row.peak_rss_mb, row.verified)
        table.add_row(row.engine, *map(str, figures))
    Console().print(table)


def table_of(written: Mapping[str, Any]) -> str:
    """The results as README's table: a line for each case."""
    cases: dict[tuple[int, int, str], dict[str, dict[str, Any]]] = {}
    for row in written["rows"]:
        cases.setdefault((row["processes"], row["latency_ms"], row["load"]), {})[row["engine"]] = row
    heads = ["files", "processes", "added latency", "CPU ms a file: ours", "rclone", "boto3 threads", "aiobotocore"]
    heads += ["files/s: ours", "rclone", "peak MB: ours", "rclone"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for (processes, latency_ms, load), engines in cases.items():
        if engines.keys() == set(ENGINES):
            cpu = [f"{engines[name]['cpu_ms_per_file']:.2f}" for name in ENGINES]
            pair = [engines[name] for name in (OURS, "rclone")]
            rate = [f"{row['files_per_s']:.0f}" for row in pair]
            peak = [f"{row['peak_rss_mb']:.0f}" for row in pair]
            lines.append(f"| {' | '.join([load, str(processes), f'{latency_ms} ms', *cpu, *rate, *peak])} |")
    return "\n".join(lines) + "\n"


def show_latency(rows: Sequence[Row]) -> None:
    """How much of what latency allows is reached."""
    alone = rows[0].files_per_s
    for row in rows[1:]:
        share = row.files_per_s / (row.in_flight * alone)
        Console().print(
            f"{row.in_flight} in flight at 30 ms: {row.files_per_s} files/s, {share:.0%} of what latency allows"
        )


def machine() -> Mapping[str, Any]:
    """What the figures were taken on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "cpu": model,
        "python": platform.python_version(),
        "system": platform.system(),
    }


if __name__ == "__main__":
    main()
