"""The user's own Dagster instance, spoken to without the UI: partitions, backfills, and the daemon."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from migration_pipeline.core.errors import Fatal
from migration_pipeline.defs.migrated import SPECS

_BACKFILL_TAG = "dagster/backfill"
_STOP_SECONDS = 30
LOG_BYTES = 20_000_000
_DAEMONS = ("BACKFILL", "QUEUED_RUN_COORDINATOR")
_SILENT_SECONDS = 75.0  # a daemon's heart beats every 30 s
_PACKAGE = Path(__file__).parents[1]

# The package cannot be run with -m, and its script may not be on PATH.
_GRAPHQL = "from dagster_graphql.cli import main; main()"
_LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on PartitionKeysNotFoundError { message }
  }
}
"""
_CANCEL = """
mutation ($id: String!, $runs: [String!]!) {
  cancelPartitionBackfill(backfillId: $id) { __typename }
  terminateRuns(runIds: $runs) { __typename }
}
"""
_ACTIVE = ("REQUESTED", "CANCELING", "FAILING")
_NEWEST = 100  # backfills looked at for one that is at work
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


class BackfillState(NamedTuple):
    """How a backfill stands: its runs by status, and whether it ended."""

    queued: int
    running: int
    succeeded: int
    failed: int
    ended: bool
    status: str


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


def launch_backfill(keys: Sequence[str]) -> str:
    """Ask for a backfill of these partitions and return its id; the daemon does the rest.

    Raises:
        Fatal: Dagster refuses it.
    """
    params = {
        "assetSelection": [{"path": list(spec.key.path)} for spec in SPECS],
        "partitionNames": list(keys),
        "title": f"migrate {len(keys)} ranges",
    }
    result = _graphql(_LAUNCH, {"params": params})
    launched = (result.get("data") or {}).get("launchPartitionBackfill", {})
    if "backfillId" not in launched:
        said = launched.get("message") or result.get("errors")
        raise Fatal(f"Dagster refused the backfill: {said}", setting="partition", remedy="Plan the ranges first.")
    return str(launched["backfillId"])


def cancel_backfill(opened: dg.DagsterInstance, backfill_id: str) -> None:
    """Launch no further run of the backfill, and end those at work; a daemon carries it out.

    Raises:
        Fatal: Dagster refuses it.
    """
    at_work = opened.get_run_ids(filters=dg.RunsFilter(tags={_BACKFILL_TAG: backfill_id}, statuses=_UNFINISHED))
    _graphql(_CANCEL, {"id": backfill_id, "runs": list(at_work)})


def active_backfill(opened: dg.DagsterInstance) -> str | None:
    """A backfill of ours that has not ended yet, if there is one."""
    ours = SPECS[-1].key
    for backfill in opened.get_backfills(limit=_NEWEST):
        if backfill.status.value in _ACTIVE and ours in (backfill.asset_selection or ()):
            return backfill.backfill_id
    return None


def _graphql(query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    """Dagster's answer, got without a webserver.

    Raises:
        Fatal: there was none.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        # The answer goes to a file because the command mixes standard output with logs.
        command = [sys.executable, "-c", _GRAPHQL, "-w", str(shipped("workspace.yaml")), "-o", str(answer)]
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [*command, "-t", query, "-v", json.dumps(variables)],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        if done.returncode or not answer.exists():
            raise Fatal(f"Dagster did not answer: {done.stderr[-2000:]}", setting="DAGSTER_HOME")
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return result


def backfill_state(opened: dg.DagsterInstance, backfill_id: str) -> BackfillState:
    """How the backfill stands now."""
    backfill = opened.get_backfill(backfill_id)
    status = backfill.status.value if backfill else "GONE"
    runs = opened.get_runs(filters=dg.RunsFilter(tags={_BACKFILL_TAG: backfill_id}))
    counts = [run.status for run in runs]
    return BackfillState(
        queued=sum(s in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED) for s in counts),
        running=sum(
            s in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
            for s in counts
        ),
        succeeded=counts.count(dg.DagsterRunStatus.SUCCESS),
        failed=counts.count(dg.DagsterRunStatus.FAILURE),
        ended=status not in _ACTIVE,
        status=status,
    )


def daemon_alive(opened: dg.DagsterInstance) -> bool:
    """Whether a daemon has lately said that it launches queued runs and backfills.

    Dagster itself calls a daemon healthy for half an hour after it ended; a migration would wait in vain that long.
    """
    beats, now = opened.get_daemon_heartbeats(), time.time()
    return all(name in beats and now - beats[name].timestamp < _SILENT_SECONDS for name in _DAEMONS)


@contextmanager
def daemon(log: Path) -> Iterator[None]:
    """A daemon of our own, for as long as the block runs; what it prints goes to `log`."""
    yield from _service(["dagster._daemon", "run"], log)


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


def _service(command: Sequence[str], log: Path) -> Iterator[None]:
    workspace = ["-w", str(shipped("workspace.yaml"))]
    begin_anew(log)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", *command, *workspace],
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches us alone, and we stop it in order.
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
