"""The app's database and the ledger, on a real Postgres."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres import connection as postgres
from migration_pipeline.adapters.postgres import locks as postgres_locks
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.adapters.postgres.tables import ProfileTable, RelatedTable
from migration_pipeline.core.errors import Fatal, RangeBusy, RangeLost
from migration_pipeline.core.model import CopyResult, Evidence, Outcome, ProfileRange, SourceFile, WantedFile, Wish
from migration_pipeline.core.ports import Dropped, Erased, Fence
from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import Replace
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.replacing import whole

RANGE = ProfileRange("0000000001-0000000009", 1, None, 9, 3)
FILE = SourceFile("photos", "a.jpg")
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def isolation(request: pytest.FixtureRequest, url: str) -> str:
    """What the app's database gives to transactions that ask for nothing."""
    wanted = str(getattr(request, "param", "read committed"))
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}").format(name, sql.Literal(wanted))
        )
    return wanted


@pytest.fixture
def app(url: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE profiles (id bigint PRIMARY KEY, photos json, deleted_at timestamptz, moved timestamptz);"
            "CREATE TABLE extra (id serial PRIMARY KEY, profile_id bigint REFERENCES profiles, urls text[]);"
            """INSERT INTO profiles VALUES (1, '["old://1",  "keep"]'), (3, NULL);"""
            """INSERT INTO profiles VALUES (2, '["old://2"]', now());"""
            "INSERT INTO extra (profile_id, urls) VALUES (1, ARRAY['old://x', NULL, 'y'])"
        )
        yield connection


@pytest.fixture
def profiles(url: str, app: object, isolation: str) -> Iterator[PostgresProfiles]:
    assert app
    assert isolation
    table, related = ProfileTable("profiles", "id", ["photos"], "moved", "deleted_at"), ["urls"]
    opened = PostgresProfiles(url, profiles=table, related=[RelatedTable("extra", "profile_id", related)])
    with closing(opened):
        yield opened


def new(text: str) -> str | None:
    return text.replace("old://", "new://") if text.startswith("old://") else None


def always_new(_: object) -> Replace:
    return whole(new)


def ours() -> None:
    """Nobody took the range."""


OURS = Fence("range", 1, 1, ours)


def wish(profile_id: int) -> Wish:
    return Wish(profile_id, FILE, "https://a.example.com/photos/a.jpg", had_query=False)


def photos(app: "psycopg.Connection[tuple[object, ...]]") -> list[object]:
    return [row[0] for row in app.execute("SELECT photos::text FROM profiles ORDER BY id")]


def test_single_strings_are_replaced_and_deleted_profiles_left(
    app: "psycopg.Connection[tuple[object, ...]]", profiles: PostgresProfiles
) -> None:
    done = profiles.rewrite([1, 2, 3, 4], always_new, OURS)
    assert (done.profiles, done.urls) == (1, 2)
    assert photos(app) == ['["new://1",  "keep"]', '["old://2"]', None]
    assert app.execute("SELECT urls FROM extra").fetchone() == (["new://x", None, "y"],)
    assert profiles.rewrite([1, 2, 3], always_new, OURS).profiles == 0


@pytest.mark.parametrize("isolation", ["read committed", "serializable"], indirect=True)
def test_an_edit_under_way_is_waited_for_and_kept(
    url: str, app: "psycopg.Connection[tuple[object, ...]]", profiles: PostgresProfiles, isolation: str
) -> None:
    with psycopg.connect(url) as user:
        assert user.execute("SHOW transaction_isolation").fetchone() == (isolation,)
    with psycopg.connect(url) as user:
        user.execute("""UPDATE profiles SET photos = '["mine", "old://1"]' WHERE id = 1""")
        rewriting = threading.Thread(target=profiles.rewrite, args=([1], always_new, OURS))
        rewriting.start()
        while app.execute(WAITING).fetchone() == (0,):
            assert rewriting.is_alive()
        user.commit()
    rewriting.join()
    assert photos(app)[0] == '["mine", "new://1"]'


