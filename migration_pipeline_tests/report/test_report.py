"""The report at the end: what its files hold, that they come to be whole, and that no name of bad will gets through."""

import hashlib
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from migration_pipeline import planning
from migration_pipeline.adapters.ledger.overview import RangeState
from migration_pipeline.cli.main import main
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.estimate import Cost, Estimate, Prices, Requests, Speed
from migration_pipeline.core.spent import Expected
from migration_pipeline.defs.report import ReportConfig, migration_report
from migration_pipeline.defs.resources import Migration
from migration_pipeline.report import writing
from migration_pipeline.report.folder import held
from migration_pipeline.report.writing import write
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.report.conftest import HOSTILE, RANGES, WHO, WHY, Told, copied, counters

FILES = {
    "SHA256SUMS", "dead_letters.parquet", "files.parquet", "outcomes.parquet", "progress.parquet", "ranges.parquet",
    "report.html", "waivers.parquet",
}  # fmt: skip


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


def text_of(page: str) -> str:
    """What the page says, markup left out."""
    body = page.split("<main>", 1)[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def row_of(page: str, first: str) -> list[str]:
    """The cells of the table row that begins so."""
    for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL):
        cells = [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        if cells and cells[0] == first:
            return cells
    raise AssertionError(first)


def test_every_file_is_there_with_its_evidence(written: Path) -> None:
    files = read(written, "files").set_index("blob")
    assert len(files) == 8 + len(HOSTILE)
    for n in range(1, 9):
        row = files.loc[f"{n}.jpg"]
        found = (row.container, row.outcome, row.size_bytes, row.md5, row.etag, row.source_etag, row.attempts)
        assert found == ("photos", "copied", 3000 * n, copied(f"{n}.jpg", 1).md5.hex(), "etag", '"0x1"', 1)  # type: ignore[union-attr]
        assert row.made_by_migration
        assert not row.waived
    assert files.loc["1.jpg"].removed_how == "delete"
    assert files.removed_at.notna().sum() == 1
    assert set(files.index) == {*HOSTILE, *(f"{n}.jpg" for n in range(1, 9))}
    assert set(files[files.waived].index) == set(HOSTILE[:2])
    assert pd.isna(files.loc[HOSTILE[3]].md5)
    # Batches became groups of rows: nothing is held for longer than one.
    stored = pq.ParquetFile(written / "files.parquet")
    assert [stored.metadata.row_group(n).num_rows for n in range(stored.num_row_groups)] == [4, 4, 4, 3]
    assert stored.metadata.row_group(0).column(0).compression == "ZSTD"


def test_ranges_letters_waivers_and_the_course_are_tables(written: Path) -> None:
    ranges = read(written, "ranges").set_index("key")
    assert list(ranges.index) == [item.key for item in RANGES]
    done = ranges.loc[RANGES[0].key]
    assert (done.copied, done.bytes, done.migrated, done.waiting, done.seconds_transfer) == (8, 108_000, 8, 0, 8.0)
    assert json.loads(ranges.loc[RANGES[1].key].waiting_for) == {"source_missing": len(HOSTILE)}
    letters, waivers = read(written, "dead_letters"), read(written, "waivers")
    assert set(letters.blob) == set(HOSTILE[2:])
    assert set(waivers.blob) == set(HOSTILE[:2])
    assert set(waivers.waived_by) == {WHO}
    assert set(waivers.waived_why) == {WHY}
    assert [list(keys) for keys in letters.ranges] == [[RANGES[1].key]] * len(letters)
    progress, outcomes = read(written, "progress"), read(written, "outcomes")
    assert (progress["files"].sum(), progress.failed.sum(), progress["bytes"].sum()) == (8, len(HOSTILE), 108_000)
    assert outcomes.groupby("outcome")["files"].sum().to_dict() == {"copied": 8, "source_missing": len(HOSTILE)}


def test_an_empty_ledger_has_its_report(empty: Settings, tmp_path: Path) -> None:
    written = write(empty, tmp_path)
    assert (written.verdict.done, written.verdict.said) == (False, "Nothing is planned yet.")
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".toml"} == FILES
    assert len(read(tmp_path, "files")) == 0
    assert "container" in read(tmp_path, "dead_letters")


