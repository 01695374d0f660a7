"""The Realtime Database: our stand-in, which passes the tests of the documented REST protocol."""

import sys
from pathlib import Path

from migration_pipeline.sandbox.processes import ServerProcess, answers, free_ports

_MODULE = "migration_pipeline.sandbox.realtime_database_standin"


class RealtimeDatabaseServer:
    """The stand-in, running."""

    def __init__(self, folder: Path) -> None:
        port = free_ports(1)[0]
        self.host = f"127.0.0.1:{port}"
        self._process = ServerProcess(
            "Realtime Database",
            [sys.executable, "-m", _MODULE, str(port)],
            log=folder.parent / "realtime_database.log",
        )
        self._process.wait_ready(lambda: answers(port))

    def close(self) -> None:
        """Stop the server."""
        self._process.close()
