"""What Dagster keeps of finished runs, kept for so many days: it deletes none by itself, and disks fill.

A run's events are also what the UI knows of partitions: `DagsterInstance.delete_run` of the newest run of a partition
turns a green one missing, and a red one, too (docs/decisions/0008-deployments.md). So the newest word on every asset
and partition stays, however old it is; there are no more of those than partitions.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import dagster as dg

from migration_pipeline.core.alert_words import count
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import HOUSEKEEPING, Removing, by_job, by_schedule
from migration_pipeline.defs.resources import Migration

AT_MOST = 5000
"""Runs deleted at a time; what is over is deleted the next day."""

_PAGE: Final = 500
_FINISHED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_UNFINISHED: Final = [status for status in dg.DagsterRunStatus if status not in _FINISHED]
_AT_WORK: Final = {"REQUESTED", "CANCELING", "FAILING"}  # backfills
_WORDS: Final = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,  # with its run's end: that the newest attempt failed
    dg.DagsterEventType.ASSET_OBSERVATION,
)


class Purged(NamedTuple):
    """What one pass did.

    Attributes:
        runs: deleted.
        newest: as old, and kept, for they hold the newest word on an asset or partition.
        needed: as old, and kept, for a backfill, a retry or another run still needs them.
        more: whether there were more to delete than one pass may.
    """

    runs: int
    newest: int
    needed: int
    more: bool


class RemovedLogs(NamedTuple):
    """Output of runs that was removed."""

    files: int
    bytes: int


def purge_runs(instance: dg.DagsterInstance, before: datetime, *, at_most: int = AT_MOST) -> Purged:
    """Delete runs that ended before then, with their events, except those that something still needs."""
    newest, wanted = _newest_words(instance), _Wanted(instance)
    doomed: list[str] = []
    counts = {"newest": 0, "needed": 0}
    for run in _ended(instance, before):
        if wanted.holds(run):
            counts["needed"] += 1
        elif not newest.isdisjoint(_words_of(instance, run.run_id)):
            counts["newest"] += 1
        elif len(doomed) == at_most:
            return Purged(_delete(instance, doomed), **counts, more=True)
        else:
            doomed.append(run.run_id)
    return Purged(_delete(instance, doomed), **counts, more=False)


def _delete(instance: dg.DagsterInstance, doomed: list[str]) -> int:
    for run_id in doomed:
        # What `DagsterInstance.delete_run` does, events first: killed in between, the run is still there for the next
        # pass to find. Dagster's own order would leave events behind that nothing leads to.
        instance.event_log_storage.delete_events(run_id)
        instance.run_storage.delete_run(run_id)
    return len(doomed)


def _ended(instance: dg.DagsterInstance, before: datetime) -> Iterator[dg.DagsterRun]:
    """Runs that ended before then, oldest first; none may be deleted while this goes on, for a page ends at a run."""
    filters, cursor = dg.RunsFilter(statuses=_FINISHED, updated_before=before), None
    while page := instance.get_run_records(filters, limit=_PAGE, cursor=cursor, ascending=True):
        cursor = page[-1].dagster_run.run_id
        yield from (record.dagster_run for record in page)


def _newest_words(instance: dg.DagsterInstance) -> set[int]:
    """Ids of the events that the state of every asset and partition is read from.

    They are the newest materialization, and what is newer than that: an attempt that failed, and what it observed.
    """
    found: set[int] = set()
    for key in instance.all_asset_keys():
        made, *others = (_by_place(instance, key, kind) for kind in _WORDS)
        found.update(made.values())
        for other in others:
            found.update(id_ for place, id_ in other.items() if id_ > made.get(place, 0))
    return found


def _by_place(instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType) -> Mapping[str, int]:
    """The newest event of each partition, and the newest at all: the only one where there are no partitions."""
    storage = instance.event_log_storage
    newest: list[int] = []
    if kind is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
        planned = storage.get_latest_planned_materialization_info(key)
        newest = [planned.storage_id] if planned else []
    elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
        newest = [record.storage_id for record in instance.fetch_materializations(key, limit=1).records]
    else:
        newest = [record.storage_id for record in instance.fetch_observations(key, limit=1).records]
    return {"": max(newest, default=0), **storage.get_latest_storage_id_by_partition(key, kind)}


def _words_of(instance: dg.DagsterInstance, run_id: str) -> set[int]:
    return {record.storage_id for record in instance.get_records_for_run(run_id, of_type=set(_WORDS)).records}


class _Wanted:
    """Runs that something at work still looks at."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._backfills: dict[str, bool] = {}
        at_work = instance.get_runs(filters=dg.RunsFilter(statuses=_UNFINISHED))
        self._forebears = {id_ for run in at_work for id_ in (run.parent_run_id, run.root_run_id)}

    def holds(self, run: dg.DagsterRun) -> bool:
        waits = run.tags.get("dagster/will_retry") == "true" and "dagster/auto_retry_run_id" not in run.tags
        return waits or run.run_id in self._forebears or self._is_backfilled(run.tags)

    def _is_backfilled(self, tags: Mapping[str, str]) -> bool:
        id_ = tags.get("dagster/backfill")
        if id_ is None:
            return False
        if id_ not in self._backfills:
            backfill = self._instance.get_backfill(id_)
            self._backfills[id_] = backfill is not None and backfill.status.value in _AT_WORK
        return self._backfills[id_]