def test_names_of_bad_will_stay_text(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    tags = set(re.findall(r"<\s*([a-zA-Z!]+)", page))
    assert {"script", "b", "!--"} & {tag.lower() for tag in tags} == set()
    # No attribute but our own: what could begin one is escaped.
    assert re.findall(r"<[^>]*\son\w+\s*=", page) == []
    assert [char for char in set(page) if not char.isprintable() and char != "\n"] == []
    assert "photo\\u202egnp.exe" in page
    assert "bell\\x07\\x1b[31mred\\nline" in page
    assert "{{ 7 * 7 }}{% include" in page
    assert "&lt;b&gt;ops&lt;/b&gt; \\u202eevil" in page
    assert "עברית" not in page
    assert HOSTILE[6] in page


def test_no_secret_is_in_any_file(written: Path) -> None:
    told = load().secrets
    assert told.azure_key is not None
    secrets = [
        "hunter2",
        "t0ps3cret",
        "s3kr1t",
        told.azure_key.get_secret_value(),
        told.database_url.get_secret_value(),
    ]
    everything = b"".join(path.read_bytes() for path in sorted(written.iterdir()))
    assert [text for text in secrets if text.encode() in everything] == []
    page = (written / "report.html").read_text(encoding="utf-8")
    assert row_of(page, "alerts.ui_url")[1] == "https://ui.example.com/"
    assert row_of(page, "ALERT_URLS")[1] == row_of(page, "AZURE_STORAGE_KEY")[1] == "set, and not shown"


def test_digests_are_those_of_the_files(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in written.iterdir()} == FILES
    for name in FILES - {"SHA256SUMS", "report.html"}:
        digest = hashlib.sha256((written / name).read_bytes()).hexdigest()
        assert row_of(page, name)[-1] == digest
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=written, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(": OK")) == (0, len(FILES) - 1)


