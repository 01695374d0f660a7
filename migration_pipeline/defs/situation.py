"""What is true now, from the ledger, from Dagster's own records, and from this machine's disks."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

# Dagster filters backfills by status only with this; reading all of them each minute would cost too much.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from migration_pipeline.adapters.ledger.overview import RangeState
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.status import summed
from migration_pipeline.core.alerts import Told
from migration_pipeline.core.control import Heard, decide
from migration_pipeline.core.run_alerts import runs_after
from migration_pipeline.core.situation import (
    About,
    Backfill,
    Day,
    DeadBackfill,
    Disk,
    Failure,
    Late,
    Letters,
    Pause,
    Ranges,
    Situation,
    Thresholds,
    Uploads,
)
from migration_pipeline.core.sweep import LATE_REFERENCE, NEWER_BYTES
from migration_pipeline.cutover import rules, stand_of
from migration_pipeline.defs.migrated import SPECS
from migration_pipeline.settings import Settings
from migration_pipeline.stores import sas_ends, standing_orders, windows

_RUNS = 1000
_REASONS = 20  # failed runs whose error is looked up, at each look
_BACKFILLS = 20
_DAY = timedelta(days=1)
_UNDECIDED = timedelta(minutes=1)
_ACTIVE = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
_PARTITIONED = {*(spec.key for spec in SPECS), dg.AssetKey("audited_references"), dg.AssetKey("rolled_back_ranges")}
_KEYS = {*_PARTITIONED, dg.AssetKey("profile_ranges"), dg.AssetKey("cutover"), dg.AssetKey("dead_letters")}
JOBS = {
    "plan", "migrate", "inventory", "sweep", "erase", "audit", "rollback", "decommission", "archive", "purge_runs",
    "pause", "resume", "limits", "retry_dead_letters", "waive_dead_letters", "accept_dead_letters",
    "enter_phase", "back_to_phase",
}  # fmt: skip
"""All of this project."""
_SWEEPS = (LATE_REFERENCE, NEWER_BYTES)


def look(
    settings: Settings, ledger: PostgresLedger, instance: dg.DagsterInstance, told: Told, location: str | None = None
) -> Situation:
    """Look at everything once. What it costs does not grow with the number of files.

    Args:
        settings: the migration.
        ledger: its.
        instance: that it runs in, perhaps beside other projects.
        told: what was told before.
        location: what workspace.yaml calls this project's code location; `None` where none is loaded.

    Raises:
        Fatal: a setting, or the ledger, is refused.
        Transient: the ledger's database does not answer.
    """
    now = ledger.now().astimezone(windows(settings).zone)
    states = ledger.overview.states()
    days = ledger.overview.progress(since=now - _DAY, every="1 day")
    ended = [state.ended_at for state in states if state.ended_at is not None]
    last = ledger.overview.last_progress()
    alerts = settings.alerts
    return Situation(
        now=now,
        thresholds=Thresholds(
            timedelta(minutes=alerts.stalled_minutes), alerts.free_disk_gigabytes * 1e9, alerts.daily_at
        ),
        ranges=_ranges(states),
        failures=list(_failures(instance, runs_after(told, now), location)),
        letters={
            found.outcome: Letters(found.waiting, [str(file) for file in found.examples])
            for found in ledger.overview.letter_classes()
        },
        pause=_pause(settings, ledger, now),
        backfill=_backfill(instance),
        dead_backfills=list(_dead_backfills(instance)),
        moved_at=max([*ended, *([last] if last else [])], default=None),
        late=_late(ledger),
        uploads=_uploads(settings, ledger, now),
        disks=list(_disks(instance)),
        sas_ends=_sas_ends(settings, now),
        day=Day(sum(row.files for row in days), sum(row.failed for row in days), sum(row.bytes for row in days)),
        ui_url=alerts.ui_url,
    )


def _sas_ends(settings: Settings, now: datetime) -> datetime | None:
    ends = sas_ends(settings)
    return ends.astimezone(now.tzinfo) if ends is not None else None


def _ranges(states: Sequence[RangeState]) -> Ranges:
    total = summed(states)
    return Ranges(
        planned=total.ranges,
        begun=sum(state.started for state in states),
        done=total.done,
        rolled_back=total.rolled_back,
        profiles=total.profiles,
        migrated=total.migrated,
        waiting=total.waiting,
        copied=total.copied,
        bytes=total.bytes,
    )


def _failures(instance: dg.DagsterInstance, after: datetime, location: str | None) -> Iterator[Failure]:
    records = instance.get_run_records(
        # Dagster drops the offset, whatever it is, and takes the rest for UTC.
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after.astimezone(UTC)),
        limit=_RUNS,
        order_by="update_timestamp",
        ascending=True,
    )
    looked_up = 0
    for record in records:
        run, at = record.dagster_run, record.update_timestamp.astimezone(UTC)
        retry = run.tags.get("dagster/will_retry")
        # Dagster says a moment after the failure whether it will try again.
        undecided = retry is None and instance.run_retries_enabled and datetime.now(UTC) - at < _UNDECIDED
        if retry == "true" or undecided or not is_ours(run, location):
            continue
        looked_up += 1
        backfill = run.tags.get("dagster/backfill")
        job = "materialized by hand" if run.job_name.startswith("__") else f"job {run.job_name}"
        yield Failure(
            run_id=run.run_id,
            group=f"backfill {backfill}" if backfill else job,
            path=f"runs/b/{backfill}" if backfill else f"runs/{run.run_id}",
            range_key=run.tags.get("dagster/partition"),
            at=at,
            about=_about(run),
            why=_why(instance, run.run_id) if looked_up <= _REASONS else "",
        )


def is_ours(run: dg.DagsterRun, location: str | None) -> bool:
    """Others may use the same instance: their runs are no business of these alerts.

    A run tells its code location, whatever workspace.yaml calls it. One that was executed without a code server, in a
    process of its own, tells none; then what it was to do decides.
    """
    origin = run.remote_job_origin
    if origin is not None and location is not None:
        return origin.location_name == location
    return run.job_name in JOBS or bool(_KEYS & set(run.asset_selection or ()))


def _about(run: dg.DagsterRun) -> About:
    assets = set(run.asset_selection or ())
    for about, job, asset in (
        (About.MIGRATION, "migrate", SPECS[-1].key),
        (About.ROLLBACK, "rollback", dg.AssetKey("rolled_back_ranges")),
        (About.AUDIT, "audit", dg.AssetKey("audited_references")),
    ):
        if run.job_name == job or asset in assets:
            return about
    return About.OTHER


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """The first line of what the run's first failed step, or else the run, says."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for record in instance.get_records_for_run(run_id, of_type=kind, limit=1).records:
            event = record.event_log_entry.dagster_event
            if event is None:
                continue
            if event.is_step_failure and (told := event.step_failure_data.user_failure_data) is not None:
                text = told.description or ""
            else:
                text = _message(event)
            return next((line.strip() for line in text.splitlines() if line.strip()), "")
    return ""


