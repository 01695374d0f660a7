"""Values for Dagster's Helm chart: keys that the chart knows, and the instance and the pods that come of them.

The chart's own schema is no package that could be installed, and belongs to others; the keys that it allows where it
takes no others are written down here, as they are in the chart of release 1.13.
"""

from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import kubernetes
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

from migration_pipeline.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/kubernetes/values.yaml").read_text(encoding="utf-8"))

_POD = {
    "image", "env", "envConfigMaps", "envSecrets", "labels", "nodeSelector", "affinity", "tolerations",
    "podSecurityContext", "securityContext", "resources", "readinessProbe", "livenessProbe", "startupProbe",
    "annotations", "volumeMounts", "volumes", "schedulerName",
}  # fmt: skip
KEYS = {
    "": {
        "global", "postgresql", "generatePostgresqlPasswordSecret", "computeLogManager", "dagsterWebserver", "ingress",
        "dagster-user-deployments", "runLauncher", "dagsterDaemon", "retention", "telemetry", "migrate",
        "additionalInstanceConfig",
    },
    "global": {"postgresqlSecretName", "dagsterHome", "serviceAccountName", "dagsterInstanceConfigMap"},
    "postgresql": {
        "enabled", "image", "postgresqlHost", "postgresqlUsername", "postgresqlPassword", "postgresqlDatabase",
        "postgresqlParams", "postgresqlScheme", "service",
    },
    "computeLogManager.config.s3ComputeLogManager": {
        "bucket", "localDir", "prefix", "useSsl", "verify", "verifyCertPath", "endpointUrl", "skipEmptyFiles",
        "uploadInterval", "uploadExtraArgs", "showUrlOnly", "region",
    },
    "dagsterWebserver": _POD | {
        "replicaCount", "nameOverride", "pathPrefix", "service", "workspace", "deploymentLabels", "enableReadOnly",
        "dbStatementTimeout", "dbPoolRecycle", "logLevel",
    },
    "dagsterWebserver.service": {"type", "port", "annotations"},
    "dagsterWebserver.workspace": {"enabled", "servers", "externalConfigmap"},
    "dagsterDaemon": _POD | {
        "enabled", "runCoordinator", "heartbeatTolerance", "deploymentLabels", "runMonitoring", "runRetries", "sensors",
        "schedules",
    },
    "dagster-user-deployments": {"enabled", "enableSubchart", "imagePullSecrets", "deployments"},
    "dagster-user-deployments.deployments.0": _POD | {
        "name", "dagsterApiGrpcArgs", "codeServerArgs", "includeConfigInLaunchedRuns", "port",
    },
    "runLauncher": {"type", "config"},
    "runLauncher.config.k8sRunLauncher": {
        "image", "imagePullPolicy", "jobNamespace", "loadInclusterConfig", "kubeconfigFile", "envConfigMaps",
        "envSecrets", "envVars", "volumeMounts", "volumes", "labels", "failPodOnRunFailure", "resources",
        "schedulerName", "securityContext", "runK8sConfig",
    },
    "runLauncher.config.k8sRunLauncher.runK8sConfig": {
        "containerConfig", "podSpecConfig", "podTemplateSpecMetadata", "jobSpecConfig", "jobMetadata",
    },
    "retention": {"enabled", "sensor", "schedule", "autoMaterialize"},
}  # fmt: skip


def at(path: str) -> Any:
    value: Any = VALUES
    for part in filter(None, path.split(".")):
        value = value[int(part)] if part.isdigit() else value[part]
    return value


def test_the_chart_knows_every_key() -> None:
    unknown = {path: set(at(path)) - keys for path, keys in KEYS.items() if set(at(path)) - keys}
    assert unknown == {}


PODS = {
    "dagsterWebserver": {"httpGet"},
    "dagsterDaemon": set[str](),
    "dagster-user-deployments.deployments.0": set[str](),
}


