"""The stack of deploy/aws on moto, and what an ECS task finds around it."""

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from cfnlint.decode.cfn_yaml import load

TEMPLATE = Path(__file__).parents[2] / "deploy" / "aws" / "template.yaml"
REGION, STACK = "eu-central-1", "migration"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/migration-pipeline:0.1.0"

UNPLAYED = {
    "AWS::EC2::SecurityGroupEgress", "AWS::S3::BucketPolicy", "AWS::SecretsManager::Secret",
    "AWS::ServiceDiscovery::PrivateDnsNamespace", "AWS::ServiceDiscovery::Service",
}  # fmt: skip
"""Kinds of resources that moto's CloudFormation does not know."""


def template() -> dict[str, Any]:
    """The template, with CloudFormation's short forms written out."""
    read: dict[str, Any] = json.loads(json.dumps(load(str(TEMPLATE))))
    return read


class Stack:
    """The stack, made on moto from the template and of parameters that need a VPC and secrets of their own."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        ec2, secrets = self.client("ec2"), self.client("secretsmanager")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        self.subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")
            ["Subnet"]["SubnetId"] for n, zone in enumerate("ab")
        ]  # fmt: skip
        routes = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        self.secrets = {
            name: secrets.create_secret(Name=name, SecretString="{}")["ARN"]
            for name in ("database-url", "azure-sas", "google", "dagster-password")
        }
        parameters = {
            "VpcId": vpc, "SubnetIds": ",".join(self.subnets), "RouteTableIds": routes, "Image": IMAGE,
            "TargetBucket": "user-files", "TargetPrefix": "files/",
            "DatabaseUrlSecretArn": self.secrets["database-url"], "AzureSasSecretArn": self.secrets["azure-sas"],
            "GoogleCredentialsSecretArn": self.secrets["google"],
            "UploadsPrincipalArn": "arn:aws:iam::123456789012:role/app",
        }  # fmt: skip
        clouds = self.client("cloudformation")
        clouds.create_stack(
            StackName=STACK,
            TemplateBody=self._playable(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )
        (made,) = clouds.describe_stacks(StackName=STACK)["Stacks"]
        self.status = made["StackStatus"]
        self.outputs = {item["OutputKey"]: item["OutputValue"] for item in made["Outputs"]}
        self.resources = {
            item["LogicalResourceId"]
            for item in clouds.describe_stack_resources(StackName=STACK)["StackResources"]
        }  # fmt: skip

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name=REGION)

    def _playable(self) -> str:
        """The template without what moto does not know, and with a secret of ours for the one that it does not make."""
        read = template()
        read["Resources"] = {n: r for n, r in read["Resources"].items() if r["Type"] not in UNPLAYED}
        del read["Resources"]["CodeService"]["Properties"]["ServiceRegistries"]
        read["Resources"]["CodeService"]["DependsOn"] = ["CodeIngress"]
        for resource in read["Resources"].values():
            for container in resource["Properties"].get("ContainerDefinitions", []):
                container |= {"Cpu": 256, "Memory": 512}  # on Fargate the task's own are enough, but not for moto
        password = self.secrets["dagster-password"]
        text = json.dumps(read).replace('{"Ref": "DatabasePassword"}', json.dumps(password))
        return text.replace("${DatabasePassword}", password)


class TaskMetadata:
    """What a task asks who it is: ECS's metadata endpoint, version 4."""

    def __init__(self, cluster: str, task_arn: str) -> None:
        said = {"Cluster": cluster, "TaskARN": task_arn, "Name": "daemon"}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as it is named there
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def statements(policies: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every statement of a role's own policies, also those under a condition."""
    all_of_them = (one for policy in policies["Policies"] for one in policy["PolicyDocument"]["Statement"])
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in all_of_them]