def test_a_report_that_breaks_off_leaves_the_old_one(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(told.settings, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def broken(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "page", broken)
    with pytest.raises(Fatal, match="No space left on device"):
        write(told.settings, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_two_at_once_do_not_mix(told: Told, tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(Fatal, match="somebody else writes"):
        write(told.settings, tmp_path)
    assert write(told.settings, tmp_path).page.exists()


def test_a_folder_that_cannot_be_is_refused(told: Told, tmp_path: Path) -> None:
    assert told.ledger.ranges()
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = CliRunner().invoke(main, ["report", "--out", str(tmp_path / "file" / "below")])
    assert (done.exit_code, "cannot be written: Not a directory" in done.stderr) == (2, True)


def test_the_estimate_stays_as_it_was_before_the_first_run(empty: Settings) -> None:
    def estimate(files: int) -> Estimate:
        requests, cost, speed = Requests(1, 1, 1), Cost(1, 1, 1, 1), Speed(1, None, None, "")
        return Estimate(9, 9, 9, 0, 9, {}, files, 0, {}, 5, 0, requests, cost, 1, speed, 9, 9)

    def kept() -> int:
        with closing(open_ledger(empty)) as ledger:
            expected = ledger.expected()
        assert expected is not None
        return expected.files

    planning.keep_estimate(estimate(1), empty)
    planning.keep_estimate(estimate(2), empty)
    assert kept() == 2
    with closing(open_ledger(empty)) as ledger:
        ledger.add_ranges(RANGES)
        with ledger.hold(RANGES[0].key):
            planning.keep_estimate(estimate(3), empty)
    assert kept() == 2


def test_what_was_used_stands_beside_what_was_expected(told: Told, tmp_path: Path) -> None:
    prices = Prices(1.0, 2.0, 10.0, 1.0)
    cost = Cost(1.25, 2.5, 3.75, 4.5)
    expected = Expected(
        told.ledger.now(), 30, 40, 200_000, Requests(41, 42, 43), cost, 60.0, 9, 8, exact=False, prices=prices
    )
    told.ledger.expect(expected)
    page = write(told.settings, tmp_path).page.read_text(encoding="utf-8")
    assert row_of(page, "files") == ["files", "40", "15"]
    assert row_of(page, "reads of the source") == ["reads of the source", "41", "10"]
    assert row_of(page, "bytes asked of the source")[2] == "40.0 KB"
    assert row_of(page, "cost, once")[1] == "7.50 USD"
    assert "Prices in the settings have changed since" in page
    assert row_of(page, "throttled by the source")[1] == "4 times"
    # Another run of a range adds up; one that was cut off keeps its files, and not its requests.
    with told.ledger.hold(RANGES[2].key) as (_, held):
        held.finish(counters(migrated=0, untouched=0, copied=8))
    told.ledger.query("UPDATE {s}.ranges SET copied = copied + 24")
    page = write(told.settings, tmp_path).page.read_text(encoding="utf-8")
    assert "Requests were counted for 16 of 80 files" in text_of(page)
    assert row_of(page, "reads of the source")[2] == str(19 * 5)


def test_later_runs_add_up_and_move_no_profile_to_another_time(told: Told) -> None:
    def state() -> RangeState:
        return told.ledger.overview.states()[0]

    first, spent = state(), told.ledger.exports.totals()
    assert first.done_at == first.ended_at
    again = counters(migrated=8, untouched=2, copied=0)
    with told.ledger.hold(RANGES[0].key) as (_, held):
        held.finish(again)
    assert (state().done_at, state().ended_at == first.ended_at) == (first.done_at, False)
    totals = told.ledger.exports.totals()
    assert (totals.spent.copied, totals.spent.retries) == (8, spent.spent.retries + 3)
    assert totals.seconds["transfer"] == spent.seconds["transfer"] + 8.0
    assert totals.seconds["paused"] == spent.seconds["paused"] + 1.5
    # A rollback undoes it, and counts nothing.
    with told.ledger.hold(RANGES[0].key, run=False) as (_, held):
        held.finish({"urls": 8}, rolled_back=True)
    assert state().done_at is None
    assert told.ledger.exports.totals().spent == totals.spent


def test_the_verdict_names_what_is_missing_or_says_that_nothing_is(told: Told, tmp_path: Path) -> None:
    said = write(told.settings, tmp_path).verdict
    # The waiver asked for another run of its range, and one was never run.
    assert (
        said.said == "Not done: 1 of 3 ranges is done, 7 profiles wait (7 source_missing), 2 ranges are still to run."
    )
    for key in (RANGES[1].key, RANGES[2].key):
        with told.ledger.hold(key) as (_, held):
            held.finish(counters(migrated=10, untouched=0, copied=0))
    told.ledger.query("UPDATE {s}.ranges SET requested_at = NULL")
    said = write(told.settings, tmp_path).verdict
    assert said.done
    assert said.said.startswith(
        "Done: all 30 profiles in 3 ranges are migrated or had nothing to move; 8 files, 108.0 KB,"
    )
    assert said.said.endswith("; 2 dead letters were waived.")


def test_the_asset_writes_it_where_its_config_says(told: Told, tmp_path: Path) -> None:
    assert told.ledger.ranges()
    result, check = migration_report(ReportConfig(folder=str(tmp_path / "out")), migration=Migration())
    assert isinstance(result, dg.MaterializeResult)
    assert isinstance(check, dg.AssetCheckResult)
    metadata = dict(result.metadata or {})
    assert metadata["page"] == dg.MetadataValue.path(str(tmp_path / "out" / "report.html"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert "files.parquet" in str(metadata["files"])
    assert "![" in metadata["report"].value  # type: ignore[union-attr]


def test_the_command_starts_without_what_draws(tmp_path: Path) -> None:
    heavy = {"matplotlib", "pandas", "pyarrow", "jinja2", "dagster"}
    code = f"import sys, migration_pipeline.cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
