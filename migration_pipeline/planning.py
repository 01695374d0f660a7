"""Planning, for the command and the asset alike: ranges for the profiles that have none."""

from contextlib import closing
from dataclasses import dataclass

from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.plan import plan_ranges, profiles_a_range, sample
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger, open_profiles, range_size, url_rules


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan.

    Attributes:
        ranges: all of them, in order.
        new: those among them that are not kept yet.
        profiles_a_range: the size that the settings and a sample of profiles give.
        references: the sample's references to the source per profile; files are fewer, where profiles share them.
    """

    ranges: list[ProfileRange]
    new: list[ProfileRange]
    profiles_a_range: int
    references: float

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
    with closing(open_profiles(settings)) as profiles, closing(open_ledger(settings)) as ledger:
        planned = list(ledger.ranges())
        sampled = sample(profiles, url_rules(settings))
        size = profiles_a_range(range_size(settings), sampled)
        new = list(plan_ranges(profiles, planned, size))
    return Planned(planned + new, new, size, sampled.per_profile)


def keep(planned: Planned, settings: Settings) -> None:
    """Keep the plan in the ledger.

    Raises:
        Fatal: another planner was faster.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        ledger.add_ranges(planned.new)
