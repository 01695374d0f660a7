"""Processes that end with whoever started them, however that ends."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_GUARDIAN = Path(__file__).with_name("guardian.py")
_BEYOND_GRACE_SECONDS = 10.0


class Guarded:
    """A process whose guardian ends it as soon as this process lets go of it, or is killed."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        stop: str = "SIGTERM",
        grace: float = 10.0,
    ) -> None:
        """Start it.

        Args:
            command: what to run, in a session of its own.
            log: gets what it prints, behind what there is.
            environment: variables beside those of this process.
            user: who runs it, where that is somebody else.
            stop: the signal that asks it to end.
            grace: seconds until it is killed after that.
        """
        self._grace = grace
        task = {"command": list(command), "log": str(log), "user": user, "stop": stop, "grace": grace}
        self._guardian = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, str(_GUARDIAN), json.dumps(task)],
            stdin=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            # Ctrl-C in a terminal, or its end, reaches us alone, and we end the process in order.
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._guardian.poll() is not None

    def close(self) -> None:
        """End it, gracefully first."""
        if self._guardian.stdin:
            self._guardian.stdin.close()
        self._guardian.wait(self._grace + _BEYOND_GRACE_SECONDS)
