"""docs/deploying.md names what the files of deploy/ hold: secrets, parameters, outputs, and objects of the cluster."""

import re
from pathlib import Path

import yaml

from migration_pipeline_tests.deploy.aws import template
from migration_pipeline_tests.deploy.compose import COMPOSE, SERVICES

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return GUIDE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_every_secret_of_compose_is_made() -> None:
    (steps,) = re.findall(r"mkdir -m 700.*?```", section("On one machine"), re.DOTALL)
    made = re.findall(r"^ +(?:editor|touch|openssl rand .* >) (\w+)", steps, re.MULTILINE)
    assert set(made) == set(COMPOSE["secrets"])


def test_the_alias_runs_in_the_service_with_the_secrets() -> None:
    (service,) = re.findall(r"run --rm (\w+) migration-pipeline", section("On one machine"))
    assert "database_url" in SERVICES[service]["secrets"]


def test_every_parameter_without_a_default_is_given_and_none_is_made_up() -> None:
    (command,) = re.findall(r"--parameter-overrides(.*?)```", section("On AWS"), re.DOTALL)
    given, parameters = set(re.findall(r"(\w+)=", command)), template()["Parameters"]
    assert given <= set(parameters)
    assert {name for name, parameter in parameters.items() if "Default" not in parameter} <= given


def test_outputs_and_names_of_the_stack_are_there() -> None:
    named = set(re.findall(r"\$\(out (\w+)\)", section("On AWS"))) | {"TaskSecurityGroupId"}
    assert named <= set(template()["Outputs"])
    (container,) = template()["Resources"]["RunTask"]["Properties"]["ContainerDefinitions"]
    assert set(re.findall(r'"name":"(\w+)"', section("On AWS"))) == {container["Name"]}


def test_objects_of_the_cluster_are_those_of_the_values() -> None:
    text = (ROOT / "deploy/kubernetes/values.yaml").read_text(encoding="utf-8")
    made = set(re.findall(r"create (?:configmap|secret generic|serviceaccount) ([\w-]+)", section("On Kubernetes")))
    deployment = yaml.safe_load(text)["dagster-user-deployments"]["deployments"][0]
    used = {source["name"] for source in deployment["envSecrets"]} | {"migration-dagster", "migration-run"}
    for volume in deployment["volumes"]:
        used |= {volume["configMap"]["name"]} if "configMap" in volume else {volume["secret"]["secretName"]}
    assert made == used
    assert f"user-deployments-{deployment['name']}" in section("On Kubernetes")
