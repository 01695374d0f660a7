"""Servers for the tests: started once, by the first test that needs them."""

from collections.abc import Iterator

import pytest

from migration_pipeline.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Real servers, and the environment that goes with them."""
    with Sandbox() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running
