"""Text of users, fit to be shown."""

import re

# What a spreadsheet takes for a formula, of full width in some locales, where a cell begins: also one that begins in
# ours, for many part cells by semicolons and not by commas.
_FORMULA = re.compile('((?:^|[;,\t\r\n])[\\s"]*)(?=[=+@\uff1d\uff0b\uff0d\uff20-])')


def visible(text: str) -> str:
    """The text with its control characters, and those that turn the direction of writing, as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_MINUTE, _HOUR, _DAY = 60, 3600, 86400
LONGEST = 64
"""Characters of a name that pages, tables and alerts show; `dead-letters show` and exports give it in full."""


def shortened(name: str, most: int = LONGEST) -> str:
    """The name as it is `visible`, its middle left out where it is long: both its folder and its ending tell."""
    text = visible(name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"


def inert(text: str) -> str:
    """The text with an apostrophe before all that a spreadsheet would run."""
    return _FORMULA.sub(r"\1'", text)


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    for unit, name, below, smaller in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {smaller}"
    return f"{whole} s"
