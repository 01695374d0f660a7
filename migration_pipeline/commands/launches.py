"""Runs of ranges, launched together on the user's own Dagster instance: a backfill, or a few runs without one.

Dagster's daemon looks at backfills every 30 s, at queued runs every 2 s. So ranges that can all start at once are
launched as runs, as the UI does it for a single partition; more of them become a backfill.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME

# What the daemon has ticked, and in which code location, stands nowhere else.
from dagster._core.scheduler.instigation import InstigatorType, SensorInstigatorData

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal
from migration_pipeline.defs.migrated import NAMED_TAG, SPECS, migrate_job

# The package cannot be run with -m, and its script may not be on PATH.
_GRAPHQL = "from dagster_graphql.cli import main; main()"
_BACKFILL_TAG, _PARTITION_TAG, _WILL_RETRY_TAG = "dagster/backfill", "dagster/partition", "dagster/will_retry"
_LAUNCH_TAG = "migration/launch"
_LAUNCH_BACKFILL = """
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
_LAUNCH_RUNS = """
mutation ($params: [ExecutionParams!]!) {
  launchMultipleRuns(executionParamsList: $params) {
    ... on PythonError { message }
    ... on LaunchMultipleRunsResult {
      launchMultipleRunsResult { __typename ... on LaunchRunSuccess { run { id } } ... on Error { message } }
    }
  }
}
"""
_CANCEL_BACKFILL = """
mutation ($id: String!, $runs: [String!]!) {
  cancelPartitionBackfill(backfillId: $id) { __typename }
  terminateRuns(runIds: $runs) { __typename }
}
"""
_TERMINATE_RUNS = "mutation ($runs: [String!]!) { terminateRuns(runIds: $runs) { __typename } }"
_ACTIVE = ("REQUESTED", "CANCELING", "FAILING")
_NEWEST = 100  # backfills looked at for one that is active
_QUEUED = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED}
_RUNNING = {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}
_UNFINISHED = [*_QUEUED, *_RUNNING]


_LOCATION = "migration_pipeline"
"""The code location's name in the workspace.yaml of this project."""
_SENSORS = {"fresh_pages", "requested_ranges", "watchdog"}
"""On from the start: a daemon has ticked each of them in the location that is this project's."""


def location_of(opened: dg.DagsterInstance) -> str:
    """What the user's daemon calls this project's code location: a run of another name would never leave the queue.

    Told from the sensors that it has ticked; the name in workspace.yaml as long as it has ticked none.
    """
    ticked: dict[str, dict[str, float]] = {}
    for state in opened.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        if isinstance(data, SensorInstigatorData) and data.last_tick_timestamp and state.instigator_name in _SENSORS:
            name = state.origin.repository_origin.code_location_origin.location_name
            ticked.setdefault(name, {})[state.instigator_name] = data.last_tick_timestamp
    # The newest, for a location that was renamed leaves the ticks of its old name behind.
    ours = {name: max(at.values()) for name, at in ticked.items() if set(at) == _SENSORS}
    return max(ours, key=ours.__getitem__, default=_LOCATION)


def workspace(location: str, folder: Path) -> Path:
    """A workspace.yaml in the folder, with this project under that name."""
    module = {"module_name": "migration_pipeline.definitions", "location_name": location}
    path = folder / "workspace-of-migrate.yaml"
    path.write_text(json.dumps({"load_from": [{"python_module": module}]}), encoding="utf-8")  # JSON is YAML
    return path


class Launch(NamedTuple):
    """Runs that were launched together.

    Attributes:
        id: the backfill's, or one of ours that the runs carry as a tag.
        is_backfill: whether Dagster's daemon launches the runs, as a backfill.
        partitions: how many ranges; None for a backfill that this process did not launch.
    """

    id: str
    is_backfill: bool
    partitions: int | None

    def __str__(self) -> str:
        return f"backfill {self.id}" if self.is_backfill else f"launch {self.id}"

    def runs(self, statuses: Sequence[dg.DagsterRunStatus] = ()) -> dg.RunsFilter:
        """What finds its runs; those in one of the statuses, where some are given."""
        return dg.RunsFilter(tags={_BACKFILL_TAG if self.is_backfill else _LAUNCH_TAG: self.id}, statuses=statuses)


class LaunchState(NamedTuple):
    """Runs by status, and how far the whole is.

    Attributes:
        settled: the last run of each range has ended and Dagster will not retry it. A backfill may still be active:
            its daemon ends it at its next tick.
        ended: settled, and Dagster has nothing left to do for it.
    """

    queued: int
    running: int
    succeeded: int
    failed: int
    settled: bool
    ended: bool


def launch(location: str, keys: Sequence[str], *, at_once: int, named: bool = False) -> Launch:
    """Launch runs of these ranges: directly where no more than `at_once` of them, else as a backfill.

    Args:
        location: the code location's name, as `location_of` tells it.
        keys: of the ranges.
        at_once: how many ranges may be worked on at the same time.
        named: somebody asked for these very ranges, so that those which were rolled back are migrated again.

    Raises:
        Fatal: Dagster refuses.
    """
    if len(keys) <= at_once:
        return _launch_runs(location, keys)
    return launch_backfill(location, keys, named=named)


