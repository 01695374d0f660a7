"""Text of users, fit to be shown."""


def visible(text: str) -> str:
    """The text with its control characters, and those that turn the direction of writing, as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
