"""What looks after a migration: sweeps for what came late, erasing, audits, and the way back."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.audit import Audited
from migration_pipeline.core.errors import Fatal, RangeBusy
from migration_pipeline.core.findings import Finding
from migration_pipeline.core.sweep import Swept
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import HOUSEKEEPING, VERIFY, Removing, by_job, by_schedule
from migration_pipeline.defs.migrated import check_result, partitioned_checks
from migration_pipeline.defs.ranges import UPKEEP_POOL, profile_ranges_partitions
from migration_pipeline.defs.resources import Migration

_NOT_LONGER = {"dagster/max_runtime": str(4 * 3600)}
"""Seconds after which such a run counts as dead: none of these waits while the migration is paused."""


@dg.asset(
    group_name=VERIFY,
    deps=["migrated_profiles"],
    kinds={"postgres", "firebase"},
    owners=pages.OWNERS,
    tags={"stage": "sweep"},
    description=(
        "Profiles that were done with and hold a URL of the source again: an old client wrote it back. Their flag is "
        "cleared and their range asked to run again, which the sensor requested_ranges does."
    ),
)
def late_references(migration: Migration) -> dg.MaterializeResult[None]:
    """Sweep the profiles written since the last sweep."""
    return dg.MaterializeResult(metadata=_swept(migration.sweep(full=False)))


@dg.asset(
    group_name=VERIFY,
    deps=["migrated_profiles"],
    kinds={"postgres", "firebase", "azure"},
    owners=pages.OWNERS,
    tags={"stage": "sweep"},
    description=(
        "The same for all profiles, and every copied file compared with the source: newer bytes there are copied "
        "again. To be run before the source is given up."
    ),
)
def full_sweep(migration: Migration) -> dg.MaterializeResult[None]:
    """Sweep everything."""
    return dg.MaterializeResult(metadata=_swept(migration.sweep(full=True)))


def _swept(swept: Swept) -> pages.Metadata:
    return {
        "profiles": swept.looked_at,
        "late_profiles": swept.late,
        "unplanned_profiles": swept.unplanned,
        "files": swept.files,
        "newer_at_source": swept.outdated,
        "ranges_requested": len(swept.ranges),
        "ranges_busy": len(swept.busy),
        "unseen": ", ".join(swept.unseen),
        **pages.table("examples", ["profile"], [[str(id_)] for id_ in swept.examples]),
    }


@dg.asset(
    group_name=HOUSEKEEPING,
    deps=["migrated_profiles"],
    kinds={"s3"},
    owners=pages.OWNERS,
    tags={"stage": "erase"},
    description=(
        "Copies that this migration made and that nobody refers to any more, for a photo or a profile was deleted: "
        "removed from S3, in all versions, some time after the last reference went. A dry run unless the config says "
        "apply: true; launch the job `erase` from the Launchpad. Each is recorded in the ledger."
    ),
)
def erased_copies(config: Removing, migration: Migration) -> dg.MaterializeResult[None]:
    """Remove what nobody refers to, or say what would be removed."""
    config.checked()
    if not config.apply:
        would = [[str(item.file), ", ".join(map(str, item.profiles))] for item in migration.to_erase()]
        return dg.MaterializeResult(
            metadata={
                "summary": f"{count(len(would), 'copy', 'copies')} would be looked at. Nothing was removed: a dry run.",
                "applied": 0,
                "would_be_looked_at": len(would),
                **pages.table("copies", ["file", "once needed by"], would),
            }
        )
    done = migration.erase(by=config.by, why=config.why)
    return dg.MaterializeResult(
        metadata={
            "summary": f"{count(done.files, 'copy', 'copies')} removed." if done.files else "Nothing to do.",
            "applied": 1,
            "files": done.files,
            "objects": done.objects,
            "spared": done.spared,
            "unproven": len(done.unproven),
            "ranges_busy": len(done.busy),
            "refused": len(done.refused),
            "lost": len(done.lost),
            **pages.table("refused_files", ["file and answer"], [[text] for text in done.refused]),
            **pages.table("lost_files", ["file and why"], [[text] for text in done.lost]),
            **pages.table("unproven_files", ["file"], [[name] for name in done.unproven]),
        }
    )


class Auditing(dg.Config):
    """How closely to look."""

    read: bool = Field(default=False, description="Read every object and digest it; else S3's word is taken.")


@dg.asset(
    group_name=VERIFY,
    deps=["migrated_profiles"],
    kinds={"postgres", "firebase", "s3", "azure"},
    owners=pages.OWNERS,
    tags={"stage": "audit"},
    partitions_def=profile_ranges_partitions,
    pool=UPKEEP_POOL,
    description=(
        "Every reference of the range, looked at again with nothing but the stores' word. Red where a user would see "
        "a broken file, or the flag is not true."
    ),
    check_specs=partitioned_checks(
        {
            ("audited_references", "every_reference_leads_to_its_bytes"): (
                "Does every reference of the range lead to a file, with the bytes that were proven?"
            ),
            ("audited_references", "every_flag_is_true"): (
                "Do flagged profiles refer to the newest bytes, and to none of the source?"
            ),
        }
    ),
)
def audited_references(
    context: dg.AssetExecutionContext, config: Auditing, migration: Migration
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Audit the range; fail on what a user would see, and on a flag that is not true."""
    try:
        audited = migration.audit(context.partition_key, read=config.read)
    except (Fatal, RangeBusy) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metadata = _audited(audited)
    bad = {finding: audited.findings[finding] for finding in (Finding.DANGLING, Finding.CORRUPT, Finding.STALE)}
    seen = bad[Finding.DANGLING] + bad[Finding.CORRUPT]
    yield check_result("audited_references", "every_reference_leads_to_its_bytes", seen)
    yield check_result("audited_references", "every_flag_is_true", bad[Finding.STALE])
    if any(bad.values()):
        found = ", ".join(f"{n} {finding}" for finding, n in bad.items() if n)
        raise dg.Failure(f"{found}. docs/live-traffic.md says what each means.", metadata, allow_retries=False)
    yield dg.MaterializeResult(metadata=metadata)


def _audited(audited: Audited) -> pages.Metadata:
    rows = [
        [finding, "" if example.profile_id is None else str(example.profile_id), example.shown]
        for finding, examples in audited.examples.items()
        for example in examples
    ]
    return {
        "profiles": audited.profiles,
        **{finding.value: audited.findings[finding] for finding in Finding},
        **pages.table("examples", ["finding", "profile", "reference"], rows),
    }


audit_job = dg.define_asset_job(
    "audit",
    selection=dg.AssetSelection.assets("audited_references"),
    description="Audits ranges. Launch a backfill over the partitions to look at.",
    tags=_NOT_LONGER,
)
sweep_job = dg.define_asset_job("sweep", selection=dg.AssetSelection.assets("late_references"), tags=_NOT_LONGER)
erase_job = dg.define_asset_job(
    "erase",
    selection=dg.AssetSelection.assets("erased_copies"),
    config=by_job("erased_copies"),
    description="Removes copies that nobody refers to any more, or says which it would. Give apply, why and your name.",
    tags=_NOT_LONGER,
)

sweep_schedule = dg.ScheduleDefinition(
    name="sweep_every_five_minutes",
    job=sweep_job,
    cron_schedule="*/5 * * * *",
    description="Turn it on once the first profiles are migrated, and off when no old client is left.",
)
erase_schedule = dg.ScheduleDefinition(
    name="erase_daily",
    job=erase_job,
    run_config=by_schedule("erased_copies", "erase_daily"),
    cron_schedule="17 3 * * *",
    description="Turn it on so that what users delete goes from S3 as well.",
)
