"""The CloudFormation stack: as the linter, as its policies, and as moto and Dagster's launcher see it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.deploy.aws import (
    IMAGE,
    REGION,
    TEMPLATE,
    UNPLAYED,
    Stack,
    TaskMetadata,
    statements,
    template,
)
from migration_pipeline_tests.deploy.tools import tool
from migration_pipeline_tests.moto_server import MotoServer

ROOT = TEMPLATE.parents[2]
OPEN = {
    "ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition", "ec2:DescribeNetworkInterfaces",
    "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
}  # fmt: skip
"""Actions for which IAM knows no narrower resource than all."""


def listed(value: str | list[Any] | dict[str, Any]) -> list[Any]:
    return value if isinstance(value, list) else [value]


def roles() -> dict[str, dict[str, Any]]:
    return {n: r["Properties"] for n, r in template()["Resources"].items() if r["Type"] == "AWS::IAM::Role"}


def actions(role: str, prefix: str = "") -> set[str]:
    found = {action for one in statements(roles()[role]) for action in listed(one["Action"])}
    return {action for action in found if action.startswith(prefix)}


def test_the_linter_has_no_findings() -> None:
    assert tool("cfn-lint", "--include-checks", "I", "--", str(TEMPLATE)) == ""


def test_no_role_may_more_than_it_must() -> None:
    for name, role in roles().items():
        assert "ManagedPolicyArns" not in role, name
        for statement in statements(role):
            assert statement["Effect"] == "Allow"
            named = listed(statement["Action"])
            assert not [action for action in named if "*" in action], (name, statement)
            if "*" in listed(statement["Resource"]):
                assert set(named) <= OPEN, (name, statement)
            else:
                assert not set(named) & OPEN, (name, statement)


def test_the_run_role_is_what_the_settings_page_asks_for() -> None:
    rights = (ROOT / "docs/settings.md").read_text(encoding="utf-8").split("## Rights", 1)[1]
    s3 = "\n".join(item for item in rights.split("\n- ") if item.startswith("S3"))
    for_people = {"s3:PutBucketCORS", "s3:PutLifecycleConfiguration"}
    assert set(re.findall(r"`(s3:\w+)`", s3)) - for_people == actions("RunRole", "s3:")
    objects = [s for s in statements(roles()["RunRole"]) if "s3:GetObject" in s["Action"]]
    assert [s["Resource"]["Fn::Sub"] for s in objects] == [
        "arn:${AWS::Partition}:s3:::${TargetBucket}/${TargetPrefix}*"
    ]


def test_who_may_presign_uploads_reaches_uploads_alone() -> None:
    assert actions("UploadsRole") == {
        "s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket", "kms:Decrypt", "kms:GenerateDataKey",
    }  # fmt: skip
    reached = {
        json.dumps(s["Resource"]) for s in statements(roles()["UploadsRole"]) if "s3:ListBucket" not in s["Action"]
    }
    assert all("${UploadsPrefix}*" in text or "TargetKmsKeyArn" in text for text in reached)


def test_webserver_and_daemon_get_none_of_the_secrets_of_the_app() -> None:
    resources = template()["Resources"]
    for name in ("WebserverTask", "DaemonTask"):
        properties = resources[name]["Properties"]
        assert properties["ExecutionRoleArn"] == {"Fn::GetAtt": ["DagsterExecutionRole", "Arn"]}
        for container in properties["ContainerDefinitions"]:
            assert [secret["Name"] for secret in container["Secrets"]] == ["DAGSTER_PG_PASSWORD"]
    secrets = [s for s in statements(roles()["DagsterExecutionRole"]) if s["Action"] == "secretsmanager:GetSecretValue"]
    assert [s["Resource"] for s in secrets] == [{"Ref": "DatabasePassword"}]
    assert not actions("WebserverRole", "secretsmanager:") | actions("DaemonRole", "secretsmanager:")


def test_tasks_are_told_what_dagster_yaml_asks_for() -> None:
    asked = set(re.findall(r"env: (\w+)", (ROOT / "deploy/aws/dagster.yaml").read_text(encoding="utf-8"))) - {
        "AWS_REGION"
    }
    resources = template()["Resources"]
    for name in ("WebserverTask", "DaemonTask", "RunTask", "CodeTask"):
        for container in resources[name]["Properties"]["ContainerDefinitions"]:
            given = {item["Name"] for item in (*container["Environment"], *container["Secrets"]) if "Name" in item}
            needed = asked if name in {"WebserverTask", "DaemonTask"} else asked - {"DAGSTER_RUN_TASK_DEFINITION"}
            assert needed <= given, name


def test_nothing_is_open_to_the_world() -> None:
    resources = template()["Resources"]
    kinds = {r["Type"] for r in resources.values()}
    assert not [kind for kind in kinds if "LoadBalancer" in kind or "Gateway" in kind.split("::")[2]]
    ingress = [p for r in resources.values() for p in listed(r.get("Properties", {}).get("SecurityGroupIngress", []))]
    ingress += [r["Properties"] for r in resources.values() if r["Type"] == "AWS::EC2::SecurityGroupIngress"]
    assert len(ingress) == 2
    assert all("SourceSecurityGroupId" in rule for rule in ingress)
    database = resources["Database"]["Properties"]
    assert (database["PubliclyAccessible"], database["StorageEncrypted"]) == (False, True)
    assert database["BackupRetentionPeriod"] >= 7


def test_dagster_yaml_is_that_of_the_project_but_for_what_it_names() -> None:
    import yaml  # noqa: PLC0415 - for this one

    ours, theirs = (yaml.safe_load((ROOT / p).read_text()) for p in ("dagster.yaml", "deploy/aws/dagster.yaml"))
    assert {key for key in ours | theirs if ours.get(key) != theirs.get(key)} == {
        "storage", "run_launcher", "run_monitoring", "compute_logs",
    }  # fmt: skip
    assert theirs["storage"]["postgres"]["postgres_db"].pop("params") == {"sslmode": "require"}
    assert theirs["run_monitoring"].pop("start_timeout_seconds") > ours["run_monitoring"].pop("start_timeout_seconds")
    assert (theirs["storage"], theirs["run_monitoring"]) == (ours["storage"], ours["run_monitoring"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Stack]:
    assert sandbox.environment["AWS_ACCESS_KEY_ID"]
    server = MotoServer(tmp_path_factory.mktemp("moto") / "moto.log")
    yield Stack(server.endpoint_url)
    server.close()


def test_moto_makes_the_stack(stack: Stack) -> None:
    assert stack.status == "CREATE_COMPLETE"
    wanted = {n for n, r in template()["Resources"].items() if r["Type"] not in UNPLAYED}
    assert stack.resources == wanted
    assert {"ClusterName", "RunTaskDefinition", "TaskSecurityGroupId", "UploadsRoleArn"} <= set(stack.outputs)
    (container,) = stack.client("ecs").describe_task_definition(taskDefinition="migration-run")["taskDefinition"][
        "containerDefinitions"
    ]
    secrets = {secret["name"]: secret["valueFrom"] for secret in container["secrets"] if secret}
    assert secrets["DATABASE_URL"] == stack.secrets["database-url"]
    assert secrets["DAGSTER_PG_PASSWORD"] == f"{stack.secrets['dagster-password']}:password::"
    assert (container["image"], "ALERT_URLS" in secrets) == (IMAGE, False)


@pytest.fixture
def on_aws(
    stack: Stack, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Dagster with deploy/aws/dagster.yaml, in what it takes for the daemon's own task."""
    ecs, cluster = stack.client("ecs"), stack.outputs["ClusterName"]
    (task,) = ecs.run_task(
        cluster=cluster, taskDefinition="migration-daemon", launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {
            "subnets": stack.subnets, "securityGroups": [stack.outputs["TaskSecurityGroupId"]],
        }},
    )["tasks"]  # fmt: skip
    metadata = TaskMetadata(cluster, task["taskArn"])
    name = f"a{uuid4().hex[:12]}"
    sandbox.create_database(name)
    for variable, value in {
        "AWS_ENDPOINT_URL": stack.endpoint_url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
        "ECS_CONTAINER_METADATA_URI_V4": metadata.url, "DAGSTER_HOME": str(tmp_path), "DAGSTER_PG_DB": name,
        "DAGSTER_RUN_TASK_DEFINITION": stack.outputs["RunTaskDefinition"],
        "DAGSTER_COMPUTE_LOGS_BUCKET": stack.outputs["ComputeLogsBucket"],
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    # The sandbox's Postgres was built without TLS.
    text = (ROOT / "deploy/aws/dagster.yaml").read_text(encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text(text.replace("sslmode: require", "sslmode: disable"), encoding="utf-8")
    with dg.DagsterInstance.get() as instance:
        yield instance
    metadata.close()


def test_a_run_is_launched_watched_carried_out_and_stopped(stack: Stack, on_aws: dg.DagsterInstance) -> None:
    target = ModuleTarget("migration_pipeline.definitions", None, str(ROOT), "migration_pipeline")
    with WorkspaceProcessContext(on_aws, target) as process:
        context = process.create_request_context()
        (repository,) = context.get_code_location("migration_pipeline").get_repositories().values()
        job = repository.get_full_job("purge_runs")
        run_id = create_run_for_test(
            on_aws, job_name=job.name, remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(), status=dg.DagsterRunStatus.NOT_STARTED,
        ).run_id  # fmt: skip
        on_aws.launch_run(run_id, context)
    run = known(on_aws, run_id)
    (task,) = stack.client("ecs").describe_tasks(
        cluster=run.tags["ecs/cluster"], tasks=[run.tags["ecs/task_arn"]]
    )["tasks"]  # fmt: skip
    assert task["taskDefinitionArn"] == stack.outputs["RunTaskDefinition"]
    assert on_aws.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING

    # What the container would run, run here: it reports to Dagster, and leaves its output in the bucket.
    (override,) = task["overrides"]["containerOverrides"]
    assert override["name"] == "run"
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_RUN_TASK_DEFINITION"}
    program, *arguments = override["command"]
    here = str(Path(sys.executable).parent / program)
    subprocess.run([here, *arguments], env=environment, capture_output=True, timeout=120, check=False)
    assert known(on_aws, run_id).status is dg.DagsterRunStatus.FAILURE  # there is no migration.toml
    stored = stack.client("s3").list_objects_v2(Bucket=stack.outputs["ComputeLogsBucket"])["Contents"]
    assert [item["Key"] for item in stored if run_id in item["Key"] and item["Key"].endswith(".err")]


def known(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run
