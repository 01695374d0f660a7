"""A connection pooler in transaction mode between a run and its database."""

from contextlib import closing

import psycopg
import pytest

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.connection import connect, shares_sessions
from migration_pipeline.commands.doctor.ledger import ledger as examine_ledger
from migration_pipeline.core.errors import Fatal
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp
from migration_pipeline_tests.scenarios.hostile_app.pooler import pooled

PROFILES = (
    "CREATE TABLE profiles (id bigint PRIMARY KEY, photos text, photos_migrated_at timestamptz);"
    "CREATE TABLE pictures (profile_id bigint, n int, url text, PRIMARY KEY (profile_id, n));"
)
SETTINGS = {
    "profiles": '{ columns = ["photos"] }',
    "related": '[{ table = "pictures", profile_id = "profile_id", columns = ["url"] }]',
}


def test_a_run_does_not_hold_a_range_through_a_pooler(make_app: MakeApp) -> None:
    app = make_app(PROFILES, **SETTINGS)
    app.execute("INSERT INTO profiles VALUES (1)")
    app.plan()
    with pooled(app.database_url) as url:
        # What goes wrong without a look: two hold the same lock of a session.
        with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
            locked = "SELECT pg_try_advisory_lock(1)"
            assert one.execute(locked).fetchone() == other.execute(locked).fetchone() == (True,)
        with closing(PostgresLedger(url, "migration")) as behind:
            with pytest.raises(Fatal, match="LEDGER_URL: goes through a pooler"), behind.hold(app.keys[0]):
                pass
            assert not behind.keeps_sessions()
        lines = list(examine_ledger(app.with_urls(database=url, ledger=url).settings))
        assert any(line.health == "failure" and "pooler" in line.said for line in lines), lines
    with closing(PostgresLedger(app.database_url, "migration")) as direct, direct.hold(app.keys[0]):
        assert direct.keeps_sessions()


def test_sessions_of_ones_own_are_not_taken_for_a_poolers(make_app: MakeApp) -> None:
    app = make_app(PROFILES)
    with (
        connect(app.database_url, setting="DATABASE_URL") as one,
        connect(app.database_url, setting="DATABASE_URL") as two,
    ):
        assert not shares_sessions(one, two)


def test_the_apps_database_may_be_behind_a_pooler(make_app: MakeApp) -> None:
    app = make_app(PROFILES, **SETTINGS)
    blobs = [f"{n}.jpg" for n in range(1, 31)]
    app.upload(*blobs)
    for n, blob in enumerate(blobs, 1):
        app.execute("INSERT INTO profiles VALUES (%s, %s)", n, app.az(blob))
        app.execute("INSERT INTO pictures VALUES (%s, 1, %s)", n, app.az(blob))
    before = app.dump()
    app.plan()
    with pooled(app.database_url) as url:
        behind = app.with_urls(database=url, ledger=app.database_url)
        assert behind.reasons() == {}
        assert behind.sweep().clean
        assert checker.changed(checker.with_urls(before, app.moved(*blobs)), app.dump()) == []
        assert all(done.complete for done in behind.roll_back())
    assert checker.changed(before, app.dump()) == []
