"""Planning, for the command, the asset and the sensor alike: ranges for the profiles that have none."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from migration_pipeline.adapters.ledger.counts import Counting
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.core import calibration
from migration_pipeline.core import estimate as estimating
from migration_pipeline.core.estimate import Compute, Estimate, Speed
from migration_pipeline.core.inventory import Found
from migration_pipeline.core.model import Outcome, Profile, ProfileId, ProfileRange, SourceFile
from migration_pipeline.core.plan import Measure, counted, measure, plan_ranges
from migration_pipeline.core.plan_ports import Block, ProfileIndex
from migration_pipeline.core.reading import references
from migration_pipeline.core.sample import Sampled, SampledFiles, sample, sample_files, sample_names
from migration_pipeline.core.spent import Expected
from migration_pipeline.core.urls import UrlKind, UrlRules
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import (
    charged,
    open_documents,
    open_index,
    open_ledger,
    open_source_probe,
    range_size,
    url_rules,
    what_refers,
)

_MEASURE = "where ranges are cut"  # what the ledger keeps it under
_STOCK_HOLDS = timedelta(days=7)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan.

    Attributes:
        ranges: all of them, in order.
        new: those among them that are not kept yet.
        measure: where ranges are cut, by the settings and a sample of profiles.
        sampled: what a sample of profiles says of all.
        stock: the inventory and the count that figures and cuts are exact by, where there are such.
        why_sampled: why there are none, in words.
        unowned: rows that name the source, and whose profile is gone: no range moves them.
    """

    ranges: list[ProfileRange]
    new: list[ProfileRange]
    measure: Measure
    sampled: Sampled
    stock: "Stock | None" = None
    why_sampled: str = ""
    unowned: int = 0

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


class Stock(NamedTuple):
    """What the source holds, and what all profiles refer to, both of the same time."""

    found: Found
    counting: Counting


def stock_of(settings: Settings, ledger: PostgresLedger) -> "Stock | str":
    """The inventory that a plan can go by; or why there is none, in words."""
    kept, counting = ledger.found.kept(), ledger.counts.newest()
    listing = ledger.inventory.newest_listing(settings.source.containers)
    if kept is None or counting is None or listing is None:
        return "there is no inventory"
    if (kept.listing_id, kept.count_id) != (listing.listing_id, counting.count_id):
        return "the newest inventory was cut off"
    if kept.settings != what_refers(settings):
        return "the inventory was taken under other settings"
    if ledger.now() - min(listing.began_at, counting.began_at) > _STOCK_HOLDS:
        return f"the inventory is older than {_STOCK_HOLDS.days} days"
    if ledger.found.worked_on_since(counting.began_at):
        return "a range was worked on since the inventory"
    return Stock(kept.found, counting)


class _CountedIndex:
    """The profiles as they were counted, and those that came later as the database has them."""

    def __init__(self, index: ProfileIndex, ledger: PostgresLedger, counting: Counting) -> None:
        self._index, self._ledger, self._counting = index, ledger, counting

    def bounds(self) -> tuple[ProfileId, ProfileId] | None:
        return self._index.bounds()

    def count(self, *, after: ProfileId | None) -> int:
        return self._index.count(after=after)

    def blocks(self, *, after: ProfileId | None, profiles: int) -> Iterator[Block]:
        known = self._ledger.counts.blocks(self._counting, after=after, profiles=profiles)
        last = after
        for block in known if known is not None else ():
            yield block
            last = block.last
        yield from self._index.blocks(after=last, profiles=profiles)

    def weigh(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, int]:
        return self._index.weigh(profile_ids)

    def sample(self, limit: int) -> Sequence[Profile]:
        return self._index.sample(limit)


def plan(settings: Settings) -> Planned:
    """Plan ranges for the profiles that have none; nothing is kept."""
    with (
        closing(open_index(settings)) as index,
        closing(open_ledger(settings)) as ledger,
        open_documents(settings) as documents,
    ):
        planned = list(ledger.ranges())
        urls = url_rules(settings)
        sampled, unowned = sample(index, documents, urls), count_rows(index, urls)
        profiles = sum(item.profiles for item in planned) + index.count(after=planned[-1].last if planned else None)
        size, stock = range_size(settings).for_so_many(profiles, sampled.files_per_profile), stock_of(settings, ledger)
        at = measure(size, sampled)
        if isinstance(stock, str):
            new = list(plan_ranges(index, planned, at))
            return Planned(planned + new, new, at, sampled, why_sampled=stock, unowned=unowned)
        at = counted(at, size, stock.counting.totals)
        new = list(plan_ranges(_CountedIndex(index, ledger, stock.counting), planned, at))
    return Planned(planned + new, new, at, sampled, stock, unowned=unowned)


