"""The asset that takes rows nobody needs any more out of the ledger; a dry run unless it is told otherwise."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import HOUSEKEEPING, Removing, by_job
from migration_pipeline.defs.ranges import UPKEEP_POOL
from migration_pipeline.defs.resources import Migration
from migration_pipeline.report.archive import Archived


class Archiving(Removing):
    """Where to, who does it and why, and whether it is meant."""

    folder: str = Field(
        default="migration-archive", description="For the Parquet files, on the machine that runs this: one that lasts."
    )


@dg.asset(
    group_name=HOUSEKEEPING,
    deps=["decommissioned_source"],
    kinds={"postgres", "parquet"},
    owners=pages.OWNERS,
    tags={"stage": "archive"},
    pool=UPKEEP_POOL,
    description=(
        "The ledger's rows of finished ranges, exported as Parquet files, read back, and dropped, 256 ranges at a "
        "time: those that were audited and whose blobs were removed from the source. A dry run unless the config says "
        "apply: true; launch the job `archive` from the Launchpad."
    ),
)
def archived_ranges(
    context: dg.AssetExecutionContext, config: Archiving, migration: Migration
) -> dg.MaterializeResult[None]:
    """Export and drop what is finished."""
    config.checked()
    try:
        done = migration.archive(
            Path(config.folder), apply=config.apply, who=config.by, why=config.why, say=context.log.info
        )
    except MigrationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    return dg.MaterializeResult(metadata=_metadata(done))


def _metadata(done: Archived) -> pages.Metadata:
    files = [[kept.name, f"{kept.rows:,}", f"{kept.bytes:,}", kept.sha256] for kept in done.files]
    ranges = count(done.ranges, "range")
    return {
        "summary": (f"{ranges} archived." if done.applied else f"{ranges} would be archived. None was: a dry run.")
        if done.ranges
        else "Nothing to do.",
        "applied": int(done.applied),
        "ranges": done.ranges,
        "rows": done.rows,
        "files_dropped": done.dropped,
        "ranges_left": len(done.left),
        "ranges_finished_but_left": done.with_these,
        **pages.table("files", ["file", "rows", "bytes", "SHA-256"], files),
        **pages.table("left", ["range", "why"], [[key, why] for key, why in done.left.items()]),
    }


archive_job = dg.define_asset_job(
    "archive",
    selection=dg.AssetSelection.assets("archived_ranges"),
    config=by_job("archived_ranges", folder="migration-archive"),
    description="Exports the ledger's rows of finished ranges and drops them. Give apply, a folder, why and your name.",
)
