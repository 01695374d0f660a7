"""The user's own Dagster instance, and the services that we start for it."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from migration_pipeline.adapters.guarded import Guarded
from migration_pipeline.core.errors import Fatal

_STOP_SECONDS = 30.0
LOG_BYTES = 20_000_000
_DAEMONS = ("BACKFILL", "QUEUED_RUN_COORDINATOR")
_SILENT_SECONDS = 75.0  # a daemon's heart beats every 30 s
_PACKAGE = Path(__file__).parents[1]


def shipped(name: str) -> Path:
    """A file from the top of the project: inside an installed package, beside the package in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parent / name


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The instance that `DAGSTER_HOME` names.

    Raises:
        Fatal: there is none, or its storage cannot be used.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home or not Path(home, "dagster.yaml").exists():
        raise Fatal(
            "names no folder with a dagster.yaml." if home else "is not set.",
            setting="DAGSTER_HOME",
            remedy="Make a folder, copy the project's dagster.yaml into it, and set DAGSTER_HOME to its full path.",
        )
    try:
        opened = dg.DagsterInstance.get()
    except Exception as error:  # noqa: BLE001 - whatever storage and configuration raise; the text may hold a password
        raise Fatal(
            f"Dagster's storage cannot be used ({type(error).__name__}).",
            setting="DAGSTER_HOME, DAGSTER_PG_*",
            remedy="Set every variable that dagster.yaml names, and start that Postgres.",
        ) from None
    with opened:
        yield opened


def daemon_alive(opened: dg.DagsterInstance) -> bool:
    """Whether a daemon has lately said that it launches queued runs and backfills.

    Dagster itself calls a daemon healthy for half an hour after it ended; a migration would wait in vain that long.
    """
    beats, now = opened.get_daemon_heartbeats(), time.time()
    return all(name in beats and now - beats[name].timestamp < _SILENT_SECONDS for name in _DAEMONS)


@contextmanager
def daemon(log: Path, workspace: Path | None = None) -> Iterator[None]:
    """A daemon of our own, for as long as the block runs; what it prints goes to `log`.

    Args:
        log: a file.
        workspace: another workspace.yaml than the project's.
    """
    yield from _service(["migration_pipeline.commands.prompt_daemon", "run"], log, workspace)


def forget_daemon(opened: dg.DagsterInstance) -> None:
    """Say that our daemon has ended, so that the next command does not rely on it."""
    opened.wipe_daemon_heartbeats()


@contextmanager
def webserver(port: int, log: Path) -> Iterator[None]:
    """The UI, for as long as the block runs."""
    yield from _service(["dagster_webserver", "-h", "127.0.0.1", "-p", str(port)], log)


def begin_anew(log: Path) -> None:
    """Put a log aside that has grown, so that it never takes more than twice its bound, and one run's lines."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.old"))


def _service(command: Sequence[str], log: Path, workspace: Path | None = None) -> Iterator[None]:
    begin_anew(log)
    command = [sys.executable, "-m", *command, "-w", str(workspace or shipped("workspace.yaml"))]
    process = Guarded(command, log=log, stop="SIGINT", grace=_STOP_SECONDS)
    try:
        yield
    finally:
        process.close()