def test_the_flag_is_set_only_where_the_row_is_clean_at_that_moment(
    app: "psycopg.Connection[tuple[object, ...]]", profiles: PostgresProfiles
) -> None:
    assert profiles.set_flags([1, 2, 3], lambda text: text.text.startswith("old://"), OURS).ids == (3,)
    assert app.execute("SELECT id FROM profiles WHERE moved IS NOT NULL").fetchall() == [(3,)]
    assert profiles.clear_flags([1, 3]).ids == (3,)


def test_a_missing_column_is_named(url: str, app: object) -> None:
    assert app
    with pytest.raises(Fatal, match=r"database\.profiles.*'pictures'"):
        PostgresProfiles(url, profiles=ProfileTable("profiles", "id", ["pictures"], "moved"))


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges([RANGE])
        yield opened


def test_two_runs_of_one_range_exclude_each_other(url: str, ledger: PostgresLedger) -> None:
    other = PostgresLedger(url, "migration")
    with closing(other), ledger.hold(RANGE.key), pytest.raises(RangeBusy), other.hold(RANGE.key):
        pass
    with ledger.hold(RANGE.key) as (bounds, _):
        assert bounds == RANGE


def test_an_unknown_range_and_a_second_planner_are_refused(ledger: PostgresLedger) -> None:
    with pytest.raises(Fatal, match="no range"), ledger.hold("nope"):
        pass
    with pytest.raises(Fatal, match="another planner"):
        ledger.add_ranges([RANGE])


def test_a_verified_file_stays_verified(ledger: PostgresLedger) -> None:
    with ledger.hold(RANGE.key) as (_, held):
        assert held.want([wish(1), wish(3)]).files == 1
        held.record([CopyResult(FILE, Outcome.COPIED, 5, b"m" * 16, "etag")])
        held.record([CopyResult(FILE, Outcome.SOURCE_MISSING, message="later")])
        assert held.known()[FILE].outcome is Outcome.COPIED
        assert held.unfinished() == []
        assert held.profiles_with_files() == [1, 3]


def test_files_that_cannot_be_ours_and_that_nobody_needs_any_more_are_forgotten(ledger: PostgresLedger) -> None:
    with ledger.hold(RANGE.key) as (_, held):
        held.want([wish(1)])
        held.record([CopyResult(FILE, Outcome.TARGET_CONFLICT, message="other bytes")])
        assert [letter.file for letter in ledger.overview.dead_letters()] == [FILE]
        held.want([])
        assert held.known() == {}
        assert ledger.overview.dead_letters() == []


@pytest.mark.parametrize("outcome", [Outcome.GAVE_UP, Outcome.SOURCE_MISSING, Outcome.UNFORESEEN])
def test_a_file_that_failed_is_kept_for_erasing_however_often_nobody_needs_it(
    ledger: PostgresLedger, outcome: Outcome
) -> None:
    """A run that lost the range may have copied it in the end, and noted nothing."""
    with ledger.hold(RANGE.key) as (_, held):
        held.want([wish(1)])
        held.record([CopyResult(FILE, outcome, message="no answer")])
        for _ in range(2):
            held.want([])
            assert list(held.known()) == [FILE]
            assert ledger.overview.dead_letters() == []


def test_a_ledger_of_a_newer_release_is_refused(url: str, ledger: PostgresLedger) -> None:
    assert ledger.ranges() == [RANGE]
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO migration.schema_versions VALUES (99)")
    with pytest.raises(Fatal, match="newer"):
        PostgresLedger(url, "migration")


@pytest.fixture(params=["beside the app", "elsewhere"])
def ledger_schema(request: pytest.FixtureRequest) -> str | None:
    """Where the ledger is, as the app's database is told."""
    return "migration" if request.param == "beside the app" else None


