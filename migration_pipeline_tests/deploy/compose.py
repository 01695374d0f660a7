"""deploy/compose.yaml played without Docker: the services' own commands, as processes on 127.0.0.1."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from migration_pipeline.sandbox.processes import ServerProcess, free_ports

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGE_ENVIRONMENT = {"DAGSTER_HOME", "DAGSTER_COMPUTE_LOGS", "MIGRATION_CONFIG"}
"""What the Dockerfile sets and the services rely on."""

_READY_SECONDS = 120


class Played:
    """The services of compose.yaml but Postgres, each with what it is given there and nothing else.

    What is not as in a container: the address 0.0.0.0, the ports, where Postgres is, and the folders /run/secrets and
    /opt/dagster.
    """

    def __init__(self, folder: Path, postgres: Mapping[str, str], secrets: Mapping[str, str], config: Path) -> None:
        """Lay out the image's and the containers' files.

        Args:
            folder: for all files.
            postgres: Dagster's own, as DAGSTER_PG_* variables.
            secrets: texts of files in deploy/secrets.
            config: migration.toml.
        """
        self._folder, self._processes = folder, dict[str, ServerProcess]()
        code, self.port = free_ports(2)
        self._places = {
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - it is what goes
            "127.0.0.1:3000": f"127.0.0.1:{self.port}",
            "/run/secrets": str(folder / "secrets"),
            "/opt/dagster/workspace.yaml": str(DEPLOY / "workspace.yaml"),
        }
        self._whole = {"4000": str(code), "3000": str(self.port)}
        self._given = {**postgres, "DAGSTER_CODE_HOST": "127.0.0.1"}
        self._image = {
            "DAGSTER_HOME": str(folder / "home"),
            "DAGSTER_COMPUTE_LOGS": str(folder / "compute_logs"),
            "MIGRATION_CONFIG": str(config),
        }
        for name in ("secrets", "home", "compute_logs"):
            (folder / name).mkdir(parents=True)
        for name, text in secrets.items():
            (folder / "secrets" / name).write_text(text, encoding="utf-8")
        shutil.copyfile(DEPLOY.parent / "dagster.yaml", folder / "home" / "dagster.yaml")

    def run(self, service: str, *command: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """As `docker compose run --rm SERVICE COMMAND` would; without a command, the service's own."""
        return subprocess.run(
            self._command(service, command or SERVICES[service]["command"]),
            env={**self.environment(service), **more}, cwd=self._folder,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    def start(self, service: str, **more: str) -> None:
        """Start it, and wait until its own health check says that it is healthy."""
        process = ServerProcess(
            service,
            ["env", "-i", *(f"{k}={v}" for k, v in {**self.environment(service), **more}.items()),
             *self._command(service, SERVICES[service]["command"])],
            log=self._folder / f"{service}.log",
        )  # fmt: skip
        self._processes[service] = process
        deadline = time.monotonic() + _READY_SECONDS
        while not (healthy := self.healthy(service)) and time.monotonic() < deadline:
            time.sleep(2)
        assert healthy, (self._folder / f"{service}.log").read_text()[-2000:]

    def healthy(self, service: str) -> bool:
        """What the service's health check says."""
        kind, *command = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        # Docker runs it beside the command: with the container's environment, and without the image's entry point.
        entry = command[0] == "with-secrets"
        return self._silent(service, command[1:] if entry else command, entry=entry)

    def _silent(self, service: str, command: Sequence[str], *, entry: bool) -> bool:
        done = subprocess.run(
            self._command(service, command, entry=entry), env=self.environment(service), cwd=self._folder,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def stop(self, service: str) -> None:
        self._processes.pop(service).close()

    def close(self) -> None:
        """Stop what runs, the last first."""
        for service in reversed(list(self._processes)):
            self.stop(service)

    def environment(self, service: str) -> dict[str, str]:
        """The image's and the service's own, and the few that any process needs."""
        stated = {name: self._placed(value) for name, value in SERVICES[service]["environment"].items()}
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": programs, "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        places = {name: value for name, value in self._given.items() if name in stated}
        return {**own, **self._image, **stated, **places}

    def _command(self, service: str, command: Sequence[str], *, entry: bool = True) -> list[str]:
        assert SERVICES[service]["image"].startswith("migration-pipeline:")
        placed = [self._placed(word) for word in command]
        return [*(["sh", str(DEPLOY / "with-secrets.sh")] if entry else []), *placed]

    def _placed(self, word: str) -> str:
        for old, new in self._places.items():
            word = word.replace(old, new)
        return self._whole.get(word, word)
