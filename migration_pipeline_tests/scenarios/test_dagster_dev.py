"""`dagster dev` with the sandbox's environment: what an operator has before them."""

import os
import signal
from typing import Any

import pytest

from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World
from migration_pipeline_tests.scenarios.dagster_ui import STAGES, DagsterUi, dagster_dev, wait_for
from migration_pipeline_tests.scenarios.test_migration import SMALL, check_end, copied, neutral, work


@pytest.mark.timeout(600)
def test_a_backfill_from_the_ui_whose_worker_is_killed(make_world: MakeWorld) -> None:
    undisturbed, world = make_world(SMALL, profiles_per_range=16), make_world(SMALL, profiles_per_range=16)
    before = independent.references(world.places)
    stamps = independent.stamps(world.places, world.of("untouched"))
    work(undisturbed)
    assert world.command("plan", "--apply").returncode == 0
    with dagster_dev(world, MIGRATION_COPY__IN_FLIGHT="2") as ui:
        assets = ui.assets()
        keys = assets["file_copies"]
        assert len(keys) == 3
        assert all(assets[stage] == keys for stage in STAGES)
        backfill = ui.backfill(keys)
        killed = kill_a_worker(ui, backfill, world)
        wait_for(lambda: ui.ended(backfill), 180)
        runs = ui.runs(backfill)
        # The killed run is run again by itself; ranges that hold bad files fail and are not.
        assert {run["status"] for run in runs if run["id"] == killed} == {"FAILURE"}
        assert [tags(run)["dagster/parent_run_id"] for run in runs if "dagster/retry_number" in tags(run)] == [killed]
        assert len(runs) == 4
        check_end(world, before, stamps)
        assert neutral(world) == neutral(undisturbed)

        everyone = independent.stamps(world.places, world.app.expected)
        files = copied(world)
        again = ui.backfill(keys)
        wait_for(lambda: ui.ended(again), 120)
        assert copied(world) == files
        assert independent.untouched(world.places, everyone) == []


def kill_a_worker(ui: DagsterUi, backfill: str, world: World) -> str:
    """SIGKILL the process of a run in the middle of its copies; return the run's id."""
    wait_for(lambda: copied(world) >= 30, 120)
    for run in ui.runs(backfill):
        pid = ui.pid_of(run["id"]) if run["status"] == "STARTED" else None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            return str(run["id"])
    raise AssertionError("no run was at work")


def tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}
