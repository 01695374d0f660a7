"""A ledger with one range, and Dagster's own storage with its partition."""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import dagster as dg
import pytest

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.defs.ranges import profile_ranges_partitions
from migration_pipeline.sandbox import Sandbox

KEY = "0000000001-0000000009"


@pytest.fixture
def ledger(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresLedger]:
    url = sandbox.create_database(f"d{uuid4().hex[:12]}")
    for name, value in {
        "DATABASE_URL": url, "MIGRATION_CONFIG": "/dev/null", "MIGRATION_FIREBASE__KIND": "none",
        "MIGRATION_SOURCE__ACCOUNT_URL": sandbox.azure_account_url, "MIGRATION_SOURCE__CONTAINERS": '["photos"]',
        "MIGRATION_TARGET__BUCKET": "b", "MIGRATION_TARGET__REGION": "us-east-1",
        "MIGRATION_TARGET__PUBLIC_BASE_URL": "https://cdn.example.com",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges([ProfileRange(KEY, 1, None, 9, 3)])
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.add_dynamic_partitions(str(profile_ranges_partitions.name), [KEY])
        yield made
