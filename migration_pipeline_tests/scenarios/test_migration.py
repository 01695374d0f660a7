"""The main job, end to end on real servers, judged by checks that share no code with the product."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import patch

import psycopg
import pytest

from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_stores
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World, flagged, ledger_text

SMALL = AppSize(profiles=48, photos_per_profile=1, scale=0.01)

# One range after the other in one process, without Dagster: what a run worker does.
WORKER = """
import sys
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.planning import keep, plan
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_stores
settings = load()
planned = plan(settings)
keep(planned, settings)
with open_stores(settings) as stores:
    for key in planned.keys:
        report = migrate_range(key, stores, copy_limits(settings))
        print(key, report.transferred.copied, report.complete, flush=True)
"""


def work(world: World) -> list[list[str]]:
    """Migrate every range in this process, and return key, copied files and completeness of each."""
    with patch.dict(os.environ, world.environment):
        settings = load()
        planned = plan(settings)
        keep(planned, settings)
        with open_stores(settings) as stores:
            reports = [(key, migrate_range(key, stores, copy_limits(settings))) for key in planned.keys]
    return [[key, str(report.transferred.copied), str(report.complete)] for key, report in reports]


def check_end(world: World, before: independent.References, stamps: dict[str, independent.Stamp]) -> None:
    """Everything that must hold after a migration, whatever happened on its way."""
    bad = {name for files in world.app.bad_files.values() for _, name in files}
    moved = {id_: before[id_] for id_ in world.of("migrated") if id_ in before}
    assert independent.check_copies(world.places, moved, leave_out=bad.__contains__) == []
    now = independent.references(world.places)
    ours = {url for id_ in moved for _, url in now[id_] if url.startswith(world.public_base_url)}
    assert len(ours) > 200
    assert independent.check_urls(ours) == []
    account, aliases = world.places.account_url, world.places.alias_hosts
    assert not [url for id_ in moved for _, url in now[id_] if independent.source_of(url, account, aliases)]
    for files in world.app.bad_files.values():
        for id_, name in files:
            old = [
                url
                for _, url in before[str(id_)]
                if "/".join(independent.source_of(url, account, aliases) or ()) == name
            ]
            assert old
            assert set(old) <= {url for _, url in now[str(id_)]}
    assert independent.untouched(world.places, stamps) == []
    # Profiles that were migrated before count as untouched, and keep their flag.
    assert flagged(world) - set(world.of("untouched")) == set(world.of("migrated"))


def neutral(world: World) -> str:
    """The end state as text in which two worlds can be compared."""
    state = json.dumps(independent.dump(world.places), sort_keys=True, default=str)
    return state.replace(world.public_base_url, "TARGET").replace(world.places.bucket, "WORLD")


@pytest.mark.timeout(900)
def test_the_whole_migration_through_dagster(make_world: MakeWorld) -> None:
    world = make_world(SMALL, profiles_per_range=16)
    before = independent.references(world.places)
    stamps = independent.stamps(world.places, world.of("untouched"))
    assert world.command("plan", "--apply").returncode == 0
    migrated = world.process("migrate", "--json")
    # Profiles with a bad file are left, and the exit code says so.
    assert migrated.returncode == 1, migrated.stderr
    said = json.loads(migrated.stdout)
    assert said["profiles"]["waiting"] == len(world.of("waiting"))
    check_end(world, before, stamps)

    letters = json.loads(world.command("dead-letters", "list", "--json").stdout)
    seeded = {(outcome, name) for outcome, files in world.app.bad_files.items() for _, name in files}
    assert {(item["outcome"], item["file"]) for item in letters} == seeded

    everyone = independent.stamps(world.places, world.app.expected)
    again = world.command("migrate", "--all", "--json")
    assert json.loads(again.stdout)["copied_now"] == 0
    assert independent.untouched(world.places, everyone) == []

    logs = [
        path.read_text(errors="replace")
        for path in world.folder.rglob("*")
        if path.is_file() and path.suffix != ".toml"
    ]
    with psycopg.connect(
        world.environment["DATABASE_URL"].replace(world.places.bucket, world.environment["DAGSTER_PG_DB"])
    ) as db:
        events = "\n".join(row[0] for row in db.execute("SELECT event FROM event_logs"))
    assert "migrated_profiles" in events
    everything = "\n".join([*logs, events, ledger_text(world), migrated.stdout, migrated.stderr, again.stderr])
    for secret in (*world.app.secrets, world.environment["AZURE_STORAGE_KEY"], "sandbox-secret", "sig="):
        assert secret not in everything


def test_uuid_ids_in_ranges_of_seven(make_world: MakeWorld) -> None:
    world = make_world(replace(SMALL, id_type="uuid"), profiles_per_range=7)
    before = independent.references(world.places)
    stamps = independent.stamps(world.places, world.of("untouched"))
    assert len(work(world)) == 7
    check_end(world, before, stamps)
    assert {copied for _, copied, _ in work(world)} == {"0"}


def test_a_killed_worker_leaves_nothing_that_the_next_cannot_finish(make_world: MakeWorld) -> None:
    undisturbed, killed = make_world(SMALL), make_world(SMALL)
    before = independent.references(killed.places)
    stamps = independent.stamps(killed.places, killed.of("untouched"))
    work(undisturbed)
    kills = 0
    for files in (30, 100, 200):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**os.environ, **killed.environment, "MIGRATION_COPY__IN_FLIGHT": "4"},
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and copied(killed) < files:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    work(killed)
    check_end(killed, before, stamps)
    assert neutral(killed) == neutral(undisturbed)


def copied(world: World) -> int:
    """Files that the ledger knows as copied, 0 before there is a ledger."""
    with psycopg.connect(world.places.database_url) as connection:
        if connection.execute("SELECT to_regclass('migration.files')").fetchone() == (None,):
            return 0
        row = connection.execute("SELECT count(*) FROM migration.files WHERE outcome = 'copied'").fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        ({"AZURE_STORAGE_KEY": "bm90IHRoZSBrZXk="}, "AZURE_STORAGE_KEY"),
        ({"MIGRATION_TARGET__BUCKET": "no-such-bucket"}, "target.bucket"),
        ({"DATABASE_URL": "postgresql://postgres:s3cret@127.0.0.1:1/app"}, "DATABASE_URL"),
        ({"MIGRATION_COPY__INFLIGHT": "3"}, "copy.inflight"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_written(
    make_world: MakeWorld, wrong: dict[str, str], setting: str
) -> None:
    world = make_world(AppSize(profiles=5, photos_per_profile=1, scale=0.01, bad_files=False))
    before = independent.stamps(world.places, world.app.expected)
    refused = world.command("migrate", **wrong)
    assert refused.returncode == 2
    assert setting in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "s3cret" not in refused.stderr
    assert independent.untouched(world.places, before) == []
    with psycopg.connect(world.places.database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('migration')").fetchone() == (None,)
