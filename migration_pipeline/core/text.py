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


def inert(text: str) -> str:
    """The text with an apostrophe before all that a spreadsheet would run."""
    return _FORMULA.sub(r"\1'", text)
