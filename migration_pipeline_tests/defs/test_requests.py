"""Ranges that somebody asked for are run once each, on real storages."""

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.defs.migrated import migrated_range
from migration_pipeline.defs.requests import MAX_TRIES, requested_ranges
from migration_pipeline.defs.resources import Migration
from migration_pipeline_tests.defs.conftest import KEY


def asked(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    context = dg.build_sensor_context(instance=instance, resources={"migration": Migration()})
    said = list(requested_ranges(context))
    assert all(isinstance(item, dg.RunRequest) for item in said), said
    return said


def run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    return create_run_for_test(instance, status=status, tags={"dagster/partition": KEY, **tags}).run_id


def test_a_range_is_run_once_for_each_request(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    assert asked(instance) == []
    ledger.request([KEY], "something came late")
    (request,) = asked(instance)
    assert (request.partition_key, request.tags["migration/why"]) == (KEY, "something came late")
    queued = run(instance, dg.DagsterRunStatus.NOT_STARTED, **request.tags)
    assert asked(instance) == []  # however long it is queued
    found = instance.get_run_by_id(queued)
    assert found is not None
    with ledger.hold(KEY):
        assert asked(instance) == []
    assert ledger.requested() == []  # a run that begins fulfils it


def test_a_run_that_is_queued_anyway_will_do(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    ledger.request([KEY], "something came late")
    run(instance, dg.DagsterRunStatus.NOT_STARTED)
    assert asked(instance) == []


def test_runs_that_end_before_they_begin_are_tried_three_times(
    ledger: PostgresLedger, instance: dg.DagsterInstance
) -> None:
    ledger.request([KEY], "something came late")
    keys = set()
    for _ in range(MAX_TRIES):
        (request,) = asked(instance)
        keys.add(request.run_key)
        run(instance, dg.DagsterRunStatus.FAILURE, **request.tags)
    assert len(keys) == MAX_TRIES
    assert asked(instance) == []


def test_a_range_that_was_rolled_back_stays_so(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    with ledger.hold(KEY) as (_, held):
        held.finish({"waiting": 0}, rolled_back=True)
    ledger.request([KEY], "something came late")
    assert asked(instance) == []


def test_a_database_that_is_away_is_waited_for(ledger: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@127.0.0.1:1/app")
    with pytest.raises(dg.RetryRequested) as again:
        list(migrated_range(dg.build_asset_context(partition_key=KEY), migration=Migration()))
    assert again.value.max_retries * (again.value.seconds_to_wait or 0) >= 600
