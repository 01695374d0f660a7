"""Reads `migration.toml`, with every value overridable by environment variable.

`MIGRATION_CONFIG` names the file. `MIGRATION_COPY__IN_FLIGHT=32` overrides `[copy] in_flight`; lists and tables are
given as JSON. Secrets come from the environment alone and are never shown.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from migration_pipeline.core.errors import SettingsError
from migration_pipeline.settings.sections import ProfilesTable, RelatedTable, Settings, TextColumn

CONFIG_VARIABLE = "MIGRATION_CONFIG"
DEFAULT_FILE = "migration.toml"
_PREFIX = "MIGRATION_"
_RENAMED = {"MIGRATION_WORKERS": "It is control.workers now: set MIGRATION_CONTROL__WORKERS."}
_NOT_SETTINGS = {CONFIG_VARIABLE, "MIGRATION_SANDBOX_CACHE"}


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read file and environment.

    Raises:
        SettingsError: naming the key, and what would be right.
    """
    environment = os.environ if environment is None else environment
    values = _file(Path(environment.get(CONFIG_VARIABLE, DEFAULT_FILE)))
    _refuse_secrets(values)
    for name, text in environment.items():
        if name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            _override(values, name, text)
    values["secrets"] = _secrets(environment)
    _check_sign_in(values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from None
    if settings.firebase.kind != "none" and not settings.firebase.project_id:
        raise SettingsError("is missing.", setting="firebase.project_id", remedy="Name the Firebase project.")
    if settings.firebase.kind == "realtime_database" and not settings.firebase.database_url:
        raise SettingsError("is missing.", setting="firebase.database_url", remedy="Give the database's URL.")
    if settings.firebase.kind == "firestore" and settings.firebase.document.count("/") % 2 == 0:
        raise SettingsError(
            f"{settings.firebase.document!r} names a collection.",
            setting="firebase.document",
            remedy="A document's path has an even number of segments, collection and document in turn.",
        )
    if settings.firebase.kind != "firestore" and settings.firebase.database is not None:
        raise SettingsError("is for Firestore.", setting="firebase.database", remedy="Leave it out.")
    return settings


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"there is no file {path}.",
            setting=CONFIG_VARIABLE,
            remedy="Copy migration.example.toml to migration.toml, or set MIGRATION_CONFIG to your file.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", setting=CONFIG_VARIABLE) from None


def _refuse_secrets(values: Mapping[str, Any]) -> None:
    if "secrets" in values:
        raise SettingsError(
            "secrets are not read from the file.", setting="secrets", remedy="Set environment variables instead."
        )


def _override(values: dict[str, Any], name: str, text: str) -> None:
    section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
    if not key or section not in Settings.model_fields | {"copy": None} or section == "secrets":
        remedy = _RENAMED.get(name, "Overrides look like MIGRATION_COPY__IN_FLIGHT=32.")
        raise SettingsError("is no setting.", setting=name, remedy=remedy)
    table = values.setdefault(section, {})
    if not isinstance(table, dict):
        raise SettingsError("must be a table.", setting=section, remedy=f"Write [{section}].")
    table[key] = _from_text(name, text)


def _from_text(name: str, text: str) -> Any:  # noqa: ANN401 - JSON
    if not text.lstrip().startswith(("[", "{")) or text.lstrip().startswith(("{container}", "{blob}")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"is not JSON: {error}", setting=name) from None


def _secrets(environment: Mapping[str, str]) -> dict[str, Any]:
    database = environment.get("DATABASE_URL")
    if not database:
        raise SettingsError(
            "is missing.", setting="DATABASE_URL", remedy="Set it to the app's database: postgresql://user:…@host/db."
        )
    return {
        "database_url": database,
        "ledger_url": environment.get("LEDGER_URL") or database,
        "azure_key": environment.get("AZURE_STORAGE_KEY") or None,
        "azure_sas": environment.get("AZURE_STORAGE_SAS_TOKEN") or None,
        "alert_urls": environment.get("ALERT_URLS", "").split(),
    }


def _check_sign_in(values: Mapping[str, Any]) -> None:
    """Whether the secret is there that `source.auth` takes for granted."""
    source, secrets = values.get("source"), values["secrets"]
    auth = source.get("auth") if isinstance(source, dict) else None
    wanted = {"key": ["azure_key"], "sas": ["azure_sas"], "entra": []}.get(str(auth), ["azure_key", "azure_sas"])
    if wanted and not any(secrets[name] for name in wanted):
        setting = "AZURE_STORAGE_SAS_TOKEN" if auth == "sas" else "AZURE_STORAGE_KEY"
        raise SettingsError(
            "is missing.",
            setting=setting,
            remedy="Set AZURE_STORAGE_KEY to a key of the account, or AZURE_STORAGE_SAS_TOKEN to a SAS with read and "
            'list rights, or source.auth to "entra".',
        )


def _refusal(error: ValidationError) -> SettingsError:
    """The first complaint: where, what is wrong, what would be right. Values are not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(first["loc"][:-1]))
        return SettingsError("is no setting.", setting=place, remedy=f"Known here: {known}.")
    if first["type"] == "missing":
        return SettingsError("is missing.", setting=place, remedy="See migration.example.toml.")
    return SettingsError(f"{first['msg']}.", setting=place)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "": Settings,
        **{(f.alias or n): f.annotation for n, f in Settings.model_fields.items() if isinstance(f.annotation, type)},
        "database.profiles": ProfilesTable,
        "database.related": RelatedTable,
        **dict.fromkeys(("database.profiles.columns", "database.related.columns", "firebase.fields"), TextColumn),
    }
    model = models[".".join(str(part) for part in location if isinstance(part, str))]
    return [field.alias or name for name, field in model.model_fields.items() if name != "secrets"]
