"""An app of any shape: a container, a database with tables of its own, no Firebase; and what is done to it."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psycopg
from azure.storage.blob import BlobServiceClient
from pydantic import SecretStr

from migration_pipeline import upkeep
from migration_pipeline.core.audit import Audited
from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.erase import Erasure
from migration_pipeline.core.migrate import CopyLimits, RangeReport, migrate_range
from migration_pipeline.core.removal_report import Decommissioned
from migration_pipeline.core.rollback import RolledBack
from migration_pipeline.core.sweep import Swept
from migration_pipeline.inventory import take_stock
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_ledger, open_stores
from migration_pipeline_tests.scenarios.hostile_app import checker

_SETTINGS = """\
[source]
account_url = {account}
containers = [{container}]

[target]
bucket = {bucket}
region = "us-east-1"
prefix = {prefix}
public_base_url = {base}
endpoint_url = {endpoint}

[firebase]
kind = "none"

[cutover]
longest_upload_hours = 0
soak_days = 0

[decommission]
require_soft_delete = false
per_second = 1000

[erase]
after_hours = 0

[inventory]
orphan_after_hours = 0
"""


@dataclass(slots=True)
class HostileApp:
    """An app, before, while and after it is migrated."""

    sandbox: Sandbox
    name: str
    database_url: str
    settings: Settings
    keys: list[str] = field(default_factory=list)

    def az(self, blob: str) -> str:
        """A blob's URL at the source."""
        return f"{self.sandbox.azure_account_url}/{self.name}/{blob}"

    def s3(self, blob: str) -> str:
        """The URL of its copy."""
        return f"{self.sandbox.public_base_url}/{self.name}/{self.name}/{blob}"

    def moved(self, *blobs: str) -> dict[str, str]:
        """URL → new URL."""
        return {self.az(blob): self.s3(blob) for blob in blobs}

    def upload(self, *blobs: str) -> None:
        with self._azure() as azure:
            for blob in blobs:
                azure.get_blob_client(self.name, blob).upload_blob(blob.encode(), overwrite=True)

    def in_source(self) -> set[str]:
        with self._azure() as azure:
            return {blob.name for blob in azure.get_container_client(self.name).list_blobs()}

    def in_target(self) -> set[str]:
        prefix = f"{self.name}/{self.name}/"
        with closing(boto3.client("s3", endpoint_url=self.sandbox.s3_endpoint_url, region_name="us-east-1")) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.sandbox.bucket, Prefix=prefix)
            return {item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])}

    def execute(self, text: str, *values: Any) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute(text.encode(), values)

    def ask(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(text.encode(), values).fetchall()

    def flagged(self) -> set[str]:
        return {row[0] for row in self.ask("SELECT id::text FROM profiles WHERE photos_migrated_at IS NOT NULL")}

    def ledger_text(self) -> str:
        """Everything that the ledger holds of ranges and files, as text."""
        rows = self.ask("SELECT t::text FROM migration.ranges t UNION ALL SELECT t::text FROM migration.files t")
        return "\n".join(row[0] for row in rows)

    def with_urls(self, *, database: str, ledger: str) -> "HostileApp":
        """The same app, of which the migration has these URLs."""
        update = {"database_url": SecretStr(database), "ledger_url": SecretStr(ledger)}
        secrets = self.settings.secrets.model_copy(update=update)
        return replace(self, settings=self.settings.model_copy(update={"secrets": secrets}))

    def dump(self) -> checker.Dump:
        return checker.dump(self.database_url)

    def plan(self) -> None:
        planned = plan(self.settings)
        keep(planned, self.settings)
        self.keys = planned.keys

    def run(self, keys: Sequence[str] = ()) -> list[RangeReport]:
        """Migrate ranges, planned before if they were not."""
        if not self.keys:
            self.plan()
        reports = []
        for key in keys or self.keys:
            with open_stores(self.settings) as stores:
                reports.append(migrate_range(key, stores, CopyLimits(in_flight=4)))
        return reports

    def reasons(self) -> dict[str, str]:
        """Why profiles wait, after a run of all ranges."""
        return {str(item.profile_id): item.reason for report in self.run() for item in report.confirmed.waiting}

    def sweep(self) -> Swept:
        return upkeep.sweep(self.settings, full=True)

    def audit(self) -> list[Audited]:
        return [upkeep.audit(self.settings, key) for key in self.keys]

    def erase(self) -> Erasure:
        return upkeep.erase_dropped(self.settings)

    def roll_back(self) -> list[RolledBack]:
        return [upkeep.roll_back(self.settings, key) for key in self.keys]

    def soak(self) -> None:
        """Stand where the clock holds no removal any more; what was found may."""
        with closing(open_ledger(self.settings)) as ledger:
            for present, phase in pairwise(Phase):
                if phase is not Phase.DECOMMISSIONED:
                    switched_at = ledger.now() if phase is Phase.UPLOADS_SWITCHED else None
                    ledger.phases.enter(phase, present=present, by="ann", why="", switched_at=switched_at)
        self.sweep()
        take_stock(self.settings)
        self.audit()

    def decommission(self) -> Decommissioned:
        return upkeep.remove_from_source(self.settings, self.keys, apply=True, who="ann", why="the end")

    @contextmanager
    def _azure(self) -> Iterator[BlobServiceClient]:
        key = self.sandbox.environment["AZURE_STORAGE_KEY"]
        with BlobServiceClient(self.sandbox.azure_account_url, credential=key) as client:
            yield client


def hostile_app(
    sandbox: Sandbox,
    folder: Path,
    tables: str,
    *,
    related: str = "[]",
    profiles: str = "{}",
    per_range: int = 1000,
    create_database: Callable[[str], str] | None = None,
    **more: str,
) -> HostileApp:
    """An app with these tables.

    Args:
        sandbox: the servers.
        folder: for its settings.
        tables: SQL that makes them.
        related: `database.related`, as TOML.
        profiles: `database.profiles`, as TOML.
        per_range: profiles of a range.
        create_database: makes a database of a name, and says its URL.
        more: environment variables; in these and in what is TOML, <container> and <account> are put in.
    """
    name = f"hostile{uuid4().hex[:12]}"
    url = (create_database or sandbox.create_database)(name)
    with psycopg.connect(url) as connection:
        connection.execute(tables.encode())
    quoted = {
        "account": sandbox.azure_account_url,
        "container": name,
        "bucket": sandbox.bucket,
        "prefix": f"{name}/",
        "base": sandbox.public_base_url,
        "endpoint": sandbox.s3_endpoint_url,
    }
    config = folder / f"{name}.toml"
    text = _SETTINGS.format(**{key: json.dumps(value) for key, value in quoted.items()})
    text += f"[plan]\nprofiles_per_range = {per_range}\n[database]\nprofiles = {profiles}\nrelated = {related}\n"
    text = text.replace("<container>", name).replace("<account>", sandbox.azure_account_url)
    more = {key: value.replace("<container>", name) for key, value in more.items()}
    config.write_text(text, encoding="utf-8")
    environment = {**os.environ, **sandbox.environment, "DATABASE_URL": url, "MIGRATION_CONFIG": str(config), **more}
    made = HostileApp(sandbox, name, url, load(environment))
    with made._azure() as azure:  # noqa: SLF001 - its own
        azure.create_container(name)
    return made
