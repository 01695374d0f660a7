"""A ledger of millions of files, made in place as if their ranges had been migrated: the rows that the product writes.

Indexes and foreign keys are dropped while rows go in, and made again from what the database says of them, so that they
are those of the product. Identities are computed as the product computes them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.scale.results import say
from migration_pipeline.core.confirm import Confirmed
from migration_pipeline.core.discover import Discovered
from migration_pipeline.core.migrate import RangeReport
from migration_pipeline.core.model import ProfileRange, SourceFile, Wish
from migration_pipeline.core.transfer import Transferred

SCHEMA = "migration"
VERSIONS = ("original", "large", "medium", "small", "blurred", "blurred_small")
ACCOUNT = "https://acct.blob.core.windows.net"
_CONNECTIONS = 2
_ROWS_A_TIME = 200_000
_LOST = 1000  # one file in so many is missing at the source: a dead letter
_A_SECOND = 300  # files that ended a second, by the ledger's clock


class Shape(NamedTuple):
    """What a range holds."""

    files: int
    profiles: int

    def range(self, ordinal: int) -> ProfileRange:
        """The range as the planner would have cut it."""
        after, last = (ordinal - 1) * self.profiles, ordinal * self.profiles
        key = f"{after + 1:010d}-{last:010d}"
        return ProfileRange(key, ordinal, after or None, last, self.profiles)

    def wishes(self, ordinal: int) -> list[Wish]:
        """What discovery would find in the range; the same files as `fill` makes."""
        found = []
        for place in range(self.files):
            number = (ordinal - 1) * self.files + place
            profile = (ordinal - 1) * self.profiles + 1 + place * self.profiles // self.files
            photo = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:16]
            blob = f"{profile}/{photo}/{VERSIONS[number % len(VERSIONS)]}.jpg"
            found.append(Wish(profile, SourceFile("photos", blob), f"{ACCOUNT}/photos/{blob}", had_query=False))
        return found


_FILL = """
WITH numbered AS (
    SELECT r AS range_id, (r - 1) * %(files)s + i AS number,
        (r - 1) * %(profiles)s + 1 + i * %(profiles)s / %(files)s AS profile
    FROM unnest(%(ranges)s::bigint[]) AS r, generate_series(0, %(files)s::bigint - 1) AS i
), named AS (
    SELECT *, md5(number::text) AS digest, profile || '/' || left(md5(number::text), 16) || '/'
        || (%(versions)s::text[])[1 + number %% array_length(%(versions)s::text[], 1)] || '.jpg' AS blob,
        CASE WHEN number %% %(lost)s = 7 THEN 'source_missing' ELSE 'copied' END AS outcome
    FROM numbered
), made AS MATERIALIZED (
    SELECT *, encode(substring(sha256(convert_to('photos/' || blob, 'UTF8')) FOR 16), 'hex')::uuid AS file_id,
        CASE outcome WHEN 'copied' THEN 2000 + ('x' || left(digest, 5))::bit(20)::bigint ELSE 0 END AS size_bytes,
        now() - interval '60 days' + make_interval(secs => number / %(second)s) AS ended_at
    FROM named
), of_files AS (
    INSERT INTO {s}.files (file_id, container, blob, outcome, message, attempts, size_bytes, md5, etag, source_etag,
        ended_at, noted_at, ours, tried_in)
    SELECT file_id, 'photos', blob, outcome,
        CASE outcome WHEN 'copied' THEN '' ELSE 'the source holds no such blob' END, 1,
        size_bytes, CASE outcome WHEN 'copied' THEN decode(digest, 'hex') END,
        CASE outcome WHEN 'copied' THEN '"' || digest || '"' END,
        CASE outcome WHEN 'copied' THEN '"0x8D' || upper(left(digest, 15)) || '"' END, ended_at, ended_at,
        outcome = 'copied', range_id
    FROM made
), of_wanted AS (
    INSERT INTO {s}.wanted (range_id, profile_id, file_id, spelling, had_query)
    SELECT range_id, profile::text, file_id, %(account)s || '/photos/' || blob, false FROM made
), of_tallies AS (
    INSERT INTO {s}.tallies (range_id, outcome, power, files, bytes, attempts)
    SELECT range_id, outcome, CASE WHEN size_bytes > 0 THEN 64 - position(B'1' IN size_bytes::bit(64)) ELSE 0 END,
        count(*), sum(size_bytes), count(*) FROM made GROUP BY 1, 2, 3
), of_progress AS (
    INSERT INTO {s}.progress (at, range_id, files, failed, bytes)
    SELECT date_bin('10 seconds', ended_at, 'epoch'::timestamptz), range_id, count(*) FILTER (WHERE outcome = 'copied'),
        count(*) FILTER (WHERE outcome <> 'copied'), sum(size_bytes) FROM made GROUP BY 1, 2
)
UPDATE {s}.ranges r SET started_at = m.began, ended_at = m.ended, done_at = CASE WHEN m.failed = 0 THEN m.ended END,
    epoch = 1, copied = m.copied, bytes = m.bytes, spent = %(spent)s,
    report = %(report)s || jsonb_build_object('waiting', m.failed, 'migrated', %(profiles)s - m.failed,
        'copied', m.copied, 'bytes', m.bytes, 'waiting_for',
        CASE WHEN m.failed > 0 THEN jsonb_build_object('source_missing', m.failed) ELSE '{{}}' END)
