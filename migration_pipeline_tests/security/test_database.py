"""Names from the settings are quoted wherever they are used, and the app's own query can do nothing but read."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from migration_pipeline.adapters.postgres.pause_query import PauseQuery
from migration_pipeline.adapters.postgres.probe import PostgresProbe
from migration_pipeline.adapters.postgres.tables import ProfileTable, RelatedTable
from migration_pipeline.core.errors import Fatal, SettingsError
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.values import Replace
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.settings import load
from migration_pipeline_tests.replacing import whole

HOSTILE = [
    "'; DROP TABLE victim; --",
    '"; DROP TABLE victim; --',
    '" = "" OR true --',
    "{id} {0} {",
    "$1 $$ \\",
    "a b\nc",
]


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def app(url: str) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE victim (x integer); INSERT INTO victim VALUES (1)")
        yield connection


def ours() -> None:
    """Nobody took the range."""


OURS = Fence("range", 1, 1, ours)


def always_new(_: object) -> Replace:
    return whole(lambda text: text.replace("old://", "new://") if text.startswith("old://") else None)


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_names_of_tables_and_columns_are_names(
    url: str, app: "psycopg.Connection[tuple[Any, ...]]", evil: str
) -> None:
    evil = evil.replace(".", "")  # a dot parts a schema from its table
    names = {name: sql.Identifier(f"{name}{evil}") for name in ("t", "r", "id", "p", "c", "m", "d", "u")}
    app.execute(
        sql.SQL(
            "CREATE TABLE {t} ({id} bigint PRIMARY KEY, {c} jsonb, {m} timestamptz, {d} timestamptz, {u} timestamptz);"
            """INSERT INTO {t} VALUES (1, '["old://1"]'), (2, NULL);"""
            "CREATE TABLE {r} ({id} serial PRIMARY KEY, {p} bigint, {c} text); INSERT INTO {r} VALUES (1, 1, 'old://x')"
        ).format(**names)
    )
    name = {key: f"{key}{evil}" for key in names}
    profiles = ProfileTable(name["t"], name["id"], [name["c"]], name["m"], name["d"], name["u"])
    related = [RelatedTable(name["r"], name["p"], [name["c"]], name["id"])]
    with closing(PostgresProbe(url, profiles=profiles, related=related)) as opened:
        everybody = [profile for batch in opened.read(ProfileRange("1-2", 1, None, 2, 2)) for profile in batch]
        assert [profile.profile_id for profile in everybody] == [1, 2]
        assert len(opened.find([1, 2])) == 2
        assert len(opened.following(None, 5)) == 2
        assert len([p for batch in opened.holding(["%old://%"]) for p in batch]) == 1
        assert list(opened.written_since(datetime(2000, 1, 1, tzinfo=UTC))) == []
        assert opened.rewrite([1, 2], always_new, OURS).urls == 2
        assert set(opened.set_flags([1, 2], lambda text: text.text.startswith("old://"), OURS).ids) == {1, 2}
        assert opened.clear_flags([1]).ids == (1,)
        assert opened.bounds() == (1, 2)
        assert len(list(opened.blocks(after=None, profiles=1))) == 2
        assert opened.weigh([1])[1] > 0
        assert len(opened.sample(5)) == 2
        assert opened.missing_rights() == []
        assert opened.triggers() == []
        assert len(opened.unindexed()) == 2
        assert opened.flag_type() == "timestamp with time zone"
    assert app.execute("SELECT x FROM victim").fetchall() == [(1,)]


@pytest.mark.parametrize("name", ["a%s", "%", "a\0"])
def test_names_that_the_driver_would_misread_are_refused(name: str, tmp_path: Path) -> None:
    config = tmp_path / "migration.toml"
    example = Path(__file__).parents[2] / "migration.example.toml"
    config.write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    environment = {
        "MIGRATION_CONFIG": str(config),
        "DATABASE_URL": "postgresql://a@127.0.0.1/a",
        "AZURE_STORAGE_KEY": "eA==",
    }
    assert load(environment).database.profiles.table
    profiles = '{"table": ' + f'"{name}"'.replace("\0", "\\u0000") + "}"
    with pytest.raises(SettingsError, match=r"database\.profiles\.table"):
        load({**environment, "MIGRATION_DATABASE__PROFILES": profiles})


@pytest.mark.parametrize(
    "query",
    [
        "COMMIT; CREATE TABLE stolen (x integer); SELECT true",
        "SELECT true; COMMIT; DELETE FROM victim; BEGIN; SELECT true",
        "SET LOCAL statement_timeout = 0; SELECT true",
        "SELECT set_config('transaction_read_only', 'off', true)::text = 'off'",
        "DELETE FROM victim RETURNING true",
        "WITH gone AS (DELETE FROM victim RETURNING true) SELECT true FROM gone",
    ],
)
def test_the_apps_query_reads_and_does_nothing_else(
    url: str, app: "psycopg.Connection[tuple[Any, ...]]", query: str
) -> None:
    with closing(PauseQuery(url, query)) as asked, pytest.raises(Fatal):
        asked.ask()
    assert app.execute("SELECT x FROM victim").fetchall() == [(1,)]
    assert app.execute("SELECT to_regclass('stolen')").fetchall() == [(None,)]
