"""How far a migration is: the ledger's counters summed up, for a terminal, a page, an alert and a monitoring system.

Everything here reads rows of ranges, of the last minutes' progress and of dead letters, never all files: it may be
asked every few seconds, however large the migration is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from migration_pipeline.adapters.ledger.control import AT_WORK_SECONDS
from migration_pipeline.adapters.ledger.overview import LetterClass, Overview, RangeState

RECENT = timedelta(minutes=5)
"""What rates are taken over: long enough to span a few files of any size, short enough to show what a change did."""
_EXAMPLES = 5
_SHORTEST = 10.0  # seconds; progress is kept in stretches of so many


@dataclass(slots=True)
class Status:
    """How far some ranges are.

    Attributes:
        rolled_back_left: profiles of rolled-back ranges that could not go back, and still refer to S3.
        working: ranges that a run works on, or broke off in.
        waiting_for: profiles that wait, by reason.
        examples: of values that profiles wait for and of no file, by kind.
        bytes: copied, over all runs.
        seconds: of the newest runs, by stage, summed over ranges.
        cpu_seconds: the same of the processor.
        to_copy: files not copied yet of ranges that are to run or at work, by what other ranges held; `None` before
            the first range has ended.
    """

    ranges: int = 0
    done: int = 0
    incomplete: int = 0
    working: int = 0
    rolled_back: int = 0
    rolled_back_left: int = 0
    profiles: int = 0
    migrated: int = 0
    nothing_to_move: int = 0
    waiting: int = 0
    files: int = 0
    copied: int = 0
    bytes: int = 0
    waiting_for: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    cpu_seconds: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    to_copy: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every profile is migrated or had nothing to move; never so before something is planned."""
        return self.ranges > 0 and not self.left

    @property
    def not_begun(self) -> int:
        """Ranges whose first run is still to come, or that are asked for again."""
        return self.ranges - self.done - self.incomplete - self.working - self.rolled_back

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "complete": self.complete,
            "ranges": {
                "planned": self.ranges,
                "done": self.done,
                "incomplete": self.incomplete,
                "working": self.working,
                "not_begun": self.not_begun,
                "rolled_back": self.rolled_back,
                "rolled_back_profiles_left": self.rolled_back_left,
                "left": self.left,
            },
            "profiles": {
                "planned": self.profiles,
                "migrated": self.migrated,
                "nothing_to_move": self.nothing_to_move,
                "waiting": self.waiting,
                "waiting_for": dict(self.waiting_for),
            },
            "examples": self.examples,
            "files": {"known": self.files, "copied": self.copied, "bytes": self.bytes},
            "seconds": _rounded(self.seconds),
            "cpu_seconds": _rounded(self.cpu_seconds),
        }


class Rate(NamedTuple):
    """What all runs together did lately.

    Attributes:
        seconds: that it is taken over.
        files: verified, a second.
        failed: ended as dead letters, a second.
        bytes: copied, a second.
    """

    seconds: float = 0.0
    files: float = 0.0
    failed: float = 0.0
    bytes: float = 0.0


class Standing(NamedTuple):
    """Everything that tells at a glance how it goes.

    Attributes:
        at: by the ledger's clock.
        workers: ranges whose run said lately that it is at work.
        broke_off: ranges at work whose run did not.
        last_progress: when a file last ended, to ten seconds.
    """

    at: datetime
    status: Status
    rate: Rate
    workers: int
    broke_off: int
    letters: Sequence[LetterClass]
    last_progress: datetime | None

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; `None` where nothing moves, or nothing can be said yet."""
        if not self.rate.files or self.status.to_copy is None:
            return None
        return self.status.to_copy / self.rate.files

    @property
    def letters_waiting(self) -> int:
        """Dead letters that nobody waived."""
        return sum(letter.waiting for letter in self.letters)

    @property
    def letters_waived(self) -> int:
        """Dead letters whose profiles go on without the file."""
        return sum(letter.waived for letter in self.letters)


def standing(overview: Overview, now: datetime) -> Standing:
    """Read the ledger once.

    Args:
        overview: of the ledger.
        now: by the ledger's clock.
    """
    states = overview.states()
    alive = [_is_alive(state, now) for state in states if state.running]
    last = overview.last_progress()
    return Standing(
        at=now,
        status=summed(states),
        rate=_rate(overview, now),
        workers=sum(alive),
        broke_off=len(alive) - sum(alive),
        letters=overview.letter_classes(),
        last_progress=last,
    )


def summed(states: Sequence[RangeState]) -> Status:
    """Sum up ranges."""
    total = Status()
    for state in states:
        _add(total, state)
    total.to_copy = _to_copy(states)
    return total


def is_done(state: RangeState) -> bool:
    """Whether the range's newest run ended with nobody waiting, was not undone, and nothing came late since."""
    undone = state.running or state.rolled_back or state.requested
    return not undone and state.report is not None and state.report["waiting"] == 0


def is_incomplete(state: RangeState) -> bool:
    """Whether its newest run left profiles that wait for somebody, and no run is to come by itself."""
    to_come = state.running or state.rolled_back or state.requested
    return not to_come and bool((state.report or {}).get("waiting"))


def _is_alive(state: RangeState, now: datetime) -> bool:
    return state.seen_at is not None and (now - state.seen_at).total_seconds() < AT_WORK_SECONDS


def _add(total: Status, state: RangeState) -> None:
    report = state.report or {}
    total.ranges += 1
    total.profiles += state.profiles
    total.copied += state.copied
    total.bytes += state.bytes
    total.working += state.running
    total.rolled_back += state.rolled_back and not state.running
    total.done += is_done(state)
    total.incomplete += is_incomplete(state)
    if not is_done(state):
        total.left.append(state.key)
    if state.rolled_back and not state.running:
        # Its newest counters are those of the way back: who is left there waits for nobody.
        total.rolled_back_left += report.get("waiting", 0)
        return
    total.migrated += report.get("migrated", 0)
    total.nothing_to_move += report.get("untouched", 0)
    total.waiting += report.get("waiting", 0)
    total.files += report.get("files", 0)
    total.waiting_for.update(report.get("waiting_for", {}))
    for kind, texts in report.get("examples", {}).items():
        total.examples[kind] = [*total.examples.get(kind, []), *texts][:_EXAMPLES]
    total.seconds.update(report.get("seconds", {}))
    total.cpu_seconds.update(report.get("cpu_seconds", {}))


def _to_copy(states: Sequence[RangeState]) -> float | None:
    """Files of ranges that run or will, taking them to hold as many a profile as the ranges that have ended."""
    ended = [state for state in states if state.report is not None]
    profiles = sum(state.profiles for state in ended)
    if not profiles:
        return None
    each = sum((state.report or {}).get("files", 0) for state in ended) / profiles
    coming = [state for state in states if state.running or (state.report is None and not state.rolled_back)]
    return float(sum(max(0.0, state.profiles * each - state.copied) for state in coming))


def _rate(overview: Overview, now: datetime) -> Rate:
    rows = overview.progress(since=now - RECENT)
    if not rows:
        return Rate()
    seconds = max(_SHORTEST, (now - rows[0].at).total_seconds())
    return Rate(
        seconds,
        files=sum(row.files for row in rows) / seconds,
        failed=sum(row.failed for row in rows) / seconds,
        bytes=sum(row.bytes for row in rows) / seconds,
    )


def _rounded(seconds: Counter[str]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}