FROM (SELECT range_id, min(ended_at) AS began, max(ended_at) AS ended, sum(size_bytes) AS bytes,
    count(*) FILTER (WHERE outcome = 'copied') AS copied, count(*) FILTER (WHERE outcome <> 'copied') AS failed
    FROM made GROUP BY 1) m
WHERE r.range_id = m.range_id
"""


def fill(url: str, shape: Shape, ordinals: Sequence[int]) -> None:
    """Rows of these planned ranges, as their migration would have left them."""
    a_time = max(1, _ROWS_A_TIME // shape.files)
    parts = [ordinals[start : start + a_time] for start in range(0, len(ordinals), a_time)]
    with psycopg.connect(url, autocommit=True) as connection:
        with _without_indexes(connection), ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(lambda part: _fill(url, shape, part), parts))
        say("indexes and foreign keys are there again")
        connection.execute(_named("VACUUM ANALYZE {s}.files, {s}.wanted, {s}.ranges, {s}.tallies, {s}.progress"))
        connection.execute("CHECKPOINT")


def _fill(url: str, shape: Shape, ordinals: Sequence[int]) -> None:
    report = RangeReport("", Discovered(profiles=shape.profiles, with_files=shape.profiles, files=shape.files))
    report.transferred, report.confirmed = Transferred(), Confirmed()
    report.seconds = {
        "discover": 3.1,
        "transfer": 33.0,
        "rewrite_database": 2.0,
        "rewrite_firebase": 3.0,
        "confirm": 3.0,
    }
    report.cpu_seconds = dict(report.seconds)
    values = {
        "ranges": list(ordinals), "files": shape.files, "profiles": shape.profiles, "versions": list(VERSIONS),
        "lost": _LOST, "second": float(_A_SECOND), "account": ACCOUNT, "report": Jsonb(report.counters()),
        "spent": Jsonb({"runs": 1, "source_reads": shape.files, "target_writes": shape.files}),
    }  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")
        connection.execute(_named(_FILL), values)
    say(f"made {len(ordinals) * shape.files:,} files, up to range {ordinals[-1]:,}")


@contextmanager
def _without_indexes(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Nothing that a row costs more for; the same again afterwards, made at once."""
    constraints, indexes = before = _schema(connection)
    for table, name, _ in constraints:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    connection.execute("SET maintenance_work_mem = '1GB'")
    for _, definition in indexes:
        connection.execute(definition.encode())
    for table, name, definition in reversed(constraints):
        say(f"{table}: {definition}")
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}".encode())
        if definition.startswith("PRIMARY"):
            # So that a foreign key is proven by the index alone.
            connection.execute(f"VACUUM ANALYZE {table}".encode())
    connection.execute("RESET maintenance_work_mem")
    if _schema(connection) != before:
        raise AssertionError("indexes or foreign keys are not what they were")


def _schema(connection: psycopg.Connection[Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Constraints of the large tables, foreign keys first, and their other indexes, as the database says them."""
    tables = [f"{SCHEMA}.files", f"{SCHEMA}.wanted"]
    constraints = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conparentid = 0 AND contype IN ('f', 'p') AND (conrelid = ANY(%(of)s::regclass[])"
        # A primary key that a foreign key refers to cannot be dropped before it.
        " OR confrelid = ANY(%(of)s::regclass[])) ORDER BY contype, 1, 2",
        {"of": tables},
    ).fetchall()
    indexes = connection.execute(
        "SELECT indexrelid::regclass::text, replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') FROM pg_index"
        " WHERE indrelid = ANY(%s::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
        " ORDER BY 1",
        [tables],
    ).fetchall()
    return constraints, indexes


def _named(text: str) -> sql.Composed:
    return sql.SQL(text).format(s=sql.Identifier(SCHEMA))
