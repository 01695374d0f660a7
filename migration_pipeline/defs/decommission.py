"""The asset that removes blobs from the source; a dry run unless it is told otherwise."""

import dagster as dg
from pydantic import Field

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.core.removal_report import Decommissioned
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import CUTOVER, Removing, by_job
from migration_pipeline.defs.ranges import UPKEEP_POOL
from migration_pipeline.defs.resources import Migration


class Decommissioning(Removing):
    """Which ranges, who does it and why, and whether it is meant."""

    ranges: list[str] = Field(default=[], description="Partitions whose blobs are meant; all where none is named.")


@dg.asset(
    group_name=CUTOVER,
    deps=["audited_references"],
    kinds={"azure", "s3", "postgres", "firebase"},
    owners=pages.OWNERS,
    tags={"stage": "decommission"},
    pool=UPKEEP_POOL,
    description=(
        "Blobs of audited ranges whose copies are read and compared once more, removed from the source or archived "
        "there: at most decommission.max_delete a run. A dry run unless the config says apply: true; launch the job "
        "`decommission` from the Launchpad. Each is recorded in the ledger; there is no rollback afterwards."
    ),
)
def decommissioned_source(
    context: dg.AssetExecutionContext, config: Decommissioning, migration: Migration
) -> dg.MaterializeResult[None]:
    """Remove what is proven; fail where a copy is not what was proven."""
    config.checked()
    try:
        done = migration.decommission(
            config.ranges, apply=config.apply, who=config.by, why=config.why, say=context.log.info
        )
    except MigrationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metadata = _metadata(done)
    if done.alarming:
        raise dg.Failure(
            f"Missing in S3, or not what was proven: {count(done.alarming, 'copy', 'copies')}. Their blobs stay.",
            metadata,
            allow_retries=False,
        )
    return dg.MaterializeResult(metadata=metadata)


def _metadata(done: Decommissioned) -> pages.Metadata:
    examples = [[stay, file, more] for stay, some in done.examples.items() for file, more in some]
    ranges = [[key, str(files), f"{size / 1e6:,.1f}"] for key, (files, size) in done.ranges.items()]
    blobs = count(done.files, "blob")
    return {
        "summary": (f"{blobs} removed." if done.applied else f"{blobs} would be removed. Nothing was: a dry run.")
        if done.files
        else "Nothing to do.",
        "applied": int(done.applied),
        "blobs": done.files,
        "megabytes": round(done.bytes / 1e6, 1),
        "stay": done.reasons.total(),
        "ranges_passed_over": len(done.left),
        "cap_reached": int(done.capped),
        "closed_of_earlier_runs": done.closed,
        **pages.table("why_blobs_stay", ["why", "blobs"], [[w, str(n)] for w, n in done.reasons.most_common()]),
        **pages.table("examples", ["why", "blob", ""], examples),
        **pages.table("by_range", ["range", "blobs", "MB"], ranges),
        **pages.table("passed_over", ["range", "why"], [[key, why] for key, why in done.left.items()]),
        **pages.table("holds", ["what keeps blobs from being removed"], [[text] for text in done.refusals]),
    }


decommission_job = dg.define_asset_job(
    "decommission",
    selection=dg.AssetSelection.assets("decommissioned_source"),
    config=by_job("decommissioned_source", ranges=[]),
    description="Removes proven blobs from the source, or says which it would. Give apply, why and your name.",
)
