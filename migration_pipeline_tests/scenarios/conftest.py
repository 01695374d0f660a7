"""Worlds: a made-up app with a database, a bucket and a Firestore project of its own, and what migrates it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psycopg
import pytest

from migration_pipeline.commands.dagster_instance import shipped
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import ALIAS_HOST, App, AppSize, AppStores, create_app, settings_toml
from migration_pipeline.sandbox.photo_files import PHOTOS
from migration_pipeline_tests import commands_here, independent
from migration_pipeline_tests.scenarios.frozen import Frozen, MakeFrozen, frozen_app, opened


@dataclass(frozen=True, slots=True)
class World:
    """An app in real servers, the environment of its migration, and the places for the independent check."""

    app: App
    places: independent.Places
    environment: dict[str, str]
    folder: Path
    public_base_url: str

    def command(self, *arguments: str, **environment: str) -> commands_here.Done:
        """Run the product's command line in this process."""
        return commands_here.command(arguments, {**self.environment, **environment}, self.folder)

    def process(self, *arguments: str, **environment: str) -> commands_here.Done:
        """Run the product's command line as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "migration_pipeline.cli", *arguments],
            env={**os.environ, **self.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )

    def of(self, end: str) -> list[str]:
        """Ids of the profiles that must end so."""
        return [str(id_) for id_, expected in self.app.expected.items() if expected == end]


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(sandbox: Sandbox, tmp_path: Path) -> MakeWorld:
    def make(size: AppSize, *, profiles_per_range: int | None = None) -> World:
        return new_world(sandbox, tmp_path, size, profiles_per_range=profiles_per_range)

    return make


def new_world(sandbox: Sandbox, within: Path, size: AppSize, *, profiles_per_range: int | None = None) -> World:
    """A world with its files in a folder of its own, for tests that share one."""
    name = f"w{uuid4().hex[:12]}"
    folder = within / name
    (folder / "dagster").mkdir(parents=True)
    with closing(boto3.client("s3", endpoint_url=sandbox.s3_endpoint_url, region_name="us-east-1")) as client:
        client.create_bucket(Bucket=name)
        policy = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
        client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]}))
    stores = replace(
        AppStores.on(sandbox, firestore_project=name),
        database_url=sandbox.create_database(name),
        bucket=name,
        public_base_url=f"{sandbox.s3_endpoint_url}/{name}",
    )
    app = create_app(stores, size)
    config = folder / "migration.toml"
    config.write_text(settings_toml(stores, size, profiles_per_range=profiles_per_range), encoding="utf-8")
    shutil.copyfile(shipped("dagster.yaml"), folder / "dagster" / "dagster.yaml")
    sandbox.create_database(f"{name}_dagster")
    environment = {
        **sandbox.environment,
        "DATABASE_URL": stores.database_url,
        "DAGSTER_PG_DB": f"{name}_dagster",
        "DAGSTER_HOME": str(folder / "dagster"),
        "DAGSTER_COMPUTE_LOGS": str(folder / "compute_logs"),
        "MIGRATION_CONFIG": str(config),
        "MIGRATION_CONTROL__WORKERS": "2",
    }
    fields = {key: getattr(stores, key) for key in independent.Places.__dataclass_fields__ if key != "alias_hosts"}
    places = independent.Places(alias_hosts={ALIAS_HOST: PHOTOS}, **fields)
    return World(app, places, environment, folder, stores.public_base_url)


def flagged(world: World) -> set[str]:
    """Ids of profiles whose flag is set now."""
    return {id_ for id_, row in independent.dump(world.places)["profiles"].items() if row[-1]}


def ledger_text(world: World) -> str:
    """Everything the ledger holds, as text."""
    with closing(psycopg.connect(world.places.database_url)) as connection:
        rows: list[Any] = []
        for table in ("ranges", "files", "wanted"):
            rows += connection.execute(f"SELECT t::text FROM migration.{table} t").fetchall()
        return "\n".join(row[0] for row in rows)


@pytest.fixture
def make_frozen(sandbox: Sandbox, tmp_path: Path) -> Iterator[MakeFrozen]:
    """Makes an app that is migrated and audited."""
    with ExitStack() as stack:

        def make(profiles: int = 6, per_range: int = 3, **more: Any) -> Frozen:
            app = frozen_app(sandbox, tmp_path, profiles=profiles, per_range=per_range, **more)
            made = stack.enter_context(opened(app))
            made.migrate()
            made.audit()
            return made

        yield make
