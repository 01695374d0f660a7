"""What every page of the UI tells: whose an asset is, what it is of, and text of users as text."""

import re
from pathlib import Path

import pytest

from migration_pipeline.adapters.ledger.overview import RangeTotals
from migration_pipeline.core.migrate import RangeReport
from migration_pipeline.core.model import Outcome, Waiting
from migration_pipeline.definitions import defs
from migration_pipeline.defs import pages

DOCS = Path(__file__).parents[2] / "docs"
SPECS = sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key.to_user_string())
def test_every_asset_says_what_it_is(spec: object) -> None:
    described = spec.description, spec.kinds, spec.owners, spec.tags.get("stage"), spec.group_name  # type: ignore[attr-defined]
    assert all(described), described


def test_every_check_is_a_question() -> None:
    graph = defs.resolve_asset_graph()
    questions = [graph.get_check_spec(key).description or "" for key in graph.asset_check_keys]
    assert len(questions) >= 5
    assert [text for text in questions if not text.endswith("?")] == []


def test_every_sensor_and_schedule_says_what_it_is_for() -> None:
    automations = [*(defs.sensors or ()), *(defs.schedules or ())]
    assert automations
    assert [item.name for item in automations if not item.description] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1024", "1024"),
        ("a`b|c", "`a'b¦c`"),
        ("two\nlines", "`two\\nlines`"),
        ("", ""),
        ("x" * 40 + "y" * 40, "`" + "x" * 32 + "…" + "y" * 31 + "`"),
        ("a sentence " * 9, "`" + "a sentence " * 9 + "`"),
        ("a b " * 99, "`" + "a b " * 25 + "…" + ("a b " * 25)[1:] + "`"),
    ],
)
def test_text_of_users_stays_text(text: str, shown: str) -> None:
    assert pages.escaped(text) == shown


def test_a_pause_is_told_and_slows_no_figure_down() -> None:
    report = RangeReport("1-9", seconds={"transfer": 2.0}, paused_seconds=600.04)
    report.transferred.outcomes[Outcome.COPIED] = 10
    assert pages.migrated_profiles(report)["paused_seconds"] == 600.0
    assert pages.file_copies(report, RangeTotals(12, 3_000_000, 14))["files_per_second"] == 5.0


def test_a_range_that_is_run_again_keeps_its_figures_and_has_no_rate() -> None:
    """Nothing was left to copy: what is true of the range stays, and nothing is said of a speed."""
    shown = pages.file_copies(RangeReport("1-9", seconds={"transfer": 2.0}), RangeTotals(12, 3_000_000, 14))
    assert (shown["files_in_s3"], shown["megabytes_in_s3"], shown["tries_of_all_runs"]) == (12, 3.0, 14)
    assert (shown["copied_by_this_run"], "files_per_second" in shown) == (0, False)


def test_a_failed_range_says_why_in_one_line_and_then_whose_profiles() -> None:
    report = RangeReport("1-9")
    report.discovered.profiles = 15
    report.confirmed.waiting = [Waiting(n, "source_missing") for n in range(6)] + [Waiting(9, "digest_mismatch")]
    lines = pages.what_is_left(report).splitlines()
    assert lines[0] == "7 of 15 profiles are not migrated: 6 source_missing, 1 digest_mismatch."
    assert lines[1].startswith("source_missing: profiles 0, 1, 2, 3, 4, …. Restore the blob")
    assert lines[2].startswith("digest_mismatch: profile 9. ")
    report.confirmed.waiting = report.confirmed.waiting[:1]
    assert pages.what_is_left(report).startswith("1 of 15 profiles is not migrated: 1 source_missing.")
    table = pages.left(report, "profiles_left_in_database", 1)
    assert table["profiles_left_in_database"] == 1
    assert "| 0 | `source_missing` |" in table["waiting_profiles"].value


def test_tables_are_capped_and_say_so() -> None:
    table = pages.capped(["file"], [["a.jpg"]] * 51).splitlines()
    assert table[:3] == ["| file |", "| --- |", "| `a.jpg` |"]
    assert len(table) == 2 + 50 + 2
    assert table[-1] == "… and 1 more"


def test_every_picture_of_the_docs_is_there_and_small() -> None:
    named = {
        (page.parent / name).resolve()
        for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md")
        for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert len(named) >= 10
    assert [path.name for path in named if not path.exists() or path.stat().st_size > 150_000] == []
    assert [path.name for path in (DOCS / "images").iterdir() if path not in named] == []
