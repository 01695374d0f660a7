"""Audits and removals in the ledger, on a real Postgres."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.errors import Fatal, RangeLost
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.core.removal_ports import How, Proven, RangeState, RemovedTotals
from migration_pipeline.sandbox import Sandbox

RANGES = [ProfileRange("0000000001-0000000009", 1, None, 9, 3), ProfileRange("0000000010-0000000019", 2, 9, 19, 3)]
FIRST, SECOND = (item.key for item in RANGES)
MINE, SHARED = SourceFile("photos", "mine.jpg"), SourceFile("photos", "shared.jpg")
PROVEN = {file: Proven(file, str(file), 5, b"m" * 16, '"0x1"', "etag") for file in (MINE, SHARED)}


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    """Two ranges, of which the first needs both files and the second one of them."""
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges(RANGES)
        for key, profile, files in ((SECOND, 11, [SHARED]), (FIRST, 1, [MINE, SHARED])):
            with opened.hold(key) as (_, held):
                held.want([Wish(profile, file, str(file), had_query=False) for file in files])
                held.record([
                    CopyResult(file, Outcome.COPIED, 5, b"m" * 16, "etag", source_etag='"0x1"') for file in files
                ])  # fmt: skip
                held.finish({"waiting": 0})
        yield opened


def test_an_audit_is_kept_and_a_run_makes_it_old(ledger: PostgresLedger, url: str) -> None:
    assert ledger.removal.states([FIRST])[FIRST].why_not() == "it was never audited"
    with ledger.hold(FIRST, run=False) as (_, held):
        held.audited(ledger.now(), {"sound": 2})
        state = ledger.removal.states([FIRST])[FIRST]
        assert (state.findings, state.why_not()) == ({"sound": 2}, None)
        with closing(PostgresLedger(url, "migration")) as other:
            other.query("UPDATE {s}.ranges SET epoch = epoch + 1")
        with pytest.raises(RangeLost):
            held.audited(ledger.now(), {"dangling": 2})
    assert ledger.removal.states([FIRST, "unknown"]) == {FIRST: state}
    with ledger.hold(FIRST) as (_, held):
        assert ledger.removal.states([FIRST])[FIRST].why_not() == "its newest run has not ended"
        held.finish({"waiting": 0})
    assert ledger.removal.states([FIRST])[FIRST].why_not() == "it was not audited since its newest run"


NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLEAN = RangeState(
    NOW, {"sound": 9, "orphan_copy": 1, "drifted": 2}, NOW - timedelta(2), NOW - timedelta(1), False, None
)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (CLEAN, None),
        (CLEAN._replace(findings={"dangling": 2, "accepted": 2, "waiting": 1, "waived": 1}), None),
        (CLEAN._replace(findings={"dangling": 2, "accepted": 1}), "its audit found 1 dangling"),
        (CLEAN._replace(findings={"waiting": 3, "waived": 1, "stale": 1}), "its audit found 2 waiting, 1 stale"),
        (CLEAN._replace(findings={"corrupt": 1}), "its audit found 1 corrupt"),
        (CLEAN._replace(audited_at=None), "it was never audited"),
        (CLEAN._replace(audited_at=NOW - timedelta(1)), "it was not audited since its newest run"),
        (CLEAN._replace(started_at=NOW), "it was not audited since its newest run"),
        (CLEAN._replace(started_at=None), "it was never run"),
        (CLEAN._replace(ended_at=None), "its newest run has not ended"),
        (CLEAN._replace(rolled_back=True), "it is rolled back"),
        (CLEAN._replace(requested="late"), "a run is asked for: late"),
    ],
)
def test_a_range_is_clean_once_it_was_audited_and_nothing_says_otherwise(state: RangeState, why: str | None) -> None:
    assert state.why_not() == why


def test_a_file_is_the_first_range_s_and_needed_by_both(ledger: PostgresLedger) -> None:
    removal = ledger.removal
    assert [(item.file, item.ranges) for item in removal.candidates(FIRST, How.DELETE)] == [
        (MINE, [FIRST]),
        (SHARED, [FIRST, SECOND]),
    ]
    assert removal.candidates(SECOND, How.DELETE) == []
    assert removal.needed_by([SHARED, MINE]) == {MINE: [FIRST], SHARED: [FIRST, SECOND]}
    assert (removal.wanters([MINE]), sorted(removal.wanters([SHARED, MINE]))) == ([1], [1, 11])


def test_a_removal_is_begun_only_where_the_ledger_says_what_was_proven(ledger: PostgresLedger) -> None:
    removal = ledger.removal
    with ledger.hold(FIRST, run=False) as (_, held):
        other = [PROVEN[MINE]._replace(source_etag='"0x2"'), PROVEN[SHARED]._replace(md5=b"n" * 16)]
        assert removal.begin(other, How.DELETE, who="ann", fence=held.fence) == set()
        ledger.query("UPDATE {s}.files SET erasing = true WHERE blob = 'shared.jpg'")
        assert removal.begin(list(PROVEN.values()), How.DELETE, who="ann", fence=held.fence) == {MINE}
        assert removal.begin([PROVEN[MINE]], How.DELETE, who="bob", fence=held.fence) == set()
        assert [(item.range_key, item.file, item.how) for item in removal.begun()] == [(FIRST, MINE, How.DELETE)]
        assert ledger.removed([MINE, SHARED]) == {MINE}
        removal.withdraw([MINE])
        assert (removal.begun(), ledger.removed([MINE])) == ([], set())
        lost = replace(held.fence, epoch=held.fence.epoch - 1)
        with pytest.raises(RangeLost):
            removal.begin([PROVEN[MINE]], How.DELETE, who="ann", fence=lost)
        assert removal.begun() == []


def test_what_is_removed_is_no_candidate_any_more_unless_it_is_another_one(ledger: PostgresLedger) -> None:
    removal = ledger.removal
    with ledger.hold(FIRST, run=False) as (_, held):
        removal.begin([PROVEN[MINE]], How.ARCHIVE, who="ann", fence=held.fence)
    assert removal.totals() == RemovedTotals(begun=1)
    removal.end([MINE])
    removal.withdraw([MINE])  # what has ended is kept
    totals = removal.totals()
    assert (totals.archived, totals.bytes, totals.begun, totals.first_at) == (1, 5, 0, totals.last_at)
    assert [item.file for item in removal.candidates(FIRST, How.ARCHIVE)] == [SHARED]
    assert [item.file for item in removal.candidates(FIRST, How.DELETE)] == [MINE, SHARED]
    ledger.query("""UPDATE {s}.files SET source_etag = '"0x2"' WHERE blob = 'mine.jpg'""")
    assert [item.file for item in removal.candidates(FIRST, How.ARCHIVE)] == [MINE, SHARED]


def test_one_removes_at_a_time_and_any_number_keep_it_from_that(ledger: PostgresLedger, url: str) -> None:
    with closing(PostgresLedger(url, "migration")) as other:
        with ledger.removal.alone():
            for taken in (other.removal.alone, other.source_kept):
                with pytest.raises(Fatal, match="at this moment"), taken():
                    pass
        with ledger.source_kept(), other.source_kept(), pytest.raises(Fatal, match="at this moment"):  # noqa: SIM117
            with other.removal.alone():
                pass
        with other.removal.alone():
            pass
