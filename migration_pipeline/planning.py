"""Planning, for the command, the asset and the sensor alike: ranges for the profiles that have none."""

from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice

from migration_pipeline.adapters.postgres_ledger import PostgresLedger
from migration_pipeline.core import estimate as estimating
from migration_pipeline.core.estimate import Estimate, Prices, Speed
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.plan import Measure, measure, plan_ranges
from migration_pipeline.core.plan_ports import ProfileIndex
from migration_pipeline.core.sample import Sampled, SampledFiles, sample, sample_files
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import (
    open_documents,
    open_index,
    open_ledger,
    open_source_probe,
    range_size,
    url_rules,
)

_MEASURE = "where ranges are cut"  # what the ledger keeps it under
_STRETCH_SECONDS = 10  # that progress is counted by
_LATELY = 360  # stretches at work, the newest: an hour of them


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan.

    Attributes:
        ranges: all of them, in order.
        new: those among them that are not kept yet.
        measure: where ranges are cut, by the settings and a sample of profiles.
        sampled: what a sample of profiles says of all.
    """

    ranges: list[ProfileRange]
    new: list[ProfileRange]
    measure: Measure
    sampled: Sampled

    @property
    def profiles_a_range(self) -> int:
        """Profiles of a usual range."""
        return self.measure.usual

    @property
    def profiles(self) -> int:
        """Profiles in all ranges."""
        return sum(item.profiles for item in self.ranges)

    @property
    def keys(self) -> list[str]:
        """The ranges' partitions, in order."""
        return [item.key for item in self.ranges]


def plan(settings: Settings) -> Planned:
    """Plan ranges for the profiles that have none; nothing is kept."""
    with (
        closing(open_index(settings)) as index,
        closing(open_ledger(settings)) as ledger,
        open_documents(settings) as documents,
    ):
        planned = list(ledger.ranges())
        sampled = sample(index, documents, url_rules(settings))
        at = measure(range_size(settings), sampled)
        new = list(plan_ranges(index, planned, at))
    return Planned(planned + new, new, at, sampled)


def keep(planned: Planned, settings: Settings) -> None:
    """Keep the plan in the ledger.

    Raises:
        Fatal: another planner was faster.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        ledger.add_ranges(planned.new)
        ledger.remember(_MEASURE, asdict(planned.measure))


def estimate(settings: Settings, planned: Planned) -> tuple[Estimate, SampledFiles]:
    """What the migration is to be expected to move, cost and take; the source is asked about some files."""

    async def ask() -> SampledFiles:
        async with open_source_probe(settings) as source:
            return await sample_files(source, planned.sampled.different_files, url_rules(settings))

    files = run(ask())
    with closing(open_ledger(settings)) as ledger:
        speed = _speed(settings, ledger)
    prices = settings.prices
    expected = estimating.estimate(
        planned.sampled,
        files,
        planned.profiles,
        read_back=settings.copy_.read_back,
        speed=speed,
        prices=Prices(
            prices.source_reads_per_10000,
            prices.source_egress_per_gigabyte,
            prices.target_writes_per_1000,
            prices.target_storage_per_gigabyte_month,
        ),
    )
    return expected, files


def _speed(settings: Settings, ledger: PostgresLedger) -> Speed:
    worked = ledger.overview.progress(every=f"{_STRETCH_SECONDS} seconds")[-_LATELY:]
    copied, seconds = sum(row.files for row in worked), _STRETCH_SECONDS * len(worked)
    measured = (copied / seconds, sum(row.bytes for row in worked) / seconds) if copied else None
    return estimating.bounded(
        measured,
        settings.control.workers,
        requests_per_second=settings.copy_.requests_per_second,
        bytes_per_second=settings.copy_.bytes_per_second,
        documents_per_second=None if settings.firebase.kind == "none" else settings.firebase.writes_per_second,
    )


def plan_more(settings: Settings, *, quiet: bool, at_most: int) -> tuple[list[str], int]:
    """Plan and keep ranges for profiles beyond the last one, as they were cut before, and not too small ones.

    Args:
        settings: the migration.
        quiet: no profile came lately: a last range that is not full is made all the same, from a quarter on.
        at_most: ranges that are planned now.

    Returns:
        The keys of all planned ranges, and how many profiles are left for a later one.
    """
    with closing(open_index(settings)) as index, closing(open_ledger(settings)) as ledger:
        planned = list(ledger.ranges())
        if not planned:
            return [], 0
        at = _remembered(settings, ledger, index)
        cut = list(islice(plan_ranges(index, planned, at), at_most + 1))
        new, left = cut[:at_most], 0
        if len(cut) <= at_most and new and not _large_enough(new[-1], at, quiet=quiet):
            left = new.pop().profiles
        ledger.add_ranges(new)
    return [item.key for item in (*planned, *new)], left


def _large_enough(last: ProfileRange, at: Measure, *, quiet: bool) -> bool:
    return last.profiles >= at.usual or (quiet and 4 * last.profiles >= at.usual)


def _remembered(settings: Settings, ledger: PostgresLedger, index: ProfileIndex) -> Measure:
    kept = ledger.remembered(_MEASURE)
    if kept is not None:
        return Measure(**kept)
    with open_documents(settings) as documents:
        return measure(range_size(settings), sample(index, documents, url_rules(settings)))
