"""What is left of a backfill that Dagster gave up is asked for once; on real storages."""

import time

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.definitions import defs
from migration_pipeline.defs.given_up import ask_again
from migration_pipeline.defs.ranges import profile_ranges_partitions
from migration_pipeline_tests.defs.conftest import KEY
from migration_pipeline_tests.defs.test_watchdog import look

MORE = [ProfileRange("0000000010-0000000019", 2, 9, 19, 3), ProfileRange("0000000020-0000000029", 3, 19, 29, 3)]
KEYS = [KEY, *(item.key for item in MORE)]
REPOSITORY = defs.get_repository_def()


@pytest.fixture
def planned(ledger: PostgresLedger, instance: dg.DagsterInstance) -> PostgresLedger:
    """Three ranges, of which the first is done."""
    ledger.add_ranges(MORE)
    instance.add_dynamic_partitions(str(profile_ranges_partitions.name), [item.key for item in MORE])
    with ledger.hold(KEY) as (_, held):
        held.finish({"waiting": 0})
    return ledger


def backfill(
    instance: dg.DagsterInstance,
    status: BulkActionStatus,
    name: str = "abcdefgh",
    *,
    asset: str = "migrated_profiles",
    began: float | None = None,
) -> None:
    partitions = {AssetKeyPartitionKey(dg.AssetKey(asset), key) for key in KEYS}
    instance.add_backfill(
        PartitionBackfill.from_asset_graph_subset(
            backfill_id=name,
            asset_graph_subset=AssetGraphSubset.from_asset_partition_set(partitions, REPOSITORY.asset_graph),
            backfill_timestamp=began or time.time(),
            tags={},
            dynamic_partitions_store=instance,
            title=None,
            description=None,
            run_config=None,
        ).with_status(status)
    )


def requested(ledger: PostgresLedger) -> list[str]:
    return [item.range_key for item in ledger.requested()]


def test_ranges_that_are_not_done_are_asked_for_once(planned: PostgresLedger, instance: dg.DagsterInstance) -> None:
    backfill(instance, BulkActionStatus.FAILED)
    look(instance)
    assert requested(planned) == KEYS[1:]
    assert {item.why for item in planned.requested()} == {"Dagster gave up the backfill abcdefgh"}
    with planned.hold(KEYS[1]) as (_, held):  # it runs, and profiles are left
        held.finish({"waiting": 2})
    look(instance)
    assert requested(planned) == KEYS[2:], "a range that ran is not asked for again"


@pytest.mark.parametrize(
    "status",
    [
        BulkActionStatus.REQUESTED, BulkActionStatus.CANCELED, BulkActionStatus.COMPLETED_FAILED,
        BulkActionStatus.COMPLETED_SUCCESS, BulkActionStatus.FAILING,
    ],
)  # fmt: skip
def test_other_ends_of_a_backfill_are_left_to_people(
    planned: PostgresLedger, instance: dg.DagsterInstance, status: BulkActionStatus
) -> None:
    backfill(instance, status)
    assert ask_again(instance, REPOSITORY, planned) == []
    assert requested(planned) == []


def test_backfills_of_other_assets_and_of_long_ago_are_no_business_of_its(
    planned: PostgresLedger, instance: dg.DagsterInstance
) -> None:
    backfill(instance, BulkActionStatus.FAILED, "audited", asset="audited_references")
    backfill(instance, BulkActionStatus.FAILED, "old", began=time.time() - 2 * 24 * 3600)
    assert ask_again(instance, REPOSITORY, planned) == []
    assert requested(planned) == []


def test_a_backfill_of_the_job_is_asked_for_again_like_one_of_the_assets(
    planned: PostgresLedger, instance: dg.DagsterInstance
) -> None:
    instance.add_backfill(
        PartitionBackfill(
            backfill_id="of-the-job", status=BulkActionStatus.FAILED, from_failure=False, tags={},
            backfill_timestamp=time.time(), partition_names=KEYS[:2],
            asset_selection=[dg.AssetKey("migrated_profiles")],
        )
    )  # fmt: skip
    assert ask_again(instance, REPOSITORY, planned) == KEYS[1:2]


def test_a_second_backfill_is_another_matter(planned: PostgresLedger, instance: dg.DagsterInstance) -> None:
    backfill(instance, BulkActionStatus.FAILED, "first")
    assert ask_again(instance, REPOSITORY, planned) == KEYS[1:]
    backfill(instance, BulkActionStatus.FAILED, "second")
    assert ask_again(instance, REPOSITORY, planned) == KEYS[1:]
    assert ask_again(instance, REPOSITORY, planned) == []
