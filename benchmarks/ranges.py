"""How even ranges are where profiles differ a lot in files, cut by profiles alone and by files, and what a pass costs.

`python -m benchmarks.ranges --profiles 200000 --type json` starts a Postgres of its own.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import click
import psycopg

from migration_pipeline.adapters.firebase.no_documents import NoDocuments
from migration_pipeline.adapters.postgres.index import PostgresIndex
from migration_pipeline.adapters.postgres.tables import ProfileTable
from migration_pipeline.core.plan import Measure, RangeSize, measure, plan_ranges
from migration_pipeline.core.sample import sample
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.sandbox.postgres import PostgresServer

ACCOUNT = "https://acct.blob.core.windows.net"
VERSIONS = ("original", "large", "medium", "small", "blurred", "tiny")


def main() -> None:
    """Fill a table, cut it both ways, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=200_000)
    parser.add_argument("--type", choices=["json", "jsonb", "text"], default="json")
    options = parser.parse_args()
    with server() as url:
        files = fill(url, options.profiles, options.type)
        table = ProfileTable("profiles", "id", ["photos"], "photos_migrated_at")
        with closing(PostgresIndex(url, profiles=table)) as index:
            began = time.monotonic()
            sampled = sample(index, NoDocuments(), rules())
            seconds = time.monotonic() - began
            mean, true = sampled.files_per_profile, fmean(files[1:])
            click.echo(f"sample: {mean:.1f} files a profile, in truth {true:.1f}, {seconds:.2f} s")
            show("by profiles", index, files, Measure(1000, 1.0, 0.0, 0.0, 1000))
            show("by files", index, files, measure(RangeSize(), sampled))


def show(name: str, index: PostgresIndex, files: list[int], at: Measure) -> None:
    """Cut, and print how even the ranges are."""
    began = time.monotonic()
    ranges = list(plan_ranges(index, [], at))
    seconds = time.monotonic() - began
    held = [sum(files[a + 1 : b + 1]) for a, b in pairwise([0, *(int(item.last) for item in ranges)])]
    mean = fmean(held)
    most = f"most {max(held):,}, {max(held) / mean:.2f} times the mean"
    click.echo(f"{name}: {len(ranges)} ranges of {mean:,.0f} files, {most}, {seconds:.2f} s")


@contextmanager
def server() -> Iterator[str]:
    """The URL of a database in a server of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ranges-"))
    folder.chmod(0o711)
    postgres = PostgresServer(folder / "postgres")
    try:
        yield postgres.url("app")
    finally:
        postgres.close()
        shutil.rmtree(folder)


def fill(url: str, profiles: int, type_: str) -> list[int]:
    """Write the table, and return each profile's files, by its id."""
    rng, files = random.Random(1), [0]  # noqa: S311 - test data, not cryptography
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE profiles (id bigint PRIMARY KEY, photos {type_}, photos_migrated_at timestamptz)".encode()
        )
        with cursor.copy("COPY profiles (id, photos) FROM STDIN") as copy:
            for id_ in range(1, profiles + 1):
                # The oldest have seven times as many as the newest; a few have very many.
                age = 1 + 6 * (1 - id_ / profiles) ** 3
                photos = [photo(id_, rng) for _ in range(min(120, int(rng.paretovariate(1.3) * age * 0.6)))]
                files.append(len(photos) * len(VERSIONS))
                copy.write_row((id_, json.dumps(photos)))
        cursor.execute("ANALYZE profiles")
    return files


def photo(id_: int, rng: random.Random) -> dict[str, str]:
    """A photo in all versions, with a caption."""
    urls = {name: f"{ACCOUNT}/photos/{id_}/{rng.getrandbits(64):016x}/{name}.jpg" for name in VERSIONS}
    return {"id": f"{rng.getrandbits(64):016x}", "caption": "x" * rng.randrange(60), **urls}


def rules() -> UrlRules:
    """Of the made-up account."""
    return UrlRules(
        account_url=ACCOUNT,
        containers=["photos"],
        alias_hosts={},
        public_base_url="https://cdn.example.com",
        keys=KeyTemplate(),
    )


if __name__ == "__main__":
    main()
