"""Groups of ranges and tallies in the ledger, on a real Postgres."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from migration_pipeline.adapters.ledger import groups, schema
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.core.ports import Erased
from migration_pipeline.sandbox import Sandbox

FILES = [SourceFile("photos", f"{n}.jpg") for n in range(6)]


def _range(ordinal: int) -> ProfileRange:
    return ProfileRange(f"range-{ordinal}", ordinal, ordinal * 10, ordinal * 10 + 9, 10)


LAST, NEXT = _range(groups.RANGES - 1), _range(groups.RANGES)
"""The last range of the first group, and the first of the second."""


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges([LAST])
        yield opened


def _want(ledger: PostgresLedger, item: ProfileRange, *files: SourceFile) -> None:
    with ledger.hold(item.key) as (_, held):
        held.want([Wish(item.last, file, str(file), had_query=False) for file in files])


def _copied(file: SourceFile, size: int = 5) -> CopyResult:
    return CopyResult(file, Outcome.COPIED, size, b"m" * 16, "etag", source_etag='"0x1"')


def _tables(ledger: PostgresLedger) -> dict[str, int]:
    rows = ledger.query("SELECT tableoid::regclass::text, count(*) FROM {s}.wanted GROUP BY 1 ORDER BY 1")
    return {name.removeprefix("migration."): count for name, count in rows}


def test_ranges_of_one_group_share_a_table_and_those_of_the_next_have_another(ledger: PostgresLedger) -> None:
    ledger.add_ranges([NEXT])
    _want(ledger, LAST, *FILES[:2])
    _want(ledger, NEXT, *FILES[1:4])
    assert _tables(ledger) == {"wanted_0": 2, "wanted_1": 3}


def test_new_ranges_do_not_wait_for_who_reads(ledger: PostgresLedger, url: str) -> None:
    with closing(psycopg.connect(url)) as reader, closing(PostgresLedger(url, "migration")) as planner:
        reader.execute("SELECT count(*) FROM migration.wanted JOIN migration.files USING (file_id)")  # and stays open
        planner.query("SET lock_timeout = '2s'")
        planner.add_ranges([NEXT])
    _want(ledger, NEXT, FILES[0])
    assert _tables(ledger) == {"wanted_1": 1}


def test_a_range_reads_the_table_of_its_group_alone(ledger: PostgresLedger) -> None:
    ledger.add_ranges([NEXT, _range(2 * groups.RANGES)])
    question = "EXPLAIN SELECT file_id FROM {s}.wanted WHERE range_id = %s AND dropped_at IS NULL"
    plan = "\n".join(line for (line,) in ledger.query(question, [NEXT.ordinal]))
    assert "wanted_1" in plan
    assert not any(other in plan for other in ("wanted_0", "wanted_2"))


def test_two_planners_at_once_make_a_table_once(ledger: PostgresLedger, url: str) -> None:
    with psycopg.connect(url) as first, psycopg.connect(url, autocommit=True) as second:
        groups.make_tables(first.cursor(), sql.Identifier("migration"), [NEXT.ordinal])
        second.execute("SET lock_timeout = '200ms'")
        # It waits for the other, and finds the table made.
        with pytest.raises(psycopg.errors.LockNotAvailable), second.transaction():
            groups.make_tables(second.cursor(), sql.Identifier("migration"), [NEXT.ordinal])
        first.commit()
        with second.transaction():
            groups.make_tables(second.cursor(), sql.Identifier("migration"), [NEXT.ordinal])
    ledger.add_ranges([NEXT])


def _counted(ledger: PostgresLedger) -> Counter[tuple[str, int, int]]:
    """What tallies must come to, counted file by file."""
    rows = ledger.query("SELECT coalesce(outcome, ''), size_bytes, attempts FROM {s}.files")
    return Counter((outcome, max(0, size.bit_length() - 1), tries) for outcome, size, tries in rows)


def _tallied(ledger: PostgresLedger) -> dict[tuple[str, int], tuple[int, int]]:
    rows = ledger.query(
        "SELECT outcome, power, sum(files), sum(attempts) FROM {s}.tallies GROUP BY 1, 2 HAVING sum(files) <> 0"
    )
    return {(outcome, power): (int(files), int(tries)) for outcome, power, files, tries in rows}


def _same(ledger: PostgresLedger) -> bool:
    expected: dict[tuple[str, int], tuple[int, int]] = {}
    for (outcome, power, tries), files in _counted(ledger).items():
        before = expected.get((outcome, power), (0, 0))
        expected[outcome, power] = before[0] + files, before[1] + files * tries
    return _tallied(ledger) == expected


def test_tallies_follow_whatever_happens_to_a_file(ledger: PostgresLedger) -> None:
    ledger.add_ranges([NEXT])
    with ledger.hold(LAST.key) as (_, held):
        held.want([Wish(1, file, str(file), had_query=False) for file in FILES])
        assert _same(ledger)
        held.record([_copied(FILES[0], 0), _copied(FILES[1], 1023), _copied(FILES[2], 2**33)])
        held.record([CopyResult(FILES[3], Outcome.SOURCE_MISSING), CopyResult(FILES[4], Outcome.GAVE_UP, attempts=4)])
        assert _same(ledger)
        held.record([_copied(FILES[3], 7)])  # tried again
        held.record([_copied(FILES[3], 7)])  # and noted twice
        assert _same(ledger)
        held.outdate([FILES[1], FILES[2]], "newer bytes")
        assert _same(ledger)
    with ledger.hold(NEXT.key) as (_, held):
        held.want([Wish(2, file, str(file), had_query=False) for file in FILES[:2]])
        held.record([_copied(FILES[1], 2**20)])
    assert _same(ledger)
    with ledger.hold(LAST.key) as (_, held):
        held.note_held([])
    dropped = [item for item in ledger.dropped(seconds=0) if item.file in (FILES[2], FILES[3])]
    ledger.begin_erasing([item.file for item in dropped])
    _want(ledger, NEXT, FILES[2])  # again, while its copy goes
    ledger.erased([Erased(item, item.file.blob, 1) for item in dropped])
    assert {name for ((name,),) in zip(ledger.query("SELECT blob FROM {s}.erased"), strict=True)} == {"2.jpg", "3.jpg"}
    assert _same(ledger)
    assert sum(files for files, _ in _tallied(ledger).values()) == 5


def test_a_ledger_of_before_is_moved_into_groups_and_counted(url: str) -> None:
    name = sql.Identifier("migration")
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA migration; CREATE TABLE migration.schema_versions"
                       " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())")  # fmt: skip
        for version, step in enumerate(schema.STEPS[:4], start=1):
            assert isinstance(step, str)
            cursor.execute(sql.SQL(step).format(s=name))
            cursor.execute("INSERT INTO migration.schema_versions VALUES (%s)", [version])
        for item in (LAST, NEXT):
            cursor.execute(
                "INSERT INTO migration.ranges (range_id, key, last_id, numeric_ids, profiles)"
                " VALUES (%s, %s, '9', true, 1)",
                [item.ordinal, item.key],
            )
        for number, file in enumerate(FILES):
            cursor.execute(
                "INSERT INTO migration.files (file_id, container, blob, outcome, size_bytes, attempts)"
                " VALUES (%s, %s, %s, %s, %s, 2)",
                [file.file_id, file.container, file.blob, "copied" if number else None, 3 * number],
            )
            cursor.execute(
                "INSERT INTO migration.wanted VALUES (%s, %s, %s, 'as it was', true, now())",
                [(LAST, NEXT)[number % 2].ordinal, str(number), file.file_id],
            )
    with closing(PostgresLedger(url, "migration")) as ledger:
        assert _tables(ledger) == {"wanted_0": 3, "wanted_1": 3}
        assert ledger.query("SELECT DISTINCT spelling, had_query, dropped_at < now() FROM {s}.wanted") == [
            ("as it was", True, True)
        ]
        assert _same(ledger)
        assert ledger.tallies.outcomes() == [("copied", 5, 45, 2.0), ("not tried", 1, 0, 2.0)]
        _want(ledger, NEXT, SourceFile("photos", "new.jpg"))
        assert _same(ledger)


def test_a_file_that_another_group_needs_outlives_the_first(ledger: PostgresLedger) -> None:
    ledger.add_ranges([NEXT])
    _want(ledger, LAST, *FILES[:3])
    _want(ledger, NEXT, *FILES[2:5])
    with ledger.transaction():
        assert ledger.archive.drop(0, "first") == 2
    assert _tables(ledger) == {"wanted_1": 3}
    assert {blob for (blob,) in ledger.query("SELECT blob FROM {s}.files")} == {file.blob for file in FILES[2:5]}
    with ledger.transaction():
        assert ledger.archive.drop(1, "second") == 3
    assert ledger.query("SELECT FROM {s}.files") == []
    assert ledger.query("SELECT archive FROM {s}.ranges ORDER BY range_id") == [("first",), ("second",)]
