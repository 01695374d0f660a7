"""Whether a figure stays where it is: a rule that a slow leak breaks, and noise does not."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Allowed(NamedTuple):
    """By how much the median of the last third of a time may exceed that of the second third; the first is for warming.

    Attributes:
        share: of the second third's median.
        more: in the figure's unit, beside that.
    """

    share: float
    more: float


class Flatness(NamedTuple):
    """The rule, applied.

    Attributes:
        second, last: medians of these thirds.
        most: that the last might have been.
        shows: what a steady leak would have had to be, per minute, to break the rule.
    """

    second: float
    last: float
    most: float
    shows: float

    @property
    def flat(self) -> bool:
        return self.last <= self.most


def flatness(values: Sequence[float], minutes: float, allowed: Allowed) -> Flatness:
    """Of values that were taken at equal distances over so many minutes; at least three."""
    third = len(values) // 3
    second, last = median(values[third:-third]), median(values[-third:])
    slack = allowed.share * second + allowed.more
    # Medians of neighbouring thirds lie a third of the time apart.
    return Flatness(second, last, second + slack, slack / (minutes / 3))
