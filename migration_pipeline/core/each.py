"""Asking stores, again after passing errors, and about many things so many at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

from migration_pipeline.core.copy_file import pause
from migration_pipeline.core.errors import Fatal, MigrationError, Permanent, Transient, Unreachable, worst
from migration_pipeline.core.ports import SourceStore, TargetStore

T = TypeVar("T")
R = TypeVar("R")

_TRIES = 5
_NO_CHANCE = 5
"""So many things, and no other, are not refused each for itself."""


async def ask_each(items: Iterable[T], ask: Callable[[T], Awaitable[R]], *, at_once: int) -> dict[T, R]:
    """What `ask` says of each item, asked again after passing errors.

    Args:
        items: hashable ones.
        ask: asks a store.
        at_once: questions under way.

    Raises:
        Transient: one question met passing errors each time.
        Fatal: the store refuses us.
    """
    answers: dict[T, R] = {}
    todo = iter(items)

    async def place() -> None:
        for item in todo:
            answers[item] = await _again(lambda: ask(item))  # noqa: B023 - called at once

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(place())
    except* MigrationError as errors:  # callers look for ours, and not for groups of them
        raise worst(errors) from None
    return answers


class Refused(NamedTuple):
    """What a store says of one thing that it refuses, in words."""

    why: str


async def ask_one_by_one(items: Iterable[T], ask: Callable[[T], Awaitable[R]], *, at_once: int) -> dict[T, R | Refused]:
    """The same, where one thing that a store refuses keeps nobody from asking about the others.

    Raises:
        Transient: as above.
        Fatal: the store refuses us, and not a single thing: it refused all of them.
    """
    refusals: list[Fatal] = []

    async def one(item: T) -> R | Refused:
        try:
            return await ask(item)
        except Permanent as error:
            return Refused(str(error))
        except Unreachable:
            raise
        except Fatal as error:
            refusals.append(error)
            return Refused(error.message)

    answers = await ask_each(items, one, at_once=at_once)
    if len(refusals) >= _NO_CHANCE and all(isinstance(answer, Refused) for answer in answers.values()):
        raise refusals[0]
    return answers


async def make_sure(*stores: SourceStore | TargetStore) -> None:
    """Find out that stores can be used at all, before thousands of files fail one by one.

    Raises:
        Unreachable: one gives no answer, each time that it is asked.
        Fatal: it refuses us.
    """
    for store in stores:
        await _again(store.check)


async def _again(ask: Callable[[], Awaitable[R]]) -> R:
    for attempt in range(1, _TRIES):
        try:
            return await ask()
        except Transient as error:
            await asyncio.sleep(pause(attempt, error.retry_after))
        except Unreachable:
            await asyncio.sleep(pause(attempt, None))
    return await ask()
