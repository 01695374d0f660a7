"""The watchdog gives up runs without a worker, and launches lost retries; on real storages."""

import json
import time

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.definitions import defs
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.watchdog import GRACE_SECONDS, LOST_SECONDS, suspects, watchdog
from migration_pipeline_tests.defs.conftest import KEY

TAGS = {"dagster/partition": KEY}


def look(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"migration": Migration()}, definitions=defs
    )
    result = watchdog(context)
    assert isinstance(result, dg.SensorResult), result
    return result


def run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    return create_run_for_test(instance, job_name="migrate", status=status, tags={**TAGS, **tags}).run_id


def started(instance: dg.DagsterInstance, run_id: str) -> bool:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status is dg.DagsterRunStatus.STARTED


def long_ago(cursor: str | None) -> str:
    """The cursor as it would be, had the last look been earlier."""
    return json.dumps({run_id: at - GRACE_SECONDS - 1 for run_id, at in json.loads(cursor or "{}").items()})


def test_a_run_without_a_worker_is_given_up_at_the_second_look(ledger: object, instance: dg.DagsterInstance) -> None:
    assert ledger
    dead = run(instance, dg.DagsterRunStatus.STARTED)
    first = look(instance)
    assert set(json.loads(first.cursor or "")) == {dead}
    assert started(instance, dead)
    look(instance, first.cursor)
    assert started(instance, dead)
    second = look(instance, long_ago(first.cursor))
    assert not started(instance, dead)
    assert json.loads(second.cursor or "") == {}


def test_a_run_that_holds_its_range_is_left_alone(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    alive = run(instance, dg.DagsterRunStatus.STARTED)
    idle = look(instance).cursor
    with ledger.hold(KEY):
        seen = look(instance, long_ago(idle))
    assert json.loads(seen.cursor or "") == {}
    assert started(instance, alive)


def test_a_retry_that_dagster_lost_is_launched_three_times_at_most(
    ledger: object, instance: dg.DagsterInstance
) -> None:
    assert ledger
    lost = run(instance, dg.DagsterRunStatus.STARTED, **{"migration/tries": "2"})
    found = instance.get_run_by_id(lost)
    assert found is not None
    instance.report_run_failed(found)
    instance.add_run_tags(lost, {"dagster/will_retry": "true"})
    assert not look(instance).run_requests
    age(instance, lost, LOST_SECONDS + 1)
    (request,) = look(instance).run_requests or ()
    assert (request.partition_key, request.tags["migration/tries"]) == (KEY, "3")
    assert look(instance).run_requests, "a daemon that died before it launched the run asks again"
    assert will_retry(instance, lost)

    # The backfill that waits is set free once the run in its place is there.
    run(instance, dg.DagsterRunStatus.NOT_STARTED, **{"dagster/run_key": request.run_key or ""})
    assert not look(instance).run_requests
    assert not will_retry(instance, lost)


def test_after_three_tries_a_lost_retry_is_left(ledger: object, instance: dg.DagsterInstance) -> None:
    assert ledger
    tags = {"dagster/will_retry": "true", "migration/tries": "3"}
    lost = run(instance, dg.DagsterRunStatus.FAILURE, **tags)
    age(instance, lost, LOST_SECONDS + 1)
    assert not look(instance).run_requests
    assert not will_retry(instance, lost)


def will_retry(instance: dg.DagsterInstance, run_id: str) -> bool:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.tags["dagster/will_retry"] == "true"


def test_a_retry_that_was_launched_is_not_launched_again(ledger: object, instance: dg.DagsterInstance) -> None:
    assert ledger
    tags = {"dagster/will_retry": "true", "dagster/auto_retry_run_id": "another"}
    failed = run(instance, dg.DagsterRunStatus.FAILURE, **tags)
    age(instance, failed, LOST_SECONDS + 1)
    assert not look(instance).run_requests


def age(instance: dg.DagsterInstance, run_id: str, seconds: float) -> None:
    """Have the run ended so long ago."""
    import sqlalchemy as db  # noqa: PLC0415 - Dagster's own

    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined] # of SQLite's storage
        connection.execute(
            db.text("UPDATE runs SET end_time = :at WHERE run_id = :id"), {"at": time.time() - seconds, "id": run_id}
        )
        connection.commit()


def test_who_is_suspected_and_for_how_long() -> None:
    found = suspects(["a", "b", "c"], {"a": 0.0, "b": 100.0, "gone": 0.0}, now=GRACE_SECONDS)
    assert found.dead == ["a"]
    assert found.since == {"b": 100.0, "c": GRACE_SECONDS}
