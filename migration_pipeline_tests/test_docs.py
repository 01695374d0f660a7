"""The documents say what the code does: every command, setting, secret and outcome, and no others."""

import re
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from migration_pipeline.cli.main import main
from migration_pipeline.commands.doctor import What
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.core.findings import Finding
from migration_pipeline.core.model import REMEDIES, Outcome
from migration_pipeline.core.removal_report import Stay
from migration_pipeline.definitions import defs
from migration_pipeline.settings import load, sections

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


def test_every_setting_has_a_row() -> None:
    names = {
        f"{field.alias or section}.{inner.alias or name}"
        for section, field in sections.Settings.model_fields.items()
        if section != "secrets" and isinstance(field.annotation, type)
        for name, inner in field.annotation.model_fields.items()  # type: ignore[attr-defined]
    }
    assert first_cells("docs/settings.md", "Settings") == names


IN_WORDS: dict[str, tuple[str, object]] = {
    "source.alias_hosts": ("none", {}),
    "target.prefix": ("empty", ""),
    "target.storage_class": ("the bucket's", None),
    "target.encryption": ("the bucket's", None),
    "target.kms_key_id": ("the account's", None),
    "target.tags": ("none", {}),
    "target.endpoint_url": ("AWS", None),
    "database.profiles": ("see below", sections.ProfilesTable()),
    "database.related": ("none", []),
    "firebase.project_id": ("\N{EN DASH}", ""),
    "firebase.database_url": ("\N{EN DASH}", None),
    "firebase.fields": ("`photos`", ["photos"]),
    "control.windows": ("always", []),
    "uploads.origins": ("none", []),
}
"""Defaults that the table puts into words, and what they are."""


def as_told(key: str, field: FieldInfo) -> str:
    """The default as the table of the settings has it."""
    if key in IN_WORDS:
        word, default = IN_WORDS[key]
        return word if field.default == default else repr(field.default)
    if field.is_required():
        return "\N{EN DASH}"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"`{field.default}`" if isinstance(field.default, str) else f"{field.default:g}"


def test_every_default_in_the_table_is_that_of_the_code() -> None:
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([a-z_]+\.[a-z0-9_]+)` \| (.*?) \|", text, re.MULTILINE))
    defaults = {
        key: as_told(key, inner)
        for section, field in sections.Settings.model_fields.items()
        if section != "secrets" and isinstance(field.annotation, type)
        for name, inner in field.annotation.model_fields.items()  # type: ignore[attr-defined]
        if (key := f"{field.alias or section}.{inner.alias or name}")
    }
    assert told == defaults


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
