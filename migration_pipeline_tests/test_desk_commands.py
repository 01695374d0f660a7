"""The operators' commands on a real Postgres: what they print, refuse and change."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result

from migration_pipeline.adapters.postgres_ledger import PostgresLedger
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
