"""The five assets of a range: one op, so that running a failed partition again does all that is left of it.

All five are materialized where the range is complete, and none where it is not: whichever way the UI offers to run what
failed then runs the whole op (docs/decisions/0002-one-op-per-range.md).
"""

import multiprocessing
import os
import warnings
from collections.abc import Iterator, Mapping

import dagster as dg

from migration_pipeline.adapters.ledger.overview import RangeTotals
from migration_pipeline.core.errors import Fatal, RangeBusy, RangeLost, Transient, Unreachable
from migration_pipeline.core.migrate import RangeReport
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import MIGRATE
from migration_pipeline.defs.ranges import POOL, profile_ranges, profile_ranges_partitions
from migration_pipeline.defs.resources import Migration

SPECS = [
    dg.AssetSpec(
        "file_references",
        deps=[profile_ranges],
        kinds={"postgres"},
        description="The files that the range's profiles need: every reference in database and Firebase, read afresh.",
    ),
    dg.AssetSpec(
        "file_copies",
        deps=["file_references"],
        kinds={"azure", "s3"},
        description="Those files in S3, each verified end to end. Failed ones end as dead letters with a reason.",
    ),
    dg.AssetSpec(
        "database_urls",
        deps=["file_copies"],
        kinds={"postgres"},
        description="References in the database, re-pointed one URL at a time to files that are in S3.",
    ),
    dg.AssetSpec(
        "firebase_urls",
        deps=["database_urls"],
        kinds={"firebase"},
        description="The same in Firebase, each write conditional on the document being as it was read.",
    ),
    dg.AssetSpec(
        "migrated_profiles",
        deps=["firebase_urls"],
        kinds={"postgres"},
        description="Profiles flagged as migrated: both sites, read afresh, hold no URL of the source.",
    ),
]

NAMED_TAG = "migration/named"
"""Of a backfill, and so of its runs, whose every range somebody named."""
_NOT_NAMED = {"dagster/backfill", "dagster/sensor_name"}
"""Tags of runs that something else asked for than somebody who chose this one partition."""
_REPEATED = "dagster/parent_backfill_id"
"""Of a backfill that was re-executed: it has the tags of the first, but nobody named its ranges anew."""
_TRIES, _PAUSE_SECONDS = 30, 20  # a failover is over by then
_NICE = 5
"""A worker's process leaves the processor to others by so much: on one machine, the UI, the daemon and whoever wants to
pause must not wait behind the workers."""


def partitioned_checks(questions: Mapping[tuple[str, str], str]) -> list[dg.AssetCheckSpec]:
    """Checks of a range, each with the question that it answers, by asset and name."""
    with warnings.catch_warnings():
        # Partitioned checks are a preview in Dagster 1.13; the pinned release keeps them as they are.
        warnings.simplefilter("ignore", category=dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(name, asset=asset, description=text, partitions_def=profile_ranges_partitions)
            for (asset, name), text in questions.items()
        ]


NOT_ROLLED_BACK = "not_rolled_back"
_CHECKS = partitioned_checks(
    {
        ("database_urls", "profiles_left_in_database"): (
            "It passes at 0: how many profiles of the range still refer to the source in the database?"
        ),
        ("firebase_urls", "profiles_left_in_firebase"): (
            "It passes at 0: how many profiles of the range still refer to the source in Firebase?"
        ),
        ("migrated_profiles", NOT_ROLLED_BACK): "Do references of the range lead to S3, nobody having rolled it back?",
        ("migrated_profiles", "references_not_verified"): (
            "It passes at 0: how many S3 references of the range's migrated profiles lead to a file of ours that is "
            "not verified?"
        ),
    }
)


