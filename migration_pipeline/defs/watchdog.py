"""Runs that nobody works on any more, though Dagster believes so or waits for a retry that never comes.

The launcher of one machine notices a dead worker only while the code server lives, and an automatic retry may be lost
(dagster-io/dagster#34204). A range's advisory lock tells better: it ends with the process that holds it, however that
ends.
"""

import json
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import dagster as dg

from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs.given_up import ask_again
from migration_pipeline.defs.migrated import SPECS, migrate_job
from migration_pipeline.defs.ranges import profile_ranges_partitions
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.situation import is_ours

GRACE_SECONDS = 180.0
"""A run holds its range but for its first and last seconds, and for pauses before it tries a lost database again."""
LOST_SECONDS = 300.0
"""A retry that was not launched so long after its run's end is not going to be."""
MAX_TRIES = 3
_TRIES = "migration/tries"
_PARTITION = "dagster/partition"
_WILL_RETRY = "dagster/will_retry"
_RUN_KEY = "dagster/run_key"
_RETRIED_BY = "dagster/auto_retry_run_id"
_AT_MOST = 200
_A_DAY = 24 * 3600.0


class Suspects(NamedTuple):
    """Runs without a worker: those to give up, and since when the others have been seen so."""

    dead: list[str]
    since: dict[str, float]


def suspects(idle: Iterable[str], since: Mapping[str, float], *, now: float) -> Suspects:
    """Judge runs that are STARTED and hold no range.

    Args:
        idle: their ids.
        since: since when each of the last look was seen so.
        now: seconds since the epoch.
    """
    seen = {run_id: since.get(run_id, now) for run_id in idle}
    dead = [run_id for run_id, first in seen.items() if now - first >= GRACE_SECONDS]
    return Suspects(dead, {run_id: first for run_id, first in seen.items() if run_id not in dead})


@dg.sensor(
    job=migrate_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Gives up runs that seem to be at work and hold no range, so that Dagster runs their range again; and launches "
        f"retries that Dagster lost, {MAX_TRIES} times at most. Asks once for what is left of a backfill that Dagster "
        "gave up."
    ),
)
def watchdog(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SensorResult | dg.SkipReason:
    """Look at runs at work, and at failed ones."""
    instance, origin = context.instance, context.code_location_origin
    known = set(instance.get_dynamic_partitions(str(profile_ranges_partitions.name)))
    ours = _Ours(instance, known, origin.location_name if origin is not None else None)
    started = {run.run_id: run for run in ours.runs(dg.DagsterRunStatus.STARTED)}
    lost = ours.with_lost_retries()
    try:
        with migration.ledger() as ledger:
            assert context.repository_def is not None  # noqa: S101 - Dagster gives it to every sensor
            asked = ask_again(instance, context.repository_def, ledger)
            held = ledger.held(sorted({run.tags[_PARTITION] for run in (*started.values(), *lost)}))
    except MigrationError as error:
        return dg.SkipReason(str(error))
    if asked:
        context.log.warning("Dagster gave up a backfill: %s of its ranges are asked for again", len(asked))
    idle = [run_id for run_id, run in started.items() if run.tags[_PARTITION] not in held]
    found = suspects(idle, json.loads(context.cursor or "{}"), now=time.time())
    for run_id in found.dead:
        instance.report_run_failed(
            started[run_id], f"No worker holds range {started[run_id].tags[_PARTITION]}: the run's process is gone."
        )
        context.log.warning("run %s had no worker any more: given up, to be run again", run_id)
    requests = [_again(instance, run) for run in lost if run.tags[_PARTITION] not in held]
    return dg.SensorResult(
        run_requests=[request for request in requests if request is not None], cursor=json.dumps(found.since)
    )


class _Ours:
    """Runs that migrate one of our ranges. Another migration in the same instance may have ranges of the same names."""

    def __init__(self, instance: dg.DagsterInstance, known: set[str], location: str | None) -> None:
        self._instance, self._known, self._location = instance, known, location

    def runs(self, status: dg.DagsterRunStatus, **more: object) -> list[dg.DagsterRun]:
        last = SPECS[-1].key
        found = self._instance.get_runs(filters=dg.RunsFilter(statuses=[status], **more), limit=_AT_MOST)  # type: ignore[arg-type] # given by name
        return [
            run
            for run in found
            if run.tags.get(_PARTITION) in self._known
            and is_ours(run, self._location)
            and (run.job_name == migrate_job.name or last in (run.asset_selection or ()))
        ]

    def with_lost_retries(self) -> list[dg.DagsterRun]:
        failed = self.runs(dg.DagsterRunStatus.FAILURE, tags={_WILL_RETRY: "true"})
        return [run for run in failed if _RETRIED_BY not in run.tags and LOST_SECONDS < self._age(run) < _A_DAY]

    def _age(self, run: dg.DagsterRun) -> float:
        record = self._instance.get_run_record_by_id(run.run_id)
        return time.time() - (record.end_time or time.time()) if record else 0.0


def _again(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.RunRequest | None:
    """A run in place of a retry that was lost. Once it is there, the backfill that waits for the retry is set free."""
    key, tries = f"in place of the retry of {run.run_id}", int(run.tags.get(_TRIES, "0")) + 1
    # Dagster launches one run for each key, however often it is asked for.
    if tries > MAX_TRIES or instance.get_runs_count(dg.RunsFilter(tags={_RUN_KEY: key})):
        instance.add_run_tags(run.run_id, {_WILL_RETRY: "false"})
        return None
    return dg.RunRequest(
        run_key=key,
        partition_key=run.tags[_PARTITION],
        tags={_TRIES: str(tries), "migration/why": "an automatic retry was lost"},
    )
