"""Asking stores about many things: what callers get when some do not answer."""

import asyncio
from collections import Counter

import pytest

from migration_pipeline.core import each
from migration_pipeline.core.each import ask_each
from migration_pipeline.core.errors import Fatal, MigrationError, Transient


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(each, "pause", lambda *_: 0.0)


class Store:
    """Answers with what is asked, but for those that it fails, each with its error."""

    def __init__(self, failing: dict[int, MigrationError], times: int = 99) -> None:
        self.asked, self._failing, self._times = Counter[int](), failing, times

    async def ask(self, item: int) -> int:
        self.asked[item] += 1
        await asyncio.sleep(0)
        if item in self._failing and self.asked[item] <= self._times:
            raise self._failing[item]
        return item


def ask(store: Store) -> dict[int, int]:
    return asyncio.run(ask_each(range(20), store.ask, at_once=4))


def test_passing_errors_are_asked_again() -> None:
    store = Store({3: Transient("busy"), 7: Transient("busy")}, times=4)
    assert ask(store) == {n: n for n in range(20)}
    assert (store.asked[3], store.asked[4]) == (5, 1)


def test_an_error_that_stays_is_raised_as_itself() -> None:
    with pytest.raises(Transient, match="busy"):
        ask(Store({3: Transient("busy")}))


def test_of_several_the_one_that_decides_is_raised() -> None:
    with pytest.raises(Fatal, match="no such bucket"):
        ask(Store({2: Transient("busy"), 3: Fatal("no such bucket", setting="target.bucket", remedy="Make it.")}))
