"""`status`: how far the migration is, from the ledger's counters."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from migration_pipeline.adapters.ledger_overview import RangeState
from migration_pipeline.adapters.postgres_ledger import PostgresLedger


@dataclass(slots=True)
class Status:
    """How far some ranges are.

    Attributes:
        working: ranges that a run works on, or broke off in.
        waiting_for: profiles that wait, by reason.
        bytes: copied, over all runs.
        seconds: of the newest runs, by stage, summed over ranges.
    """

    ranges: int = 0
    done: int = 0
    incomplete: int = 0
    working: int = 0
    rolled_back: int = 0
    profiles: int = 0
    migrated: int = 0
    nothing_to_move: int = 0
    waiting: int = 0
    files: int = 0
    copied: int = 0
    bytes: int = 0
    waiting_for: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every profile is migrated or had nothing to move."""
        return not self.left

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "complete": self.complete,
            "ranges": {
                "planned": self.ranges,
                "done": self.done,
                "incomplete": self.incomplete,
                "working": self.working,
                "rolled_back": self.rolled_back,
                "left": self.left,
            },
            "profiles": {
                "planned": self.profiles,
                "migrated": self.migrated,
                "nothing_to_move": self.nothing_to_move,
                "waiting": self.waiting,
                "waiting_for": dict(self.waiting_for),
            },
            "files": {"known": self.files, "copied": self.copied, "bytes": self.bytes},
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }


def status(ledger: PostgresLedger, keys: set[str] | None = None) -> Status:
    """Sum up the ranges, or those with the given keys."""
    total = Status()
    for state in ledger.overview.states():
        if keys is None or state.key in keys:
            _add(total, state)
    return total


def is_done(state: RangeState) -> bool:
    """Whether the range's newest run ended with nobody waiting, was not undone, and nothing came late since."""
    undone = state.running or state.rolled_back or state.requested
    return not undone and state.report is not None and state.report["waiting"] == 0


def _add(total: Status, state: RangeState) -> None:
    report = state.report or {}
    total.ranges += 1
    total.profiles += state.profiles
    total.copied += state.copied
    total.bytes += state.bytes
    total.working += state.running
    total.rolled_back += state.rolled_back
    total.done += is_done(state)
    total.incomplete += not state.running and bool(report.get("waiting"))
    if not is_done(state):
        total.left.append(state.key)
    total.migrated += report.get("migrated", 0)
    total.nothing_to_move += report.get("untouched", 0)
    total.waiting += report.get("waiting", 0)
    total.files += report.get("files", 0)
    total.waiting_for.update(report.get("waiting_for", {}))
    total.seconds.update(report.get("seconds", {}))
