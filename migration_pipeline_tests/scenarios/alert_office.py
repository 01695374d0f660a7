"""A planned migration, its Dagster records, and two channels that are told of it."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.definitions import defs
from migration_pipeline.defs.alerts import STATE, alerts
from migration_pipeline.defs.migrated import SPECS
from migration_pipeline_tests.scenarios.alert_servers import Mailbox, Webhook

ROOT = Path(__file__).parents[2]


class Office:
    """A planned migration, its Dagster instance, and two channels that are told of it."""

    def __init__(self, url: str, instance: dg.DagsterInstance, webhook: Webhook, mailbox: Mailbox) -> None:
        self.url, self.instance, self.webhook, self.mailbox = url, instance, webhook, mailbox
        self.ledger = PostgresLedger(url, "migration", create=True)
        self.keys = [f"{n}0-{n}9" for n in range(4)]
        self.ledger.add_ranges([ProfileRange(self.keys[n], n, n * 10 - 1, n * 10 + 9, 10) for n in range(3)])
        self.environment = {
            "MIGRATION_CONFIG": str(ROOT / "migration.example.toml"),
            "MIGRATION_FIREBASE__KIND": "none",
            "MIGRATION_ALERTS__FREE_DISK_GIGABYTES": "0",
            "MIGRATION_ALERTS__UI_URL": "https://dagster.example.com",
            "DATABASE_URL": url,
            "AZURE_STORAGE_KEY": "c2VjcmV0",
            "ALERT_URLS": f"{webhook.url}\n{mailbox.url}",
        }
        self.wanted: list[SourceFile] = []
        self.said: list[str] = []
        self.cursor: str | None = None

    def tick(self, **environment: str) -> str:
        """Let the sensor look once, and return what it says."""
        with patch.dict(os.environ, self.environment | environment):
            context = dg.build_sensor_context(self.instance, cursor=self.cursor)
            reason = alerts(context)
        assert isinstance(reason, dg.SkipReason)
        self.cursor = context.cursor
        self.said.append(str(reason.skip_message))
        return self.said[-1]

    def told(self, **environment: str) -> list[str]:
        """What a look makes both channels say, without the prefix; the same from each, and once."""
        self.tick(**environment)
        by_hook, by_mail = self.webhook.titles(), self.mailbox.titles()
        assert by_hook == by_mail, self.said[-1]
        return [title.split("Migration: ", 1)[1] for title in by_hook]

    def letters(self, *numbers: int, outcome: Outcome = Outcome.SOURCE_MISSING) -> None:
        """Files become dead letters, or something else, in the first range."""
        files = [SourceFile("photos", f"{number} <!channel> [x](y).jpg") for number in numbers]
        self.wanted += files
        with self.ledger.hold(self.keys[0], run=False) as (_, mine):
            mine.want([Wish(1, file, f"https://acct/{file}", had_query=False) for file in self.wanted])
            mine.record([CopyResult(file, outcome, message="?sig=no such blob") for file in files])

    def finish(self, *keys: str, waiting: int = 0) -> None:
        for key in keys:
            with self.ledger.hold(key) as (_, mine):
                mine.finish({"waiting": waiting, "migrated": 10 - waiting, "files": 3, "seconds": {}})

    def fail_a_run(self, **tags: str) -> None:
        @dg.op
        def broken() -> None:
            raise dg.Failure("it is broken", allow_retries=False)

        dg.GraphDefinition("sweep", node_defs=[broken]).to_job(name="sweep").execute_in_process(
            instance=self.instance, raise_on_error=False, tags=tags
        )

    def launch(
        self,
        begun: datetime,
        name: str = "bckfll",
        status: BulkActionStatus = BulkActionStatus.REQUESTED,
        assets: Sequence[dg.AssetKey] = tuple(spec.key for spec in SPECS),
    ) -> None:
        """A backfill that has been at work since then, or ended so."""
        self.instance.add_dynamic_partitions("profile_ranges", self.keys)
        self.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                name,
                asset_graph=defs.resolve_asset_graph(),
                partition_names=self.keys,
                asset_selection=list(assets),
                backfill_timestamp=begun.timestamp(),
                tags={},
                dynamic_partitions_store=self.instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            ).with_status(status)
        )

    def seed(self, **told: Any) -> None:
        """As if this had been told before."""
        kept = self.ledger.remembered(STATE) or {"told": {}, "waiting": {}}
        self.ledger.remember(STATE, kept | {"told": kept["told"] | told})

    def move(self, minutes_ago: float) -> None:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        self.ledger.query("INSERT INTO {s}.progress VALUES (%s, 0, 1, 0, 1)", [at])
