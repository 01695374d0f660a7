"""The Dagster instance that DAGSTER_HOME names: how it stores, launches, retries, and where logs go."""

import os
import shutil
import tempfile
from pathlib import Path

import dagster as dg

from migration_pipeline.commands.dagster_instance import daemon_alive, instance
from migration_pipeline.commands.doctor.findings import Findings, What, failure, ok, warning
from migration_pipeline.core.alert_words import count
from migration_pipeline.defs.ranges import POOL
from migration_pipeline.settings import Settings

_NEEDED = ("watchdog", "alerts", "requested_ranges")
_GIGABYTE = 1e9


def dagster_home(settings: Settings) -> Findings:
    """Everything that a backfill relies on."""
    with instance() as opened:
        yield from _storage(opened)
        yield from _workers(opened, settings.control.workers)
        yield from _recovery(opened)
        if daemon_alive(opened):
            yield ok(What.DAGSTER_DAEMON, "is running")
        else:
            yield warning(
                What.DAGSTER_DAEMON,
                "is not running; `migrate` starts one for its own time.",
                "For backfills from the UI run `dagster-daemon run -w workspace.yaml`, or `dagster dev`.",
            )
        yield from _sensors(opened)
        logs = Path(opened.compute_log_manager.get_captured_local_path(["doctor"], "out")).parent  # type: ignore[attr-defined]
    yield from _logs(logs)
    yield from _disk([Path(os.environ["DAGSTER_HOME"]), logs], settings.alerts.free_disk_gigabytes)


def _storage(opened: dg.DagsterInstance) -> Findings:
    if "Sqlite" in type(opened.event_log_storage).__name__:
        yield warning(
            What.DAGSTER,
            "keeps its state in SQLite, which several runs at a time lock and may damage.",
            "Copy the project's dagster.yaml, which keeps it in Postgres, into DAGSTER_HOME.",
        )
        return
    yield ok(What.DAGSTER, f"storage reachable ({os.environ['DAGSTER_HOME']})")


def _workers(opened: dg.DagsterInstance, workers: int) -> Findings:
    limits = {pool.name: pool.limit for pool in opened.event_log_storage.get_pool_limits()}
    queue = opened.get_concurrency_config().run_queue_config
    most = queue.max_concurrent_runs if queue is not None else None
    if most is not None and 0 <= most < workers:
        yield warning(
            What.DAGSTER_WORKERS,
            f"dagster.yaml allows {count(most, 'run')} at a time; control.workers is {workers}.",
            "Raise concurrency.runs.max_concurrent_runs.",
        )
    elif POOL not in limits:
        yield ok(What.DAGSTER_WORKERS, f"planning sets the pool {POOL!r} to {workers}")
    elif limits[POOL] != workers:
        yield warning(
            What.DAGSTER_WORKERS,
            f"the pool {POOL!r} allows {count(limits[POOL], 'range')} at a time; control.workers is {workers}.",
            "Set control.workers to what you want: planning and `migrate` make it the limit.",
        )
    else:
        yield ok(What.DAGSTER_WORKERS, f"{count(workers, 'range')} at a time")


def _recovery(opened: dg.DagsterInstance) -> Findings:
    """What goes on by itself after a crash."""
    for what, enabled, key, otherwise in (
        (What.DAGSTER_MONITORING, opened.run_monitoring_enabled, "run_monitoring", "a killed run counts as at work"),
        (What.DAGSTER_RETRIES, opened.run_retries_enabled, "run_retries", "a killed run is not run again"),
    ):
        if enabled:
            yield ok(what, "is on")
        else:
            yield warning(what, f"is off: {otherwise}.", f"Set {key}.enabled in dagster.yaml, as the project's has it.")


def _sensors(opened: dg.DagsterInstance) -> Findings:
    from migration_pipeline.definitions import defs  # noqa: PLC0415 - all of the project's assets

    declared = {sensor.name: sensor.default_status for sensor in defs.sensors or () if sensor.name in _NEEDED}
    running = {name for name, status in declared.items() if status is dg.DefaultSensorStatus.RUNNING}
    for state in opened.all_instigator_state():
        if state.name in declared:
            (running.discard if state.status.value == "STOPPED" else running.add)(state.name)
    stopped = sorted(declared.keys() - running)
    if stopped:
        yield warning(What.DAGSTER_SENSORS, f"{', '.join(stopped)} is off.", "Turn it on: Automation, in the UI.")
        return
    yield ok(What.DAGSTER_SENSORS, f"{', '.join(sorted(running))}: on, while a daemon runs")


def _logs(folder: Path) -> Findings:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield failure(
            What.DAGSTER_LOGS, f"{folder} cannot be written: {error.strerror}.", "Name another: DAGSTER_COMPUTE_LOGS."
        )
        return
    yield ok(What.DAGSTER_LOGS, f"are written to {folder}")


def _disk(folders: list[Path], wanted: float) -> Findings:
    for folder in folders:
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(there).free / _GIGABYTE
        if free < wanted:
            yield warning(What.DISK, f"{free:.1f} GB for {folder}.", "Make room, or name another folder.")
            continue
        yield ok(What.DISK, f"{free:.1f} GB for {folder}")
