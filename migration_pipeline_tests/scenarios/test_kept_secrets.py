"""Secrets are planted wherever somebody may have put one; afterwards everything that was kept is searched."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from unittest.mock import patch
from urllib.parse import quote

import dagster as dg
import psycopg
import pytest

from migration_pipeline.defs.alerts import alerts
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests.scenarios.alert_servers import servers
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World

pytestmark = [
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated"),  # apprise looks for it
    pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated"),  # Dagster calls it itself
]
PASSWORD = "p/w@hunter2"
PLANTED = {
    "a signature": "s1gnaturesecret",
    "one that is escaped": "s2gnaturesecret",
    "one that is escaped twice": "s3gnaturesecret",
    "one of another host": "s4gnaturesecret",
    "one in a text": "s5gnaturesecret",
    "user info": "u6serinfosecret",
    "the database's password": PASSWORD,
    "a part of it": "hunter2",
    "a mail address in no configured column": "carol.secret@example.com",
    "a hash in no configured column": "$2b$12$abcdefghijklmnopqrstuv",
    "a channel's": "t0ken",
}
SIGNED = "sv=2026-01-01&se=2027-01-01&sig="


def odd_urls(account: str) -> list[str]:
    """As users' rows may hold them."""
    blob = f"{account}/photos/odd/a.jpg"
    escaped = quote(SIGNED, safe="")
    return [
        f"{blob}?{SIGNED}{PLANTED['a signature']}",
        f"{blob}%3F{escaped}{PLANTED['one that is escaped']}",
        f"{blob}%253F{quote(escaped)}{PLANTED['one that is escaped twice']}",
        f"https://evil.example.com/a.jpg%3FX-Amz-Date%3D1%26X-Amz-Signature%3D{PLANTED['one of another host']}",
        f"see {blob}?{SIGNED}{PLANTED['one in a text']} and {blob}%3Fse%3D1%26sig%3D{PLANTED['one in a text']}",
        blob.replace("://", f"://ann:{PLANTED['user info']}@"),
    ]


def plant(world: World) -> None:
    """Odd URLs in profiles of their own, personal data beside them, and a trigger that speaks of it."""
    account = world.places.account_url
    with psycopg.connect(world.places.database_url) as connection:
        connection.execute("ALTER TABLE profiles ADD email text, ADD password_hash text")
        connection.execute(
            "UPDATE profiles SET email = %s, password_hash = %s",
            [PLANTED["a mail address in no configured column"], PLANTED["a hash in no configured column"]],
        )
        ids = [row[0] for row in connection.execute("SELECT id FROM profiles ORDER BY id DESC LIMIT 7").fetchall()]
        for id_, url in zip(ids, odd_urls(account), strict=False):
            connection.execute("UPDATE profiles SET photos = %s WHERE id = %s", [json.dumps([{"url": url}]), id_])
        connection.execute(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.id = (SELECT min(id) FROM profiles) THEN"
            " RAISE EXCEPTION 'no photos for % %', NEW.email, NEW.password_hash; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER meddle BEFORE UPDATE OF photos ON profiles FOR EACH ROW EXECUTE FUNCTION meddle()"
        )


def kept_in(url: str) -> Iterator[tuple[str, str]]:
    """Every row of every table but the app's own, as text."""
    with closing(psycopg.connect(url)) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
            " AND table_schema NOT IN ('pg_catalog', 'information_schema')"
            " AND table_name NOT IN ('profiles', 'verifications')"
        ).fetchall()
        for schema, table in tables:
            for (row,) in connection.execute(f'SELECT t::text FROM "{schema}"."{table}" t'):
                yield f"{schema}.{table}", row


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(AppSize(profiles=30, photos_per_profile=1, scale=0.01), profiles_per_range=100)


def test_planted_secrets_are_in_no_log_ledger_report_or_alert(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    plant(world)
    url = world.environment["DATABASE_URL"].replace("postgres@", f"postgres:{quote(PASSWORD, safe='')}@")
    assert url != world.environment["DATABASE_URL"]
    texts: list[tuple[str, str]] = []
    with servers() as (webhook, _):
        environment = {
            "DATABASE_URL": url,
            "ALERT_URLS": webhook.url,
            "MIGRATION_ALERTS__FREE_DISK_GIGABYTES": "0",
            "MIGRATION_SOURCE__QUERY": "drop",
        }
        for command in (
            ("plan", "--apply"), ("migrate", "--json"), ("status", "--json"), ("sweep", "--full"), ("audit",),
            ("dead-letters", "list"), ("dead-letters", "list", "--json"), ("dead-letters", "export", "letters.csv"),
            ("inventory",), ("report", "--out", "out"), ("acts",), ("doctor",), ("alerts", "test"), ("erase",),
        ):  # fmt: skip
            done = world.command(*command, **environment)
            assert done.returncode in (0, 1, 3), (command, done.stderr)
            texts += [(" ".join(command), text) for text in (done.stdout, done.stderr)]
        with patch.dict(os.environ, {**world.environment, **environment}), dg.DagsterInstance.get() as instance:
            alerts(dg.build_sensor_context(instance))
        assert {item["title"].split(":")[0] for item in webhook.got} >= {"[warning] Migration"}
        texts += [("an alert", json.dumps(item)) for item in webhook.got]
    dagster = world.environment["DATABASE_URL"].replace(world.places.bucket, world.environment["DAGSTER_PG_DB"])
    texts += [*kept_in(world.environment["DATABASE_URL"]), *kept_in(dagster)]
    texts += [("a log", record.getMessage()) for record in caplog.records if "alert_servers" not in record.name]
    for path in world.folder.rglob("*"):
        if path.is_file() and path.suffix != ".toml":
            texts.append((str(path.relative_to(world.folder)), path.read_bytes().decode("latin-1")))
    # The search finds what is there: odd values are told of, without what is secret in them.
    whole = "\n".join(text for _, text in texts)
    for sign in ("odd/a.jpg", "embedded", "unparsable", "SQLSTATE P0001", "migrated_profiles"):
        assert sign in whole, sign
    found = {
        (name, where)
        for name, secret in PLANTED.items()
        for where, text in texts
        if secret in text or quote(secret, safe="") in text
    }
    assert found == set()
