"""Servers for the tests, started by the first test that needs them; which tests are slow, and which begin first."""

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from migration_pipeline.adapters.http import network
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.moto_server import MotoServer


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Real servers, and the environment that goes with them."""
    with Sandbox() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(autouse=True)
def authorities() -> Iterator[None]:
    """What a setting told other libraries to trust ends with the test: they read it from the environment."""
    before = {name: os.environ.get(name) for name in (*network._CA_VARIABLES, *network._TOLD)}  # noqa: SLF001 - its own
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def moto(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:  # noqa: ARG001 - credentials
    """A second store that speaks S3's protocol; it takes any credentials, the sandbox's too."""
    server = MotoServer(tmp_path_factory.mktemp("moto") / "moto.log")
    yield server
    server.close()


def pytest_configure() -> None:
    """Take Ctrl-C even from `nohup make test &`, which has it ignored by every process below: tests send it to some."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_SLOW_FOLDERS = {"scenarios", "write_path", "soak", "deploy", "report", "uploads", "sandbox"}
_SLOW_MODULES = {
    "test_pythons", "test_release", "test_docs_site", "test_azure_listing", "test_byte_stores", "test_documents",
    "test_realtime_database", "test_removal", "test_purged_runs", "test_reruns", "test_groups", "test_standing",
    "test_secrets", "test_azure_sign_in", "test_aws_sign_in", "test_odd_answers",
}  # fmt: skip
"""What takes more than a few seconds, or a browser, or processes of Dagster."""

_LONGEST = (
    "test_dagster_dev", "test_docs_run", "test_soak", "test_migration", "test_stopping", "test_upkeep", "test_reruns",
    "test_live", "test_interruptions", "test_inventory", "test_control", "test_several_workers", "test_names",
    "test_decommission", "test_compose", "test_aws", "test_faults", "test_pythons",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and have the longest modules begin first, shared out to the processes."""
    for item in items:
        if item.path.parent.name in _SLOW_FOLDERS or item.path.stem in _SLOW_MODULES:
            item.add_marker(pytest.mark.slow)
    items[:] = shared_out(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def shared_out(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """The items in as many shares as there are processes, each of which begins with long modules.

    As pytest-xdist deals them out with `--dist worksteal`: to each process one share, in this order.
    """
    modules = dict[Any, list[pytest.Item]]()
    for item in items:
        modules.setdefault(item.path, []).append(item)
    rank = {name: place for place, name in enumerate(_LONGEST)}
    long = sorted((path for path in modules if path.stem in rank), key=lambda path: rank[path.stem])
    rest = [item for path, held in modules.items() if path.stem not in rank for item in held]
    ordered = list[pytest.Item]()
    for share in range(processes):
        first = [item for path in long[share::processes] for item in modules[path]]
        size = (len(items) - len(ordered)) // (processes - share)
        room = max(0, size - len(first))
        ordered += first + rest[:room]
        del rest[:room]
    return ordered + rest