@dg.multi_asset(
    name="migrate_range",
    specs=[
        spec.replace_attributes(group_name=MIGRATE, owners=pages.OWNERS, tags={"stage": spec.key.to_user_string()})
        for spec in SPECS
    ],
    check_specs=_CHECKS,
    partitions_def=profile_ranges_partitions,
    can_subset=False,
    pool=POOL,
)
def migrated_range(
    context: dg.AssetExecutionContext, migration: Migration
) -> Iterator[dg.MaterializeResult[None] | dg.AssetObservation | dg.AssetCheckResult]:
    """Migrate the range, tell what became of each stage, and fail if a profile is left."""
    _let_others_go_first()
    try:
        report = migration.migrate(
            context.partition_key,
            say=context.log.info,
            named=is_named(context.op_execution_context.run_tags),
        )
    except (Transient, Unreachable) as error:
        # The database restarts, for example: what is done is done, and the next try does what is left.
        context.log.warning("%s; trying again in %s s", error, _PAUSE_SECONDS)
        raise dg.RetryRequested(max_retries=_TRIES, seconds_to_wait=_PAUSE_SECONDS) from None
    except (Fatal, RangeBusy, RangeLost) as error:
        # Trying again by itself would meet the same refusal.
        raise dg.Failure(str(error), allow_retries=False) from None
    yield from _events(report, context.partition_key, migration.totals(context.partition_key))
    if not report.complete:
        raise dg.Failure(pages.what_is_left(report), metadata=pages.migrated_profiles(report), allow_retries=False)


def _let_others_go_first() -> None:
    """Only in a process that the code server started for this run, and that ends with it."""
    if multiprocessing.parent_process() is not None:
        os.nice(max(0, _NICE - os.nice(0)))


def is_named(tags: Mapping[str, str]) -> bool:
    """Whether somebody asked for this very range, by the tags of its run."""
    return _NOT_NAMED.isdisjoint(tags) or (NAMED_TAG in tags and _REPEATED not in tags)


def _events(
    report: RangeReport, partition: str, totals: RangeTotals
) -> Iterator[dg.MaterializeResult[None] | dg.AssetObservation | dg.AssetCheckResult]:
    """A result for each stage where the whole range is complete, else an observation for each.

    All five or none: with some of them materialized, Dagster's "Re-execute from failure" asks for a part of this op,
    which cannot be run in part, and the backfill dies.
    """
    stages = {
        "file_references": pages.file_references(report),
        "file_copies": pages.file_copies(report, totals),
        "database_urls": pages.rewritten(report.database),
        "firebase_urls": pages.rewritten(report.firebase),
        "migrated_profiles": pages.migrated_profiles(report),
    }
    seconds, left = pages.seconds(report), pages.what_is_left(report)
    for asset, metadata in stages.items():
        shown = metadata | seconds.get(asset, {})
        if report.complete:
            yield dg.MaterializeResult(asset, metadata=shown)
        else:
            yield dg.AssetObservation(asset, metadata=shown, partition=partition, description=left)
    done = report.confirmed
    for asset, name, number, has_table in (
        ("database_urls", "profiles_left_in_database", done.left_in_database, True),
        ("firebase_urls", "profiles_left_in_firebase", done.left_in_firebase, True),
        ("migrated_profiles", "references_not_verified", done.unproven, False),
    ):
        shown = pages.left(report, name, number) if has_table else {name: number}
        yield dg.AssetCheckResult(passed=not number, asset_key=asset, check_name=name, metadata=shown)
    yield dg.AssetCheckResult(passed=True, asset_key="migrated_profiles", check_name=NOT_ROLLED_BACK)


def check_result(asset: str, name: str, offenders: int) -> dg.AssetCheckResult:
    """Passed where there are no offenders."""
    return dg.AssetCheckResult(
        passed=not offenders, asset_key=asset, check_name=name, metadata={"offenders": offenders}
    )


migrate_job = dg.define_asset_job(
    "migrate",
    selection=dg.AssetSelection.assets(*(spec.key for spec in SPECS)),
    description="Migrates ranges. Launch a backfill over the partitions that are to move.",
)
