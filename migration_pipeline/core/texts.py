"""One string of a value of the app, and how it is to be read."""

from typing import NamedTuple


class Form(NamedTuple):
    """How the strings of a column or field are read.

    Attributes:
        embedded: they are texts that URLs stand in; else a string is a URL as a whole, or none.
        base: what the app puts before a string that is no URL, to make it one.
        repoint: such strings become whole URLs when their files have moved; else they stay as they are.
    """

    embedded: bool = False
    base: str | None = None
    repoint: bool = False


WHOLE = Form()


class Text(NamedTuple):
    """One string of a value.

    Attributes:
        place: the column or field that holds it, and the row where a profile may have several.
        is_key: it is an object's key: a name, which is never replaced.
        raw: as it stands in a JSON text, between its quotation marks, where that is not the same.
    """

    text: str
    place: str = ""
    form: Form = WHOLE
    is_key: bool = False
    raw: str | None = None
