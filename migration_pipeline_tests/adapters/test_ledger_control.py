"""The operators' desk and what runs hear of it, on a real Postgres."""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger import groups, schema
from migration_pipeline.adapters.ledger.control import BREAKER, Selection
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.connection import connect
from migration_pipeline.adapters.postgres.pause_query import PauseQuery
from migration_pipeline.core.control import Limits, Said
from migration_pipeline.core.errors import Fatal, RangeLost, Transient, Unreachable
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, WantedFile, Wish
from migration_pipeline.sandbox import Sandbox

RANGES = [ProfileRange("0000000001-0000000009", 1, None, 9, 3), ProfileRange("0000000010-0000000019", 2, 9, 19, 3)]
FIRST, SECOND = (item.key for item in RANGES)
MISSING, BROKEN, FINE = (SourceFile("photos", f"{name}.jpg") for name in ("missing", "broken", "fine"))


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges(RANGES)
        yield opened


def fail(ledger: PostgresLedger, key: str = FIRST, times: int = 1) -> None:
    """A run in which two files of a range fail, each so often, and one is copied."""
    with ledger.hold(key) as (_, held):
        held.want([Wish(1, file, str(file), had_query=False) for file in (MISSING, BROKEN, FINE)])
        for _ in range(times):
            held.record([CopyResult(MISSING, Outcome.SOURCE_MISSING), CopyResult(BROKEN, Outcome.DIGEST_MISMATCH)])
        held.record([CopyResult(FINE, Outcome.COPIED, 5, b"m" * 16, "etag")])
        held.finish({"waiting": 1})


def test_a_pause_is_heard_by_every_run_until_somebody_resumes(ledger: PostgresLedger, url: str) -> None:
    with closing(PostgresLedger(url, "migration")) as other, ledger.hold(FIRST) as (_, run):
        assert run.hear().said == Said()
        assert other.control.pause(by="ann", why="the app is slow")
        assert not other.control.pause(by="bob", why="too")
        heard = run.hear().said
        assert (heard.paused_why, heard.paused_by) == ("the app is slow", "ann")
        assert heard.paused_at is not None
        assert other.control.resume(by="bob")
        assert not other.control.resume(by="bob")
        assert run.hear().said == Said() == other.control.said()
    assert [(act.who, act.what, act.why) for act in ledger.overview.acts()] == [
        ("bob", "resume", ""),
        ("ann", "pause", "the app is slow"),
    ]


def test_limits_add_up_and_are_taken_back(ledger: PostgresLedger) -> None:
    desk = ledger.control
    assert desk.limit(Limits(in_flight=8), by="ann") == Limits(in_flight=8)
    assert desk.limit(Limits(requests_per_second=50.0), by="ann") == Limits(8, 50.0)
    desk.pause(by="ann", why="lunch")
    assert desk.said().limits == Limits(8, 50.0)
    assert desk.limit(Limits(), by="ann") == Limits() == desk.said().limits
    assert desk.said().paused_by == "ann"


def test_runs_at_work_are_counted_until_they_end(ledger: PostgresLedger, url: str) -> None:
    with closing(PostgresLedger(url, "migration")) as other, ledger.hold(FIRST) as (_, one):
        assert one.hear().runs == 1
        with other.hold(SECOND) as (_, two):
            assert two.hear().runs == 2
            assert one.hear().runs == 2
            two.finish({"waiting": 0})
        assert one.hear().runs == 1


def test_a_run_that_lost_its_range_hears_so(ledger: PostgresLedger, url: str) -> None:
    with closing(PostgresLedger(url, "migration")) as other, ledger.hold(FIRST) as (_, away):
        other.query("UPDATE {s}.ranges SET epoch = epoch + 1")
        with pytest.raises(RangeLost):
            away.hear()