def test_a_run_that_lost_its_range_while_it_was_away_writes_nothing(
    url: str, app: "psycopg.Connection[tuple[object, ...]]", ledger: PostgresLedger, ledger_schema: str | None
) -> None:
    table = ProfileTable("profiles", "id", ["photos"], "moved", "deleted_at")
    away = PostgresProfiles(url, profiles=table, ledger_schema=ledger_schema)
    other = PostgresLedger(url, "migration")
    with closing(away), closing(other), ledger.hold(RANGE.key) as (_, held):
        assert away.rewrite([1], always_new, held.fence).profiles == 1
        app.execute("UPDATE profiles SET photos = '[\"old://1\"]' WHERE id = 1")
        # The network is cut: the session that holds the lock ends, and we do not know.
        app.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with hold_when_free(other) as (_, newer):
            for write in (
                lambda: away.rewrite([1], always_new, held.fence),
                lambda: away.set_flags([3], lambda _: False, held.fence),
                lambda: held.want([wish(1)]),
                lambda: held.record([CopyResult(FILE, Outcome.COPIED, 5, b"m" * 16, "etag")]),
                lambda: held.finish({}),
                held.fence.check,
            ):
                with pytest.raises(RangeLost):
                    write()
            assert newer.known() == {}
            assert away.rewrite([3], always_new, newer.fence).profiles == 0
    assert photos(app)[0] == '["old://1"]'
    assert app.execute("SELECT count(*) FROM profiles WHERE moved IS NOT NULL").fetchone() == (0,)


@contextmanager
def hold_when_free(ledger: PostgresLedger) -> Iterator[Any]:
    while True:
        with suppress(RangeBusy), ledger.hold(RANGE.key) as held:
            yield held
            return


def test_the_app_is_never_the_victim_of_a_deadlock(
    url: str, app: "psycopg.Connection[tuple[object, ...]]", profiles: PostgresProfiles
) -> None:
    """The app locks in the other order than we do: first what belongs to the profile, then the profile."""
    for _ in range(20):
        app.execute("UPDATE extra SET urls = ARRAY['old://x']")
        with psycopg.connect(url) as user:
            user.execute("SET lock_timeout = '900ms'")
            user.execute("UPDATE extra SET urls = urls || 'mine'::text WHERE profile_id = 1")
            rewriting = threading.Thread(target=profiles.rewrite, args=([1, 3], always_new, OURS))
            rewriting.start()
            while app.execute("SELECT count(*) FROM pg_locks WHERE mode = 'RowShareLock'").fetchone() == (0,):
                if not rewriting.is_alive():
                    break
            user.execute("UPDATE profiles SET deleted_at = NULL WHERE id = 1")
            user.commit()
        rewriting.join()
        assert app.execute("SELECT urls FROM extra").fetchone() == (["new://x", "mine"],)


def test_a_profile_that_stays_locked_is_left_and_the_others_are_done(
    url: str,
    app: "psycopg.Connection[tuple[object, ...]]",
    profiles: PostgresProfiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres, "_TRIES", 1)
    monkeypatch.setattr(postgres_locks, "_LOCK_WAIT", "50ms")
    app.execute("UPDATE profiles SET photos = '[\"old://3\"]' WHERE id = 3")
    with psycopg.connect(url) as user:
        user.execute("SELECT FROM profiles WHERE id = 1 FOR UPDATE")
        assert profiles.rewrite([1, 3], always_new, OURS).profiles == 1
        assert profiles.set_flags([1, 3], lambda text: text.text.startswith("old://"), OURS).ids == (3,)
    assert photos(app) == ['["old://1",  "keep"]', '["old://2"]', '["new://3"]']


