"""Servers for the tests: started once, by the first test that needs them."""

from collections.abc import Iterator

import pytest

from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.moto_server import MotoServer


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Real servers, and the environment that goes with them."""
    with Sandbox() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="session")
def moto(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:  # noqa: ARG001 - credentials
    """A second store that speaks S3's protocol; it takes any credentials, the sandbox's too."""
    server = MotoServer(tmp_path_factory.mktemp("moto") / "moto.log")
    yield server
    server.close()