def log_folder(instance: dg.DagsterInstance) -> Path | None:
    """Where runs' output lies on this machine; `None` where it does not: a bucket has rules of its own."""
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager  # noqa: PLC0415 - not public

    manager = instance.compute_log_manager
    if not isinstance(manager, LocalComputeLogManager):
        return None
    return Path(manager.get_captured_local_path(["any"], "out")).parent


def remove_logs(folder: Path, before: datetime) -> RemovedLogs:
    """Remove files last written before then, and folders that so get empty. Nothing is reached through a link."""
    files = size = 0
    limit = before.timestamp()
    old = {path for path, _, _, handle in os.fwalk(folder) if os.fstat(handle).st_mtime < limit}
    for path, folders, names, handle in os.fwalk(folder, topdown=False):
        for name in names:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_mtime < limit:
                os.unlink(name, dir_fd=handle)
                files, size = files + 1, size + found.st_size
        for name in folders:
            if str(Path(path, name)) in old:
                _remove_empty(name, handle)
    return RemovedLogs(files, size)


def _remove_empty(name: str, within: int) -> None:
    try:
        os.rmdir(name, dir_fd=within)
    except OSError:
        return  # something younger is in it


@dg.asset(
    group_name=HOUSEKEEPING,
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "upkeep"},
    description=(
        "Finished runs of Dagster and their output, deleted after retention.run_days and retention.log_days. The "
        "newest run of every asset and partition stays, however old: the UI's colours are read from it. A dry run "
        "unless the config says apply: true; the schedule purge_runs_daily says so."
    ),
)
def purged_runs(
    context: dg.AssetExecutionContext, config: Removing, migration: Migration
) -> dg.MaterializeResult[None]:
    """Delete what is older than the settings say, or say that nothing was; 0 days keep everything."""
    config.checked()
    kept, now, instance = migration.retention, datetime.now(UTC), context.instance
    if not config.apply:
        return dg.MaterializeResult(
            metadata={
                "summary": "Nothing was deleted: a dry run.",
                "run_days": kept.run_days,
                "log_days": kept.log_days,
                "applied": 0,
            }
        )
    runs = Purged(0, 0, 0, more=False)
    if kept.run_days:
        runs = purge_runs(instance, now - timedelta(days=kept.run_days))
    logs, folder = RemovedLogs(0, 0), log_folder(instance)
    if kept.log_days and folder is not None and folder.is_dir():
        logs = remove_logs(folder, now - timedelta(days=kept.log_days))
    return dg.MaterializeResult(
        metadata={
            "summary": f"{count(runs.runs, 'run')} and {count(logs.files, 'file')} of output deleted.",
            "applied": 1,
            "runs": runs.runs,
            "newest_kept": runs.newest,
            "needed_kept": runs.needed,
            "more_tomorrow": int(runs.more),
            "log_files": logs.files,
            "log_megabytes": round(logs.bytes / 1e6, 1),
        }
    )


purge_job = dg.define_asset_job(
    "purge_runs",
    selection=dg.AssetSelection.assets("purged_runs"),
    config=by_job("purged_runs"),
    description="Deletes finished runs and their output, by age. Give apply, why and your name.",
    tags={"dagster/max_runtime": str(4 * 3600)},
)
purge_schedule = dg.ScheduleDefinition(
    name="purge_runs_daily",
    job=purge_job,
    run_config=by_schedule("purged_runs", "purge_runs_daily"),
    cron_schedule="47 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps the disks of Dagster's database and of the runs' output from filling.",
)
