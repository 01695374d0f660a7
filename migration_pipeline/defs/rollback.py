"""The way back in the UI: a partition of ranges whose references lead to the source again."""

import dagster as dg
from pydantic import Field

from migration_pipeline.core.errors import Fatal, RangeBusy
from migration_pipeline.core.rollback import RolledBack
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import HOUSEKEEPING, Removing
from migration_pipeline.defs.migrated import NOT_ROLLED_BACK
from migration_pipeline.defs.ranges import UPKEEP_POOL, profile_ranges_partitions
from migration_pipeline.defs.resources import Migration


class RollingBack(Removing):
    """Who rolls the range back, why, and whether it is meant."""

    without_queries: bool = Field(default=False, description="Also URLs that had a SAS, which is not kept: without it.")


@dg.asset(
    group_name=HOUSEKEEPING,
    deps=["migrated_profiles"],
    kinds={"postgres", "firebase"},
    owners=pages.OWNERS,
    tags={"stage": "rollback"},
    partitions_def=profile_ranges_partitions,
    pool=UPKEEP_POOL,
    description=(
        "Ranges whose references lead to the source again, where it still has the very file that was copied. Copies "
        "stay in S3, and a range stays rolled back until somebody names it. A dry run unless the config says "
        "apply: true; launch the job `rollback`."
    ),
)
def rolled_back_ranges(
    context: dg.AssetExecutionContext, config: RollingBack, migration: Migration
) -> dg.MaterializeResult[None]:
    """Roll the range back; fail if a reference could not go."""
    config.checked()
    if not config.apply:
        return dg.MaterializeResult(
            metadata={
                "summary": "References would lead to the source again, where it still has the file unchanged, and "
                "flags would be cleared. Nothing was written: a dry run.",
                "applied": 0,
            }
        )
    try:
        done = migration.roll_back(
            context.partition_key, by=config.by, why=config.why, without_queries=config.without_queries
        )
    except (Fatal, RangeBusy) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metadata = _metadata(done)
    _tell(context, metadata)
    if not done.complete:
        raise dg.Failure(done.why_left(), metadata, allow_retries=False)
    return dg.MaterializeResult(metadata=metadata)


def _metadata(done: RolledBack) -> pages.Metadata:
    rows = [[str(item.profile_id), item.reason, str(item.file or "")] for item in done.left]
    return {
        "summary": done.why_left() or "All references to copies of ours lead to the source again.",
        "applied": 1,
        "profiles": done.profiles,
        "urls_in_database": done.database.urls,
        "urls_in_firebase": done.firebase.urls,
        "stayed_in_s3": done.stayed,
        "left": len(done.left),
        **pages.table("left_profiles", ["profile", "why", "file"], rows),
    }


def _tell(context: dg.AssetExecutionContext, metadata: pages.Metadata) -> None:
    """On the page of `migrated_profiles`: Dagster cannot take its green back, so a warning stands beside it."""
    partition = context.partition_key
    context.log_event(
        dg.AssetObservation("migrated_profiles", partition=partition, metadata={"rolled_back": True, **metadata})
    )
    context.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("migrated_profiles"),
            check_name=NOT_ROLLED_BACK,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            partition=partition,
            metadata={"summary": metadata["summary"], "profiles_left_in_s3": metadata["left"]},
        )
    )


rollback_job = dg.define_asset_job(
    "rollback",
    selection=dg.AssetSelection.assets("rolled_back_ranges"),
    # No config of the job's own: in a backfill it would silently take the place of what was typed into the dialog.
    description="Points references of ranges at the source again, or says it would. Choose partitions; in Config, set "
    "apply, why and your name.",
    tags={"dagster/max_runtime": str(4 * 3600)},
)
