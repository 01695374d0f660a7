"""Arrays as Postgres writes them: single elements are replaced in the text, and the rest is kept to the byte.

PostgreSQL documentation, "Array Input and Output Syntax": an element stands in quotation marks where it is empty, holds
braces, commas, quotation marks, backslashes or white space, or reads NULL. Bounds that do not begin at 1 come before.
"""

import re
from collections.abc import Callable, Iterator

_BOUNDS = re.compile(r"(?:\[[+-]?\d+:[+-]?\d+\])+=")
_ELEMENT = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^{},"]++)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TO_ESCAPE = re.compile(r'(["\\])')


def elements(text: str) -> Iterator[str]:
    """Every element that is not NULL, of all dimensions."""
    for match in _ELEMENT.finditer(text, _begin(text)):
        element = _element(match)
        if element is not None:
            yield element


def replaced(text: str, replace: Callable[[str], tuple[str, int]]) -> tuple[str, int]:
    """The array with some elements replaced, and how many strings that were in all."""
    count, begin = 0, _begin(text)

    def written(match: re.Match[str]) -> str:
        nonlocal count
        element = _element(match)
        if element is None:
            return match[0]
        new, strings = replace(element)
        count += strings
        return '"' + _TO_ESCAPE.sub(r"\\\1", new) + '"' if strings else match[0]

    return text[:begin] + _ELEMENT.sub(written, text[begin:]), count


def _begin(text: str) -> int:
    bounds = _BOUNDS.match(text)
    return bounds.end() if bounds else 0


def _element(match: re.Match[str]) -> str | None:
    quoted, plain = match.groups()
    if quoted is not None:
        return _ESCAPED.sub(r"\1", quoted)
    return None if plain.upper() == "NULL" else plain
