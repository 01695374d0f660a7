"""`make bench-rewrites`: how fast references are re-pointed in Postgres, Firestore and the Realtime Database.

Ten thousand profiles with thirty references each in database and document, whose files all count as verified.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import google.cloud.firestore
import psycopg
import requests
from google.auth.credentials import AnonymousCredentials
from psycopg.types.json import Jsonb
from rich.console import Console

from migration_pipeline.adapters.firebase.firestore import FirestoreDocuments
from migration_pipeline.adapters.firebase.realtime_database import RealtimeDatabaseDocuments
from migration_pipeline.adapters.firebase.write_rate import WriteRate
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.adapters.postgres.tables import ProfileTable
from migration_pipeline.core.model import KnownFile as Known
from migration_pipeline.core.model import Outcome, ProfileId, Rewritten, SourceFile
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.rewrite import BATCH, Rewritable, moved
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.sandbox import Sandbox

RESULTS = Path(__file__).with_name("results") / "rewrites.json"
PROFILES, PHOTOS = 10_000, 5
VERSIONS = ("original", "large", "medium", "small", "blurred", "blurred_small")
RULES = UrlRules(
    account_url="https://acct.blob.core.windows.net",
    containers=["photos"],
    alias_hosts={},
    public_base_url="https://cdn.example.com",
    keys=KeyTemplate(),
)


def photos(profile: int) -> list[dict[str, str]]:
    """As an app keeps them."""
    return [
        {"id": f"{profile}-{n}", **{v: RULES.source_url(SourceFile("photos", name(profile, n, v))) for v in VERSIONS}}
        for n in range(PHOTOS)
    ]


def name(profile: int, number: int, version: str) -> str:
    """A blob's."""
    return f"{profile}/{number}/{version}.jpg"


def main() -> None:
    """Fill the three, rewrite each, and write the figures."""
    with Sandbox() as servers:
        os.environ.update(servers.environment)
        fill_postgres(servers.database_url)
        table = ProfileTable("profiles", "id", ["photos"], "moved")
        writes = WriteRate(math.inf)
        results = {}
        with closing(PostgresProfiles(servers.database_url, profiles=table)) as profiles:
            results["postgres"] = measured(profiles, range(PROFILES))
        with closing(FirestoreDocuments("bench", "profiles/{id}", ["photos"], writes)) as documents:
            fill_firestore()
            results[f"firestore ({servers.firestore_kind})"] = measured(documents, range(PROFILES // 10))
        url = "https://bench.example.com"
        with closing(RealtimeDatabaseDocuments("bench", url, "profiles/{id}", ["photos"], writes)) as nodes:
            fill_realtime(servers.environment["FIREBASE_DATABASE_EMULATOR_HOST"])
            results["realtime database (stand-in)"] = measured(nodes, range(PROFILES // 10))
    for where, result in results.items():
        Console().print(where, result)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measured(site: Rewritable, ids: Sequence[int]) -> dict[str, float]:
    """Rewrite all, range by range as a run does, and see what that took."""
    total, began, cpu, before = Rewritten(), time.monotonic(), time.process_time(), peak()
    for batch in batches(ids):
        files = [SourceFile("photos", name(p, n, v)) for p in batch for n in range(PHOTOS) for v in VERSIONS]
        replace = moved(dict.fromkeys(files, Known(Outcome.COPIED, waived=False)), RULES)
        total = total.plus(site.rewrite(batch, lambda _, replace=replace: replace, Fence("bench", 1, 1, nobody)))
    seconds = time.monotonic() - began
    if total.profiles != len(ids):
        sys.exit(f"{total.profiles} of {len(ids)} were rewritten")
    return {
        "profiles": total.profiles,
        "urls": total.urls,
        "seconds": round(seconds, 2),
        "profiles_per_second": round(total.profiles / seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "longest_lock_ms": round(1000 * total.longest_lock, 1),
        "memory_growth_mb": round((peak() - before) / 1000, 1),
    }


def nobody() -> None:
    """Nobody took the range."""


def batches(ids: Sequence[ProfileId]) -> Iterator[Sequence[ProfileId]]:
    """As a run has them."""
    for start in range(0, len(ids), BATCH):
        yield list(ids[start : start + BATCH])


def peak() -> int:
    """Kilobytes of this process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fill_postgres(url: str) -> None:
    """One row a profile."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE profiles (id bigint PRIMARY KEY, photos jsonb, moved timestamptz)")
        with cursor.copy("COPY profiles (id, photos) FROM STDIN") as copy:
            for profile in range(PROFILES):
                copy.write_row((profile, Jsonb(photos(profile))))


def fill_firestore() -> None:
    """A document for every tenth of them."""
    client: Any = google.cloud.firestore.Client("bench", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call] # untyped
    for ids in batches(range(PROFILES // 10)):
        batch = client.batch()
        for profile in ids:
            batch.set(client.document(f"profiles/{profile}"), {"photos": photos(int(profile))})
        batch.commit()
    client.close()


def fill_realtime(host: str) -> None:
    """A node for as many."""

    def put(profile: int) -> None:
        url = f"http://{host}/profiles/{profile}.json?ns=bench"
        requests.put(url, json={"photos": photos(profile)}, timeout=30).raise_for_status()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(PROFILES // 10)))


if __name__ == "__main__":
    main()
