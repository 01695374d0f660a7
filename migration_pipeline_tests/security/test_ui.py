"""What somebody who reaches the Dagster UI can do, and cannot."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.webserver import DagsterWebserver

from migration_pipeline.definitions import defs
from migration_pipeline.defs.resources import Migration

LAUNCH = """mutation { launchRun(executionParams: {
    mode: "default", runConfigData: {},
    selector: {repositoryLocationName: "l", repositoryName: "r", jobName: "decommission"}
}) { __typename } }"""
Ask = Callable[..., Any]


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Asks a webserver over an empty workspace, read-only or not, and gives its answer."""
    with (
        dg.instance_for_test() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget(), version="", read_only=request.param) as context,
    ):
        app = DagsterWebserver(context).create_asgi_app()

        async def asked(method: str, **more: Any) -> Any:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return (await client.request(method, "/graphql", **more)).json()

        yield lambda method, **more: asyncio.run(asked(method, **more))


@pytest.mark.parametrize(
    ("ask", "answer"), [(True, "UnauthorizedError"), (False, "PipelineNotFoundError")], indirect=["ask"]
)
def test_a_read_only_ui_launches_nothing_and_any_other_takes_a_link(ask: Ask, answer: str) -> None:
    # What docs/security.md says must stand before it: a link, and a form of another site, are enough.
    query = {"query": LAUNCH}
    other_site = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    answers = [ask("GET", params=query), ask("POST", params=query, headers=other_site), ask("POST", json=query)]
    assert answers == [{"data": {"launchRun": {"__typename": answer}}}] * 3


def test_the_launchpad_cannot_name_other_settings_stores_or_secrets() -> None:
    assert Migration.model_fields.keys() == dg.ConfigurableResource.model_fields.keys()
    asked = {
        name
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.op.config_schema.config_type is not None
        for name in getattr(asset.op.config_schema.config_type, "fields", {})
    }
    assert {"apply", "by", "why"} <= asked
    assert [
        name for name in asked if any(word in name for word in ("url", "setting", "bucket", "account", "sql"))
    ] == []
