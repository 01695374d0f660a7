"""Strings inside the values of both sites: finding them, and replacing parts of them in place.

Database columns come as the text that Postgres holds; Firebase fields as Python values. Both go through the
same question per value: a `Replace` gives the edits of each of its texts. Everything else of a value, down to the white
space and the escapes of a `json` column, stays as it is.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.texts import WHOLE, Form, Text


class Edit(NamedTuple):
    """What a part of a text becomes.

    Attributes:
        start, end: of the part, in `Text.text`.
        verbatim: `new` is as it is to stand in `Text.raw`; else it is escaped like what it replaces.
    """

    start: int
    end: int
    new: str
    verbatim: bool = False


Replace = Callable[[Sequence[Text]], Sequence[Sequence[Edit]]]
"""Says of all texts of one value what becomes of parts of them: for each, edits in order."""
ReplaceFor = Callable[[ProfileId], Replace]
"""What texts become in the values of one profile."""

# In valid JSON a quotation mark stands only around strings, so this finds exactly the string tokens; the
# group after a token is non-empty for object keys.
# Possessive: what was passed over is never gone back into, so it takes neither memory nor time for each character.
_JSON_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*:)?')
# A host has a dot or a port, unless it is escaped.
_MAY_NAME = re.compile(r"[.:%\\&]|[^\x00-\x7f]")
_JSON_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]", re.DOTALL
)
_ESCAPED_SLASH = re.compile(r"\\(?:/|u002[fF])")


def texts_in_json(text: str, place: str = "", form: Form = WHOLE) -> Iterator[Text]:
    """Every string of a JSON text that could name a file, object keys too."""
    for match in _JSON_STRING.finditer(text):
        found = _text_of(match, place, form)
        if found is not None:
            yield found


def replace_in_json(text: str, replace: Replace, place: str = "", form: Form = WHOLE) -> tuple[str, int]:
    """The JSON text with parts of some strings replaced, and how many; the rest is kept to the byte.

    Numbers are never parsed, so a `numeric` of forty digits survives, as do duplicate keys.
    """
    tokens = [
        (match.start(1), found)
        for match in _JSON_STRING.finditer(text)
        if (found := _text_of(match, place, form)) is not None
    ]
    if not tokens:
        return text, 0
    pieces, end, count = list[str](), 0, 0
    for (start, found), edits in zip(tokens, replace([found for _, found in tokens]), strict=True):
        if edits:
            raw = found.text if found.raw is None else found.raw
            pieces += [text[end:start], _edited_json(found, edits)]
            end, count = start + len(raw), count + len(edits)
    return "".join([*pieces, text[end:]]), count


def texts_in(value: Any, place: str = "", form: Form = WHOLE) -> Iterator[Text]:  # noqa: ANN401 - whatever a document field holds
    """Every string of a nested value of lists and dicts, dict keys too."""
    if isinstance(value, str):
        yield Text(value, place, form)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield Text(str(key), place, form, is_key=True)
            yield from texts_in(item, place, form)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item, place, form)


def replace_in(value: Any, replace: Replace, place: str = "", form: Form = WHOLE) -> tuple[Any, int]:  # noqa: ANN401 - as above
    """The value with parts of some strings replaced, and how many; a value with none is returned itself."""
    texts = list(texts_in(value, place, form))
    edits = list(replace(texts)) if texts else []
    count = sum(map(len, edits))
    if not count:
        return value, 0
    return _rebuilt(value, iter([edited(text.text, change) for text, change in zip(texts, edits, strict=True)])), count


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with its edits made."""
    pieces, end = list[str](), 0
    for edit in edits:
        pieces += [text[end : edit.start], edit.new]
        end = edit.end
    return "".join([*pieces, text[end:]])


def raw_part(text: Text, start: int, end: int) -> str:
    """A part of a text as it stands in the raw value."""
    if text.raw is None:
        return text.text[start:end]
    offsets = _offsets(text.raw)
    return text.raw[offsets[start] : offsets[end]]


def _text_of(match: re.Match[str], place: str, form: Form) -> Text | None:
    raw, colon = match.groups()
    if not _MAY_NAME.search(raw):
        return None
    if "\\" not in raw:
        return Text(raw, place, form, colon is not None)
    return Text(json.loads(f'"{raw}"'), place, form, colon is not None, raw)


def _edited_json(text: Text, edits: Sequence[Edit]) -> str:
    """What stands between the quotation marks of a JSON string, with edits made and all else kept to the byte."""
    raw = text.text if text.raw is None else text.raw
    offsets = range(len(raw) + 1) if text.raw is None else _offsets(raw)
    to_raw = [
        edit._replace(
            start=offsets[edit.start],
            end=offsets[edit.end],
            new=edit.new if edit.verbatim else _escaped_like(raw[offsets[edit.start] : offsets[edit.end]], edit.new),
        )
        for edit in edits
    ]
    return edited(raw, to_raw)


def _escaped_like(raw: str, new: str) -> str:
    escaped = json.dumps(new, ensure_ascii=raw.isascii())[1:-1]
    slash = _ESCAPED_SLASH.search(raw)
    return escaped.replace("/", slash[0]) if slash else escaped


def _offsets(raw: str) -> Sequence[int]:
    """Where each character of the string that JSON means begins in its raw form; and its end."""
    return [*(match.start() for match in _JSON_CHARACTER.finditer(raw)), len(raw)]


def _rebuilt(value: Any, texts: Iterator[str]) -> Any:  # noqa: ANN401 - as above
    """The same value of other texts, in the order in which `texts_in` found them."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        new = {}
        for key, item in value.items():
            next(texts)
            new[key] = _rebuilt(item, texts)
        return new
    if isinstance(value, list):
        return [_rebuilt(item, texts) for item in value]
    return value
