"""The ranges as partitions, and the asset that plans them."""

import dagster as dg

from migration_pipeline.defs.resources import Migration

GROUP = "migration"

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
    ranges, new = migration.plan()
    # Every range and not only the new ones: a run cut off between ledger and partitions is mended by the next.
    context.instance.add_dynamic_partitions(str(profile_ranges_partitions.name), [item.key for item in ranges])
    return dg.MaterializeResult(
        metadata={
            "ranges": len(ranges),
            "new_ranges": len(new),
            "profiles": sum(item.profiles for item in ranges),
            "largest_range": max((item.profiles for item in ranges), default=0),
        }
    )
