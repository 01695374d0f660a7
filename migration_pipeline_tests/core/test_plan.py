"""Ranges tile the key space, and their keys' text order is their order."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import Profile, ProfileId
from migration_pipeline.core.plan import Measure, RangeSize, measure, plan_ranges
from migration_pipeline.core.plan_ports import Block
from migration_pipeline.core.sample import Sampled


class Ids:
    """An index over ids in memory; Postgres' own is tried in adapters/test_postgres_index.py."""

    def __init__(self, ids: Sequence[ProfileId], bytes_: Mapping[ProfileId, int] | None = None) -> None:
        self._ids: list[ProfileId] = sorted(ids, key=lambda id_: (isinstance(id_, str), id_))
        self._bytes = bytes_ or {}

    def bounds(self) -> tuple[ProfileId, ProfileId] | None:
        return (self._ids[0], self._ids[-1]) if self._ids else None

    def blocks(self, *, after: ProfileId | None, profiles: int) -> Iterator[Block]:
        start = self._ids.index(after) + 1 if after is not None else 0
        for begin in range(start, len(self._ids), profiles):
            part = self._ids[begin : begin + profiles]
            yield Block(part[0], part[-1], len(part), sum(self._bytes.get(id_, 0) for id_ in part))

    def weigh(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, int]:
        return {id_: self._bytes.get(id_, 0) for id_ in profile_ids}

    def sample(self, limit: int) -> Sequence[Profile]:
        raise AssertionError(limit)


def by_profiles(size: int) -> Measure:
    return measure(RangeSize(size), Sampled())


@given(st.sets(st.integers(min_value=0, max_value=2**62), min_size=1, max_size=60), st.integers(1, 9))
def test_ranges_tile_and_sort_as_text(ids: set[int], size: int) -> None:
    ordered = sorted(ids)
    first = list(plan_ranges(Ids(ordered), [], by_profiles(size)))
    assert sum(item.profiles for item in first) == len(ordered)
    assert first[0].after is None
    assert all(later.after == earlier.last for earlier, later in pairwise(first))
    keys = [item.key for item in first]
    assert keys == sorted(keys)
    assert list(plan_ranges(Ids(ordered), first, by_profiles(size))) == []


def test_later_profiles_get_ranges_after_the_planned_ones() -> None:
    first = list(plan_ranges(Ids([1, 2, 3]), [], by_profiles(2)))
    later = list(plan_ranges(Ids([1, 2, 3, 7, 9]), first, by_profiles(2)))
    assert [item.ordinal for item in (*first, *later)] == [1, 2, 3]
    assert (later[0].after, later[0].last, later[0].key) == (3, 9, "0000000004-0000000009")


def test_uuids_get_an_ordinal_and_ids_that_outgrow_their_digits_are_refused() -> None:
    ids = ["0b0e", "a/b c"]
    assert [item.key for item in plan_ranges(Ids(ids), [], by_profiles(1))] == ["000001-0b0e", "000002-a_b_c"]
    with pytest.raises(Fatal, match="digits"):
        list(plan_ranges(Ids([1, 10**11]), list(plan_ranges(Ids([1]), [], by_profiles(1))), by_profiles(1)))


@pytest.mark.parametrize(("profiles", "files", "per"), [(1000, 50_000, 1000), (1000, 500, 50), (10, 1, 1)])
def test_neither_bound_is_exceeded(profiles: int, files: int, per: int) -> None:
    at = measure(RangeSize(profiles, files), Sampled(profiles=100, files=[10] * 100, bytes=[1000] * 100))
    assert at.usual == per
    ranges = plan_ranges(Ids(range(3000), dict.fromkeys(range(3000), 1000)), [], at)
    assert {item.profiles for item in ranges} == {per}


@pytest.mark.parametrize(
    ("size", "profiles", "each", "made"),
    [
        (RangeSize(), 5_000_000, 20.0, RangeSize()),  # just so many
        (RangeSize(), 10_000_000, 20.0, RangeSize(2000, 50_000)),
        (RangeSize(), 10_000_001, 20.0, RangeSize(2100, 50_000)),
        (RangeSize(), 10_000_000, 100.0, RangeSize(2000, 200_000)),
        (RangeSize(1000, 500), 2_000_000, 10.0, RangeSize(1000, 4000)),  # it is the files that make them many
        (RangeSize(1, 50_000, ranges=50), 80, 20.0, RangeSize(2, 50_000, ranges=50)),
        (RangeSize(), 10_000_000, 0.0, RangeSize(2000, 50_000)),  # a sample without a file
    ],
)
def test_ranges_grow_where_there_would_be_too_many(
    size: RangeSize, profiles: int, each: float, made: RangeSize
) -> None:
    assert size.for_so_many(profiles, each) == made


def test_profiles_of_many_files_get_ranges_of_fewer_profiles() -> None:
    heavy, light = 40, 10
    bytes_ = {id_: 100 * (heavy if id_ < 1000 else light) for id_ in range(4000)}
    sampled = Sampled(profiles=8, files=[heavy, heavy, *[light] * 6], bytes=[4000, 4000, *[1000] * 6])
    ranges = list(plan_ranges(Ids(list(bytes_), bytes_), [], measure(RangeSize(400, 50_000), sampled)))
    ends = [-1, *(int(item.last) for item in ranges)]
    files = [sum(bytes_[id_] for id_ in range(before + 1, last + 1)) // 100 for before, last in pairwise(ends)]
    # By profiles alone the first ranges would have 16,000 files.
    assert max(files) <= 1.25 * 400 * 17.5
    assert max(r.profiles for r in ranges) == 400
    assert sum(r.profiles for r in ranges) == 4000
