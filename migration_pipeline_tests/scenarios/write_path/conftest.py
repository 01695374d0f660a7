"""`doctor --write-path` on real stores: what each line says where all is well, and where it is not.

SeaweedFS judges CORS, policies, signatures and versions; moto has block public access, lifecycle rules with every
element, and ownership, and lets anybody write.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from migration_pipeline.cli.main import main
from migration_pipeline.commands.doctor import Finding, Health
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.commands.doctor.write_path import examine_write_path
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import FaultProxy
from migration_pipeline.settings import Settings, load
from migration_pipeline.uploads.cors import s3_cors
from migration_pipeline_tests.moto_server import MotoServer

ORIGIN, SECOND = "https://app.example.com", "http://localhost:3000"
FOREIGN_RULE = {
    "ID": "reports",
    "AllowedOrigins": ["https://reports.example.com"],
    "AllowedMethods": ["GET"],
    "AllowedHeaders": ["range"],
    "MaxAgeSeconds": 60,
}
EXPIRES = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
DENIED = (
    "403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 44\r\n\r\n"
    "<Error><Code>AccessDenied</Code></Error>    "
)


@dataclass
class Place:
    """A bucket with a migration of its own that leads there, and a client that shares no code with the product."""

    name: str
    client: Any
    environment: dict[str, str]

    def settings(self, **changes: str) -> Settings:
        return load({**self.environment, **changes})

    def told(self, *origins: str, **changes: str) -> dict[str, list[Finding]]:
        by: dict[str, list[Finding]] = {}
        for finding in examine_write_path(self.settings(**changes), origins).findings:
            assert finding.remedy or finding.health is Health.OK
            by.setdefault(finding.what, []).append(finding)
        return by

    def health(self, what: WritePath, *origins: str, **changes: str) -> list[Health]:
        return [finding.health for finding in self.told(*origins, **changes)[what]]

    def run(self, *arguments: str, **changes: str) -> Result:
        return CliRunner().invoke(main, ["doctor", "--write-path", *arguments], env={**self.environment, **changes})

    def behind(self, proxy: FaultProxy) -> dict[str, str]:
        return {"MIGRATION_TARGET__ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}

    @property
    def port(self) -> int:
        return urlsplit(self.environment["MIGRATION_TARGET__ENDPOINT_URL"]).port or 0

    def allow(self, *origins: str) -> None:
        self.client.put_bucket_cors(Bucket=self.name, CORSConfiguration=s3_cors(origins))

    def open_to_all(self) -> None:
        allowed = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{self.name}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.client.put_bucket_policy(Bucket=self.name, Policy=policy)

    def held(self) -> list[str]:
        """Of all versions and delete markers."""
        page = self.client.list_object_versions(Bucket=self.name)
        return [item["Key"] for item in (*page.get("Versions", []), *page.get("DeleteMarkers", []))]

    def rules(self, call: str, name: str) -> Any:
        try:
            return getattr(self.client, call)(Bucket=self.name)[name]
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return None

    def cors(self) -> Any:
        return self.rules("get_bucket_cors", "CORSRules")

    def lifecycle(self) -> Any:
        return self.rules("get_bucket_lifecycle_configuration", "Rules")


def new_place(sandbox: Sandbox, endpoint_url: str, folder: Path, database: str) -> Place:
    name = f"p{uuid4().hex[:12]}"
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    config = folder / f"{name}.toml"
    config.write_text(
        f'[source]\naccount_url = "http://127.0.0.1:9/app"\ncontainers = ["photos"]\n'
        f'[target]\nbucket = "{name}"\nregion = "us-east-1"\npublic_base_url = "{endpoint_url}/{name}"\n'
        f'[firebase]\nkind = "none"\n[ledger]\nschema = "{name}"\n'
    )
    environment = {
        **sandbox.environment,
        "DATABASE_URL": database,
        "MIGRATION_CONFIG": str(config),
        "MIGRATION_TARGET__ENDPOINT_URL": endpoint_url,
        "MIGRATION_UPLOADS__ORIGINS": json.dumps([ORIGIN]),
    }
    return Place(name, client, environment)


@pytest.fixture(scope="module")
def database(sandbox: Sandbox) -> str:
    """For ledgers, each in a schema of its own."""
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def weed(sandbox: Sandbox, database: str, tmp_path: Path) -> Iterator[Place]:
    place = new_place(sandbox, sandbox.s3_endpoint_url, tmp_path, database)
    with closing(place.client):
        yield place


@pytest.fixture
def moto_place(sandbox: Sandbox, moto: MotoServer, database: str, tmp_path: Path) -> Iterator[Place]:
    place = new_place(sandbox, moto.endpoint_url, tmp_path, database)
    with closing(place.client):
        yield place


def lines(told: dict[str, list[Finding]]) -> dict[str, list[str]]:
    return {what: [f"{finding.health}: {finding.said}" for finding in found] for what, found in told.items()}