def _message(event: dg.DagsterEvent) -> str:
    """An error that nobody worded for people; its cause says more than what Dagster wraps around it."""
    error = event.step_failure_data.error if event.is_step_failure else None
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message if error is not None else event.message or ""


def _backfill(instance: dg.DagsterInstance) -> Backfill | None:
    """The oldest of ours at work."""
    ours = SPECS[-1].key
    active = [
        Backfill(found.backfill_id, datetime.fromtimestamp(found.backfill_timestamp, UTC))
        for found in instance.get_backfills(BulkActionsFilter(statuses=_ACTIVE), limit=_BACKFILLS)
        if ours in (found.asset_selection or ())
    ]
    return min(active, key=lambda item: item.since, default=None)


def _dead_backfills(instance: dg.DagsterInstance) -> Iterator[DeadBackfill]:
    """Of ours, those of the last day that Dagster gave up; those that people canceled are another thing."""
    lately = BulkActionsFilter(statuses=[BulkActionStatus.FAILED], created_after=datetime.now(UTC) - _DAY)
    for found in instance.get_backfills(lately, limit=_BACKFILLS):
        assets = set(found.asset_selection or ())
        if assets & _PARTITIONED:
            error = found.error.message.strip().splitlines() if found.error else []
            yield DeadBackfill(
                found.backfill_id,
                datetime.fromtimestamp(found.backfill_timestamp, UTC),
                error[0] if error else "no error was kept",
                migrates=SPECS[-1].key in assets,
            )


def _pause(settings: Settings, ledger: PostgresLedger, now: datetime) -> Pause | None:
    said = ledger.control.said()
    if said.paused_why is not None:
        return Pause(said.paused_why, said.paused_by, said.paused_at)
    with standing_orders(settings) as standing:
        orders = decide(standing, Heard(said, 0, 0, 0), now=now, app_says=standing.app_says())
    return Pause(orders.paused) if orders.paused is not None else None


def _late(ledger: PostgresLedger) -> Late | None:
    asked = [request.at for request in ledger.requested() if request.why in _SWEEPS]
    return Late(len(asked), min(asked)) if asked else None


def _uploads(settings: Settings, ledger: PostgresLedger, now: datetime) -> Uploads | None:
    stand = stand_of(settings, ledger)
    switched_at, found = stand.facts.switched_at, stand.uploads
    if switched_at is None or found.newest_at is None:
        return None
    until = switched_at + rules(settings).longest_upload
    zone = now.tzinfo
    return Uploads(found.blobs, switched_at, until.astimezone(zone), found.newest_at.astimezone(zone), found.examples)


def _disks(instance: dg.DagsterInstance) -> Iterator[Disk]:
    """The file systems that Dagster writes to, each once."""
    places = {"DAGSTER_HOME": instance.root_directory, "compute logs": os.environ.get("DAGSTER_COMPUTE_LOGS")}
    seen = set()
    for what, path in _existing(places.items()):
        if (device := path.stat().st_dev) not in seen:
            seen.add(device)
            yield Disk(f"{what} {path}", shutil.disk_usage(path).free)


def _existing(places: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, Path]]:
    return ((what, Path(path)) for what, path in places if path and Path(path).exists())