def test_no_row_that_belongs_to_a_profile_slips_in_while_it_is_flagged(
    url: str, profiles: PostgresProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmoved(text: Text) -> bool:
        with psycopg.connect(url) as user:
            user.execute("SET lock_timeout = '50ms'")
            for statement in (
                "INSERT INTO extra (profile_id, urls) VALUES (1, ARRAY['old://late'])",
                "UPDATE extra SET urls = ARRAY['old://late']",
                "UPDATE profiles SET photos = '[\"old://late\"]' WHERE id = 1",
            ):
                with pytest.raises(psycopg.errors.LockNotAvailable), user.transaction():
                    user.execute(statement)
        return text.text.startswith("old://")

    profiles.rewrite([1], always_new, OURS)
    monkeypatch.setattr(PostgresProfiles, "_prepare", lambda *_: None)  # what is not known before is asked under locks
    assert profiles.set_flags([1], unmoved, OURS).ids == (1,)


def test_a_copy_whose_reply_was_lost_is_ours_and_an_older_object_is_not(ledger: PostgresLedger) -> None:
    other = SourceFile("photos", "b.jpg")
    result = CopyResult(FILE, Outcome.ALREADY_THERE, 5, b"m" * 16, "etag", version="v1", made_at=datetime.now(UTC))
    older = replace(result, file=other, made_at=datetime.now(UTC) - timedelta(hours=1))
    with ledger.hold(RANGE.key) as (_, held):
        held.want([wish(1), wish(1)._replace(file=other)])
        held.record([result, older])
        assert held.note_held([]) == 2
    (dropped,) = ledger.dropped(seconds=0)
    assert (dropped.file, dropped.versions, dropped.profiles) == (FILE, ["v1"], [1])


def test_a_range_is_asked_for_until_a_run_begins_and_not_while_one_is_at_work(url: str, ledger: PostgresLedger) -> None:
    with closing(PostgresLedger(url, "migration")) as other:
        ledger.request([RANGE.key], "late")
        assert [(item.range_key, item.why) for item in other.requested()] == [(RANGE.key, "late")]
        assert [state.requested for state in ledger.overview.states()] == [True]
        with ledger.hold(RANGE.key):
            assert other.requested() == []
            ledger.request([RANGE.key], "later")
            assert other.requested() == []  # nobody could begin
        assert [item.why for item in other.requested()] == ["later"]


def test_a_copy_that_a_range_has_come_to_want_is_not_erased(ledger: PostgresLedger) -> None:
    with ledger.hold(RANGE.key) as (_, held):
        held.want([wish(1)])
        held.record([CopyResult(FILE, Outcome.COPIED, 5, b"m" * 16, "etag")])
        held.note_held([])
        assert [item.file for item in ledger.dropped(seconds=0)] == [FILE]
        assert ledger.dropped(seconds=60) == []
        held.want([wish(3)])
        assert ledger.begin_erasing([FILE]) == []
        held.want([])
        held.note_held([])
        assert ledger.begin_erasing([FILE]) == [FILE]
        # From now on nobody relies on it, and nobody copies it, until it is gone: whoever erases holds this range.
        assert not held.known()[FILE].verified
        other = ProfileRange("0000000010-0000000019", 2, 9, 19, 3)
        ledger.add_ranges([other])
        with ledger.hold(other.key) as (_, another):
            assert another.want([wish(11)]).aged == []
            assert another.unfinished() == []
            item = Dropped(FILE, "etag", [], [RANGE.key], [1], datetime.now(UTC))
            ledger.erased([Erased(item, "photos/a.jpg", 1)])
            assert [wanted.file for wanted in another.unfinished()] == [FILE]
    assert [(item.range_key, item.why.split()[0]) for item in ledger.requested()] == [(other.key, "files")]


def test_what_an_erasing_was_cut_off_at_is_looked_at_by_the_run_that_wants_it(ledger: PostgresLedger) -> None:
    with ledger.hold(RANGE.key) as (_, held):
        held.want([wish(1)])
        held.record([CopyResult(FILE, Outcome.COPIED, 5, b"m" * 16, "etag", source_etag="source")])
        held.want([])
        held.note_held([])
        ledger.begin_erasing([FILE])
    with ledger.hold(RANGE.key) as (_, held):
        evidence = Evidence(5, b"m" * 16, "etag", "source")
        assert held.want([wish(1)]).aged == [WantedFile(FILE, 1, None, evidence)]
        assert held.known()[FILE].aged
        held.record([CopyResult(FILE, Outcome.ALREADY_THERE, 5, b"m" * 16, "etag", renewed=True)])
        assert (held.known()[FILE].outcome, held.known()[FILE].aged) == (Outcome.COPIED, False)
