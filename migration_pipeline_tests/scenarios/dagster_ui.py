"""`dagster dev` over a world, driven as the UI drives it: by GraphQL over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migration_pipeline.commands.dagster_instance import shipped
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline_tests.scenarios.conftest import World

PROMPT = {"PYTHONPATH": str(Path(__file__).parents[1] / "prompt_ticks")}
"""Has a daemon look at backfills every two seconds: a test that owns it need not wait for half a minute."""

STAGES = ["file_references", "file_copies", "database_urls", "firebase_urls", "migrated_profiles"]


class DagsterUi:
    """The running UI and daemon."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._url = f"{self.url}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - the UI on 127.0.0.1
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            said = json.load(answer)
        assert "errors" not in said, said
        return said["data"]

    def ready(self) -> bool:
        """Whether the code location is loaded."""
        try:
            loaded = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        entries = loaded["workspaceOrError"].get("locationEntries", [])
        return [entry["loadStatus"] for entry in entries] == ["LOADED"]

    def assets(self) -> dict[str, list[str]]:
        """Asset → its partition keys."""
        nodes = self.ask("{ assetNodes { assetKey { path } partitionKeys } }")["assetNodes"]
        return {"/".join(node["assetKey"]["path"]): node["partitionKeys"] for node in nodes}

    def backfill(self, partitions: list[str]) -> str:
        """Launch what the assets' "Materialize all" launches."""
        answer = self.ask(
            "mutation ($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p)"
            " { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            p={"assetSelection": [{"path": [stage]} for stage in STAGES], "partitionNames": partitions},
        )["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def runs(self, backfill: str) -> list[dict[str, Any]]:
        """The backfill's runs, newest first."""
        return list(
            self.ask(
                'query ($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]})'
                " { ... on Runs { results { id status tags { key value } } } } }",
                id=backfill,
            )["runsOrError"]["results"]
        )

    def backfill_status(self, backfill: str) -> str:
        query = (
            "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
        )
        return str(self.ask(query, id=backfill)["partitionBackfillOrError"]["status"])

    def ended(self, backfill: str) -> bool:
        return self.backfill_status(backfill) not in ("REQUESTED", "CANCELING", "FAILING")

    def pid_of(self, run: str) -> int | None:
        """The process of a run at work."""
        events = self.ask(
            "query ($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection { events"
            " { __typename ... on EngineEvent { message } } } } } }",
            id=run,
        )["runOrError"]["eventConnection"]["events"]
        for event in events:
            found = re.match(r"(?:Executing steps in|Started) process.*\(pid: (\d+)\)", event.get("message", ""))
            if found:
                return int(found[1])
        return None


@contextmanager
def dagster_dev(world: World, **environment: str) -> Iterator[DagsterUi]:
    """Run `dagster dev` for as long as the block does."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    with (world.folder / "dagster_dev.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "-w", str(shipped("workspace.yaml"))],
            env={**os.environ, **world.environment, **PROMPT, **environment},
            cwd=world.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ui = DagsterUi(port)
            wait_for(ui.ready, 300)
            yield ui
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise


def wait_for(true: Callable[[], bool], seconds: float) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not so within {seconds} s: {true}"
        time.sleep(0.2)
