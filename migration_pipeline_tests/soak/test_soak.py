"""A short version of `make soak`, and the proof that it finds what is broken."""

import os
from collections.abc import Iterator

import pytest

from migration_pipeline.core.errors import MigrationError
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.soak.mutations import MUTATIONS, Mutation
from migration_pipeline_tests.soak.schedules import Told, World, open_world, run_schedule

SCHEDULES = int(os.environ.get("SOAK_SCHEDULES", "150"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
MOST = 60
"""Schedules within which a mutation must be found."""


@pytest.fixture(scope="module")
def world(sandbox: Sandbox) -> Iterator[World]:
    with open_world(sandbox) as opened:
        yield opened


@pytest.mark.timeout(900)
def test_promises_hold_whatever_the_order(world: World) -> None:
    told = Told()
    for seed in range(SEED, SEED + SCHEDULES):
        run_schedule(world, seed, told)
        assert told.broken == [], f"seed {seed}"
    assert told.schedules == SCHEDULES
    assert told.edits > 10 * SCHEDULES
    assert told.crashes > SCHEDULES // 2
    assert told.waited > 0


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_promise_is_found(world: World, mutation: Mutation) -> None:
    assert broken_by(world, mutation) & MUTATIONS[mutation]


def broken_by(world: World, mutation: Mutation) -> set[int]:
    """The promises broken in the first schedule that finds any."""
    told = Told()
    with mutation():
        for seed in range(SEED, SEED + MOST):
            try:
                run_schedule(world, seed, told)
            except MigrationError:
                # A run that ends by itself leaves all the others waiting.
                return {7}
            if told.broken:
                break
    return {broken.promise for broken in told.broken}
