"""Planning, for the command and the asset alike: ranges for the profiles that have none."""

from contextlib import closing
from dataclasses import dataclass

from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.plan import Sampled, plan_ranges, profiles_a_range, sample
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_documents, open_ledger, open_profiles, range_size, url_rules


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan.

    Attributes:
        ranges: all of them, in order.
        new: those among them that are not kept yet.
        profiles_a_range: the size that the settings and a sample of profiles give.
        sampled: what a sample of profiles says of all; files are fewer than references, where profiles share them.
    """

    ranges: list[ProfileRange]
    new: list[ProfileRange]
    profiles_a_range: int
    sampled: Sampled

    def writes(self, sampled: int) -> int:
        """Of all profiles, as many as `sampled` of the sample stand for; but for the flag, each is written once."""
        return round(self.profiles * sampled / self.sampled.profiles) if self.sampled.profiles else 0

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
        closing(open_profiles(settings)) as profiles,
        closing(open_ledger(settings)) as ledger,
        open_documents(settings) as documents,
    ):
        planned = list(ledger.ranges())
        sampled = sample(profiles, documents, url_rules(settings))
        size = profiles_a_range(range_size(settings), sampled)
        new = list(plan_ranges(profiles, planned, size))
    return Planned(planned + new, new, size, sampled)


def keep(planned: Planned, settings: Settings) -> None:
    """Keep the plan in the ledger.

    Raises:
        Fatal: another planner was faster.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        ledger.add_ranges(planned.new)
