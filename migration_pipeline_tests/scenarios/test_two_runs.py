"""Two runs on one range: the second ends with a clear word, and changes nothing."""

import os

import dagster as dg
import pytest

from migration_pipeline.definitions import defs
from migration_pipeline.defs.migrated import migrated_range
from migration_pipeline.defs.ranges import register
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.settings import load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld

TINY = AppSize(profiles=5, photos_per_profile=1, scale=0.01, bad_files=False)


def test_a_range_that_another_run_holds_is_refused(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(TINY)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    settings = load(os.environ)
    planned = plan(settings)
    keep(planned, settings)
    key = planned.keys[0]
    before = independent.stamps(world.places, world.app.expected)

    def run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [migrated_range], instance=instance, partition_key=key, resources=defs.resources, raise_on_error=False
        )

    with dg.instance_for_test() as instance:
        register(instance, planned.keys)
        ledger = open_ledger(settings)
        with ledger.hold(key):
            refused = run(instance)
        ledger.close()
        assert not refused.success
        failure = next(event for event in refused.all_events if event.is_step_failure)
        assert failure.step_failure_data.error is not None
        assert f"range {key} is being worked on by another run" in failure.step_failure_data.error.message
        assert independent.untouched(world.places, before) == []
        assert run(instance).success