@pytest.mark.parametrize("path", PODS)
def test_kubernetes_knows_what_goes_into_the_pods(path: str) -> None:
    client, pod = kubernetes.client, at(path)
    for kind, key in (
        (client.V1PodSecurityContext, "podSecurityContext"),
        (client.V1SecurityContext, "securityContext"),
        (client.V1ResourceRequirements, "resources"),
        (client.V1Probe, "readinessProbe"),
    ):
        if key in pod:
            # Refuses a name that Kubernetes has not.
            k8s_model_from_dict(kind, k8s_snake_case_dict(kind, pod[key]))
    for kind, key in ((client.V1Volume, "volumes"), (client.V1VolumeMount, "volumeMounts")):
        for item in pod.get(key, []):
            k8s_model_from_dict(kind, k8s_snake_case_dict(kind, item))
    context = pod["podSecurityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001)
    assert pod["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod["image"]["tag"] == at("dagsterDaemon.image.tag") != "latest"


def instance_yaml() -> dict[str, Any]:
    """The dagster.yaml that the chart makes of these values."""
    database = VALUES["postgresql"]
    storage = {"postgres_db": {
        "username": database["postgresqlUsername"], "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": database["postgresqlHost"], "db_name": database["postgresqlDatabase"], "port": 5432,
        "params": database["postgresqlParams"], "scheme": database["postgresqlScheme"],
    }}  # fmt: skip
    kinds = {"schedule_storage": "ScheduleStorage", "run_storage": "RunStorage", "event_log_storage": "EventLogStorage"}
    modules = {"event_log_storage": "dagster_postgres.event_log"}
    made: dict[str, Any] = {
        key: {"module": modules.get(key, f"dagster_postgres.{key}"), "class": f"Postgres{name}", "config": storage}
        for key, name in kinds.items()
    }
    made["run_launcher"] = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher()}
    logs = VALUES["computeLogManager"]["config"]["s3ComputeLogManager"]
    made["compute_logs"] = {
        "module": "dagster_aws.s3.compute_log_manager", "class": "S3ComputeLogManager",
        "config": {"bucket": logs["bucket"], "prefix": logs["prefix"], "region": logs["region"],
                   "skip_empty_files": logs["skipEmptyFiles"], "upload_interval": logs["uploadInterval"]},
    }  # fmt: skip
    for key in ("schedules", "sensors"):
        threads = VALUES["dagsterDaemon"][key]
        names = {"useThreads": "use_threads", "numWorkers": "num_workers", "numSubmitWorkers": "num_submit_workers"}
        made[key] = {names[name]: value for name, value in threads.items()}
    kept = VALUES["retention"]
    made["retention"] = {key: {"purge_after_days": kept[key]["purgeAfterDays"]} for key in ("schedule", "sensor")}
    return made | {"telemetry": VALUES["telemetry"]} | VALUES["additionalInstanceConfig"]


def launcher() -> dict[str, Any]:
    config = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    names = {
        "containerConfig": "container_config", "podSpecConfig": "pod_spec_config", "jobSpecConfig": "job_spec_config",
        "podTemplateSpecMetadata": "pod_template_spec_metadata",
    }  # fmt: skip
    return {
        "load_incluster_config": True, "job_namespace": "migration", "image_pull_policy": config["imagePullPolicy"],
        "service_account_name": "migration-dagster", "dagster_home": "/opt/dagster/dagster_home",
        "instance_config_map": "migration-dagster-instance", "postgres_password_secret": "migration-dagster",
        "fail_pod_on_run_failure": config["failPodOnRunFailure"],
        "run_k8s_config": {names[name]: value for name, value in config["runK8sConfig"].items()},
    }  # fmt: skip


def test_dagster_loads_the_instance_of_the_chart(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"k{uuid4().hex[:12]}"
    sandbox.create_database(name)
    text = yaml.safe_dump(instance_yaml())
    # The sandbox's Postgres is elsewhere, and was built without TLS.
    for ours, theirs in {
        "postgres.example.internal": "127.0.0.1", "port: 5432": f"port: {sandbox.environment['DAGSTER_PG_PORT']}",
        "username: dagster": "username: postgres", "db_name: dagster": f"db_name: {name}",
        "sslmode: require": "sslmode: disable",
    }.items():  # fmt: skip
        assert ours in text
        text = text.replace(ours, theirs)
    (tmp_path / "dagster.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []
        assert (instance.run_monitoring_enabled, instance.run_retries_enabled) == (True, True)
        assert instance.run_coordinator.__class__.__name__ == "QueuedRunCoordinator"


def test_the_settings_of_the_instance_are_those_of_the_project() -> None:
    ours, made = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8")), instance_yaml()
    assert made["run_monitoring"].pop("start_timeout_seconds") > ours["run_monitoring"].pop("start_timeout_seconds")
    places = {"storage", "run_launcher", "compute_logs", "code_servers"}
    assert {key: made[key] for key in ours.keys() - places} == {key: ours[key] for key in ours.keys() - places}


def test_a_run_becomes_a_job_that_kubernetes_knows() -> None:
    config = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), launcher())
    assert config.success, config.errors
    # Refuses a name that Kubernetes has not, for container, pod and job.
    job = UserDefinedDagsterK8sConfig.from_dict(launcher()["run_k8s_config"])
    assert job.pod_spec_config["service_account_name"] == "migration-run"
    assert job.job_spec_config == {"backoff_limit": 0, "ttl_seconds_after_finished": 86400}
    k8s_model_from_dict(kubernetes.client.V1PodSpec, {**job.pod_spec_config, "containers": []})


def test_the_location_has_its_name_and_what_runs_need() -> None:
    deployment, workspace = at("dagster-user-deployments.deployments.0"), at("dagsterWebserver.workspace")
    assert workspace["servers"] == [
        {"host": deployment["name"], "port": deployment["port"], "name": "migration_pipeline"}
    ]
    context = K8sContainerContext.create_from_config({"k8s": {
        "env_secrets": [item["name"] for item in deployment["envSecrets"]],
        "env_vars": [f"{name}={value}" for name, value in deployment["env"].items()],
        "volumes": deployment["volumes"], "volume_mounts": deployment["volumeMounts"],
    }})  # fmt: skip
    assert context.run_k8s_config.container_config["volume_mounts"]
