"""What a page is made of."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

_SHORT = 40  # characters


class Figure(NamedTuple):
    """A number: as people read it, as it is, and the name by which a script finds it."""

    text: str
    value: float
    name: str


class Code(NamedTuple):
    """A name, shown as it is written; a digest may be broken over lines anywhere."""

    text: str
    digest: bool = False

    @property
    def look(self) -> str:
        """Its class in the style sheet: short names stay on one line, long ones get room."""
        return "digest" if self.digest else "short" if len(self.text) <= _SHORT else "long"


Cell = str | Figure | Code
Row = Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; `numbers` are the columns that are set flush right."""

    head: Sequence[str]
    rows: Sequence[Row]
    numbers: AbstractSet[int] = field(default_factory=frozenset)
    caption: str = ""
    note: str = ""


class Picture(NamedTuple):
    """URLs that hold it, for light pages and for dark ones, and what it shows in words."""

    alternative: str
    light: str
    dark: str


@dataclass(frozen=True, slots=True)
class Section:
    """Sentences, then tables; a dense one sets its tables beside each other where there is room."""

    title: str
    said: Sequence[str] = ()
    tables: Sequence[Table] = ()
    dense: bool = False

    @property
    def anchor(self) -> str:
        """For links to it."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.title.lower()).split())
