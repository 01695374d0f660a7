"""Azurite, Azure's own emulator of Blob Storage, on the Node of a PyPI package."""

from pathlib import Path

from migration_pipeline.sandbox import npm_packages
from migration_pipeline.sandbox.processes import SandboxUnavailable, ServerProcess, answers, free_ports

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of every Azurite: Microsoft's documentation prints it."""

_PACKAGE = Path(__file__).with_name("azurite_package")


class AzuriteServer:
    """An emulator that keeps everything in memory."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_ports(1)[0]
        script = _installed() / "node_modules/azurite/dist/src/blob/main.js"
        self._process = ServerProcess(
            "Azurite",
            [
                *(str(npm_packages.node() / "bin/node"), "--require", str(_PACKAGE / "keep_extents.js"), str(script)),
                *("--silent", "--inMemoryPersistence", "--disableTelemetry"),
                # The SDK speaks a newer version of the protocol than the emulator knows.
                *("--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(self.port), *options),
            ],
            log=folder.parent / "azurite.log",
        )
        self._process.wait_ready(lambda: answers(self.port))

    @property
    def account_url(self) -> str:
        """The account's blob endpoint."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def close(self) -> None:
        """Stop the server."""
        self._process.close()


def _installed() -> Path:
    try:
        return npm_packages.installed(_PACKAGE)
    except npm_packages.NpmUnavailable as error:
        raise SandboxUnavailable(str(error)) from None
