"""The ranges as partitions, and the asset that plans them."""

from collections.abc import Sequence

import dagster as dg

from migration_pipeline.core.plan import made_by_a_planner
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import PLAN
from migration_pipeline.defs.plan_page import plan_page
from migration_pipeline.defs.resources import Migration

POOL, UPKEEP_POOL = "ranges", "upkeep"
"""Runs that migrate a range, and those that audit one or roll it back; each pool's limit is how many do at once. Two,
for paused runs keep their places, and the way back must not wait for them."""

profile_ranges_partitions = dg.DynamicPartitionsDefinition(name="profile_ranges")


@dg.asset(
    group_name=PLAN,
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "plan"},
    description=(
        "Cuts the profiles into ranges, the partitions of the other assets, and estimates by a sample what is to be "
        "moved, what it costs and how long it takes. Planned ranges stay as they are; "
        "materialize this again to plan ranges for profiles that came later."
    ),
)
def profile_ranges(context: dg.AssetExecutionContext, migration: Migration) -> dg.MaterializeResult[None]:
    """Plan ranges and register them as partitions, in id order."""
    planned, last = migration.plan(), migration.last_estimate()
    dropped = register(context.instance, planned.keys)
    set_workers(context.instance, migration.workers)
    unknown = pages.table("partitions_dropped", ["no planned range has this name"], [[key] for key in dropped])
    shown = plan_page(planned, *migration.estimate(planned), last, migration.currency)
    return dg.MaterializeResult(metadata=shown | unknown)


plan_job = dg.define_asset_job(
    "plan",
    selection=dg.AssetSelection.assets("profile_ranges"),
    description="Cuts the profiles into ranges, the partitions of the job migrate. Planned ranges stay as they are.",
)


def register(instance: dg.DagsterInstance, keys: Sequence[str]) -> list[str]:
    """Make partitions of all planned ranges, and drop keys that no planner makes; return the dropped ones.

    A plan cut off between the ledger and here is so mended by the next; keys that exist already are left alone. "Add a
    partition" in the UI takes any name, which no run could ever turn green. A key that a planner may have made stays,
    even if this ledger does not know it: another migration in the same Dagster instance may have planned it.

    Args:
        instance: whose partitions they are.
        keys: of every range that the ledger knows.
    """
    name = str(profile_ranges_partitions.name)
    instance.add_dynamic_partitions(name, list(keys))
    others = set(instance.get_dynamic_partitions(name)) - set(keys)
    unknown = sorted(key for key in others if not made_by_a_planner(key))
    for key in unknown:
        instance.delete_dynamic_partition(name, key)
    return unknown


def show_plan(instance: dg.DagsterInstance, shown: pages.Metadata) -> None:
    """Have the UI show a plan that was made elsewhere; else it asks at each click whether a plan is missing."""
    instance.report_runless_asset_event(dg.AssetMaterialization("profile_ranges", metadata=shown))


def set_workers(instance: dg.DagsterInstance, workers: int) -> None:
    """Have so many ranges worked on at the same time, from now on."""
    for pool in (POOL, UPKEEP_POOL):
        instance.event_log_storage.set_concurrency_slots(pool, workers)
