"""What clicks in Dagster's UI send, asked of a code server in a process of its own, and carried out in this process.

The mutations and their variables are those that the UI of the pinned release sends: `dagster_webserver`'s own scripts
hold them. Runs are executed where they are launched, so that a click has ended when it returns.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.launcher import LaunchRunContext
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.schema import create_schema
from dagster_graphql.test.utils import execute_dagster_graphql

from migration_pipeline.definitions import defs

STAGES = ["file_references", "file_copies", "database_urls", "firebase_urls", "migrated_profiles"]
LOCATION = {"repositoryLocationName": "migration_pipeline", "repositoryName": "__repository__"}
_ROUNDS = 20
_SCHEMA, _REPOSITORY = create_schema(), defs.get_repository_def()


class HereAndLater(SyncInMemoryRunLauncher):
    """Keeps runs to be executed: GraphQL is answered within an event loop, and a run has one of its own."""

    waiting: ClassVar[list[LaunchRunContext]] = []

    def launch_run(self, context: LaunchRunContext) -> None:
        self.waiting.append(context)

    @classmethod
    def carry_out(cls, instance: dg.DagsterInstance) -> None:
        while cls.waiting:
            context = cls.waiting.pop(0)
            job = InMemoryJob(_REPOSITORY.get_job(context.dagster_run.job_name))
            execute_run(job, context.dagster_run, instance)


_SET_UP = {
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
    "run_launcher": {"module": HereAndLater.__module__, "class": HereAndLater.__name__},
}


class Ui:
    """The clicks."""

    def __init__(self, instance: dg.DagsterInstance, workspace: WorkspaceProcessContext) -> None:
        self.instance, self._workspace = instance, workspace

    def ask(self, query: str, **variables: Any) -> Any:
        context = self._workspace.create_request_context()
        answer = execute_dagster_graphql(context, query, variables, _SCHEMA).data
        HereAndLater.carry_out(self.instance)
        return answer

    def materialize(
        self,
        assets: Sequence[str],
        partitions: Sequence[str],
        job: str | None = None,
        config: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Materialize > Partitions > Launch, of an asset, a group or a job, with several partitions.

        `config` and `tags` are what the dialog's parts of these names hold.
        """
        selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": LOCATION}
        return self._launched(
            "mutation ($p: LaunchBackfillParams!) { it: launchPartitionBackfill(backfillParams: $p) { __typename"
            " ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            tags=[{"key": key, "value": value} for key, value in {"dagster/from_ui": "true", **(tags or {})}.items()],
            assetSelection=[{"path": [asset]} for asset in assets],
            partitionNames=list(partitions),
            fromFailure=False,
            runConfigData=config,
            **({"selector": selector} if job else {}),
        )

    def with_required(self, asset: str) -> list[str]:
        """The asset, and those that Materialize on its page asks to confirm: one op makes them all."""
        more = self.ask(
            "query ($keys: [AssetKeyInput!]!) { assetNodeAdditionalRequiredKeys(assetKeys: $keys) { path } }",
            keys=[{"path": [asset]}],
        )["assetNodeAdditionalRequiredKeys"]
        return [asset, *(key["path"][-1] for key in more)]

    def reexecute_backfill(self, backfill: str, strategy: str) -> str:
        """Backfill > Re-execute, or Re-execute from failure."""
        return self._launched(
            "mutation ($p: ReexecutionParams!) { it: reexecutePartitionBackfill(reexecutionParams: $p) { __typename"
            " ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            parentRunId=backfill,
            strategy=strategy,
        )

    def materialize_one(self, assets: Sequence[str], partition: str, job: str = "__ASSET_JOB", config: str = "") -> str:
        """Materialize with a single partition chosen: a run, and no backfill."""
        return self._run(
            "mutation ($p: ExecutionParams!) { it: launchPipelineExecution(executionParams: $p) { __typename"
            " ... on LaunchRunSuccess { run { id } } ... on PythonError { message }"
            " ... on RunConfigValidationInvalid { errors { message } } } }",
            mode="default",
            executionMetadata={
                "tags": [
                    {"key": "dagster/partition", "value": partition},
                    {"key": "dagster/partition_set", "value": f"{job}_partition_set"},
                    {"key": "dagster/from_ui", "value": "true"},
                ]
            },
            runConfigData=config,
            selector=LOCATION | {
                "pipelineName": job,
                "assetSelection": [{"path": [asset]} for asset in assets],
                "assetCheckSelection": self._checks(assets),
            },
        )  # fmt: skip

    def reexecute_run(self, run: str, strategy: str) -> str:
        """Run > Re-execute: all, from failure, or from asset failure."""
        return self._run(
            "mutation ($p: ReexecutionParams) { it: launchPipelineReexecution(reexecutionParams: $p) { __typename"
            " ... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }",
            parentRunId=run,
            strategy=strategy,
            extraTags=[{"key": "dagster/from_ui", "value": "true"}],
        )

    def failed(self, asset: str) -> list[str]:
        """What the UI's "Failed" chooses."""
        return self._statuses(asset)[1]

    def materialized(self, asset: str) -> list[str]:
        """What it paints green."""
        return self._statuses(asset)[0]

    def backfill(self, id_: str) -> PartitionBackfill:
        """The backfill, after the daemon did all that it wants to do."""
        found = self.instance.get_backfill(id_)
        errors: list[Any] = []
        for _ in range(_ROUNDS):
            assert found is not None
            if found.status not in (BulkActionStatus.REQUESTED, BulkActionStatus.FAILING, BulkActionStatus.CANCELING):
                return found
            errors += filter(None, execute_backfill_iteration(self._workspace, logging.getLogger("backfills")))
            HereAndLater.carry_out(self.instance)
            found = self.instance.get_backfill(id_)
        raise AssertionError(f"backfill {id_} does not end: {errors[-1:]}")

    def runs_of(self, backfill: str) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))

    def _statuses(self, asset: str) -> tuple[list[str], list[str]]:
        (node,) = self.ask(
            "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetPartitionStatuses {"
            " ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } }",
            key={"path": [asset]},
        )["assetNodes"]
        found = node["assetPartitionStatuses"]
        return found["materializedPartitions"], found["failedPartitions"]

    def _checks(self, assets: Sequence[str]) -> list[dict[str, Any]]:
        """Those of the chosen assets: the UI asks for them by name."""
        found = self.ask(
            "query ($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { assetChecksOrError { ... on AssetChecks"
            " { checks { name assetKey { path } } } } } }",
            keys=[{"path": [asset]} for asset in assets],
        )["assetNodes"]
        checks = [check for node in found for check in node["assetChecksOrError"].get("checks", [])]
        return [{"name": item["name"], "assetKey": {"path": item["assetKey"]["path"]}} for item in checks]

    def _launched(self, mutation: str, **parameters: Any) -> str:
        answer = self.ask(mutation, p=parameters)["it"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def _run(self, mutation: str, **parameters: Any) -> str:
        answer = self.ask(mutation, p=parameters)["it"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["id"])


@contextmanager
def dagster_ui() -> Iterator[Ui]:
    """An instance, and a code server that loads the definitions in this process's environment."""
    with dg.instance_for_test(overrides=_SET_UP) as instance:
        target = ModuleTarget("migration_pipeline.definitions", None, None, "migration_pipeline")
        with create_test_daemon_workspace_context(target, instance) as workspace:
            yield Ui(instance, workspace)
