"""Runs of the ranges that somebody asked for: a sweep, or an operator."""

from collections.abc import Iterator

import dagster as dg

from migration_pipeline.adapters.ledger.postgres_ledger import Request
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs.migrated import migrate_job
from migration_pipeline.defs.ranges import profile_ranges_partitions
from migration_pipeline.defs.resources import Migration

MAX_TRIES = 3
"""Runs for one request: each ended before it had begun with its range."""
_A_TICK = 50
_REQUEST = "migration/request"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.sensor(
    job=migrate_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Runs the ranges that somebody asked for: a sweep that found something late, or an operator who waived dead "
        "letters or wants them tried again. Ranges that a run is queued for wait for that one; ranges that were rolled "
        "back stay so."
    ),
)
def requested_ranges(
    context: dg.SensorEvaluationContext, migration: Migration
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """A run for each range that is asked for and has none to come, the oldest requests first."""
    known = set(context.instance.get_dynamic_partitions(str(profile_ranges_partitions.name)))
    try:
        with migration.ledger() as ledger:
            requested = [request for request in ledger.requested() if request.range_key in known]
    except MigrationError as error:
        yield dg.SkipReason(str(error))
        return
    asked = 0
    for request in requested:
        if asked < _A_TICK and (run := _run_for(context.instance, request)) is not None:
            asked += 1
            yield run


def _run_for(instance: dg.DagsterInstance, request: Request) -> dg.RunRequest | None:
    """A run, unless one is to come; whichever begins with the range fulfils the request."""
    coming = dg.RunsFilter(statuses=_UNFINISHED, tags={"dagster/partition": request.range_key})
    if instance.get_runs_count(coming):
        return None
    name = f"{request.range_key} {request.at.isoformat()}"
    tries = instance.get_runs_count(dg.RunsFilter(tags={_REQUEST: name}))
    if tries >= MAX_TRIES:
        return None
    return dg.RunRequest(
        run_key=f"{name} {tries}",
        partition_key=request.range_key,
        tags={_REQUEST: name, "migration/why": request.why},
    )
