"""Strings inside the values of both sites: finding them, and replacing single ones in place.

Database columns come as the text that Postgres holds; Firebase fields as Python values. Both go through the
same question per string: a `Replace` gives the new string, or `None` to leave it alone. Everything else of a
value, down to the white space of a `json` column, stays as it is.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from migration_pipeline.core.model import ProfileId

Replace = Callable[[str], str | None]
ReplaceFor = Callable[[ProfileId], Replace]
"""What strings become in the values of one profile."""

# In valid JSON a quotation mark stands only around strings, so this finds exactly the string tokens; the
# group after a token is non-empty for object keys, which are names and not values.
# Possessive: what was passed over is never gone back into, so it takes neither memory nor time for each character.
_JSON_STRING = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")(\s*:)?')


def strings_in_json(text: str) -> Iterator[str]:
    """Every string value of a JSON text that could be a URL; object keys are not values."""
    for match in _JSON_STRING.finditer(text):
        token, colon = match.groups()
        if colon is None and _may_be_url(token):
            yield json.loads(token)


def replace_in_json(text: str, replace: Replace) -> tuple[str, int]:
    """The JSON text with some strings replaced, and how many; the rest is kept to the byte.

    Numbers are never parsed, so a `numeric` of forty digits survives, as do duplicate keys.
    """
    count = 0

    def token_for(match: re.Match[str]) -> str:
        nonlocal count
        token, colon = match.groups()
        if colon is not None or not _may_be_url(token):
            return match[0]
        new = replace(json.loads(token))
        if new is None:
            return match[0]
        count += 1
        return json.dumps(new)

    return _JSON_STRING.sub(token_for, text), count


def strings_in(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever a document field holds
    """Every string of a nested value of lists and dicts; dict keys are not values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


def replace_in(value: Any, replace: Replace) -> tuple[Any, int]:  # noqa: ANN401 - as above
    """The value with some strings replaced, and how many; a value with none is returned itself."""
    if isinstance(value, str):
        new = replace(value)
        return (value, 0) if new is None else (new, 1)
    if isinstance(value, dict):
        pairs = {key: replace_in(item, replace) for key, item in value.items()}
        count = sum(n for _, n in pairs.values())
        return ({key: item for key, (item, _) in pairs.items()}, count) if count else (value, 0)
    if isinstance(value, list):
        items = [replace_in(item, replace) for item in value]
        count = sum(n for _, n in items)
        return ([item for item, _ in items], count) if count else (value, 0)
    return value, 0


def _may_be_url(token: str) -> bool:
    # A backslash may escape any character of "http", so such tokens are looked at in full.
    return "\\" in token or "://" in token
