"""The watchdog gives up runs without a worker, and launches lost retries; on real storages."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from migration_pipeline.adapters.postgres_ledger import PostgresLedger
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.defs.ranges import profile_ranges_partitions
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.watchdog import GRACE_SECONDS, LOST_SECONDS, suspects, watchdog
from migration_pipeline.sandbox import Sandbox

KEY = "0000000001-0000000009"
TAGS = {"dagster/partition": KEY}


@pytest.fixture
def ledger(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresLedger]:
    url = sandbox.create_database(f"d{uuid4().hex[:12]}")
    for name, value in {
        "DATABASE_URL": url, "MIGRATION_CONFIG": "/dev/null", "MIGRATION_FIREBASE__KIND": "none",
        "MIGRATION_SOURCE__ACCOUNT_URL": sandbox.azure_account_url, "MIGRATION_SOURCE__CONTAINERS": '["photos"]',
        "MIGRATION_TARGET__BUCKET": "b", "MIGRATION_TARGET__REGION": "us-east-1",
        "MIGRATION_TARGET__PUBLIC_BASE_URL": "https://cdn.example.com",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges([ProfileRange(KEY, 1, None, 9, 3)])
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.add_dynamic_partitions(str(profile_ranges_partitions.name), [KEY])
        yield made


def look(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"migration": Migration()})
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
    set_free = instance.get_run_by_id(lost)
    assert set_free is not None
    assert set_free.tags["dagster/will_retry"] == "false"
    assert not look(instance).run_requests

    instance.add_run_tags(lost, {"dagster/will_retry": "true", "migration/tries": "3"})
    assert not look(instance).run_requests


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
