"""Apps of any shape."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.scenarios.hostile_app.app import HostileApp, hostile_app

MakeApp = Callable[..., HostileApp]


@pytest.fixture
def make_app(sandbox: Sandbox, tmp_path: Path) -> MakeApp:
    """Makes an app of tables and settings; see `hostile_app`."""
    return partial(hostile_app, sandbox, tmp_path)
