"""The documents say what the code does: every command, setting, secret and outcome, and no others."""

import importlib.util
import re
from pathlib import Path

import click

from migration_pipeline.cli.main import main
from migration_pipeline.commands.doctor import What
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.core.findings import Finding
from migration_pipeline.core.model import REMEDIES, Outcome
from migration_pipeline.core.removal_report import Stay
from migration_pipeline.definitions import defs
from migration_pipeline.settings import load

ROOT = Path(__file__).parents[1]


def first_cells(document: str, heading: str) -> set[str]:
    """The code in the first column of the table under a heading."""
    section = (ROOT / document).read_text(encoding="utf-8").split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    return {name for line in section.splitlines() for name in re.findall(r"^\| `([^`]+)`", line)}


def test_every_command_is_described() -> None:
    names = {
        f"{name} {below}" if below else name
        for name, command in main.commands.items()
        for below in (command.commands if isinstance(command, click.Group) else [""])
    }
    assert first_cells("docs/running.md", "Commands") == names


def test_every_outcome_has_a_remedy_and_a_row() -> None:
    assert first_cells("docs/running.md", "What became of a file") == {outcome.value for outcome in Outcome}
    assert set(REMEDIES) == set(Outcome)


def test_every_finding_of_an_audit_has_a_row() -> None:
    assert first_cells("docs/live-traffic.md", "Looking at everything again") >= {finding.value for finding in Finding}


def test_every_reason_why_a_blob_stays_has_a_row() -> None:
    assert first_cells("docs/decommission.md", "Which blobs") == {stay.value for stay in Stay}


def test_everything_to_turn_on_is_described() -> None:
    text = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    names = [job.name for job in defs.jobs or ()]
    names += [schedule.name for schedule in defs.schedules or ()]
    names += [sensor.name for sensor in defs.sensors or ()]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_check_of_doctor_has_a_row() -> None:
    assert first_cells("docs/doctor.md", "Checks") == {what.value for what in What}
    assert first_cells("docs/doctor.md", "The write path") == {what.value for what in WritePath}


def test_the_table_of_settings_is_made_of_the_models() -> None:
    specification = importlib.util.spec_from_file_location("make_settings", ROOT / "docs/make_settings.py")
    assert specification is not None
    assert specification.loader is not None
    maker = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(maker)
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert "| `copy.in_flight` | 64 | Files copied at the same time by one run. |" in text
    assert maker.page(text) == text, "run `make settings`"


def test_the_example_is_accepted() -> None:
    environment = {
        "MIGRATION_CONFIG": str(ROOT / "migration.example.toml"),
        "DATABASE_URL": "postgresql://app@127.0.0.1/app",
        "AZURE_STORAGE_KEY": "c2VjcmV0",
    }
    assert load(environment).target.bucket == "user-files"


def test_variables_of_dagster_yaml_are_described() -> None:
    variables = set(re.findall(r"env: (\w+)", (ROOT / "dagster.yaml").read_text(encoding="utf-8")))
    assert variables
    assert variables <= set(re.findall(r"`(\w+)`", (ROOT / "docs/running.md").read_text(encoding="utf-8")))
