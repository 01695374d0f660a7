"""Where secrets could leak that no other test looks: logs for debugging, other processes' eyes, the code itself."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import click
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import serialize_value

from migration_pipeline.cli.main import main
from migration_pipeline.commands.dagster_instance import shipped
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, settings_toml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "migration_pipeline"
PASSWORD = "hunter2-of-postgres"
EVERYTHING = """
import asyncio, logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.azure.removal import AzureBlobRemoval
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.core.removal_ports import How
from migration_pipeline.settings import load
source = load().source
async def kept(credentials):
    async with AzureBlobRemoval(source.account_url, source.containers, credentials, How.DELETE) as opened:
        return await opened.kept_days()
sas = os.environ["AZURE_STORAGE_SAS_TOKEN"]
for credentials in (AzureCredentials(sas_token=sas), AzureCredentials(account_key=os.environ["KEY"])):
    try:
        print("kept", asyncio.run(kept(credentials)))
    except MigrationError as error:
        print("refused", error)
from migration_pipeline.cli.main import main
for command in ("doctor", "inventory"):
    try:
        main([command])
    except SystemExit as ended:
        print(command, "ended", ended.code)
"""


def test_logs_for_debugging_hold_no_secret(sandbox: Sandbox, tmp_path: Path) -> None:
    key = sandbox.environment["AZURE_STORAGE_KEY"]
    sas = generate_account_sas(
        sandbox.azure_account_url.rsplit("/", 1)[1],
        account_key=key,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    config = tmp_path / "migration.toml"
    config.write_text(settings_toml(AppStores.on(sandbox), AppSize()), encoding="utf-8")
    url = sandbox.create_database(f"d{uuid4().hex[:12]}").replace("postgres@", f"postgres:{PASSWORD}@")
    assert PASSWORD in url
    environment = {**os.environ, **sandbox.environment, "MIGRATION_CONFIG": str(config), "DATABASE_URL": url}
    del environment["AZURE_STORAGE_KEY"]
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        env={**environment, "AZURE_STORAGE_SAS_TOKEN": sas, "KEY": key},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    for line in ("DEBUG:botocore", "INFO:azure.core", "kept ", "doctor ended ", "inventory ended "):
        assert f"\n{line}" in said
    (signature,) = re.findall(r"sig=([^&]+)", sas)
    secrets = [key, signature, PASSWORD, sandbox.environment["AWS_SECRET_ACCESS_KEY"]]
    assert [secret for secret in secrets if secret in said] == []
    assert re.findall(r"sig=(?!REDACTED)\S{8}", said) == []


def test_other_processes_see_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Dagster gives its instance to the processes that it starts in their arguments, which `ps` shows to everybody.
    shutil.copyfile(shipped("dagster.yaml"), tmp_path / "dagster.yaml")
    for name in ("USERNAME", "PASSWORD", "HOST", "PORT", "DB"):
        monkeypatch.setenv(f"DAGSTER_PG_{name}", PASSWORD)
    monkeypatch.setenv("DAGSTER_COMPUTE_LOGS", str(tmp_path))
    argument = serialize_value(InstanceRef.from_dir(str(tmp_path)))
    assert "DAGSTER_PG_PASSWORD" in argument
    assert PASSWORD not in argument


def test_no_command_takes_a_secret() -> None:
    def names(command: click.Command) -> Iterator[str]:
        yield from (option for item in command.params for option in (*item.opts, item.name or ""))
        for below in command.commands.values() if isinstance(command, click.Group) else ():
            yield from names(below)

    given = set(names(main))
    assert "--apply" in given
    assert [name for name in given if re.search(r"pass|secret|token|account_key|sas|cred|dsn", name)] == []


def trees() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield str(path.relative_to(ROOT)), node


def test_nothing_that_is_read_can_become_code() -> None:
    dangerous = {"pickle", "marshal", "shelve", "yaml", "dill", "cloudpickle", "jsonpickle", "joblib"}
    found, imported = [], set()
    for path, node in trees():
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            imported |= {name.split(".")[0] for name in names}
            found += [f"{path}: imports {name}" for name in names if name.split(".")[0] in dangerous]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            shell = any(item.arg == "shell" for item in node.keywords)
            if shell or called in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}:
                found.append(f"{path}: calls {called}")
    assert found == []
    assert {"json", "tomllib", "subprocess"} <= imported


def test_every_locked_dependency_has_its_digests() -> None:
    for lock in ("requirements.lock", "deploy/requirements.lock", "deploy/build.lock"):
        entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").strip())
        pinned = [entry for entry in entries if not entry.startswith("#")]
        assert pinned
        assert [entry.split("\n")[0] for entry in pinned if not re.match(r"[\w.-]+(?:\[[^\]]+\])?==\S+", entry)] == []
        assert [entry.split("\n")[0] for entry in pinned if "--hash=sha256:" not in entry] == []
    assert "--require-hashes" in (ROOT / "Makefile").read_text(encoding="utf-8")