def test_a_run_whose_lock_was_cut_off_hears_so(ledger: PostgresLedger, url: str) -> None:
    holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as other, ledger.hold(FIRST) as (_, run):
        run.hear()
        assert ledger.held([FIRST, SECOND]) == {FIRST}
        other.execute(holders)
        with pytest.raises(Transient):
            run.hear()
        assert ledger.held([FIRST, SECOND]) == set()


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("postgresql://app@127.0.0.1:1/app", Unreachable, "onnection refused"),
        ("DATABASE/nothing", Fatal, "does not exist"),
    ],
)
def test_a_server_that_is_away_is_told_from_one_that_refuses(
    sandbox: Sandbox, url: str, kind: type[Fatal], words: str
) -> None:
    server = sandbox.create_database(f"d{uuid4().hex[:12]}").rsplit("/", 1)[0]
    with pytest.raises(Fatal, match=words) as refused:
        connect(url.replace("DATABASE", server), setting="DATABASE_URL")
    assert type(refused.value) is kind


def test_files_that_end_are_counted_since_the_last_pause(ledger: PostgresLedger) -> None:
    fail(ledger, times=3)
    with ledger.hold(FIRST) as (_, run):
        heard = run.hear()
        assert (heard.ended, heard.failed) == (3, 2)  # a known dead letter that fails again is nothing new
        assert run.trip() == "too many files fail; of the last ten minutes: 1 digest_mismatch, 1 source_missing"
        assert run.hear().said.paused_by == BREAKER
        ledger.control.resume(by="ann", why="mended")
        # What ended in the same ten seconds as the resuming counts as before it.
        assert run.hear().ended == 0
    (row,) = ledger.overview.progress(every="1 day")
    assert (row.files, row.failed, row.bytes) == (1, 2, 5)


def test_waived_letters_are_left_alone_and_their_ranges_asked_for(ledger: PostgresLedger) -> None:
    fail(ledger)
    fail(ledger, SECOND)
    chosen = ledger.control.waive(Selection(outcome=Outcome.SOURCE_MISSING), by="ann", why="gone for good")
    assert chosen == (1, [FIRST, SECOND])
    assert ledger.control.waive(Selection(outcome=Outcome.SOURCE_MISSING), by="ann", why="again") == (0, [])
    assert {item.range_key for item in ledger.requested()} == {FIRST, SECOND}
    (waived, _) = ledger.overview.dead_letters(waived=True)
    assert waived.waived is not None
    assert (waived.file, waived.waived.by, waived.waived.why) == (MISSING, "ann", "gone for good")
    assert {item.file for item in ledger.overview.dead_letters(waived=False)} == {BROKEN}
    with ledger.hold(FIRST) as (_, run):
        assert [item.file for item in run.unfinished()] == [BROKEN]
        assert run.known()[MISSING].waived
    classes = {item.outcome: (item.waiting, item.waived) for item in ledger.overview.letter_classes()}
    assert classes == {Outcome.SOURCE_MISSING: (0, 1), Outcome.DIGEST_MISMATCH: (1, 0)}
    assert [(act.what, act.details["files"]) for act in ledger.overview.acts()] == [("waive", 1)]


def test_a_wrong_digest_is_accepted_by_name_and_the_report_knows(ledger: PostgresLedger) -> None:
    fail(ledger)
    fail(ledger, SECOND)
    chosen = ledger.control.accept(Selection(range_key=FIRST), by="ann", why="append blobs")
    # The file is needed by both ranges; the missing one is of another class.
    assert chosen == (1, [FIRST, SECOND])
    (letter, _) = ledger.overview.dead_letters(file=BROKEN)
    assert letter.accepted is not None
    assert (letter.accepted.by, letter.accepted.why, letter.waived) == ("ann", "append blobs", None)
    assert ledger.exports.accepted(9) == (0, [])
    with ledger.hold(FIRST) as (_, held):
        assert held.unfinished() == [WantedFile(BROKEN, 2, accepted=True)]
        held.record([CopyResult(BROKEN, Outcome.COPIED, 5, b"n" * 16, "etag", accepted=True)])
        assert held.known()[BROKEN].verified
    count, (row,) = ledger.exports.accepted(9)
    assert (count, row.blob, row.md5, row.by, row.why) == (1, BROKEN.blob, b"n" * 16, "ann", "append blobs")
    assert [(act.what, act.who, act.details["files"]) for act in ledger.overview.acts()] == [("accept", "ann", 1)]
    # What is copied is no dead letter: nothing takes its acceptance back.
    assert ledger.control.retry(Selection(file=BROKEN), by="ann").files == 0
    assert ledger.exports.accepted(9)[0] == 1


