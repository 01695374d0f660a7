"""An operator's day: forty ranges, a worker and the daemon killed, dead letters, and all of it made green."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from azure.storage.blob import BlobClient

from migration_pipeline.commands.dagster_instance import shipped
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World, flagged
from migration_pipeline_tests.scenarios.dagster_ui import PROMPT, DagsterUi, wait_for
from migration_pipeline_tests.scenarios.test_dagster_dev import kill_a_worker, tags
from migration_pipeline_tests.scenarios.test_migration import copied

APP = AppSize(profiles=80, photos_per_profile=2, scale=0.01)
RANGES, WORKERS = 40, 2
"""Ranges at least: the planner cuts by files, too."""


class Service:
    """A part of Dagster, in a process group of its own."""

    def __init__(self, world: World, command: list[str], log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, "-w", str(shipped("workspace.yaml"))],
            env={**os.environ, **world.environment, **PROMPT},
            cwd=world.folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def kill_with_all_that_it_started(self) -> None:
        """Code servers and run workers too, as when the machine goes down."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            finally:
                if self._process.poll() is None:
                    os.killpg(self._process.pid, signal.SIGKILL)
                    self._process.wait()
        self._log.close()


@dataclass
class Services:
    """Webserver and daemon, each by itself, as in production."""

    world: World
    ui: DagsterUi
    stack: ExitStack
    port: int
    web: Service = field(init=False)
    daemon: Service = field(init=False)

    def __post_init__(self) -> None:
        self.start_web()
        self.start_daemon()

    def start_web(self) -> None:
        command = ["dagster_webserver", "-h", "127.0.0.1", "-p", str(self.port)]
        self.web = Service(self.world, command, self.world.folder / "webserver.log")
        self.stack.callback(self.web.close)
        wait_for(self.ui.ready, 120)

    def start_daemon(self) -> None:
        self.daemon = Service(self.world, ["dagster._daemon", "run"], self.world.folder / "daemon.log")
        self.stack.callback(self.daemon.close)


@contextmanager
def services(world: World) -> Iterator[Services]:
    port = free_ports(1)[0]
    with ExitStack() as stack:
        yield Services(world, DagsterUi(port), stack, port)


def statuses(ui: DagsterUi, asset: str = "migrated_profiles") -> tuple[set[str], set[str]]:
    """The asset's green partitions and its red ones."""
    nodes = ui.ask(
        "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetPartitionStatuses {"
        " ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } }",
        key={"path": [asset]},
    )["assetNodes"]
    found = nodes[0]["assetPartitionStatuses"]
    return set(found["materializedPartitions"]), set(found["failedPartitions"])


def ended_watching_workers(ui: DagsterUi, backfill: str, seconds: float) -> int:
    """Wait for the backfill's end; return how many runs were at work at the same time, at most."""
    most, deadline = 0, time.monotonic() + seconds
    while not ui.ended(backfill):
        most = max(most, sum(run["status"] in ("STARTING", "STARTED") for run in ui.runs(backfill)))
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return most


def tries(world: World) -> dict[str, int]:
    """File → tries over all runs, of all that the ledger knows."""
    with psycopg.connect(world.places.database_url) as connection:
        rows: list[Any] = connection.execute(
            "SELECT container || '/' || blob, attempts FROM migration.files"
        ).fetchall()
    return dict(rows)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_an_operators_day(make_world: MakeWorld) -> None:
    world = make_world(APP, profiles_per_range=2)
    bad = {name for files in world.app.bad_files.values() for _, name in files} - {mended(world)}
    assert len(bad) == 3
    assert world.command("plan", "--apply").returncode == 0

    with one_bad_file_mended(world), services(world) as running:
        ui = running.ui
        keys = ui.assets()["migrated_profiles"]
        assert len(keys) >= RANGES
        backfill = ui.backfill(keys)
        killed = kill_a_worker(ui, backfill, world)
        running.daemon.kill()
        running.start_daemon()
        assert ended_watching_workers(ui, backfill, 600) <= WORKERS

        # The killed run was run again by itself; exactly the ranges with bad files are red.
        assert [
            tags(run)["dagster/parent_run_id"] for run in ui.runs(backfill) if "dagster/retry_number" in tags(run)
        ] == [killed]
        green, red = statuses(ui)
        assert (len(green), len(red)) == (len(keys) - 3, 3)
        files, before = copied(world), tries(world)

        # Running the failed ones again tries their bad files, and copies nothing.
        again = ui.backfill(sorted(red))
        wait_for(lambda: ui.ended(again), 180)
        assert copied(world) == files
        assert {name for name, tried in tries(world).items() if tried > before[name]} == bad
        assert statuses(ui) == (green, red)

        # Waived, their ranges are run by the sensor, and turn green; the references stay as they are.
        references = independent.references(world.places)
        done = world.command("dead-letters", "waive", "--all", "--apply", "--why", "lost long ago", "--by", "ann")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: statuses(ui) == (green | red, set()), 180)
        assert independent.references(world.places) == references
        assert flagged(world) >= {*world.of("migrated"), *world.of("waiting")}

    shown = world.command("status", "--json")
    assert shown.returncode == 0, shown.stderr
    acts = world.command("acts").stdout
    assert "waive" in acts
    assert "lost long ago" in acts


def mended(world: World) -> str:
    ((_, name),) = world.app.bad_files["source_missing"]
    return name


@contextmanager
def one_bad_file_mended(world: World) -> Iterator[None]:
    """The blob that is missing is found again before the migration begins; later worlds share the container."""
    container, blob = mended(world).split("/", 1)
    key = world.environment["AZURE_STORAGE_KEY"]
    with BlobClient(world.places.account_url, container, blob, credential=key) as client:
        client.upload_blob(b"found again")
        yield
        client.delete_blob()
