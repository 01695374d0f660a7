"""A short version of `make soak`, and the proof that it finds what is broken."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from migration_pipeline.core.errors import MigrationError
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.soak.mutations import (
    MUTATIONS,
    Mutation,
    archived_copies_relied_on,
    erased_while_referred_to,
    flag_before_firebase,
    flag_kept_on_the_way_back,
    flag_without_another_look,
    nothing_erased,
    old_evidence_relied_on,
    replaced_copies_left_behind,
    rollback_by_half,
)
from migration_pipeline_tests.soak.schedules import Aim, Told, World, open_world, run_schedule

SCHEDULES = int(os.environ.get("SOAK_SCHEDULES", "10"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
MOST = 60
"""Schedules within which a mutation must be found; most are in the first five."""
AIMS = {
    flag_before_firebase: Aim(cut_after="set_flags"),
    erased_while_referred_to: Aim(back=1),
    nothing_erased: Aim(back=1),
    rollback_by_half: Aim(back=1),
    flag_kept_on_the_way_back: Aim(back=1),
    old_evidence_relied_on: Aim(meddle=1),
    archived_copies_relied_on: Aim(meddle=1),
    replaced_copies_left_behind: Aim(back=1, meddle=1),
}
"""What must happen for the mutation to show, where few schedules do it by chance."""
SELDOM, SELDOM_MOST = flag_without_another_look, 1000
"""An edit must fall between two statements of one run: more than a hundred schedules did not meet it. `make test` has
`adapters/test_postgres.py::test_the_flag_is_set_only_where_the_row_is_clean_at_that_moment`, which always does."""


@pytest.fixture(scope="module")
def world(sandbox: Sandbox) -> Iterator[World]:
    with open_world(sandbox) as opened:
        yield opened


@pytest.mark.scaled
@pytest.mark.timeout(3600)
def test_promises_hold_whatever_the_order(world: World) -> None:
    told = Told()
    for seed in range(SEED, SEED + SCHEDULES):
        run_schedule(world, seed, told)
    assert told.broken == []
    assert (told.schedules, told.lost) == (SCHEDULES, 0)
    assert told.edits > 10 * SCHEDULES


def test_the_command_runs_schedules_and_says_what_came_of_them() -> None:
    command = [sys.executable, "-m", "migration_pipeline_tests.soak.run", "--schedules", "1", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.fullmatch(r"schedules 1, promises broken 0, edits \d+, lost 0\n", done.stdout), done.stderr
    assert done.returncode == 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "mutation",
    [pytest.param(each, marks=pytest.mark.campaign) if each is SELDOM else each for each in MUTATIONS],
    ids=lambda mutation: mutation.__name__,
)
def test_a_broken_promise_is_found(world: World, mutation: Mutation) -> None:
    expected, aim = MUTATIONS[mutation], AIMS.get(mutation, Aim())
    found: set[int] = set()
    with mutation():
        for seed in range(SEED, SEED + (SELDOM_MOST if mutation is SELDOM else MOST)):
            found |= broken_in_one(world, seed, aim)
            if found & expected:
                break
    assert found & expected


def broken_in_one(world: World, seed: int, aim: Aim) -> set[int]:
    told = Told()
    try:
        run_schedule(world, seed, told, aim)
    except MigrationError:
        return {7}  # a run that ends by itself leaves all the others waiting
    return {broken.promise for broken in told.broken}
