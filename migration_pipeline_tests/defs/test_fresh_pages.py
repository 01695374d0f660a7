"""Pages are kept true by a sensor: what changed is observed, with its check, and what did not is left alone."""

import os
from typing import Any
from unittest.mock import patch

import dagster as dg

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, Wish
from migration_pipeline.defs.fresh_pages import fresh_pages
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.status_page import bar, span
from migration_pipeline_tests.defs.conftest import KEY

FILE = SourceFile("photos", "a.jpg")


class Sensor:
    """Looks again and again, and has Dagster keep what it says."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.requested = instance, 0
        self.cursor: str | None = None

    def look(self) -> list[str]:
        """The assets that are observed."""
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, resources={"migration": Migration()})
        result = fresh_pages(context)
        assert isinstance(result, dg.SensorResult), result
        self.cursor, self.requested = result.cursor, len(result.run_requests or ())
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return [
            event.asset_key.to_user_string()
            for event in result.asset_events
            if not isinstance(event, dg.AssetCheckEvaluation)
        ]

    def status(self) -> dict[str, Any]:
        """What stands on the page of migration_status."""
        (record,) = self.instance.fetch_observations(dg.AssetKey("migration_status"), limit=1).records
        assert record.asset_observation is not None
        return {name: value.value for name, value in record.asset_observation.metadata.items()}

    def check(self, asset: str, name: str = "nothing_waits") -> tuple[bool, str]:
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        record = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
        assert record.event is not None
        assert record.event.dagster_event is not None
        found = record.event.dagster_event.asset_check_evaluation_data
        assert found.severity is dg.AssetCheckSeverity.WARN
        return found.passed, str(found.metadata["summary"].value)


def end(ledger: PostgresLedger, *, waiting: int) -> None:
    with ledger.hold(KEY) as (_, held):
        held.want([Wish(1, FILE, f"https://acct/{FILE}", had_query=False)])
        held.record([CopyResult(FILE, Outcome.SOURCE_MISSING if waiting else Outcome.COPIED, message="no such blob")])
        held.finish({
            "waiting": waiting, "migrated": 3 - waiting, "files": 1, "waiting_for": {"source_missing": waiting},
            "seconds": {},
        })  # fmt: skip


def test_what_changed_is_observed_and_nothing_else(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    sensor = Sensor(instance)
    assert sensor.look() == ["migration_status", "dead_letters", "cutover"]
    assert sensor.requested == 0, "nothing ran yet: there is nothing to draw"
    first = sensor.status()
    assert first["progress"] == "░" * 30 + " 0.0 %: 0 of 3 profiles"
    assert (first["now"], first["time_left"]) == ("at rest", "nothing is at work")
    assert first["next"].startswith("Migrate: Jobs > migrate")
    assert sensor.check("migration_status") == (True, "Nothing waits.")
    assert sensor.check("dead_letters") == (True, "Nothing waits.")
    assert sensor.look() == []

    end(ledger, waiting=1)
    assert sensor.look() == ["migration_status", "dead_letters"]
    assert sensor.requested == 1, "the report is drawn anew once all have ended"
    assert sensor.status()["progress"] == "█" * 20 + "░" * 10 + " 66.6 %: 2 of 3 profiles"
    assert sensor.check("migration_status") == (False, "1 profile not migrated, 1 dead letter.")
    assert sensor.check("dead_letters") == (False, "1 dead letter: 1 source_missing.")
    assert sensor.look() == []
    assert sensor.requested == 0

    ledger.control.pause(by="ann", why="the app is slow")
    assert sensor.look() == ["migration_status"]
    assert sensor.status()["now"] == "paused by ann: the app is slow"
    assert "paused by ann" in sensor.check("migration_status")[1]
    ledger.control.resume(by="ann")
    end(ledger, waiting=0)
    assert sensor.look() == ["migration_status", "dead_letters"]
    assert sensor.check("dead_letters") == (True, "Nothing waits.")


def test_while_runs_are_at_work_each_look_is_observed(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    sensor = Sensor(instance)
    with ledger.hold(KEY) as (_, held):
        held.hear()
        sensor.look()
        assert sensor.status()["now"] == "at work: 1 worker"
        assert sensor.look() == ["migration_status"]


def test_nothing_planned_is_not_shown_as_nothing_left(ledger: PostgresLedger, instance: dg.DagsterInstance) -> None:
    ledger.query("DELETE FROM {s}.ranges")
    sensor = Sensor(instance)
    sensor.look()
    assert sensor.check("migration_status") == (False, "nothing is planned yet.")
    assert sensor.check("dead_letters") == (False, "Nothing is planned yet.")


def test_a_ledger_that_is_away_is_said(ledger: object, instance: dg.DagsterInstance) -> None:
    assert ledger
    context = dg.build_sensor_context(instance, resources={"migration": Migration()})
    with patch.dict(os.environ, {"DATABASE_URL": "postgresql://app@127.0.0.1:1/app"}):
        said = fresh_pages(context)
    assert isinstance(said, dg.SkipReason)


def test_a_bar_is_full_only_at_the_end() -> None:
    assert (bar(0.0), bar(0.999).count("█"), bar(1.0)) == ("░" * 30, 29, "█" * 30)
    assert [span(s) for s in (9, 75, 3700, 100_000)] == ["9 s", "1 min 15 s", "1 h 1 min", "1 d 3 h"]
