"""Turning the sensor on pauses, once: what `resume` says afterwards holds."""

import dagster as dg
import pytest

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.defs.pause_now import WHY, pause_now
from migration_pipeline.defs.resources import Migration


class Switch:
    """The sensor's ticks, as the daemon makes them."""

    def __init__(self) -> None:
        self.turned_on, self.cursor = 1000.0, None

    def tick(self) -> str:
        context = dg.build_sensor_context(
            cursor=self.cursor, last_sensor_start_time=self.turned_on, resources={"migration": Migration()}
        )
        said = pause_now(context)
        assert isinstance(said, dg.SkipReason)
        self.cursor = context.cursor
        return str(said.skip_message)


def test_it_pauses_once_each_time_it_is_turned_on(ledger: PostgresLedger) -> None:
    switch = Switch()
    assert switch.tick() == "Paused: runs at work wait within five seconds."
    said = ledger.control.said()
    assert (said.paused_why, said.paused_by) == (WHY, "Dagster UI")
    assert ledger.control.resume(by="ann")
    assert "To pause again, turn it off and on" in switch.tick()
    assert ledger.control.said().paused_why is None
    switch.turned_on += 60
    assert switch.tick().startswith("Paused")
    assert ledger.control.said().paused_why == WHY


def test_it_keeps_what_somebody_else_said(ledger: PostgresLedger) -> None:
    ledger.control.pause(by="ann", why="the app is slow")
    assert Switch().tick() == "It was paused already."
    assert ledger.control.said().paused_why == "the app is slow"


def test_it_tries_again_where_the_ledger_does_not_answer(
    ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Switch()
    with monkeypatch.context() as away:
        away.setenv("LEDGER_URL", "postgresql://nobody@127.0.0.1:1/none")
        assert switch.tick().startswith("Nothing is paused yet: ")
    assert ledger.control.said().paused_why is None
    assert switch.tick().startswith("Paused")
