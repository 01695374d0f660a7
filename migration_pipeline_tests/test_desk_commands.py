"""The operators' commands on a real Postgres: what they print, refuse and change."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result

from migration_pipeline.adapters.ledger.control import Selection
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.cli import letters
from migration_pipeline.cli.main import main
from migration_pipeline.cli.show import moment
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, settings_toml

RANGES = [ProfileRange(f"{n:010}", n + 1, n * 10 or None, n * 10 + 10, 10) for n in range(2)]
MISSING = SourceFile("photos", "\x1b[2J\x1b]0;owned\x07\u202egpj.\n[red]exe")
BROKEN = [SourceFile("photos", f"broken-{n}.jpg") for n in range(3)]


@pytest.fixture
def ledger(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresLedger]:
    """Two ranges; the first has a missing file with a hostile name, the second three broken ones."""
    config = tmp_path / "migration.toml"
    config.write_text(settings_toml(AppStores.on(sandbox), AppSize()), encoding="utf-8")
    url = sandbox.create_database(f"d{uuid4().hex[:12]}")
    monkeypatch.setenv("MIGRATION_CONFIG", str(config))
    monkeypatch.setenv("DATABASE_URL", url)
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges(RANGES)
        fail(opened, RANGES[0].key, [MISSING], Outcome.SOURCE_MISSING)
        fail(opened, RANGES[1].key, BROKEN, Outcome.DIGEST_MISMATCH)
        yield opened


def fail(ledger: PostgresLedger, key: str, files: list[SourceFile], outcome: Outcome) -> None:
    with ledger.hold(key) as (_, held):
        held.want([Wish(n, file, str(file), had_query=False) for n, file in enumerate(files, 1)])
        held.record([CopyResult(file, outcome, attempts=1, message=f"\x1b[31m{file.blob}") for file in files])
        held.finish({"waiting": len(files)})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_no_name_of_a_user_reaches_the_terminal_as_it_is(ledger: PostgresLedger) -> None:
    ledger.control.pause(by="eve\x1b[1m", why="lunch\x1b]0;owned\x07\nand more")
    show = ["dead-letters", "show", str(MISSING)]
    for command in (["dead-letters", "list"], show, ["acts"], ["pause", "--why", "x"]):
        done = run(*command)
        assert done.exit_code == 0, done.output
        assert re.findall(r"[^\n -~\u2026]", done.output) == []
        assert "\\x1b" in done.output
    assert "\\x1b[2J\\x1b]0;owned\\x07\\u202egpj.\\n[red]exe" in run(*show).output


def test_every_time_is_said_in_utc(ledger: PostgresLedger) -> None:
    assert moment(datetime(2024, 6, 1, 10, tzinfo=ZoneInfo("Asia/Tokyo"))) == "2024-06-01 01:00:00 UTC"
    ledger.control.pause(by="ann", why="lunch")
    ledger.query("UPDATE {s}.acts SET at = '2024-06-01T10:00:00+02'")
    ledger.query("UPDATE {s}.files SET ended_at = '2024-06-01T10:30:00+02'")
    assert "2024-06-01 08:00:00 UTC" in run("acts").output
    assert "2024-06-01 08:30:00 UTC" in run("dead-letters", "show", str(MISSING)).output
    assert re.search(r"by ann since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: lunch", run("pause", "--why", "x").output)


def waived(ledger: PostgresLedger) -> dict[str, int]:
    return {item.outcome.value: item.waived for item in ledger.overview.letter_classes() if item.waived}


def test_waiving_counts_first_and_is_taken_back_with_the_same_choice(ledger: PostgresLedger) -> None:
    waive = "dead-letters", "waive", "--class", "digest_mismatch", "--why", "lost", "--json"
    done = run(*waive)
    assert json.loads(done.output) == {"applied": False, "files": 3, "classes": {"digest_mismatch": 3}}
    assert waived(ledger) == {}
    assert ledger.overview.acts() == []
    assert "would be waived" in run(*waive[:-1]).output

    assert json.loads(run(*waive, "--apply").output) == {"files": 3, "ranges": [RANGES[1].key]}
    assert waived(ledger) == {"digest_mismatch": 3}
    assert run(*waive).exit_code == run(*waive, "--apply").exit_code == 1

    retry = "dead-letters", "retry", "--range", RANGES[1].key
    assert run(*retry).exit_code == 1
    assert "3 dead letters will be tried again" in run(*retry, "--waived").output
    assert waived(ledger) == {}


@pytest.mark.parametrize("command", [["waive", "--why", "x", "--apply"], ["retry"], ["list"], ["export", "x.csv"]])
def test_a_range_that_is_not_planned_is_refused(
    ledger: PostgresLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("dead-letters", *command, "--range", "NOPE")
    assert done.exit_code == 2
    assert "there is no range NOPE" in done.stderr
    assert (waived(ledger), list(tmp_path.glob("*.csv"))) == ({}, [])


def test_letters_are_counted_by_what_chooses_them(ledger: PostgresLedger) -> None:
    def counted(**chosen: Any) -> dict[str, int]:
        return {item.outcome.value: item.waiting for item in ledger.overview.letter_classes(**chosen)}

    everything = {"digest_mismatch": 3, "source_missing": 1}
    assert counted() == everything
    assert counted(outcome=Outcome.SOURCE_MISSING) == counted(file=MISSING) == {"source_missing": 1}
    assert counted(range_key=RANGES[1].key) == {"digest_mismatch": 3}
    assert counted(range_key=RANGES[1].key, file=MISSING) == {}
    fail(ledger, RANGES[0].key, [SourceFile("photos", f"more-{n}.jpg") for n in range(5)], Outcome.SOURCE_MISSING)
    # Files that no profile needs any more, as MISSING now and this one, are none of them.
    ledger.query("UPDATE {s}.wanted SET dropped_at = now() WHERE file_id = %s", [BROKEN[0].file_id])
    ledger.control.waive(Selection(file=BROKEN[1]), by="ann", why="lost")
    first, second = ledger.overview.letter_classes()
    assert (first.outcome, first.waiting, len(first.examples)) == (Outcome.SOURCE_MISSING, 5, 3)
    assert (second.waiting, second.waived, second.examples) == (1, 1, [BROKEN[2]])


def test_an_export_holds_every_letter_and_overwrites_nothing(
    ledger: PostgresLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same files are wanted by both ranges: pages end within a range and between two.
    fail(ledger, RANGES[0].key, [MISSING, *BROKEN], Outcome.DIGEST_MISMATCH)
    monkeypatch.setattr(letters, "_PAGE", 2)
    path = tmp_path / "letters.csv"
    assert "7 dead letters written" in run("dead-letters", "export", str(path)).output
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = [(RANGES[0].key, str(file)) for file in (MISSING, *BROKEN)]
    expected += [(RANGES[1].key, str(file)) for file in BROKEN]
    assert sorted((row["range"], row["file"]) for row in rows) == sorted(expected)
    assert all(row["last_tried_at"].endswith("+00:00") for row in rows)

    path.write_text("mine", encoding="utf-8")
    done = run("dead-letters", "export", str(path))
    assert (done.exit_code, path.read_text(encoding="utf-8")) == (2, "mine")
    assert "PATH: " in done.stderr
    assert run("dead-letters", "export", str(path), "--force", "--class", "digest_mismatch").exit_code == 0
    assert path.read_text(encoding="utf-8").startswith("class,file")
    assert run("dead-letters", "export", str(tmp_path / "nowhere" / "x.csv")).exit_code == 2


def test_an_export_gives_a_spreadsheet_nothing_to_run(ledger: PostgresLedger, tmp_path: Path) -> None:
    names = ["=1+1", "a;=1+1", 'a";=1+1', "a\n=1+1", "a\t=1+1", "a,+1", "b;@SUM(1)"]
    fail(ledger, RANGES[0].key, [SourceFile("photos", name) for name in names], Outcome.DIGEST_MISMATCH)
    why = "=HYPERLINK(1);=1"
    ledger.control.waive(Selection(file=SourceFile("photos", "=1+1")), by="\uff1dann", why=why)
    path = tmp_path / "letters.csv"
    assert run("dead-letters", "export", str(path)).exit_code == 0
    for delimiter in ",;":
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]
        assert len(cells) > len(names)
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\uff1d"))] == []
    assert "'=HYPERLINK(1);'=1" in path.read_text(encoding="utf-8")
