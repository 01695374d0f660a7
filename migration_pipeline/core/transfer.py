"""Copying a range's files, each verified end to end, with one outcome per file."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from migration_pipeline.core.control import Listener, Orders
from migration_pipeline.core.copy_file import Copier
from migration_pipeline.core.errors import Fatal, MigrationError, worst
from migration_pipeline.core.model import CopyResult, Outcome, WantedFile
from migration_pipeline.core.pace import PaceFacts

_RECORD_EVERY = 1.0  # seconds
_DUE = 0.75  # of what may wait


@dataclass(slots=True)
class Transferred:
    """What the transfer stage did.

    Attributes:
        bytes: of the files copied now.
        retries: tries beyond each file's first.
        seconds: wall time of the stage.
        cpu_seconds: of this process meanwhile, all threads.
        guessed_types: files without a Content-Type that got one by their first bytes.
        source_pace: how the source was pressed.
        target_pace: how the target was.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    bytes: int = 0
    retries: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    guessed_types: int = 0
    source_pace: PaceFacts = field(default_factory=PaceFacts)
    target_pace: PaceFacts = field(default_factory=PaceFacts)

    @property
    def copied(self) -> int:
        """Files copied now."""
        return self.outcomes[Outcome.COPIED]

    @property
    def failed(self) -> int:
        """Files that ended as dead letters."""
        return sum(count for outcome, count in self.outcomes.items() if not outcome.verified)

    def plus(self, other: "Transferred") -> "Transferred":
        """The sum of two passes."""
        return Transferred(
            self.outcomes + other.outcomes,
            self.bytes + other.bytes,
            self.retries + other.retries,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.guessed_types + other.guessed_types,
            self.source_pace.plus(other.source_pace),
            self.target_pace.plus(other.target_pace),
        )


Record = Callable[[Sequence[CopyResult]], None]


async def transfer(
    wanted: Sequence[WantedFile], copier: Copier, record: Record, listener: Listener | None = None
) -> Transferred:
    """Copy every wanted file, so many at a time as the limits say, each place refilled as soon as a file ends.

    Args:
        wanted: the files.
        copier: copies one file.
        record: keeps a batch of results; called from a worker thread, one call at a time.
        listener: says when to pause, and of other limits; without one, the copier's own hold.

    Raises:
        Fatal: a whole store refuses us; files that ended before are recorded.
    """
    done, began, cpu_began = Transferred(), time.monotonic(), time.process_time()
    notes = _Notes(record, done, most=copier.limits.in_flight)
    places = _Places(wanted, copier, notes)
    refused: MigrationError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            # If recording fails, or orders cannot be heard, the error ends the copying too: the ledger or the range is
            # lost, and nothing may be copied that nobody would know of.
            group.create_task(notes.keep())
            following = group.create_task(listener.follow(places.obey)) if listener is not None else None
            try:
                async with asyncio.TaskGroup() as copying:
                    if listener is not None:
                        places.obey(listener.newest)
                    places.begin(copying)
            except* Fatal as errors:
                refused = worst(errors)
            if following is not None:
                following.cancel()
            notes.close()
    except* MigrationError as errors:
        raise worst(errors) from None
    if refused is not None:
        raise refused
    done.source_pace, done.target_pace = copier.source_pace.facts, copier.target_pace.facts
    done.seconds, done.cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    return done


class _Places:
    """Files under way: as many as there may be, each place refilled as its file ends; none is begun during a pause."""

    def __init__(self, wanted: Sequence[WantedFile], copier: Copier, notes: "_Notes") -> None:
        self._todo, self._left = iter(wanted), len(wanted)
        self._copier, self._notes = copier, notes
        self._most, self._taken = copier.limits.in_flight, 0
        self._go = asyncio.Event()
        self._go.set()

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Take as many places as there may be and files are left for."""
        self._group = group
        self._fill()

    def _fill(self) -> None:
        for _ in range(min(self._most - self._taken, self._left)):
            self._taken += 1
            self._group.create_task(self._work())

    def obey(self, orders: Orders) -> None:
        """Pause or go on, and be as many as the orders say."""
        self._most = orders.limits.in_flight or self._copier.limits.in_flight
        self._copier.obey(orders.limits)
        if orders.paused is not None:
            self._go.clear()
        else:
            self._go.set()
        if self._taken:  # after the last file, the group takes nobody any more
            self._fill()

    async def _work(self) -> None:
        try:
            while True:
                await self._go.wait()
                item = next(self._todo, None) if self._taken <= self._most else None
                if item is None:
                    return
                self._left -= 1
                await self._notes.add(await self._copier.copy(item))
        except BaseException:
            self._left = 0  # the group is ending: it takes nobody any more
            raise
        finally:
            self._taken -= 1


class _Notes:
    """Results on their way into the ledger: after a crash, these files are compared again, so they are bounded.

    A batch is handed over every second, or once there are three quarters of what may wait: often enough that copying
    does not, and seldom enough that the ledger's transactions cost little.
    """

    def __init__(self, record: Record, done: Transferred, *, most: int) -> None:
        self._record, self._done, self._most = record, done, most
        self._ended: list[CopyResult] = []
        self._being_kept = 0
        self._due, self._room = asyncio.Event(), asyncio.Event()
        self._closed = False

    async def add(self, result: CopyResult) -> None:
        """Take a result; waits where too many are not kept yet."""
        self._ended.append(result)
        if len(self._ended) >= self._most * _DUE:
            self._due.set()
        while self._being_kept + len(self._ended) >= self._most:
            self._due.set()
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._due.set()

    async def keep(self) -> None:
        """Hand batches over until there are no more."""
        while True:
            # Not wait_for: in Python 3.11 it may swallow a cancellation that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RECORD_EVERY):
                    await self._due.wait()
            last = self._closed
            self._due.clear()
            batch, self._ended = self._ended, []
            self._being_kept = len(batch)
            if batch:
                await asyncio.to_thread(self._record, batch)
                _count(batch, self._done)
            self._being_kept = 0
            self._room.set()
            if last:
                return


def _count(batch: Sequence[CopyResult], done: Transferred) -> None:
    for result in batch:
        done.outcomes[result.outcome] += 1
        done.retries += result.attempts - 1
        done.guessed_types += result.guessed_type
        if result.outcome is Outcome.COPIED:
            done.bytes += result.size
