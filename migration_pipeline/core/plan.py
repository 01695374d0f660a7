"""Cutting the profiles into ranges that take about alike."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from statistics import fmean, pstdev

from migration_pipeline.core.count import Totals
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import ProfileId, ProfileRange
from migration_pipeline.core.plan_ports import Block, ProfileIndex
from migration_pipeline.core.sample import Sampled

_LEEWAY, _BY_CHANCE = 0.25, 3.0
"""A range may hold so much more files than an average one, or so many standard deviations of a range of profiles drawn
at random, so that chance alone does not make ranges smaller."""
_BLOCKS = 20  # that a range is made of, where its size has such a divisor
_ROUND = 100
_SHORT_DIGITS, _LONG_DIGITS = 10, 19  # 19 hold every bigint
_SHORT_IDS_END = 10**9  # leaves room to grow tenfold before text order would break
_SHOWN = 36  # characters of a text id in a partition's key: a whole uuid


@dataclass(frozen=True, slots=True)
class RangeSize:
    """How large ranges are to be: whichever bound is met first.

    Attributes:
        ranges: about so many in all at most: what shows them has its limits.
    """

    profiles: int = 1000
    files: int = 50_000
    ranges: int = 5000

    def for_so_many(self, profiles: int, files_per_profile: float) -> "RangeSize":
        """These bounds or, where they would make too many ranges of all profiles, wider ones."""
        least = -(-profiles // self.ranges)
        if least <= min(self.profiles, self.files / files_per_profile if files_per_profile else self.profiles):
            return self
        if least > _ROUND:  # a size with many divisors: ranges are made of blocks that divide it
            least = -(-least // _ROUND) * _ROUND
        return replace(self, profiles=max(self.profiles, least), files=max(self.files, ceil(least * files_per_profile)))


@dataclass(frozen=True, slots=True)
class Measure:
    """Where to cut.

    Attributes:
        profiles: of one range at most.
        files: of one range at most, by their estimate.
        files_per_profile: that a profile has, whatever its own columns hold: those of related rows.
        files_per_byte: of a profile's own columns.
        usual: profiles of a range of average ones.
    """

    profiles: int
    files: float
    files_per_profile: float
    files_per_byte: float
    usual: int

    def files_of(self, block: Block) -> float:
        """The block's files: counted, or else estimated."""
        if block.files is not None:
            return float(block.files)
        return self.files_per_profile * block.profiles + self.files_per_byte * block.bytes

    @property
    def block(self) -> int:
        """Profiles of the blocks that ranges are made of; ranges bounded by `profiles` hold exactly so many."""
        most = max(1, self.usual // _BLOCKS)
        return next(size for size in range(most, 0, -1) if self.profiles % size == 0)


def measure(size: RangeSize, sampled: Sampled) -> Measure:
    """Where to cut, by what a sample says of files and bytes."""
    mean = sampled.files_per_profile
    if not mean:
        return Measure(size.profiles, float(size.files), 0.0, 0.0, size.profiles)
    constant, per_byte = _line(sampled.bytes, sampled.files)
    most, usual = _bounds(size, mean, pstdev(sampled.files))
    return Measure(size.profiles, most, constant, per_byte, usual)


def counted(at: Measure, size: RangeSize, totals: Totals) -> Measure:
    """Where to cut, with the bounds that a count of all profiles gives instead of a sample's."""
    if not totals.files:
        return at
    most, usual = _bounds(size, totals.files_per_profile, totals.deviation)
    return replace(at, files=most, usual=usual)


def _bounds(size: RangeSize, mean: float, deviation: float) -> tuple[float, int]:
    """Files of a range at most, and profiles of a usual one."""
    usual = max(1, min(size.profiles, int(size.files / mean)))
    most = float(size.files)
    if usual >= _BLOCKS:  # one profile makes or breaks a smaller range
        more = max(_LEEWAY * usual * mean, _BY_CHANCE * deviation * sqrt(usual))
        most = min(most, usual * mean + more)
    return most, usual


def _line(bytes_: Sequence[int], files: Sequence[int]) -> tuple[float, float]:
    """Files as a constant and a share of the bytes: least squares, neither below nothing."""
    middle_bytes, middle_files = fmean(bytes_), fmean(files)
    spread = sum((x - middle_bytes) ** 2 for x in bytes_)
    together = sum((x - middle_bytes) * (y - middle_files) for x, y in zip(bytes_, files, strict=True))
    slope = max(0.0, together / spread) if spread else 0.0
    constant = middle_files - slope * middle_bytes
    return (constant, slope) if constant >= 0 else (0.0, middle_files / middle_bytes)


def plan_ranges(index: ProfileIndex, planned: Sequence[ProfileRange], at: Measure) -> Iterator[ProfileRange]:
    """Ranges for the profiles beyond the last planned one.

    Args:
        index: the profiles.
        planned: the ranges there are, in order; they are never cut anew, their keys are partitions.
        at: where to cut.

    Raises:
        Fatal: integer ids outgrew the keys' digits, so that text order would no longer be id order.
    """
    ordinal, after = (planned[-1].ordinal, planned[-1].last) if planned else (0, None)
    digits = _digits_of(planned[0].key) if planned else _digits_for(index.bounds())
    for cut in _together(index.blocks(after=after, profiles=at.block), at):
        ordinal += 1
        key = _key_by_ids(after, cut.first, cut.last, digits) if digits else _key_by_ordinal(ordinal, cut.first)
        yield ProfileRange(key, ordinal, after, cut.last, cut.profiles)
        after = cut.last


def _together(blocks: Iterator[Block], at: Measure) -> Iterator[Block]:
    """Blocks put together until the next would exceed a bound; one that does so alone stays alone."""
    held: Block | None = None
    for block in blocks:
        both = held and _both(held, block, at)
        if held and both and (both.profiles > at.profiles or at.files_of(both) > at.files):
            yield held
            both = None
        held = both or block
    if held:
        yield held


def _both(one: Block, other: Block, at: Measure) -> Block:
    """Two blocks as one; where only one was counted, the other's files are an estimate."""
    files = None
    if one.files is not None or other.files is not None:
        files = round(at.files_of(one) + at.files_of(other))
    return Block(one.first, other.last, one.profiles + other.profiles, one.bytes + other.bytes, files)


def _key_by_ids(after: ProfileId | None, first: ProfileId, last: ProfileId, digits: int) -> str:
    start = after + 1 if isinstance(after, int) else first
    key = f"{start:0{digits}}-{last:0{digits}}"
    if len(key) != 2 * digits + 1:
        raise Fatal(
            f"id {last} has more than the {digits} digits that the planned ranges' keys have.",
            setting="database.profiles.id",
            remedy="Plan anew in another ledger.schema, so that keys get more digits.",
        )
    return key


def _key_by_ordinal(ordinal: int, first: ProfileId) -> str:
    """Text order is plan order; the first id is there for people, so what a key cannot hold is left out."""
    return f"{ordinal:06d}-{re.sub(r'[^0-9A-Za-z_.-]', '_', str(first))[:_SHOWN]}"


def made_by_a_planner(key: str) -> bool:
    """Whether a range of some migration may have this key, by its form."""
    return re.fullmatch(r"\d{6,}-[0-9A-Za-z_.-]{0,36}", key) is not None


def _digits_of(key: str) -> int | None:
    match = re.fullmatch(r"(\d+)-(\d+)", key)
    return len(match[1]) if match and len(match[1]) == len(match[2]) >= _SHORT_DIGITS else None


def _digits_for(bounds: tuple[ProfileId, ProfileId] | None) -> int | None:
    """Digits for keys made of ids, `None` for ids that have no text order: negative ones, uuids, text."""
    if bounds is None or not isinstance(bounds[0], int) or not isinstance(bounds[1], int) or bounds[0] < 0:
        return None
    return _SHORT_DIGITS if bounds[1] < _SHORT_IDS_END else _LONG_DIGITS
