"""What the ranges that have ended say of the rest, and of the estimate that was made before any of them ran."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from migration_pipeline.core.spent import Expected

_GAP = timedelta(seconds=60)
"""From the end of a run to the beginning of the next: as long as starting one may take, but no break of people's."""
_LATELY = timedelta(hours=1)


class Ran(NamedTuple):
    """The newest run of a range that has ended.

    Attributes:
        copied: files that this run copied.
        files: that profiles of the range need.
        paused: seconds of it in which it was told to wait.
    """

    began: datetime
    ended: datetime
    profiles: int
    copied: int
    files: int
    paused: float = 0.0


class Off(NamedTuple):
    """What was expected of the ranges that have ended, beside what became of them.

    Attributes:
        at: when the estimate was made.
        seconds_expected: of work, by all workers together.
        seconds: that it took them.
    """

    at: datetime
    files_expected: float
    files: int
    seconds_expected: float
    seconds: float


def rate(ran: Sequence[Ran]) -> float | None:
    """Files a second of all workers together in their newest hour, with all that a range takes beside copying.

    Starting of runs, reading, rewriting and confirming are in it; pauses are not. `None` as long as no range has ended
    whose newest run copied anything.
    """
    copying = [one for one in ran if one.copied]
    if not copying:
        return None
    newest = max(one.ended for one in copying)
    lately = [one for one in copying if newest - one.ended <= _LATELY]
    return sum(one.copied for one in lately) / at_work(lately)


def at_work(ran: Sequence[Ran]) -> float:
    """Seconds in which at least one of them ran, or the next was started; a second at least."""
    seconds, until = 0.0, None
    for one in sorted(ran):
        begins = one.began if until is None or one.began - until > _GAP else until
        seconds += max(0.0, (one.ended - begins).total_seconds())
        until = one.ended if until is None else max(until, one.ended)
    # Workers wait together, so of the whole as large a share was lost as of each.
    worked = sum((one.ended - one.began).total_seconds() for one in ran)
    paused = sum(one.paused for one in ran) / worked if worked else 0.0
    return max(1.0, seconds * (1 - min(1.0, paused)))


def off(expected: Expected | None, ran: Sequence[Ran]) -> Off | None:
    """How far the estimate was off, as far as ranges have ended; `None` where there is nothing to compare."""
    copying = [one for one in ran if one.copied]
    if expected is None or not copying or not expected.profiles or not expected.files:
        return None
    profiles = sum(one.profiles for one in copying)
    files = expected.files * profiles / expected.profiles
    return Off(
        expected.at,
        files_expected=files,
        files=sum(one.files for one in copying),
        seconds_expected=expected.seconds * profiles / expected.profiles,
        seconds=at_work(copying),
    )
