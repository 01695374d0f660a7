"""Configuration: what is right is read, what is wrong is refused with the setting's name, and no secret is repeated."""

from collections.abc import Callable
from pathlib import Path

import pytest

from migration_pipeline.core.errors import SettingsError
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import url_rules

GOOD = """
[source]
account_url = "https://acct.blob.core.windows.net/"
containers = ["photos", "verifications"]
[target]
bucket = "user-files"
region = "eu-central-1"
public_base_url = "https://cdn.example.com"
[firebase]
kind = "firestore"
project_id = "demo"
"""
SECRETS = {"DATABASE_URL": "postgresql://app:hunter2@db/app", "AZURE_STORAGE_KEY": "aHVudGVyMg=="}
Load = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def read(text: str = GOOD, **environment: str | None) -> Settings:
        file = tmp_path / "migration.toml"
        file.write_text(text, encoding="utf-8")
        given = {"MIGRATION_CONFIG": str(file), **SECRETS, **environment}
        return load({name: value for name, value in given.items() if value is not None})

    return read


def test_defaults_and_secrets(read: Load) -> None:
    settings = read()
    assert settings.source.account_url == "https://acct.blob.core.windows.net"
    assert (settings.copy_.in_flight, settings.plan.profiles_per_range) == (64, 1000)
    assert settings.secrets.ledger_url.get_secret_value() == SECRETS["DATABASE_URL"]
    assert "hunter2" not in repr(settings)


def test_the_environment_overrides_the_file(read: Load) -> None:
    settings = read(
        MIGRATION_COPY__IN_FLIGHT="7",
        MIGRATION_SOURCE__CONTAINERS='["a"]',
        MIGRATION_TARGET__KEY_TEMPLATE="{container}/x/{blob}",
        MIGRATION_FIREBASE__KIND="none",
        LEDGER_URL="postgresql://elsewhere/ledger",
    )
    assert settings.copy_.in_flight == 7
    assert settings.source.containers == ["a"]
    assert settings.target.key_template == "{container}/x/{blob}"
    assert settings.secrets.ledger_url.get_secret_value() == "postgresql://elsewhere/ledger"


@pytest.mark.parametrize(
    ("environment", "setting", "words"),
    [
        ({"MIGRATION_COPY__INFLIGHT": "3"}, "copy.inflight", "in_flight"),
        ({"MIGRATION_COPYING__IN_FLIGHT": "3"}, "MIGRATION_COPYING__IN_FLIGHT", "MIGRATION_COPY__IN_FLIGHT"),
        ({"MIGRATION_IN_FLIGHT": "3"}, "MIGRATION_IN_FLIGHT", "is no setting"),
        ({"MIGRATION_WORKERS": "3"}, "MIGRATION_WORKERS", "MIGRATION_CONTROL__WORKERS"),
        ({"MIGRATION_COPY__IN_FLIGHT": "many"}, "copy.in_flight", "integer"),
        ({"MIGRATION_COPY__IN_FLIGHT": "0"}, "copy.in_flight", "greater"),
        ({"MIGRATION_SOURCE__CONTAINERS": "[a"}, "MIGRATION_SOURCE__CONTAINERS", "JSON"),
        ({"MIGRATION_SOURCE__CONTAINERS": "[]"}, "source.containers", "at least 1"),
        ({"MIGRATION_SECRETS__AZURE_KEY": "x"}, "MIGRATION_SECRETS__AZURE_KEY", "is no setting"),
        ({"MIGRATION_FIREBASE__KIND": "mongodb"}, "firebase.kind", "firestore"),
        ({"MIGRATION_FIREBASE__PROJECT_ID": ""}, "firebase.project_id", "is missing"),
        ({"MIGRATION_SOURCE__ACCOUNT_URL": "acct"}, "source.account_url", "URL"),
        ({"MIGRATION_LEDGER__SCHEMA": 'x"; DROP'}, "ledger.schema", "pattern"),
        ({"MIGRATION_DATABASE__PROFILES": '{"tabel": "p"}'}, "database.profiles.tabel", "table"),
        ({"DATABASE_URL": None}, "DATABASE_URL", "is missing"),
        ({"AZURE_STORAGE_KEY": None}, "AZURE_STORAGE_KEY", "is missing"),
        ({"MIGRATION_CONFIG": "/nowhere/migration.toml"}, "MIGRATION_CONFIG", "migration.example.toml"),
    ],
)
def test_what_is_wrong_is_named(read: Load, environment: dict[str, str | None], setting: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(**environment)
    assert refused.value.setting == setting
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_file_with_faults_is_refused(read: Load) -> None:
    with pytest.raises(SettingsError, match="TOML"):
        read("[source")
    with pytest.raises(SettingsError, match="not read from the file"):
        read(GOOD + '[secrets]\nazure_key = "x"\n')
    with pytest.raises(SettingsError, match="must be a table"):
        read("copy = 3\n" + GOOD, MIGRATION_COPY__IN_FLIGHT="3")
    with pytest.raises(SettingsError, match="target: is missing"):
        read(GOOD.split("[target]", maxsplit=1)[0] + '[firebase]\nkind = "none"\n')


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({"MIGRATION_TARGET__KEY_TEMPLATE": "{blob}"}, "target.key_template"),
        ({"MIGRATION_TARGET__KEY_TEMPLATE": "{container}{blob}"}, "target.key_template"),
        ({"MIGRATION_SOURCE__ALIAS_HOSTS": '{"img.example.com": "other"}'}, "source.alias_hosts"),
        ({"MIGRATION_TARGET__PUBLIC_BASE_URL": "https://acct.blob.core.windows.net/photos"}, "target.public_base_url"),
    ],
)
def test_rules_that_would_lose_or_mix_files_are_refused(read: Load, environment: dict[str, str], setting: str) -> None:
    settings = read(**environment)
    with pytest.raises(SettingsError) as refused:
        url_rules(settings)
    assert refused.value.setting == setting
