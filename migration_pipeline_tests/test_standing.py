"""How the migration stands: a ledger on a real Postgres, seen by `status`, the report, dead letters, Prometheus."""

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from migration_pipeline.adapters.ledger.control import Selection
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.postgres_range import PostgresRangeLedger
from migration_pipeline.adapters.metrics_textfile import METRICS
from migration_pipeline.cli.main import main
from migration_pipeline.commands import status_screen
from migration_pipeline.core.alert_words import shown
from migration_pipeline.core.errors import Transient, Unreachable
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.defs import letters, operator, report
from migration_pipeline.defs.metrics import metrics
from migration_pipeline.defs.resources import Migration
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, settings_toml
from migration_pipeline.settings import Settings, load
from migration_pipeline.standing import Shown, look

RANGES = [ProfileRange(f"{n:010}", n + 1, n * 10 or None, n * 10 + 10, 10) for n in range(4)]
NASTY = "a|b`<img src=x onerror=alert(1)>\n[red]c"
STAGES = {"discover": 1.0, "transfer": 8.0, "rewrite_database": 0.5, "rewrite_firebase": 0.25, "confirm": 0.25}


@dataclass(frozen=True)
class Desk:
    """A migration half done, and the settings that lead to it."""

    settings: Settings
    ledger: PostgresLedger
    at_work: PostgresRangeLedger

    def shown(self) -> Shown:
        return look(self.settings)


