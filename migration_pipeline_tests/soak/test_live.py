"""Short versions of `make soak-kill` and `make workload`."""

import os
from collections.abc import Iterator

import pytest

from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.soak.live import READ_TWICE, kill, workload
from migration_pipeline_tests.soak.schedules import World, open_world

KILLS = int(os.environ.get("SOAK_KILLS", "3"))
EDITS = int(os.environ.get("SOAK_EDITS", "250"))


@pytest.fixture
def world(sandbox: Sandbox) -> Iterator[World]:
    with open_world(sandbox) as opened:
        yield opened


@pytest.mark.scaled
def test_workers_killed_again_and_again_under_live_edits(world: World) -> None:
    told = kill(world, kills=KILLS)
    assert (told.broken, told.failed) == ([], [])
    assert told.edits > 10 * KILLS
    assert told.files > 100
    assert told.compared <= KILLS * READ_TWICE


@pytest.mark.scaled
def test_the_app_goes_on_beside_a_worker_without_a_failure(world: World) -> None:
    told, alone, beside = workload(world, edits=EDITS)
    assert (told.broken, told.failed, told.lost) == ([], [], 0)
    assert min(len(alone), len(beside)) > 50