def launch_backfill(location: str, keys: Sequence[str], *, named: bool = False) -> Launch:
    """Request a backfill of these partitions; the daemon does the rest. Arguments are those of `launch`.

    Raises:
        Fatal: Dagster refuses it.
    """
    params = {
        "assetSelection": [{"path": list(spec.key.path)} for spec in SPECS],
        "partitionNames": list(keys),
        "title": f"migrate {count(len(keys), 'range')}",
        "tags": _tags({NAMED_TAG: "true"} if named else {}),
    }
    launched = _answer(_graphql(location, _LAUNCH_BACKFILL, {"params": params}), "launchPartitionBackfill")
    if "backfillId" not in launched:
        raise _refused(launched.get("message"))
    return Launch(str(launched["backfillId"]), is_backfill=True, partitions=len(keys))


def _launch_runs(location: str, keys: Sequence[str]) -> Launch:
    launch_id = uuid4().hex[:8]
    selector = {
        "repositoryLocationName": location,
        "repositoryName": SINGLETON_REPOSITORY_NAME,
        "jobName": migrate_job.name,
    }
    params = [
        {"selector": selector, "executionMetadata": {"tags": _tags({_PARTITION_TAG: key, _LAUNCH_TAG: launch_id})}}
        for key in keys
    ]
    launched = _answer(_graphql(location, _LAUNCH_RUNS, {"params": params}), "launchMultipleRuns")
    results = launched.get("launchMultipleRunsResult") or [launched]
    refused = [result for result in results if "run" not in result]
    if refused:
        raise _refused(refused[0].get("message"))
    return Launch(launch_id, is_backfill=False, partitions=len(keys))


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def cancel(opened: dg.DagsterInstance, launched: Launch) -> None:
    """Launch no further run, and end those that have not ended; a daemon carries it out.

    Raises:
        Fatal: Dagster refuses it.
    """
    runs = list(opened.get_run_ids(filters=launched.runs(_UNFINISHED)))
    if launched.is_backfill:
        _graphql(location_of(opened), _CANCEL_BACKFILL, {"id": launched.id, "runs": runs})
    else:
        _graphql(location_of(opened), _TERMINATE_RUNS, {"runs": runs})


def active(opened: dg.DagsterInstance) -> Launch | None:
    """A launch of ours that has not ended yet, if there is one."""
    ours = SPECS[-1].key
    for backfill in opened.get_backfills(limit=_NEWEST):
        if backfill.status.value in _ACTIVE and ours in (backfill.asset_selection or ()):
            return Launch(backfill.backfill_id, is_backfill=True, partitions=None)
    for run in opened.get_runs(filters=dg.RunsFilter(job_name=migrate_job.name, statuses=_UNFINISHED)):
        if _LAUNCH_TAG in run.tags:
            begun = Launch(run.tags[_LAUNCH_TAG], is_backfill=False, partitions=None)
            return begun._replace(partitions=len(partitions(opened, begun)))
    return None


def partitions(opened: dg.DagsterInstance, launched: Launch) -> set[str]:
    """The ranges that have had a run."""
    return {run.tags[_PARTITION_TAG] for run in opened.get_runs(filters=launched.runs()) if _PARTITION_TAG in run.tags}


def state(opened: dg.DagsterInstance, launched: Launch) -> LaunchState:
    """How far it is now."""
    runs = opened.get_runs(filters=launched.runs())  # newest first
    statuses = [run.status for run in runs]
    over = _over(runs, retried=opened.run_retries_enabled)
    settled = launched.partitions is not None and over == launched.partitions
    ended = settled
    if launched.is_backfill:
        backfill = opened.get_backfill(launched.id)
        ended = backfill is None or backfill.status.value not in _ACTIVE
    return LaunchState(
        queued=sum(status in _QUEUED for status in statuses),
        running=sum(status in _RUNNING for status in statuses),
        succeeded=statuses.count(dg.DagsterRunStatus.SUCCESS),
        failed=statuses.count(dg.DagsterRunStatus.FAILURE),
        settled=settled or ended,
        ended=ended,
    )


def _over(runs: Iterable[dg.DagsterRun], *, retried: bool) -> int:
    """Partitions whose newest run has ended for good.

    A run is marked as failed first, and told to be retried or not a moment later.
    """
    newest: dict[str | None, dg.DagsterRun] = {}
    for run in runs:
        newest.setdefault(run.tags.get(_PARTITION_TAG), run)
    waits = "true" if retried else "false"
    return sum(
        run.is_finished
        and not (run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(_WILL_RETRY_TAG, waits) == "true")
        for run in newest.values()
    )


def _answer(result: Mapping[str, Any], field: str) -> dict[str, Any]:
    """What the mutation gave, or its errors as a message."""
    return (result.get("data") or {}).get(field) or {"message": result.get("errors")}


def _refused(message: object) -> Fatal:
    return Fatal(f"Dagster refused the launch: {message}", setting="partition", remedy="Plan the ranges first.")


def _graphql(location: str, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    """Dagster's answer, got without a webserver.

    Raises:
        Fatal: there was none.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        # The answer goes to a file because the command mixes standard output with logs.
        command = [sys.executable, "-c", _GRAPHQL, "-w", str(workspace(location, Path(folder))), "-o", str(answer)]
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