@pytest.fixture
def empty(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    config = tmp_path / "migration.toml"
    config.write_text(settings_toml(AppStores.on(sandbox), AppSize()), encoding="utf-8")
    monkeypatch.setenv("MIGRATION_CONFIG", str(config))
    monkeypatch.setenv("DATABASE_URL", sandbox.create_database(f"d{uuid4().hex[:12]}"))
    return load()


@pytest.fixture
def desk(empty: Settings) -> Iterator[Desk]:
    """Of four ranges one is done, one has a dead letter, one is at work and one is still to come."""
    with ExitStack() as stack:
        url = empty.secrets.ledger_url.get_secret_value()
        ledger = stack.enter_context(closing(PostgresLedger(url, "migration")))
        ledger.add_ranges(RANGES)
        with ledger.hold(RANGES[0].key) as (_, held):
            held.want([_wish(n) for n in range(1, 9)])
            held.record([_copied(n) for n in range(1, 9)])
            held.finish(_counters(migrated=8, untouched=2))
        with ledger.hold(RANGES[1].key) as (_, held):
            held.want([*(_wish(n) for n in range(11, 19)), Wish(19, SourceFile("photos", NASTY), "x", had_query=False)])
            held.record([_copied(n) for n in range(11, 19)])
            missing = CopyResult(SourceFile("photos", NASTY), Outcome.SOURCE_MISSING, attempts=1, message="404 | gone")
            held.record([missing])
            held.finish(_counters(migrated=8, waiting=1, untouched=1) | {"waiting_for": {"source_missing": 1}})
        _, at_work = stack.enter_context(ledger.hold(RANGES[2].key))
        at_work.want([_wish(n) for n in range(21, 30)])
        at_work.record([_copied(n) for n in range(21, 25)])
        at_work.hear()
        yield Desk(empty, ledger, at_work)


def _wish(n: int) -> Wish:
    return Wish(n, SourceFile("photos", f"{n}.jpg"), f"https://a.example.com/photos/{n}.jpg", had_query=False)


def _copied(n: int, size: int = 3000) -> CopyResult:
    return CopyResult(SourceFile("photos", f"{n}.jpg"), Outcome.COPIED, size, b"m" * 16, "etag", attempts=1)


def _counters(*, migrated: int, untouched: int, waiting: int = 0) -> dict[str, object]:
    counts = {"profiles": 10, "files": 8 + waiting, "migrated": migrated, "untouched": untouched, "waiting": waiting}
    counts["copied"] = 8
    return counts | {"seconds": STAGES, "cpu_seconds": STAGES}


def metadata(results: object) -> dict[str, Any]:
    """Of the one materialization among what an asset yields; checks come with it."""
    assert isinstance(results, Iterator)
    (made,) = [item for item in results if isinstance(item, dg.MaterializeResult)]
    return dict(made.metadata or {})


def drawn(shown: Shown, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(status_screen.screen(shown))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_every_range_is_counted_once(desk: Desk) -> None:
    said = desk.shown().as_json()
    counts = {name: n for name, n in said["ranges"].items() if name not in ("left", "rolled_back_profiles_left")}
    assert counts == {"planned": 4, "done": 1, "incomplete": 1, "working": 1, "not_begun": 1, "rolled_back": 0}
    assert said["ranges"]["left"] == [item.key for item in RANGES[1:]]
    assert (said["complete"], said["workers"], said["broke_off"]) == (False, 1, 0)
    assert said["profiles"] == {
        "planned": 40, "migrated": 16, "nothing_to_move": 3, "waiting": 1, "waiting_for": {"source_missing": 1}
    }  # fmt: skip
    assert said["files"] == {"known": 17, "copied": 20, "bytes": 60_000}
    assert said["seconds"]["transfer"] == 16.0
    [letter] = said["dead_letters"]["classes"]
    assert (letter["outcome"], letter["waiting"], letter["waived"]) == ("source_missing", 1, 0)


def test_the_time_left_follows_from_the_rate_and_what_other_ranges_held(desk: Desk) -> None:
    now = desk.shown().standing
    # 17 files of 20 profiles make 8.5 a range: 4.5 are left of the one at work, and 8.5 of the one to come.
    assert now.status.to_copy == 13
    assert now.rate.files * now.rate.seconds == pytest.approx(20)
    assert now.rate.failed * now.rate.seconds == pytest.approx(1)
    assert now.seconds_left == pytest.approx(13 / now.rate.files)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_says_it_all_at_any_width(desk: Desk, width: int) -> None:
    text = drawn(desk.shown(), width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for said in ("19 of 40 profiles", "1 worker ·", "files/s", "left", "1 done · 1 at work · 1 to come",
                 "16 migrated · 3 with nothing to move · 1 waiting", "20 copied, 60.0 KB", "transfer 80 %",
                 "source_missing 1 0", "Next: nothing, it is at work."):  # fmt: skip
        assert said in words


def test_a_pause_is_shown_with_who_and_why_and_the_acts(desk: Desk) -> None:
    desk.ledger.control.pause(by="anna", why="release\x1b[2J night, " + "longer than expected, " * 9)
    shown = desk.shown()
    text = drawn(shown)
    assert "paused by anna: release\\x1b[2J night, longer" in " ".join(text.split())
    assert "\x1b" not in text
    assert re.search(r"s ago +anna +pause +release", text)
    assert "Next: migration-pipeline resume" in text
    assert shown.as_json()["paused"]["by"] == "anna"
    desk.ledger.control.resume(by="anna")
    assert desk.shown().paused is None


def test_closed_hours_and_the_app_are_shown_as_runs_see_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.shown().paused is None
    monkeypatch.setenv("MIGRATION_CONTROL__PAUSE_WHILE", "SELECT true")
    assert "control.pause_while" in drawn(look(load()))
    assert "runs go on by themselves" in drawn(look(load()))


@pytest.mark.usefixtures("desk")
def test_the_end_of_a_sas_is_shown_in_its_last_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY", raising=False)
    for days, words in ((30, None), (2.5, "that of the source ends in 2 d 1"), (-1, "that of the source ended 1 d")):
        end = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sv=2026-01-01&ss=b&srt=co&sp=rl&se={end}&sig=hunter2")
        shown = look(load())
        assert shown.as_json()["sas_ends_at"].strftime("%Y-%m-%dT%H:%M:%SZ") == end
        text = " ".join(drawn(shown, 200).split())
        assert "hunter2" not in text
        assert (words in text) if words else ("that of the source" not in text)


def test_a_run_that_fell_silent_is_no_worker(desk: Desk) -> None:
    desk.ledger.query("UPDATE {s}.ranges SET seen_at = now() - interval '16 seconds'")
    shown = desk.shown()
    assert (shown.standing.workers, shown.standing.broke_off) == (0, 1)
    words = " ".join(drawn(shown).split())
    # Nobody can tell from here whether its run was killed or refused: both are said.
    for said in ("1 broke off", "where it was refused, its message names the setting", "where it was killed"):
        assert said in words


def test_before_anything_is_planned(empty: Settings) -> None:
    shown = look(empty)
    assert "Nothing is planned yet" in drawn(shown)
    assert shown.as_json()["complete"] is False


def test_watching_ends_by_itself_and_outlives_a_restart_of_the_ledger(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk_at_work = desk.shown()
    change = "started_at = now(), ended_at = now(), report = coalesce(report, '{{\"waiting\": 0}}')"
    desk.ledger.query(f"UPDATE {{s}}.ranges SET {change}")
    ended = desk.shown()
    assert ended.ended
    # A connection breaks first; until the server is back, new ones are refused.
    away = Unreachable("cannot connect: starting up", setting="LEDGER_URL")
    answers: list[Shown | Exception] = [desk_at_work, Transient("the database went away"), away, ended]

    def ask() -> Shown:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(status_screen, "REFRESH_SECONDS", 0.0)
    status_screen.watch(ask)
    assert not answers
    assert "19 of 40 profiles" in capsys.readouterr().out
    answers.append(away)
    with pytest.raises(Unreachable):
        status_screen.watch(ask)


def test_a_ledger_that_takes_long_to_read_is_read_less_often(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ledger.query("UPDATE {s}.ranges SET started_at = now(), ended_at = now(), rolled_back_at = now()")
    ended, looks = desk.shown(), [0.0, 0.0]
    assert ended.ended

    def ask() -> Shown:
        looks.pop()
        began = time.monotonic()
        while time.monotonic() - began < 0.1:
            pass
        if looks:
            raise Transient("once more")
        return ended

    monkeypatch.setattr(status_screen, "REFRESH_SECONDS", 0.0)
    began = time.monotonic()
    status_screen.watch(ask)
    # Two looks, and between them four times as long as one.
    assert time.monotonic() - began >= 0.1 + 0.4 + 0.1


def test_the_command_prints_json_and_refuses_to_watch_in_it(desk: Desk) -> None:
    done = CliRunner().invoke(main, ["status", "--json"])
    assert json.loads(done.output)["ranges"]["planned"] == len(desk.ledger.ranges())
    assert CliRunner().invoke(main, ["status", "--json", "--watch"]).exit_code == 2


def test_prometheus_reads_what_is_written(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "migration.prom"
    monkeypatch.setenv("MIGRATION_METRICS__TEXTFILE", str(path))
    desk.ledger.control.pause(by="anna", why="release")
    said = metrics(dg.build_sensor_context(resources={"migration": Migration()}))
    assert str(path) in said.skip_message
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8"))
        for sample in family.samples
    }
    assert {name for name, *_ in values} == set(METRICS)
    assert values["migration_ranges", "done"] == values["migration_ranges", "working"] == 1
    assert values["migration_profiles", "migrated"] == 16
    assert values["migration_files_copied_total",] == 20
    assert values["migration_copied_bytes_total",] == 60_000
    assert values["migration_dead_letters", "source_missing", "waiting"] == 1
    assert (values["migration_paused",], values["migration_workers",]) == (1, 1)
    assert values["migration_last_progress_timestamp_seconds",] == desk.shown().standing.last_progress.timestamp()  # type: ignore[union-attr]


def test_every_metric_is_described() -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) == set(METRICS)


def test_metrics_that_cannot_be_written_break_no_sensor(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    context = dg.build_sensor_context(resources={"migration": Migration()})
    assert desk.ledger.ranges()
    assert "not set" in metrics(context).skip_message
    monkeypatch.setenv("MIGRATION_METRICS__TEXTFILE", "/nowhere/at/all.prom")
    assert "metrics.textfile" in metrics(context).skip_message


def test_status_tells_how_it_stands_whatever_becomes_of_the_metrics(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_METRICS__TEXTFILE", "/nowhere/at/all.prom")
    done = CliRunner().invoke(main, ["status", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ranges"]["planned"] == len(desk.ledger.ranges())
    assert "metrics.textfile: /nowhere/at/all.prom cannot be written" in done.stderr


def test_the_report_holds_numbers_and_pictures(desk: Desk) -> None:
    assert desk.ledger.ranges()
    page = metadata(report.migration_report(migration=Migration()))
    numbers = {name: value for name, value in page.items() if name != "report"}
    assert numbers == {
        "ranges": 4, "ranges_done": 1, "ranges_at_work": 1, "ranges_with_profiles_left": 1, "profiles_migrated": 16,
        "profiles_with_nothing_to_move": 3, "profiles_waiting": 1, "files_copied": 20, "megabytes": 0.1,
        "files_per_second_of_a_worker": 1.0, "cpu_seconds_of_the_newest_runs": 20.0,
        "dead_letters_waiting": 1, "dead_letters_waived": 0,
    }  # fmt: skip
    text = page["report"].value
    pictures = [base64.b64decode(found).decode() for found in re.findall(r"svg\+xml;base64,([^)]+)\)", text)]
    assert len(pictures) == 4
    assert "In S3: 20 files" in pictures[0]
    assert ">source_missing<" in pictures[3]
    assert "| copied | 20 |" in text
    assert f"| {RANGES[1].key} | 1 | `1 source_missing` |" in text


def test_sizes_are_told_apart_at_powers_of_two(desk: Desk) -> None:
    sizes = [0, 1, 1023, 1024, 2047, 2048, 2**40 - 1, 2**40]
    desk.at_work.want([_wish(n) for n in range(31, 39)])
    desk.at_work.record([_copied(n + 31, size) for n, size in enumerate(sizes)])
    found = {power: files for power, files, _ in desk.ledger.tallies.sizes()}
    # 3,000 bytes are what the 20 other files have.
    assert found == {1: 2, 512: 1, 1024: 2, 2048: 1 + 20, 2**39: 1, 2**40: 1}


def test_the_report_of_an_empty_ledger(empty: Settings) -> None:
    with closing(PostgresLedger(empty.secrets.ledger_url.get_secret_value(), "migration", create=False)) as ledger:
        page = report.report(ledger)
    assert page["ranges"] == page["files_copied"] == 0
    assert page["report"].value.count("](data:image/svg+xml") == 4


def test_dead_letters_are_escaped_and_come_with_their_commands(desk: Desk) -> None:
    page = metadata(letters.dead_letters(migration=Migration()))
    assert (page["waiting"], page["waived"], page["waiting_source_missing"]) == (1, 0, 1)
    text = page["report"].value
    assert "**source_missing**: 1 waiting, 0 waived, newest " in text
    assert "migration-pipeline dead-letters retry --class source_missing" in text
    assert "migration-pipeline dead-letters waive --class source_missing --why" in text
    shown = "`photos/a¦b'<img src=x onerror=alert(1)>\\n[red]c`"
    assert text.count(shown) == text.count("onerror") == 2
    assert f"| `source_missing` | 19 | {shown} | {RANGES[1].key} | 1 | `404 ¦ gone` |" in text

    desk.ledger.control.waive(Selection(outcome=Outcome.SOURCE_MISSING), by="anna", why="gone for good")
    page = metadata(letters.dead_letters(migration=Migration()))
    assert (page["waiting"], page["waived"]) == (0, 1)
    # The range is asked for, and so no longer waits for somebody.
    ranges = desk.shown().standing.status
    assert (ranges.incomplete, ranges.not_begun) == (0, 2)
    text = page["report"].value
    assert text.startswith("**source_missing**: 0 waiting, 1 waived")
    # Nothing is asked for any more; what is left to offer is the way back.
    for said in (text, CliRunner().invoke(main, ["dead-letters", "list"]).output):
        assert "Nothing to do: waived" in said
        assert "Restore" not in said
    assert re.findall("(?:retry|waive) --.*", text) == ["retry --class source_missing --waived"]


def test_every_command_of_a_page_is_one(desk: Desk) -> None:
    page = letters.page(desk.ledger.overview.letter_classes(), [])
    for command in re.findall(r"^migration-pipeline (.+)$", page["report"].value, re.MULTILINE):
        asked = [*command.replace("'…'", "why").split(), "--help"]
        assert CliRunner().invoke(main, asked).exit_code == 0


def test_each_command_has_its_launchpad_beside_it(desk: Desk) -> None:
    """What is copied into the Launchpad is a config of the job that the line above it names."""
    waiting = letters.page(desk.ledger.overview.letter_classes(), [])["report"].value
    desk.ledger.control.waive(Selection(outcome=Outcome.SOURCE_MISSING), by="anna", why="gone for good")
    waived = letters.page(desk.ledger.overview.letter_classes(), [])["report"].value
    jobs = {job.name: job for job in operator.JOBS}
    beside = re.findall(r"```sh\n(.+)\n```\n\n```yaml\n# Jobs > (\w+) > Launchpad\n(.+)\n```", waiting + waived)
    assert len(beside) == (waiting + waived).count("```sh") == 3
    for command, name, config in beside:
        assert command.split()[2] == name.split("_")[0]
        given = yaml.safe_load(config)
        assert dg.validate_run_config(jobs[name], given)
        [op] = given["ops"].values()
        assert op["config"]["class"] == "source_missing"
        assert op["config"].get("waived", False) == ("--waived" in command)


def test_a_long_name_takes_a_line_wherever_it_is_shown(desk: Desk, tmp_path: Path) -> None:
    name = "é" * 300 + ".jpg"
    file = SourceFile("photos", name)
    desk.at_work.want([Wish(29, file, "x", had_query=False)])
    desk.at_work.record([CopyResult(file, Outcome.TOO_LONG_KEY, attempts=1, message="too long")])
    classes = desk.ledger.overview.letter_classes()
    listed = CliRunner().invoke(main, ["dead-letters", "list"]).output
    page = letters.page(classes, desk.ledger.overview.dead_letters())["report"].value
    alert = shown(str(file))
    assert CliRunner().invoke(main, ["report", "--out", str(tmp_path)]).exit_code == 0
    report_page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (listed, page, alert, report_page):
        (longest,) = {run for run in re.findall("é+…é+", text) if text}
        assert len(longest) <= 120
        assert not re.search("é{65}", text)
    full = CliRunner().invoke(main, ["dead-letters", "show", str(file), "--json"]).output
    assert json.loads(full)["file"] == str(file)
