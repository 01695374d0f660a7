"""Cutting the profiles into ranges that take about alike."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import ProfileId, ProfileRange
from migration_pipeline.core.ports import DocumentStore, ProfileIndex
from migration_pipeline.core.urls import UrlKind, UrlRules

SAMPLE = 500
"""Profiles read to learn how many files one has."""
_SHORT_DIGITS, _LONG_DIGITS = 10, 19  # 19 hold every bigint
_SHORT_IDS_END = 10**9  # leaves room to grow tenfold before text order would break
_SHOWN = 36  # characters of a text id in a partition's key: a whole uuid


@dataclass(frozen=True, slots=True)
class RangeSize:
    """How large ranges are to be: whichever bound is met first."""

    profiles: int = 1000
    files: int = 50_000


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample of profiles says of all.

    Attributes:
        profiles: looked at, deleted ones aside.
        references: URLs of the source that they hold.
        rows: of them, profiles that hold one.
        documents: of them, profiles whose document holds one.
    """

    profiles: int
    references: int
    rows: int
    documents: int

    @property
    def per_profile(self) -> float:
        """References of the source per profile."""
        return self.references / self.profiles if self.profiles else 0.0


def sample(index: ProfileIndex, documents: DocumentStore, urls: UrlRules) -> Sampled:
    """Look at some profiles spread over the table."""

    def at_source(strings: Sequence[str]) -> int:
        references = (urls.classify(text) for text in strings)
        return sum(reference is not None and reference.kind is UrlKind.SOURCE for reference in references)

    alive = [profile for profile in index.sample(SAMPLE) if not profile.deleted]
    copies = documents.read([profile.profile_id for profile in alive])
    held = [at_source(profile.strings) for profile in alive]
    return Sampled(
        len(alive), sum(held), sum(map(bool, held)), sum(bool(at_source(strings)) for strings in copies.values())
    )


def profiles_a_range(size: RangeSize, sampled: Sampled) -> int:
    """Profiles per range such that neither bound is exceeded on average."""
    by_files = size.files / sampled.per_profile if sampled.references else size.profiles
    return max(1, min(size.profiles, int(by_files)))


def plan_ranges(index: ProfileIndex, planned: Sequence[ProfileRange], size: int) -> Iterator[ProfileRange]:
    """Ranges for the profiles beyond the last planned one.

    Args:
        index: the profiles.
        planned: the ranges there are, in order; they are never cut anew, their keys are partitions.
        size: profiles a range.

    Raises:
        Fatal: integer ids outgrew the keys' digits, so that text order would no longer be id order.
    """
    ordinal, after = (planned[-1].ordinal, planned[-1].last) if planned else (0, None)
    digits = _digits_of(planned[0].key) if planned else _digits_for(index.bounds())
    for first, last, profiles in index.cut(after=after, size=size):
        ordinal += 1
        key = _key_by_ids(after, first, last, digits) if digits else _key_by_ordinal(ordinal, first)
        yield ProfileRange(key, ordinal, after, last, profiles)
        after = last


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


def _digits_of(key: str) -> int | None:
    match = re.fullmatch(r"(\d+)-(\d+)", key)
    return len(match[1]) if match and len(match[1]) == len(match[2]) >= _SHORT_DIGITS else None


def _digits_for(bounds: tuple[ProfileId, ProfileId] | None) -> int | None:
    """Digits for keys made of ids, `None` for ids that have no text order: negative ones, uuids, text."""
    if bounds is None or not isinstance(bounds[0], int) or not isinstance(bounds[1], int) or bounds[0] < 0:
        return None
    return _SHORT_DIGITS if bounds[1] < _SHORT_IDS_END else _LONG_DIGITS
