"""The migration's course over time, in stretches of equal length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from migration_pipeline.adapters.ledger.overview import Overview, ProgressRow, RangeState

if TYPE_CHECKING:
    import pandas as pd

_POINTS = 150
"""Of a plot over time, at most: more cannot be told apart at its width."""
_FINE_SECONDS, _COARSE_SECONDS = 10, 600
_FINE_DAYS = 3
"""Stretches of ten seconds, as the ledger keeps them, for so long; then ten minutes, or there would be too many."""


class Course(NamedTuple):
    """What happened when.

    Attributes:
        rows: stretches of time in which something did, oldest first.
        seconds: length of each.
    """

    rows: Sequence[ProgressRow]
    seconds: int

    @property
    def at_work(self) -> int:
        """Seconds in which files ended."""
        return self.seconds * len(self.rows)

    @property
    def files_per_second(self) -> float:
        """While files ended; pauses are left out."""
        return sum(row.files for row in self.rows) / self.at_work if self.rows else 0.0

    @property
    def best(self) -> float:
        """Files a second of the best stretch."""
        return max((row.files for row in self.rows), default=0) / self.seconds


def course(overview: Overview) -> Course:
    """The whole course, as fine as it can be kept in hand."""
    days = len(overview.progress(every="1 day"))
    seconds = _FINE_SECONDS if days <= _FINE_DAYS else _COARSE_SECONDS
    return Course(overview.progress(every=f"{seconds} seconds"), seconds)


def over_time(
    rows: Sequence[ProgressRow], seconds: int = _FINE_SECONDS, states: Sequence[RangeState] = ()
) -> "pd.DataFrame":
    """Progress in stretches of equal length, few enough to draw; those in which nothing happened are there, as zeros.

    Args:
        rows: each of a stretch of so many seconds.
        seconds: see there.
        states: ranges, whose profiles count from when nobody of the range waited any more, or its newest run ended.

    Returns:
        Indexed by UTC time: `files`, `failed`, `bytes`, `files_per_second`, `failed_per_second`; with `profiles` where
        ranges are given.
    """
    import pandas as pd  # noqa: PLC0415 - 0.4 s that runs over ranges need not spend

    table = pd.DataFrame(rows, columns=list(ProgressRow._fields)).set_index("at")
    table.index = _utc(table.index)
    if states:
        ended = [state for state in states if state.ended_at is not None and state.report is not None]
        done = [int((state.report or {}).get(name, 0)) for state in ended for name in ("migrated", "untouched")]
        profiles = pd.DataFrame({"profiles": [sum(pair) for pair in zip(done[::2], done[1::2], strict=True)]})
        profiles.index = _utc(pd.Index([state.done_at or state.ended_at for state in ended]))
        table = pd.concat([table.assign(profiles=0), profiles]).fillna(0).sort_index()
    length = seconds
    if len(table):
        span = (table.index[-1] - table.index[0]).total_seconds()
        length *= max(1, -(-int(span) // (_POINTS * seconds)))
        # A stretch before the first and one after the last: curves begin and end at the ground.
        ends = pd.DataFrame(0, index=[table.index[0] - pd.Timedelta(length, "s")], columns=table.columns)
        table = pd.concat([ends, table]).resample(f"{length}s").sum()
    table["files_per_second"], table["failed_per_second"] = table["files"] / length, table["failed"] / length
    return table


def _utc(index: "pd.Index[Any]") -> "pd.DatetimeIndex":
    import pandas as pd  # noqa: PLC0415 - as above

    return pd.DatetimeIndex(pd.to_datetime(index, utc=True)).tz_localize(None)
