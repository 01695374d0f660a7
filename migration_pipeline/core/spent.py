"""What was asked of both stores, and what that cost, beside what was expected when the ranges were planned."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self

from migration_pipeline.core.estimate import Cost, Estimate, Prices, Requests
from migration_pipeline.core.transfer import Transferred

_GIGABYTE = 1e9
_COPIED, _PAUSED = "copied", "paused_seconds"
SECONDS = "_seconds"
"""Ends the names of what is summed up in seconds: a stage, or `paused`."""


def spent(done: Transferred) -> dict[str, int]:
    """The counters of one run that the ledger adds up over all runs of a range, with its `copied`."""
    source, target = done.source_pace, done.target_pace
    return {
        "retries": done.retries,
        "source_reads": source.reads,
        "source_bytes": source.bytes,
        "source_throttles": source.overloads,
        "target_reads": target.reads,
        "target_writes": target.writes,
        "target_throttles": target.overloads,
    }


def summable(counters: Mapping[str, object]) -> dict[str, object]:
    """Those of a run's counters that are added up over all runs, and its seconds by stage."""
    seconds = counters.get("seconds", {})
    stages = {f"{stage}{SECONDS}": value for stage, value in seconds.items()} if isinstance(seconds, Mapping) else {}
    return {name: counters[name] for name in (_COPIED, *spent(Transferred()), _PAUSED) if name in counters} | stages


class Spent(NamedTuple):
    """What all runs that ended asked of the stores.

    Attributes:
        copied: files that these runs copied. A run that was cut off counts its files, and not its requests.
        source_bytes: asked of the source, also those that were sent in vain.
    """

    copied: int = 0
    retries: int = 0
    source_reads: int = 0
    source_bytes: int = 0
    source_throttles: int = 0
    target_reads: int = 0
    target_writes: int = 0
    target_throttles: int = 0

    def for_all(self, copied: int) -> "Spent | None":
        """Taken for all the files that were copied, by runs that were cut off too: in proportion.

        `None` where nothing was counted that it could be told from.
        """
        if not copied or self.copied >= copied:
            return self
        if not self.copied:
            return None
        return Spent(*(round(value * copied / self.copied) for value in self))


class Expected(NamedTuple):
    """What was to be expected, when the ranges were planned.

    Attributes:
        at: when.
        profiles: that there were.
        exact: by an inventory, and not by a sample.
        prices: of that time.
    """

    at: datetime
    profiles: int
    files: int
    bytes: int
    requests: Requests
    cost: Cost
    seconds: float
    rows: int
    documents: int
    exact: bool
    prices: Prices

    @classmethod
    def by(cls, estimate: Estimate, prices: Prices, at: datetime) -> Self:
        """By an estimate."""
        return cls(
            at,
            estimate.profiles,
            estimate.files,
            estimate.bytes,
            estimate.requests,
            estimate.cost,
            estimate.seconds,
            estimate.rows,
            estimate.documents,
            estimate.exact_at is not None,
            prices,
        )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """As `plain` gave them."""
        return cls(
            **{
                **values,
                "at": datetime.fromisoformat(values["at"]),
                "requests": Requests(**values["requests"]),
                "cost": Cost(**values["cost"]),
                "prices": Prices(**values["prices"]),
            }
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        nested = {name: getattr(self, name)._asdict() for name in ("requests", "cost", "prices")}
        return {**self._asdict(), **nested, "at": self.at.isoformat()}


def cost(asked: Spent, held: int, prices: Prices) -> Cost:
    """What requests and bytes cost, and a month of what is held now."""
    return Cost(
        asked.source_reads / 10_000 * prices.source_reads_per_10000,
        asked.source_bytes / _GIGABYTE * prices.source_egress_per_gigabyte,
        asked.target_writes / 1000 * prices.target_writes_per_1000,
        held / _GIGABYTE * prices.target_storage_per_gigabyte_month,
    )
