"""An alert, and how it reads: a title, and lines of plain text."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote

from migration_pipeline.core.text import shortened

_EXAMPLES = 5
_LONGEST = 120  # characters of a name
# Neither markup nor mentions nor links can be made of these, whatever a channel makes of text.
_PLAIN = " /._-,;:()+=%…"


class Kind(StrEnum):
    """What alerts are about."""

    FAILED_RUNS = "failed_runs"
    DEAD_BACKFILL = "dead_backfill"
    DEAD_LETTERS = "dead_letters"
    BREAKER = "breaker"
    STALLED = "stalled"
    LATE_REFERENCES = "late_references"
    SOURCE_UPLOADS = "source_uploads"
    SAS_ENDS = "sas_ends"
    DISK = "disk"
    DAILY_SUMMARY = "daily_summary"
    FINISHED = "finished"
    LEDGER = "ledger"
    SETTINGS = "settings"
    TEST = "test"


class Severity(StrEnum):
    """How soon somebody should look: when they like, today, now."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


_WHEN: Mapping[Severity, str] = {
    Severity.INFO: "for you to know",
    Severity.WARNING: "it can wait until the morning",
    Severity.CRITICAL: "look at it now",
}


class Alert(NamedTuple):
    """Something that a human has to know. All texts are plain; names in them went through `shown`.

    Attributes:
        what: one short sentence, without its full stop.
        since: when it began, as far as that is known.
        how_bad: what it means for the migration and for users.
        link: to the UI; empty where there is none.
        at: when this was true.
    """

    kind: Kind
    severity: Severity
    what: str
    where: str
    since: datetime
    how_bad: str
    what_to_do: str
    link: str
    at: datetime

    @property
    def title(self) -> str:
        """One line."""
        return f"[{self.severity}] Migration: {self.what.replace('`', '')}"

    @property
    def body(self) -> str:
        """What, where, since when, how bad, what to do, and the link."""
        lines = {
            "What": f"{self.what}.".replace(".`.", "`."),
            "Where": self.where,
            "Since": f"{self.since:%Y-%m-%d %H:%M %Z}",
            "How bad": f"{self.severity}: {_WHEN[self.severity]}. {self.how_bad}",
            "What to do": self.what_to_do,
            "Link": self.link,
            "As of": f"{self.at:%Y-%m-%d %H:%M:%S %Z}",
        }
        return "\n".join(f"{name}: {text}" for name, text in lines.items() if text)

    def as_json(self) -> dict[str, str]:
        """Plain values, to be kept until it is delivered."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in self._asdict().items()
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Alert":
        """The alert that was kept; its times keep their offset, and no more the zone's name."""
        times = {name: datetime.fromisoformat(kept[name]) for name in ("since", "at")}
        return cls(**{**kept, **times, "kind": Kind(kept["kind"]), "severity": Severity(kept["severity"])})


def shown(name: str) -> str:
    """A name that users or stores made up, as code, with everything percent-encoded that a channel could act upon."""
    plain = "".join(c if c.isalnum() or c in _PLAIN else quote(c, errors="replace", safe="") for c in name)
    return f"`{shortened(plain.replace('://', '%3A//'), _LONGEST)}`"


def listed(names: Sequence[str]) -> str:
    """The first of them."""
    more = f" and {thousands(len(names) - _EXAMPLES)} more" if len(names) > _EXAMPLES else ""
    return ", ".join(shown(name) for name in names[:_EXAMPLES]) + more


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 run`, `2 runs`; `1 copy`, `2 copies` where the plural is given."""
    return f"{thousands(number)} {noun if number == 1 else plural or noun + 's'}"


def counted(number: int, noun: str, one: str, several: str, plural: str = "") -> str:
    """`1 range is`, `2 ranges are`: so many, and the verb that goes with them."""
    return f"{count(number, noun, plural)} {one if number == 1 else several}"


def thousands(number: int) -> str:
    """With commas."""
    return f"{number:,}"


def amount(size: float) -> str:
    """Bytes, as people say them."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1e6:,.1f} MB"
