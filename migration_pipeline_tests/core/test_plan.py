"""Ranges tile the key space, and their keys' text order is their order."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import Profile, ProfileId
from migration_pipeline.core.plan import RangeSize, Sampled, plan_ranges, profiles_a_range


class Ids:
    """An index over ids in memory; Postgres' own is held to the same by the scenarios."""

    def __init__(self, ids: Sequence[ProfileId]) -> None:
        self._ids: list[ProfileId] = sorted(ids, key=lambda id_: (isinstance(id_, str), id_))

    def bounds(self) -> tuple[ProfileId, ProfileId] | None:
        return (self._ids[0], self._ids[-1]) if self._ids else None

    def cut(self, *, after: ProfileId | None, size: int) -> Iterator[tuple[ProfileId, ProfileId, int]]:
        start = self._ids.index(after) + 1 if after is not None else 0
        for begin in range(start, len(self._ids), size):
            part = self._ids[begin : begin + size]
            yield part[0], part[-1], len(part)

    def sample(self, limit: int) -> Sequence[Profile]:
        raise AssertionError(limit)


@given(st.sets(st.integers(min_value=0, max_value=2**62), min_size=1, max_size=60), st.integers(1, 9))
def test_ranges_tile_and_sort_as_text(ids: set[int], size: int) -> None:
    ordered = sorted(ids)
    first = list(plan_ranges(Ids(ordered), [], size))
    assert sum(item.profiles for item in first) == len(ordered)
    assert first[0].after is None
    assert all(later.after == earlier.last for earlier, later in pairwise(first))
    keys = [item.key for item in first]
    assert keys == sorted(keys)
    assert list(plan_ranges(Ids(ordered), first, size)) == []


def test_later_profiles_get_ranges_after_the_planned_ones() -> None:
    first = list(plan_ranges(Ids([1, 2, 3]), [], 2))
    later = list(plan_ranges(Ids([1, 2, 3, 7, 9]), first, 2))
    assert [item.ordinal for item in (*first, *later)] == [1, 2, 3]
    assert (later[0].after, later[0].last, later[0].key) == (3, 9, "0000000004-0000000009")


def test_uuids_get_an_ordinal_and_ids_that_outgrow_their_digits_are_refused() -> None:
    ids = ["0b0e", "a/b c"]
    assert [item.key for item in plan_ranges(Ids(ids), [], 1)] == ["000001-0b0e", "000002-a_b_c"]
    with pytest.raises(Fatal, match="digits"):
        list(plan_ranges(Ids([1, 10**11]), list(plan_ranges(Ids([1]), [], 1)), 1))


@pytest.mark.parametrize(("profiles", "files", "per"), [(1000, 50_000, 1000), (1000, 500, 50), (10, 1, 1)])
def test_neither_bound_is_exceeded(profiles: int, files: int, per: int) -> None:
    assert profiles_a_range(RangeSize(profiles, files), Sampled(100, 1000, 100, 0)) == per
