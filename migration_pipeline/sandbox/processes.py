"""Server processes of the sandbox: free ports, start, readiness, stop."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from migration_pipeline.adapters.guarded import Guarded

_READY_SECONDS = 60.0
_LOG_TAIL = 2000


class SandboxUnavailable(Exception):  # noqa: N818 - says what is missing, and how to get it
    """The sandbox cannot run here."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class ServerProcess:
    """One server, ended with the process that started it, even when that is killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        stop: str = "SIGTERM",
    ) -> None:
        self._name, self._log = name, log
        self._process = Guarded(command, log=log, environment=environment, user=user, stop=stop)

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Ask until `ready` says so.

        Raises:
            SandboxUnavailable: the server died, or took too long; with the end of its log.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            if self._process.ended or time.monotonic() > deadline:
                raise SandboxUnavailable(f"{self._name} did not start:\n{self._tail()}")
            time.sleep(0.05)

    def close(self) -> None:
        """Stop the server, gracefully first."""
        self._process.close()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_TAIL:] if self._log.exists() else ""


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
