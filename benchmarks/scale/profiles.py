"""An app's table of millions of profiles, made in place: the sandbox's own rows, again and again under other ids."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.scale.results import Figures, say
from migration_pipeline.sandbox import azurite
from migration_pipeline.sandbox.app import AppSize, AppStores, settings_toml
from migration_pipeline.sandbox.app_plan import plan_app
from migration_pipeline.sandbox.app_records import fill_database
from migration_pipeline.sandbox.postgres import PostgresServer

_TEMPLATES = 1000
"""Profiles of the sandbox's app, of every kind; the others are these with other ids in their URLs."""
_FIRST = 10_000  # beyond those of the templates
_A_TIME = 250_000
_CONNECTIONS = 2

_MULTIPLY = """
INSERT INTO profiles
SELECT %(first)s + n, t.username || n, replace(t.photos, '/' || t.id || '/', '/' || (%(first)s + n) || '/')::jsonb,
    t.bio, t.updated_at, t.deleted_at, t.photos_migrated_at
FROM generate_series(%(from)s::bigint, %(to)s::bigint) AS n JOIN templates t ON t.place = n %% %(templates)s
"""


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server of its own, whose files go with it."""
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    folder.chmod(0o711)  # Postgres runs as another user where we are root
    try:
        server = PostgresServer(folder / "postgres")
        try:
            _prepare(server)
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(folder)


def _prepare(server: PostgresServer) -> None:
    """Room for loading much at once; what is measured runs with the defaults all the same."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_wal_size = '4GB'")
        connection.execute("ALTER SYSTEM SET checkpoint_timeout = '30min'")
        connection.execute("SELECT pg_reload_conf()")


def stores(database_url: str) -> AppStores:
    """An app that has its database alone: planning asks nobody else."""
    return AppStores(
        database_url=database_url,
        account_url="http://127.0.0.1:10000/devstoreaccount1",
        account_key=azurite.KEY,
        s3_endpoint_url="http://127.0.0.1:10001",
        bucket="demo",
        public_base_url="http://127.0.0.1:10001/demo",
    )


def settings_of(database_url: str, *, profiles_per_range: int) -> str:
    """The text of a `migration.toml` for it."""
    return settings_toml(stores(database_url), AppSize(), profiles_per_range=profiles_per_range)


def fill(database_url: str, profiles: int) -> Figures:
    """Make so many; return how wide they are."""
    size = AppSize(profiles=_TEMPLATES, bad_files=False)
    fill_database(stores(database_url), size, plan_app(stores(database_url), size))
    with psycopg.connect(database_url, autocommit=True) as connection:
        # Not in the log of the server: a sandbox's is read by nobody, and takes as much room as the table.
        connection.execute("ALTER TABLE verifications SET UNLOGGED")
        connection.execute("ALTER TABLE profiles SET UNLOGGED")
        connection.execute(
            "CREATE UNLOGGED TABLE templates AS SELECT row_number() OVER (ORDER BY id) - 1 AS place, id, username,"
            " photos::text AS photos, bio, updated_at, deleted_at, photos_migrated_at FROM profiles"
        )
        connection.execute("ANALYZE templates")
    starts = range(0, profiles - _TEMPLATES, _A_TIME)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(
            pool.map(lambda start: _multiply(database_url, start, min(start + _A_TIME, profiles - _TEMPLATES)), starts)
        )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE templates")
        connection.execute("VACUUM ANALYZE profiles")  # as autovacuum leaves the table of an app that lives
        (row,) = connection.execute(
            "SELECT (SELECT count(*) FROM profiles), round(avg(pg_column_size(photos))),"
            " round(avg(octet_length(photos::text))), pg_table_size('profiles') / 1000000"
            " FROM profiles TABLESAMPLE SYSTEM (1)"
        ).fetchall()
    names = ("profiles", "bytes_of_photos_stored", "bytes_of_photos", "table_megabytes")
    return dict(zip(names, map(int, (value or 0 for value in row)), strict=True))


def _multiply(database_url: str, start: int, end: int) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")
        values = {"first": _FIRST, "from": start + 1, "to": end, "templates": _TEMPLATES}
        connection.execute(_MULTIPLY, values)
    say(f"made profiles up to {end:,}")
