"""What every page of the UI tells: whose an asset is, what it is of, and text of users as text."""

import re
from pathlib import Path

import pytest

from migration_pipeline.core.migrate import RangeReport
from migration_pipeline.core.model import Outcome
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
        ("x" * 40 + "y" * 40, "`" + "x" * 32 + "…" + "y" * 32 + "`"),
        ("a sentence " * 9, "`" + "a sentence " * 9 + "`"),
        ("a b " * 99, "`" + "a b " * 25 + "…" + "a b " * 25 + "`"),
    ],
)
def test_text_of_users_stays_text(text: str, shown: str) -> None:
    assert pages.escaped(text) == shown


def test_a_pause_is_told_and_slows_no_figure_down() -> None:
    report = RangeReport("1-9", seconds={"transfer": 2.0}, paused_seconds=600.04)
    report.transferred.outcomes[Outcome.COPIED] = 10
    assert pages.migrated_profiles(report)["paused_seconds"] == 600.0
    assert pages.file_copies(report)["files_per_second"] == 5.0


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
