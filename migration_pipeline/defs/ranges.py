"""The ranges as partitions, and the asset that plans them."""

from collections.abc import Sequence

import dagster as dg

from migration_pipeline.defs.resources import Migration

GROUP = "migration"

POOL = "ranges"
"""Runs that work on a range; its limit is how many do at the same time."""

profile_ranges_partitions = dg.DynamicPartitionsDefinition(name="profile_ranges")


@dg.asset(
    group_name=GROUP,
    kinds={"postgres"},
    tags={"stage": "plan"},
    description=(
        "Cuts the profiles into ranges, the partitions of the other assets. Planned ranges stay as they are; "
        "materialize this again to plan ranges for profiles that came later."
    ),
)
def profile_ranges(context: dg.AssetExecutionContext, migration: Migration) -> dg.MaterializeResult[None]:
    """Plan ranges and register them as partitions, in id order."""
    planned = migration.plan()
    register(context.instance, planned.keys)
    set_workers(context.instance, migration.workers)
    return dg.MaterializeResult(
        metadata={
            "ranges": len(planned.ranges),
            "new_ranges": len(planned.new),
            "profiles": planned.profiles,
            "largest_range": max((item.profiles for item in planned.ranges), default=0),
        }
    )


def register(instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
    """Make partitions of all planned ranges, and not only of new ones.

    A plan cut off between the ledger and here is so mended by the next; keys that exist already are left alone.
    """
    instance.add_dynamic_partitions(str(profile_ranges_partitions.name), list(keys))


def set_workers(instance: dg.DagsterInstance, workers: int) -> None:
    """Have so many ranges worked on at the same time, from now on."""
    instance.event_log_storage.set_concurrency_slots(POOL, workers)