def count_rows(index: PostgresProfiles, urls: UrlRules) -> int:
    """Rows that name the source, and whose profile is gone; searches the tables that may hold such."""
    rows = index.unowned(urls.source_hosts, any_case=True)
    return sum(any(ref.kind is UrlKind.SOURCE or ref.holds for ref in references(row, urls)) for row in rows)


def keep(planned: Planned, settings: Settings) -> None:
    """Keep the plan in the ledger.

    Raises:
        Fatal: another planner was faster.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        ledger.add_ranges(planned.new)
        ledger.remember(_MEASURE, asdict(planned.measure))


def keep_estimate(expected: Estimate, settings: Settings) -> None:
    """Keep what is expected, for the report at the end to compare. From the first run on it stays as it is."""
    with closing(open_ledger(settings, create=True)) as ledger:
        if not any(state.started for state in ledger.overview.states()):
            ledger.expect(Expected.by(expected, charged(settings), ledger.now()))


def estimate(settings: Settings, planned: Planned) -> tuple[Estimate, SampledFiles]:
    """What the migration is to be expected to move, cost and take; the source is asked where there is no inventory."""
    prices = charged(settings)
    with closing(open_ledger(settings)) as ledger:
        measured, compute = calibration.rate(_ran(ledger)), _compute(ledger)
    speed = _speed(settings, measured)
    if measured is None:
        # Where it was measured, the starting of runs is in it.
        starting = estimating.RUN_SECONDS * len(planned.ranges) / settings.control.workers
        speed = speed._replace(starting=starting)
    read_back, stock = settings.copy_.read_back, planned.stock
    if stock is not None:
        found, totals = stock.found, stock.counting.totals
        expected = estimating.exact(found, totals, read_back=read_back, speed=speed, prices=prices, compute=compute)
        return expected, SampledFiles(examples=_examples(found))

    async def ask() -> SampledFiles:
        async with open_source_probe(settings) as source:
            found = await sample_files(source, planned.sampled.different_files, url_rules(settings))
            await sample_names(source, planned.sampled.names, settings.source.containers, found)
            return found

    files = run(ask())
    expected = estimating.estimate(
        planned.sampled, files, planned.profiles, read_back=read_back, speed=speed, prices=prices, compute=compute
    )
    return expected, files


def _examples(found: Found) -> dict[Outcome, list[SourceFile]]:
    names = {
        "missing": Outcome.SOURCE_MISSING,
        "archived": Outcome.SOURCE_ARCHIVED,
        "too_long": Outcome.TOO_LONG_KEY,
    }
    return {
        names[what]: [item.file for item in items[:_SHOWN]] for what, items in found.examples.items() if what in names
    }


def last_estimate(settings: Settings) -> calibration.Off | None:
    """How far the estimate made before the first run was off; `None` where nothing can be compared yet."""
    with closing(open_ledger(settings)) as ledger:
        return calibration.off(ledger.expected(), _ran(ledger))


def _ran(ledger: PostgresLedger) -> list[calibration.Ran]:
    """The newest run of each range that has ended."""
    return [
        calibration.Ran(
            state.started_at,
            state.ended_at,
            state.profiles,
            state.report.get("copied", 0),
            state.report.get("files", 0),
            state.report.get("paused_seconds", 0.0),
        )
        for state in ledger.overview.states()
        if state.report and not state.rolled_back and state.started_at and state.ended_at
    ]


def _speed(settings: Settings, measured: float | None) -> Speed:
    return estimating.bounded(
        measured,
        settings.control.workers,
        requests_per_second=settings.copy_.requests_per_second,
        bytes_per_second=settings.copy_.bytes_per_second,
        documents_per_second=None if settings.firebase.kind == "none" else settings.firebase.writes_per_second,
    )


def _compute(ledger: PostgresLedger) -> Compute:
    """By the newest run of each range, as far as that copied anything."""
    reports = [state.report for state in ledger.overview.states() if state.report and state.report.get("copied")]
    cpu_seconds = sum(sum(report.get("cpu_seconds", {}).values()) for report in reports)
    return estimating.measured_compute(cpu_seconds, sum(report["copied"] for report in reports))


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
