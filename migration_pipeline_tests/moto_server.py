"""moto's S3: nothing is kept on disk, so that names stay as AWS keeps them, and there are keys for SSE-KMS."""

import os
import sys
from pathlib import Path

from migration_pipeline.sandbox.processes import ServerProcess, answers, free_ports


class MotoServer:
    """A server in a process of its own."""

    def __init__(self, log: Path) -> None:
        (port,) = free_ports(1)
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self._process = ServerProcess(
            "moto",
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            log=log,
            environment={"PATH": os.environ["PATH"]},
        )
        self._process.wait_ready(lambda: answers(port))

    def close(self) -> None:
        """Stop it."""
        self._process.close()
