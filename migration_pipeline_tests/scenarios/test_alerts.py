"""Alerts on their way from a real ledger and Dagster's records to a real webhook and a real mail server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from migration_pipeline.core.model import Outcome, ProfileRange
from migration_pipeline.core.sweep import LATE_REFERENCE
from migration_pipeline.defs.alerts import STATE
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.scenarios.alert_office import Office
from migration_pipeline_tests.scenarios.alert_servers import SECRET, servers

pytestmark = [
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated"),  # apprise looks for it
    pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated"),  # Dagster calls it itself
]


@pytest.fixture(scope="module")
def quiet() -> Iterator[dg.DagsterInstance]:
    """An instance in which nothing ever ran; making one takes most of a second."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def busy() -> Iterator[dg.DagsterInstance]:
    """An instance of the test's own."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def open_office(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[dg.DagsterInstance], Office]]:
    caplog.set_level(1)
    for name in ("apprise", "urllib3"):
        caplog.set_level(1, logger=name)
    made: list[Office] = []
    with servers() as (webhook, mailbox):

        def open_it(instance: dg.DagsterInstance) -> Office:
            made.append(Office(sandbox.create_database(f"a{uuid4().hex[:12]}"), instance, webhook, mailbox))
            return made[-1]

        yield open_it
        # Whatever a test did: of the channels' secrets nothing is left anywhere.
        (office,) = made
        kept = json.dumps(office.ledger.remembered(STATE))
        office.ledger.close()
        logged = "\n".join(record.getMessage() for record in caplog.get_records("call") if record.name != "mail.log")
        for text in (kept, logged, "\n".join(office.said), *capfd.readouterr()):
            assert SECRET not in text
            assert "operators@example.com" not in text


@pytest.fixture
def office(open_office: Callable[[dg.DagsterInstance], Office], quiet: dg.DagsterInstance) -> Office:
    return open_office(quiet)


@pytest.fixture
def busy_office(open_office: Callable[[dg.DagsterInstance], Office], busy: dg.DagsterInstance) -> Office:
    return open_office(busy)


def test_nothing_is_told_of_nothing(office: Office) -> None:
    assert office.told() == []
    assert office.said == ["Nothing new."]


def test_failed_runs_are_told_in_one_message_and_again_when_twice_as_many(busy_office: Office) -> None:
    for number in range(2):
        busy_office.fail_a_run(**{"dagster/backfill": "bckfll", "dagster/partition": busy_office.keys[number]})
    busy_office.fail_a_run(**{"dagster/will_retry": "true"})
    busy_office.tick()
    (message,) = busy_office.webhook.got
    assert "Link: https://dagster.example.com/runs/b/bckfll" in message["message"]
    assert "backfill bckfll`; ranges `00-09`, `10-19`" in message["message"]
    assert (
        busy_office.webhook.titles()
        == busy_office.mailbox.titles()
        == ["[warning] Migration: 2 runs failed, for example: it is broken"]
    )
    assert busy_office.told() == []
    busy_office.fail_a_run(**{"dagster/backfill": "bckfll"})
    assert busy_office.told() == []
    busy_office.fail_a_run(**{"dagster/backfill": "bckfll"})
    assert busy_office.told() == ["4 runs failed, for example: it is broken"]
    busy_office.fail_a_run()
    assert busy_office.told() == ["1 run failed: it is broken"]


def test_a_run_whose_retry_will_not_come_after_all_is_told(busy_office: Office) -> None:
    busy_office.fail_a_run(**{"dagster/will_retry": "true"})
    assert busy_office.told() == []
    (run,) = busy_office.instance.get_runs()
    busy_office.instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert busy_office.told() == ["1 run failed: it is broken"]
    assert busy_office.told() == []


def test_dead_letters_are_told_by_class_waived_ones_aside(office: Office) -> None:
    office.letters(1, 2)
    (title,) = office.told()
    assert title == "2 files cannot be copied: 2 source_missing"
    assert office.told() == []
    office.letters(3, outcome=Outcome.DIGEST_MISMATCH)
    assert office.told() == ["3 files cannot be copied; risen: 1 digest_mismatch"]
    office.letters(4, 5)
    assert office.told() == ["5 files cannot be copied; risen: 4 source_missing"]
    office.ledger.query("UPDATE {s}.files SET waived_at = now(), waived_by = 'ana', waived_why = 'gone for good'")
    assert office.told() == []
    office.letters(6)
    (title,) = office.told()
    assert title == "1 file cannot be copied: 1 source_missing"


def test_a_breaker_that_trips_is_told_each_time(office: Office) -> None:
    office.ledger.control.pause(by="breaker", why="too many files fail")
    assert office.told() == ["The migration paused itself, for too many files fail"]
    assert office.told() == []
    office.ledger.control.resume(by="ana")
    assert office.told() == []
    office.ledger.control.pause(by="ana", why="lunch")
    assert office.told() == []
    office.ledger.control.resume(by="ana")
    office.ledger.control.pause(by="breaker", why="too many files fail")
    assert office.told() == ["The migration paused itself, for too many files fail"]


def test_a_backfill_that_does_not_move_is_told(busy_office: Office) -> None:
    busy_office.launch(begun=datetime.now(UTC) - timedelta(minutes=60))
    assert busy_office.told(MIGRATION_CONTROL__WINDOWS='["mon-sun 00:00-00:01", "mon-sun 00:00-24:00"]') == [
        "The migration has stood still for 60 minutes"
    ]
    assert busy_office.told() == []
    busy_office.move(minutes_ago=5)
    assert busy_office.told() == []
    busy_office.ledger.query("DELETE FROM {s}.progress")
    busy_office.move(minutes_ago=20)
    assert busy_office.told() == ["The migration has stood still for 20 minutes"]
    busy_office.finish(busy_office.keys[0])
    assert busy_office.told() == []


def test_a_backfill_that_dagster_gave_up_is_told_once(busy_office: Office) -> None:
    now, dead = datetime.now(UTC), BulkActionStatus.FAILED
    busy_office.launch(now, "old", dead, [dg.AssetKey("migrated_profiles")])
    busy_office.launch(now - timedelta(days=2), "too-old", dead)
    busy_office.launch(now, "canceled", BulkActionStatus.CANCELED)
    assert busy_office.told() == ["Dagster gave up 1 backfill"]
    busy_office.launch(now, "audit", dead, [dg.AssetKey("audited_references")])
    busy_office.tick()
    (message,), _ = busy_office.webhook.got, busy_office.mailbox.titles()
    assert "backfill `audit`" in message["message"]
    assert "Link: https://dagster.example.com/runs/b/audit" in message["message"]
    busy_office.webhook.titles()
    assert busy_office.told() == []


def test_a_backfill_that_is_paused_is_not_stalled(busy_office: Office) -> None:
    busy_office.launch(begun=datetime.now(UTC) - timedelta(minutes=60))
    busy_office.ledger.control.pause(by="ana", why="lunch")
    assert busy_office.told() == []
    busy_office.ledger.control.resume(by="ana")
    assert busy_office.told() == []
    query = "SELECT true"
    busy_office.ledger.remember(STATE, {"told": {}, "waiting": {}})
    assert busy_office.told(MIGRATION_CONTROL__PAUSE_WHILE=query) == []
    busy_office.ledger.remember(STATE, {"told": {}, "waiting": {}})
    assert busy_office.told(MIGRATION_CONTROL__PAUSE_WHILE="SELECT false") == [
        "The migration has stood still for 60 minutes"
    ]


def test_late_references_are_told_again_when_twice_as_many(office: Office) -> None:
    office.ledger.request(office.keys[:1], "retry of dead letters")
    assert office.told() == []
    office.ledger.request(office.keys[1:2], LATE_REFERENCE)
    assert office.told() == ["Something came late in 1 range"]
    assert office.told() == []
    office.ledger.request(office.keys[2:3], LATE_REFERENCE)
    assert office.told() == ["Something came late in 2 ranges"]
    assert office.told() == []


def test_a_disk_that_fills_up_is_told_again_when_half_of_the_rest_is_gone(office: Office) -> None:
    full = {"MIGRATION_ALERTS__FREE_DISK_GIGABYTES": "1000000"}
    (title,) = office.told(**full)
    assert title.endswith("of disk are left")
    assert office.told(**full) == []
    kept = office.ledger.remembered(STATE)["told"]["disk"]
    office.seed(disk={name: free * 3 for name, free in kept.items()})
    assert len(office.told(**full)) == 1
    assert office.told() == []
    assert len(office.told(**full)) == 1


def test_the_summary_comes_once_a_day(office: Office) -> None:
    office.finish(office.keys[0])
    office.letters(1, 2, outcome=Outcome.COPIED)
    assert office.told() == []
    office.seed(daily_summary="2026-01-01")
    office.tick()
    assert "3 ranges, 30 profiles, 10 of them migrated" in office.webhook.got[0]["message"]
    assert "In 24 hours 2 files" in office.webhook.got[0]["message"]
    assert office.webhook.titles() == office.mailbox.titles() == ["[info] Migration: 1 of 3 ranges are done"]
    assert office.told() == []
    office.seed(daily_summary="2026-01-02")
    assert office.told() == ["1 of 3 ranges are done"]


def test_the_end_is_told_once_and_again_after_more_was_planned(office: Office) -> None:
    office.finish(*office.keys[:2])
    office.finish(office.keys[2], waiting=1)
    assert office.told() == []
    office.finish(office.keys[2])
    assert office.told() == ["All ranges are done"]
    assert office.told() == []
    office.ledger.add_ranges([ProfileRange(office.keys[3], 3, 29, 39, 10)])
    assert office.told() == []
    office.finish(office.keys[3])
    assert office.told() == ["All ranges are done"]


@pytest.mark.parametrize("away", ["refuses", "closed"])
def test_a_channel_that_is_away_gets_its_alerts_later_and_the_other_none_twice(office: Office, away: str) -> None:
    office.webhook.status = 503
    if away == "closed":
        office.webhook.close()
    office.letters(1)
    said = office.tick()
    assert ("answered 503" if away == "refuses" else "cannot be reached") in said
    office.ledger.control.pause(by="breaker", why="too many files fail")
    office.tick()
    assert len(office.mailbox.titles()) == 2
    office.webhook.status = 200
    if away == "closed":
        office.webhook.open()
    office.tick()
    assert [title.split()[2] for title in office.webhook.titles()] == ["1", "The"]
    assert office.mailbox.titles() == []
    assert office.told() == []


def test_an_alert_that_was_decided_and_not_sent_is_sent_later(office: Office) -> None:
    """As after a process that was killed between the two; what it was about may be over by then."""
    office.letters(1)
    with (
        patch("migration_pipeline.defs.alerts.deliver", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        office.tick()
    office.ledger.query("UPDATE {s}.files SET waived_at = now(), waived_by = 'ana', waived_why = 'gone for good'")
    assert len(office.told()) == 1
    assert office.told() == []


def test_what_is_missing_is_said_and_breaks_nothing(office: Office, tmp_path: Path, sandbox: Sandbox) -> None:
    office.letters(1)
    assert "set ALERT_URLS" in office.tick(ALERT_URLS=" ")
    assert "there is no file" in office.tick(MIGRATION_CONFIG=str(tmp_path / "none.toml"))
    assert "control.windows" in office.tick(MIGRATION_CONTROL__TIME_ZONE="Mars/Olympus")
    empty = sandbox.create_database(f"e{uuid4().hex[:12]}")
    assert office.tick(LEDGER_URL=empty) == "Nothing is planned yet."
    with closing(psycopg.connect(empty)) as connection:
        assert connection.execute("SELECT to_regnamespace('migration')").fetchone() == (None,)
    said = office.tick(ALERT_URLS=f"{SECRET} {office.mailbox.url}")
    assert "unknown (" in said
    assert len(office.mailbox.titles()) == 1


def test_a_ledger_that_stays_away_is_told_once_to_each_channel(office: Office) -> None:
    gone = {"LEDGER_URL": office.url.replace("/a", "/gone_a")}
    assert office.told(**gone) == []
    cursor = json.loads(office.cursor or "")
    since = datetime.fromisoformat(cursor["since"]) - timedelta(minutes=4)
    office.cursor = json.dumps(cursor | {"since": since.isoformat()})
    office.webhook.status = 503
    office.tick(**gone)
    assert office.webhook.titles() == []
    office.webhook.status = 200
    office.tick(**gone)
    assert (
        office.webhook.titles()
        == office.mailbox.titles()
        == ["[critical] Migration: The ledger, the migration's own tables in Postgres, cannot be read"]
    )
    assert office.told(**gone) == []
    assert office.told() == []
    assert office.cursor == ""


def test_a_setting_that_is_refused_is_not_called_a_ledger_that_is_away(office: Office) -> None:
    gone = {"LEDGER_URL": office.url.replace("/a", "/gone_a")}
    wrong = {"MIGRATION_CONTROL__WINDOWS": '["at night"]'}
    office.tick(**gone)
    office.tick(**wrong)
    cursor = json.loads(office.cursor or "")
    assert (cursor["what"], cursor["told"]) == ("settings_refused", [])
    since = datetime.fromisoformat(cursor["since"]) - timedelta(minutes=4)
    office.cursor = json.dumps(cursor | {"since": since.isoformat()})
    office.tick(**wrong)
    assert office.mailbox.titles() == ["[critical] Migration: A setting is refused"]


def test_names_that_users_made_up_arrive_harmless(office: Office) -> None:
    office.letters(1)
    office.tick()
    (hook,), (mail,) = office.webhook.got, office.mailbox.got
    for text in (hook["message"], mail.get_content()):
        assert "`source_missing: photos/1 %3C%21channel%3E %5Bx%5D(y).jpg`" in text
        assert "<!channel>" not in text
        assert "no such blob" not in text


def command(office: Office, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "migration_pipeline.cli", "alerts", "test", *arguments],
        env={**os.environ, **office.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_tries_every_channel_and_names_none_of_their_secrets(office: Office) -> None:
    done = command(office)
    assert (done.returncode, done.stderr) == (0, "")
    assert office.webhook.titles() == office.mailbox.titles() == ["[info] Migration: This is a test"]
    office.webhook.status = 503
    refused = command(office, "--json")
    assert refused.returncode == 1
    assert [(item["channel"].split()[0], item["taken"]) for item in json.loads(refused.stdout)] == [
        ("json", False),
        ("mailto", True),
    ]
    assert json.loads(refused.stdout)[0]["trouble"] == "answered 503"
    nobody = command(office, ALERT_URLS="")
    assert nobody.returncode == 2
    assert "ALERT_URLS" in nobody.stderr
    for text in (done.stdout, refused.stdout, refused.stderr):
        assert SECRET not in text


def test_every_kind_is_described() -> None:
    from migration_pipeline.core.alert_words import Kind  # noqa: PLC0415 - for this alone
    from migration_pipeline_tests.test_docs import first_cells  # noqa: PLC0415 - as above

    assert first_cells("docs/alerts.md", "What is told") == {kind.value for kind in Kind}
