"""Whose run it is, in an instance that others use too; and what the user's daemon calls this project's location."""

import json
import time

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)
from dagster._core.test_utils import create_run_for_test

from migration_pipeline.commands.launches import location_of
from migration_pipeline.definitions import defs
from migration_pipeline.defs.migrated import is_named
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.situation import JOBS, is_ours
from migration_pipeline.defs.watchdog import GRACE_SECONDS, watchdog
from migration_pipeline_tests.defs.conftest import KEY

OURS, OTHERS = "photos", "analytics"


def at(location: str) -> RemoteRepositoryOrigin:
    return RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__")


def run(instance: dg.DagsterInstance, location: str | None, job: str, *assets: str, **more: object) -> dg.DagsterRun:
    made = create_run_for_test(
        instance,
        job_name=job,
        remote_job_origin=RemoteJobOrigin(at(location), job) if location else None,
        asset_selection=frozenset(map(dg.AssetKey, assets)) or None,
        **more,
    )
    assert isinstance(made, dg.DagsterRun)
    return made


def test_every_job_of_this_project_is_known_by_its_name() -> None:
    names = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert names == JOBS


@pytest.mark.parametrize(
    ("location", "job", "asset", "mine"),
    [
        (OURS, "any_job", None, True),
        (OURS, "__ASSET_JOB", "dead_letters", True),
        # Somebody else's job or asset may have a name that one of ours has.
        (OTHERS, "sweep", None, False),
        (OTHERS, "__ASSET_JOB", "dead_letters", False),
        (None, "migrate", None, True),
        (None, "__ASSET_JOB", "migrated_profiles", True),
        (None, "refresh_dashboards", "orders", False),
    ],
)
def test_a_run_is_ours_by_its_location_whatever_that_is_called(
    instance: dg.DagsterInstance, location: str | None, job: str, asset: str | None, *, mine: bool
) -> None:
    assert is_ours(run(instance, location, job, *([asset] if asset else [])), OURS) is mine


def test_the_watchdog_leaves_another_migration_s_runs_alone(ledger: object, instance: dg.DagsterInstance) -> None:
    """Its ranges may have the names of ours, and no lock of our ledger tells of its workers."""
    assert ledger
    started = {"status": dg.DagsterRunStatus.STARTED, "tags": {"dagster/partition": KEY}}
    mine, other = (run(instance, location, "migrate", **started).run_id for location in (OURS, OTHERS))
    long_ago = {run_id: time.time() - GRACE_SECONDS - 1 for run_id in (mine, other)}
    context = dg.SensorEvaluationContext(
        instance_ref=None, instance=instance, cursor=json.dumps(long_ago), definitions=defs,
        resources={"migration": dg.ResourceDefinition.hardcoded_resource(Migration())},
        code_location_origin=RegisteredCodeLocationOrigin(OURS),
    )  # fmt: skip
    with context:
        watchdog(context)
    statuses = [found.status for run_id in (mine, other) if (found := instance.get_run_by_id(run_id))]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"dagster/partition": KEY}, True),
        ({"dagster/backfill": "abc"}, False),
        ({"dagster/sensor_name": "requested_ranges"}, False),
        ({"dagster/backfill": "abc", "migration/named": "true"}, True),
        # Re-executed, a backfill has the tags of the first; its ranges were named for that one only.
        ({"dagster/backfill": "def", "migration/named": "true", "dagster/parent_backfill_id": "abc"}, False),
    ],
)
def test_a_range_is_named_by_its_own_run_or_by_a_backfill_of_named_ones(tags: dict[str, str], *, named: bool) -> None:
    assert is_named(tags) is named


def ticked(instance: dg.DagsterInstance, location: str, sensor: str, when: float) -> None:
    state = InstigatorState(
        RemoteInstigatorOrigin(at(location), sensor), InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE,
        SensorInstigatorData(last_tick_timestamp=when, sensor_type=SensorType.STANDARD),
    )  # fmt: skip
    instance.add_instigator_state(state)


def test_the_location_is_the_one_whose_sensors_the_daemon_ticks(instance: dg.DagsterInstance) -> None:
    assert location_of(instance) == "migration_pipeline"
    # Another project has a sensor of that name, and not the others.
    ticked(instance, OTHERS, "watchdog", 900.0)
    assert location_of(instance) == "migration_pipeline"
    for when, sensor in enumerate(("fresh_pages", "requested_ranges", "watchdog")):
        ticked(instance, "its old name", sensor, 10.0 + when)
        ticked(instance, OURS, sensor, 100.0 + when)
    assert location_of(instance) == OURS
