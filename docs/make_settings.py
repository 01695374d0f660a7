"""`make settings`: the table of docs/settings.md, made of the models; a test compares."""  # noqa: INP001 - a script

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from migration_pipeline.settings import sections

PAGE = Path(__file__).with_name("settings.md")
HEAD = "| key | default | meaning |\n|---|---|---|\n"
_NONE, _REQUIRED = "none", "\N{EN DASH}"
IN_WORDS: dict[str, tuple[object, str]] = {
    "target.prefix": ("", "empty"),
    "target.storage_class": (None, "the bucket's"),
    "target.encryption": (None, "the bucket's"),
    "target.kms_key_id": (None, "the account's"),
    "target.endpoint_url": (None, "AWS"),
    "database.profiles": (sections.ProfilesTable(), "see below"),
    "firebase.project_id": ("", _REQUIRED),
    "firebase.database_url": (None, _REQUIRED),
    "firebase.fields": (["photos"], "`photos`"),
    "control.windows": ([], "always"),
}
"""Defaults that would say little as they are, with the words for them."""


def table() -> str:
    """The rows, a setting each, in the order of the models."""
    return HEAD + "".join(f"| `{key}` | {_default(key, field)} | {field.description} |\n" for key, field in _settings())


def page(text: str) -> str:
    """The page with the table as it should be."""
    before, _, after = text.partition(HEAD)
    rest = re.sub(r"\A(\|.*\n)*", "", after)
    return before + table() + rest


def _settings() -> Iterator[tuple[str, FieldInfo]]:
    for section, field in sections.Settings.model_fields.items():
        if section != "secrets" and isinstance(field.annotation, type):
            for name, inner in field.annotation.model_fields.items():  # type: ignore[attr-defined]
                yield f"{field.alias or section}.{inner.alias or name}", inner


def _default(key: str, field: FieldInfo) -> str:
    default = field.default
    if key in IN_WORDS and default == IN_WORDS[key][0]:
        return IN_WORDS[key][1]
    if field.is_required():
        return _REQUIRED
    if default is None or default in ([], {}):
        return _NONE
    if isinstance(default, bool):
        return str(default).lower()
    return f"`{default}`" if isinstance(default, str) else f"{default:g}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