def test_an_acceptance_is_taken_back_and_one_that_was_not_needed_is_not_told(ledger: PostgresLedger) -> None:
    fail(ledger)
    assert ledger.control.accept(Selection(file=MISSING), by="ann", why="no") == (0, [])
    ledger.control.accept(Selection(file=BROKEN), by="ann", why="it is right")
    assert ledger.control.retry(Selection(file=BROKEN), by="bob").files == 1
    with ledger.hold(FIRST) as (_, held):
        assert [item.accepted for item in held.unfinished()] == [False]
    ledger.control.accept(Selection(file=BROKEN), by="ann", why="it is right")
    with ledger.hold(FIRST) as (_, held):
        held.record([CopyResult(BROKEN, Outcome.COPIED, 5, b"n" * 16, "etag")])
    assert ledger.exports.accepted(9) == (0, [])


def test_names_with_a_signature_that_older_releases_kept_are_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead letters, for no blob has such a name; everything else stays as it is."""
    signed = SourceFile("photos", "1/a.jpg?sv=2026&sig=hunter2")
    twice = SourceFile("photos", "1/b.jpg%3Fsv%3D1%26sig%3Dhunter2")
    plain = SourceFile("photos", "design=2?x.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:6])
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            schema.bring_up_to_date(connection, "migration")
            for file in (signed, twice, plain, FINE):
                outcome = "copied" if file == FINE else "source_missing"
                connection.execute(
                    "INSERT INTO migration.files (file_id, container, blob, outcome) VALUES (%s, %s, %s, %s)",
                    [file.file_id, file.container, file.blob, outcome],
                )
            connection.execute(
                "INSERT INTO migration.ranges (range_id, key, last_id, numeric_ids, profiles)"
                " VALUES (1, 'r', '9', true, 1)"
            )
            with connection.transaction(), connection.cursor() as cursor:
                groups.make_tables(cursor, sql.Identifier("migration"), [1])
            spelling = "https://h/photos/1/a.jpg%3Fsv%3D2026%26sig%3Dhunter2"
            connection.execute(
                "INSERT INTO migration.wanted (range_id, profile_id, file_id, spelling, places)"
                " VALUES (1, '1', %s, %s, %s)",
                [signed.file_id, spelling, Jsonb([["", [spelling]]])],
            )
    with closing(PostgresLedger(url, "migration")) as ledger:
        names = {blob for (blob,) in ledger.query("SELECT blob FROM {s}.files")}
        assert names == {"1/a.jpg?(signature removed)", "1/b.jpg?(signature removed)", plain.blob, FINE.blob}
        assert ledger.query("SELECT spelling, places FROM {s}.wanted") == [("https://h/photos/1/a.jpg", None)]


def test_only_the_letters_asked_for_are_tried_again_and_then_all_of_them(ledger: PostgresLedger) -> None:
    fail(ledger)
    assert ledger.control.retry(Selection(range_key=SECOND), by="ann") == (0, [])
    assert ledger.control.retry(Selection(outcome=Outcome.DIGEST_MISMATCH, range_key=FIRST), by="ann") == (1, [FIRST])
    fresh = SourceFile("photos", "new.jpg")
    with ledger.hold(FIRST) as (_, run):
        run.want([Wish(1, file, str(file), had_query=False) for file in (MISSING, BROKEN, FINE, fresh)])
        assert {item.file for item in run.unfinished()} == {BROKEN, fresh}
        run.record([CopyResult(BROKEN, Outcome.DIGEST_MISMATCH), CopyResult(fresh, Outcome.COPIED, 1, b"m" * 16, "e")])
        assert {item.file for item in run.unfinished()} == {BROKEN, MISSING}


def test_letters_last_as_long_as_any_range_needs_the_file(ledger: PostgresLedger) -> None:
    fail(ledger)
    fail(ledger, SECOND)

    def listed() -> set[tuple[str, SourceFile]]:
        return {(letter.range_key, letter.file) for letter in ledger.overview.dead_letters()}

    def counted(range_key: str | None = None) -> int:
        return sum(found.waiting for found in ledger.overview.letter_classes(range_key=range_key))

    assert listed() == {(key, file) for key in (FIRST, SECOND) for file in (MISSING, BROKEN)}
    assert counted() == counted(FIRST) == counted(SECOND) == 2
    with ledger.hold(SECOND) as (_, run):  # which tried them last
        run.want([])
    assert listed() == {(FIRST, MISSING), (FIRST, BROKEN)}
    assert (counted(), counted(FIRST), counted(SECOND)) == (2, 2, 0)
    with ledger.hold(FIRST) as (_, run):
        run.want([])
    assert (listed(), counted()) == (set(), 0)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_of_letters_hold_each_once(ledger: PostgresLedger, limit: int) -> None:
    fail(ledger)
    fail(ledger, SECOND)
    seen: list[tuple[str, SourceFile]] = []
    last = None
    while page := ledger.overview.dead_letters(limit=limit, after=last):
        seen += [(letter.range_key, letter.file) for letter in page]
        last = page[-1]
    assert sorted(seen, key=str) == sorted(((k, f) for k in (FIRST, SECOND) for f in (MISSING, BROKEN)), key=str)


def test_a_waived_letter_is_tried_again_where_it_is_named(ledger: PostgresLedger) -> None:
    fail(ledger)
    ledger.control.waive(Selection(), by="ann", why="for now")
    assert ledger.control.retry(Selection(), by="ann").files == 0
    assert ledger.control.retry(Selection(file=MISSING), by="ann").files == 1
    assert ledger.control.retry(Selection(), by="ann", waived=True).files == 1
    ledger.control.waive(Selection(file=BROKEN), by="ann", why="for now")
    (letter,) = ledger.overview.dead_letters(waived=False)
    assert letter.file == MISSING


@pytest.mark.parametrize(
    ("query", "busy"),
    [("SELECT true", True), ("SELECT count(*) > 0 FROM pg_stat_activity WHERE query = 'no such'", False)],
)
def test_the_app_is_asked(url: str, query: str, *, busy: bool) -> None:
    with closing(PauseQuery(url, query)) as asked:
        assert asked.ask() is busy
        assert (asked() is not None) is busy


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT 1", "gives no boolean"),
        ("SELECT true WHERE false", "gives no boolean"),
        ("SELECT false FROM generate_series(1, 2)", "gives no boolean, or more than one row"),
        ("SELECT false, true", "gives no boolean, or more than one row"),
        ("SELECT NULL::boolean", "gives no boolean"),
        ("SELECT x FROM nothing", "does not exist"),
        ("CREATE TABLE t (x integer)", "read-only"),
        ("SELECT true FROM pg_sleep(60)", "timeout"),
        ("SELECT true LIKE 'a%s'", "cannot be asked"),
    ],
)
def test_a_query_that_cannot_be_asked_pauses_and_says_why(url: str, query: str, words: str) -> None:
    with closing(PauseQuery(url, query)) as asked:
        with pytest.raises(Fatal, match=words):
            asked.ask()
        assert words in (asked() or "")


def test_the_query_is_asked_again_after_the_database_came_back(url: str) -> None:
    with closing(PauseQuery(url, "SELECT true")) as asked, psycopg.connect(url, autocommit=True) as other:
        assert asked.ask()
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert "cannot be asked" in (asked() or "")
        assert asked.ask()
