"""What the source holds, and what becomes of blobs that nobody refers to."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.core.inventory import Found
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import CUTOVER, PLAN
from migration_pipeline.defs.migrated import check_result
from migration_pipeline.defs.resources import Migration

_EXAMPLES = {
    "missing": "missing_files",
    "archived": "archived_files",
    "too_long": "files_too_long_for_a_key",
    "orphan": "orphans_for_example",
}
_LONGEST = {"dagster/max_runtime": str(7 * 24 * 3600)}
"""Seconds. A listing costs a request for five thousand blobs, and the count reads every profile and document."""


class Listing(dg.Config):
    """Where a list of orphans goes, if the setting asks for one."""

    folder: str = Field(default="", description='For inventory.orphans = "list"; by default DAGSTER_HOME/orphans.')


@dg.asset(
    group_name=PLAN,
    kinds={"azure", "postgres", "firebase"},
    owners=pages.OWNERS,
    tags={"stage": "inventory"},
    description=(
        "Everything that the source's containers hold, beside everything that profiles and documents refer to: what is "
        "missing, archived, or nobody's, before the first byte is copied. Plans made within a week of it are exact."
    ),
    check_specs=[
        dg.AssetCheckSpec(
            "every_referenced_blob_is_in_the_source",
            asset="source_inventory",
            description="Is every blob in the source that a profile refers to and that is still to be moved?",
        ),
        dg.AssetCheckSpec(
            "every_referenced_blob_can_be_read",
            asset="source_inventory",
            description="Can every one of them be read as it is now, none being archived?",
        ),
        dg.AssetCheckSpec(
            "every_referenced_blob_has_a_key",
            asset="source_inventory",
            description="Does every one of them have a name that S3 can hold?",
        ),
        dg.AssetCheckSpec(
            "every_blob_is_referred_to",
            asset="source_inventory",
            description="Does somebody refer to every blob, so that nothing is left in the source at the end?",
        ),
    ],
)
def source_inventory(
    context: dg.AssetExecutionContext, config: Listing, migration: Migration
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """List, count and compare; write the orphans' list where one is asked for."""
    try:
        found = migration.take_stock(context.log.info)
        listed = migration.list_orphans(_folder(config)) if migration.orphans == "list" else None
    except MigrationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metadata = _page(found)
    if listed is not None:
        metadata["orphans_file"] = dg.MetadataValue.path(str(listed.path))
    yield dg.MaterializeResult(metadata=metadata)
    for name, offenders in {
        "every_referenced_blob_is_in_the_source": found.missing,
        "every_referenced_blob_can_be_read": found.archived_needed,
        "every_referenced_blob_has_a_key": found.too_long,
    }.items():
        yield check_result("source_inventory", name, offenders)
    yield dg.AssetCheckResult(
        # Nothing is wrong with an orphan; somebody should know of it before the source goes.
        passed=not found.orphans,
        severity=dg.AssetCheckSeverity.WARN,
        asset_key="source_inventory",
        check_name="every_blob_is_referred_to",
        metadata={"offenders": found.orphans},
    )


def _folder(config: Listing) -> Path:
    return Path(config.folder) if config.folder else Path(os.environ.get("DAGSTER_HOME", ".")) / "orphans"


def _page(found: Found) -> pages.Metadata:
    held = [
        [item.container, item.tier, item.size_class, str(item.blobs), f"{item.bytes / 1e6:,.1f} MB"]
        for item in found.held
    ]
    examples: pages.Metadata = {}
    for what, items in found.examples.items():
        rows = [[str(item.file), item.profile_id or ""] for item in items]
        examples |= pages.table(_EXAMPLES[what], ["file", "a profile"], rows)
    return {
        "blobs": found.blobs,
        "gigabytes": round(found.size / 1e9, 3),
        "files_to_move": found.files,
        "gigabytes_to_move": round(found.bytes / 1e9, 3),
        "missing": found.missing,
        "archived": found.archived,
        "archived_and_needed": found.archived_needed,
        "too_long_for_a_key": found.too_long,
        "orphans": found.orphans,
        "orphan_gigabytes": round(found.orphan_bytes / 1e9, 3),
        "too_young_to_be_orphans": found.young,
        "only_deleted_profiles_refer_to": found.only_deleted,
        "came_after_the_listing": found.came_late,
        "listed_at": dg.MetadataValue.timestamp(found.listed_at),
        "counted_at": dg.MetadataValue.timestamp(found.counted_at),
        "peak_memory_megabytes": round(pages.peak_memory() / 1e6, 1),
        **pages.table("held", ["container", "tier", "size", "blobs", "bytes"], held),
        **examples,
    }


@dg.asset(
    group_name=CUTOVER,
    deps=[source_inventory],
    kinds={"azure", "s3"},
    owners=pages.OWNERS,
    tags={"stage": "inventory"},
    description=(
        "Blobs that nobody refers to, in S3 under inventory.orphan_prefix and verified, where inventory.orphans is "
        '"copy". They are no references, and no profile waits for them.'
    ),
)
def orphan_copies(context: dg.AssetExecutionContext, migration: Migration) -> dg.MaterializeResult[None]:
    """Copy orphans; fail if one could not be copied."""
    if (setting := migration.orphans) != "copy":
        return dg.MaterializeResult(
            metadata={"summary": f'Nothing to do: inventory.orphans is "{setting}", not "copy".', "copied": 0}
        )
    try:
        done = migration.copy_orphans(context.log.info)
        with migration.ledger() as ledger:
            outcomes = ledger.orphans.outcomes()
    except MigrationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metadata: pages.Metadata = {
        "copied": done.copied,
        "failed": done.failed,
        "megabytes": round(done.bytes / 1e6, 1),
        **{f"all_{item.outcome}": item.files for item in outcomes},
    }
    if done.failed:
        raise dg.Failure(f"{count(done.failed, 'orphan')} could not be copied.", metadata, allow_retries=False)
    return dg.MaterializeResult(metadata=metadata)


inventory_job = dg.define_asset_job(
    "inventory",
    selection=dg.AssetSelection.assets(source_inventory),
    description="Lists the source and counts all references.",
    tags=_LONGEST,
)
inventory_schedule = dg.ScheduleDefinition(
    name="inventory_daily",
    job=inventory_job,
    cron_schedule="41 1 * * *",
    description="Turn it on while new blobs may still land in the source: the cut-over looks at the newest listing.",
)
