"""When a launch has settled, and what is active already; on Dagster's own storages."""

import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon import controller
from dagster._daemon.backfill import execute_backfill_iteration_loop

from migration_pipeline.commands import launches, prompt_daemon
from migration_pipeline.commands.launches import Launch
from migration_pipeline.definitions import defs
from migration_pipeline.defs.ranges import profile_ranges_partitions

FIRST, SECOND = "0000000001-0000000009", "0000000010-0000000019"
SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED
RETRIES = {"run_retries": {"enabled": True, "max_retries": 2}}
LAUNCH = Launch("abc", is_backfill=False, partitions=2)
BACKFILL = Launch("backfill", is_backfill=True, partitions=2)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides=RETRIES) as made:
        made.add_dynamic_partitions(str(profile_ranges_partitions.name), [FIRST, SECOND])
        yield made


def run(
    instance: dg.DagsterInstance, key: str, status: dg.DagsterRunStatus, *, of: Launch = LAUNCH, **tags: str
) -> None:
    tag = "dagster/backfill" if of.is_backfill else "migration/launch"
    said = {f"dagster/{name}": value for name, value in tags.items()}
    create_run_for_test(
        instance, job_name="migrate", status=status, tags={"dagster/partition": key, tag: of.id, **said}
    )


def settled(instance: dg.DagsterInstance, launch: Launch = LAUNCH) -> bool:
    return launches.state(instance, launch).settled


def test_it_has_settled_once_the_last_run_of_each_range_has_ended(instance: dg.DagsterInstance) -> None:
    run(instance, FIRST, SUCCESS)
    assert not settled(instance)
    run(instance, SECOND, FAILURE, will_retry="false")
    assert settled(instance)


def test_a_run_that_dagster_will_retry_has_not_settled(instance: dg.DagsterInstance) -> None:
    run(instance, FIRST, SUCCESS)
    # A failed run is told a moment later whether it will be retried.
    run(instance, SECOND, FAILURE)
    assert not settled(instance)
    run(instance, SECOND, FAILURE, will_retry="true")
    assert not settled(instance)
    run(instance, SECOND, STARTED, will_retry="true")
    assert not settled(instance)
    run(instance, SECOND, SUCCESS)
    assert settled(instance)


def add_backfill(instance: dg.DagsterInstance, status: BulkActionStatus) -> None:
    keys = {AssetKeyPartitionKey(dg.AssetKey("migrated_profiles"), key) for key in (FIRST, SECOND)}
    subset = AssetGraphSubset.from_asset_partition_set(keys, defs.get_repository_def().asset_graph)
    made = PartitionBackfill.from_asset_graph_subset(
        backfill_id=BACKFILL.id, asset_graph_subset=subset, backfill_timestamp=1.0, tags={},
        dynamic_partitions_store=instance, title=None, description=None, run_config=None,
    )  # fmt: skip
    instance.add_backfill(made.with_status(status))


def test_a_backfill_settles_before_its_daemon_ends_it(instance: dg.DagsterInstance) -> None:
    add_backfill(instance, BulkActionStatus.REQUESTED)
    run(instance, FIRST, SUCCESS, of=BACKFILL)
    assert not settled(instance, BACKFILL)
    run(instance, SECOND, SUCCESS, of=BACKFILL)
    state = launches.state(instance, BACKFILL)
    assert (state.settled, state.ended, state.succeeded) == (True, False, 2)
    # How many ranges somebody else's backfill has is not known: its own status decides.
    assert not settled(instance, BACKFILL._replace(partitions=None))


def test_a_backfill_that_dagster_gave_up_has_ended(instance: dg.DagsterInstance) -> None:
    add_backfill(instance, BulkActionStatus.FAILED)
    assert launches.state(instance, BACKFILL).ended


def test_what_is_active_is_found(instance: dg.DagsterInstance) -> None:
    assert launches.active(instance) is None
    run(instance, FIRST, STARTED)
    run(instance, SECOND, SUCCESS)
    assert launches.active(instance) == LAUNCH
    assert launches.partitions(instance, LAUNCH) == {FIRST, SECOND}
    add_backfill(instance, BulkActionStatus.REQUESTED)
    assert launches.active(instance) == BACKFILL._replace(partitions=None)


@pytest.mark.parametrize("named", [True, False])
def test_a_backfill_says_whether_its_ranges_were_named(monkeypatch: pytest.MonkeyPatch, *, named: bool) -> None:
    asked: list[tuple[str, Any]] = []

    def answer(location: str, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        assert "launchPartitionBackfill" in query
        asked.append((location, variables["params"]))
        return {"data": {"launchPartitionBackfill": {"backfillId": "abc"}}}

    monkeypatch.setattr(launches, "_graphql", answer)
    launched = launches.launch("photos", [FIRST, SECOND], at_once=1, named=named)
    assert launched == Launch("abc", is_backfill=True, partitions=2)
    [(location, params)] = asked
    assert (location, params["title"]) == ("photos", "migrate 2 ranges")
    assert params["tags"] == ([{"key": "migration/named", "value": "true"}] if named else [])


class Waits(threading.Event):
    """Remembers how long a loop wanted to wait, and does not wait."""

    seconds: float = -1

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds = timeout or 0
        return True


def test_our_own_daemon_looks_at_backfills_often(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster has no setting for it: this fails where a release reads the interval from somewhere else."""
    monkeypatch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", controller.DEFAULT_DAEMON_INTERVAL_SECONDS)
    prompt_daemon.shorten_ticks()
    with create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as context:
        waits = Waits()
        loop = iter(execute_backfill_iteration_loop(context, logging.getLogger(), waits))
        while waits.seconds < 0:
            next(loop)
    assert 0 < waits.seconds <= prompt_daemon.TICK_SECONDS
