"""Docker Compose on one machine: the file's own rules, and its services at work on the sandbox's servers."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests.deploy.compose import COMPOSE, DEPLOY, IMAGE_ENVIRONMENT, SERVICES, Played
from migration_pipeline_tests.deploy.tools import tool
from migration_pipeline_tests.scenarios.conftest import World, flagged, new_world
from migration_pipeline_tests.scenarios.dagster_ui import DagsterUi, wait_for

SECRETS_OF_THE_APP = {"database_url", "azure_storage_sas_token", "alert_urls", "aws_credentials", "google_credentials"}


def test_compose_reads_it() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def test_the_dockerfile_has_no_findings() -> None:
    tool("hadolint", "--failure-threshold", "style", str(DEPLOY / "Dockerfile"))


def test_the_image_is_small_locked_and_not_of_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    build, final = re.split(r"^FROM .*$", text, flags=re.MULTILINE)[1:]
    assert re.search(r"^ARG PYTHON=3\.12\.\d+-slim-\w+$", text, re.MULTILINE)
    assert not re.search(r"\bpip install\b", final)
    assert "apt-get" not in text
    installs = [line for line in build.splitlines() if re.search(r"\bpip\b.* install\b", line)]
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert re.findall(r"^USER (.*)$", final, re.MULTILINE) == ["10001:10001"]
    assert set(re.findall(r"\b(?:DAGSTER|MIGRATION)_\w+(?==)", final)) == IMAGE_ENVIRONMENT
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (DEPLOY.parent / name).exists(), name
            assert f"!{name}" in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()


def test_nothing_runs_as_root_is_open_or_fills_the_disk() -> None:
    for name, service in SERVICES.items():
        assert service["user"] in {"10001:10001", "postgres"}, name
        assert re.fullmatch(r"[\w-]+:\d+\.\d+(\.\d+)?", service["image"]), name
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["restart"] == ("no" if name == "database" else "unless-stopped"), name
        assert "healthcheck" in service or name == "database", name
        assert name == "postgres" or f"{service['image']}" == f"migration-pipeline:{version()}", name
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert SERVICES["postgres"]["networks"] == ["inside"]


def version() -> str:
    return re.findall(r'^version = "(.*)"$', (DEPLOY.parent / "pyproject.toml").read_text(), re.MULTILINE)[0]


def test_only_the_code_location_has_the_secrets_of_the_app() -> None:
    for name, service in SERVICES.items():
        given = set(service["secrets"])
        assert given & SECRETS_OF_THE_APP == (SECRETS_OF_THE_APP if name == "code" else set()), name
        # Every file that the environment names is one that the service is given, and the other way round.
        assert set(re.findall(r"/run/secrets/(\w+)", str(service["environment"]))) == given, name
    assert set(COMPOSE["secrets"]) == SECRETS_OF_THE_APP | {"dagster_pg_password"}


def test_secrets_reach_the_command_and_files_without_any_do_not(tmp_path: Path) -> None:
    for name, text in {"url": "postgresql://u:p w$1'@h/d\n", "none": ""}.items():
        (tmp_path / name).write_text(text)
    look = 'env; stat -c %a "$GOOGLE_APPLICATION_CREDENTIALS"; cat "$GOOGLE_APPLICATION_CREDENTIALS"'
    environment = {
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(tmp_path),
        "DATABASE_URL_FILE": str(tmp_path / "url"),
        "ALERT_URLS_FILE": str(tmp_path / "none"),
        "LEDGER_URL": "kept",
        "GOOGLE_CREDENTIALS_JSON": '{"a": "b\\n"}',
    }
    done = subprocess.run(
        ["sh", str(DEPLOY / "with-secrets.sh"), "sh", "-c", look],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert "DATABASE_URL=postgresql://u:p w$1'@h/d" in lines
    assert "LEDGER_URL=kept" in lines
    assert not [
        line for line in lines if line.startswith(("ALERT_URLS", "DATABASE_URL_FILE", "GOOGLE_CREDENTIALS_JSON"))
    ]
    assert lines[-2:] == ["600", '{"a": "b\\n"}']


def test_a_secret_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(DEPLOY / "with-secrets.sh"), "echo", "started"],
        env={"PATH": "/usr/bin:/bin", "DATABASE_URL_FILE": str(tmp_path / "nowhere")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "started" not in done.stdout


@pytest.fixture
def world(sandbox: Sandbox, tmp_path: Path) -> World:
    size = AppSize(profiles=20, photos_per_profile=1, scale=0.01, bad_files=False)
    return new_world(sandbox, tmp_path, size, profiles_per_range=20)


@pytest.fixture
def played(world: World, tmp_path: Path) -> Iterator[Played]:
    environment = world.environment
    postgres = {
        name: environment[name] for name in environment if name.startswith("DAGSTER_PG_") and "PASSWORD" not in name
    }
    account = world.places.account_url.rstrip("/").rsplit("/", 1)[1]
    sas = generate_account_sas(
        account, environment["AZURE_STORAGE_KEY"], ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, list=True), datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    aws = "[default]\naws_access_key_id = {AWS_ACCESS_KEY_ID}\naws_secret_access_key = {AWS_SECRET_ACCESS_KEY}\n"
    services = Played(
        tmp_path / "containers",
        postgres,
        {
            "dagster_pg_password": "unused\n",
            "database_url": environment["DATABASE_URL"],
            "azure_storage_sas_token": sas,
            "alert_urls": "",
            "aws_credentials": aws.format_map(environment),
            "google_credentials": "{}",
        },
        world.folder / "migration.toml",
    )
    yield services
    services.close()


LAUNCH = """
mutation ($p: ExecutionParams!) {
  launchRun(executionParams: $p) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


def status(ui: DagsterUi, run_id: str) -> str:
    found = ui.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
    return str(found["runOrError"]["status"])


@pytest.mark.timeout(400)
def test_the_services_migrate_an_app(world: World, played: Played, tmp_path: Path) -> None:
    # What stands for Firebase says where it is by these, and they are no part of a deployment.
    emulators = {name: value for name, value in world.environment.items() if "EMULATOR" in name}
    assert played.run("database").returncode == 0
    assert not played.healthy("code")
    for service in ("code", "webserver", "daemon"):
        played.start(service, **(emulators if service == "code" else {}))
    with urlopen(f"http://127.0.0.1:{played.port}/server_info", timeout=10) as answer:
        assert answer.status == 200

    planned = played.run("code", "migration-pipeline", "plan", "--apply", **emulators)
    assert planned.returncode == 0, planned.stderr
    # From the UI: webserver, queue, daemon, code location, and a run of its own, which holds the app's secrets.
    ui = DagsterUi(played.port)
    with closing(psycopg.connect(world.places.database_url)) as connection:
        ranges = connection.execute("SELECT key FROM migration.ranges").fetchall()
    assert len(ranges) == 1
    params = {
        "selector": {
            "repositoryLocationName": "migration_pipeline", "repositoryName": "__repository__", "jobName": "migrate",
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": ranges[0][0]}]},
    }  # fmt: skip
    launched = ui.ask(LAUNCH, p=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    wait_for(lambda: status(ui, launched["run"]["runId"]) in {"SUCCESS", "FAILURE"}, 120)
    assert status(ui, launched["run"]["runId"]) == "SUCCESS"
    assert world.of("migrated")
    assert flagged(world) >= set(world.of("migrated"))

    # Containers have a read-only file system: nothing may have been written but where there is a volume. (Dagster would
    # make two empty folders, telemetry or none, and does without where it cannot.)
    written = [path.name for path in (tmp_path / "containers" / "home").rglob("*") if not path.is_dir()]
    assert written == ["dagster.yaml"]
    assert list((tmp_path / "containers" / "compute_logs").rglob("*.err"))
    played.stop("webserver")
    assert not played.healthy("webserver")
