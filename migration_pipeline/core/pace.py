"""How hard a store may be pressed: an adaptive number of requests at once, and ceilings by the second.

`AdaptiveLimit` is the rule and knows no clock; `Pace` applies it to requests within an event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from migration_pipeline.core.errors import Transient

_SHRINK = 0.7
_SLOW_SECONDS = 2.0
_TIMES_SLOWER = 4.0
_RECENT_WEIGHT = 0.2
_USUAL_RISES, _USUAL_FALLS = 0.002, 0.1
"""Weights of moving averages. What is usual follows quickly when a store gets faster and slowly when it gets slower,
so that a store that slows down is seen to, and one that stays slow is at last taken as it is."""
LONGEST_REST = 120.0
"""Seconds that a store's Retry-After is obeyed at most; it is asked again then."""

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class AdaptiveLimit:
    """Additive increase, multiplicative decrease: TCP's rule, for requests at once.

    One more after as many good answers as there may be requests, so one a round trip; three tenths fewer when the
    store is overloaded, at most once for the requests that were under way together, for they all met the same moment.

    Attributes:
        ceiling: requests at once at most.
        lowest: the smallest value since the start.
        overloads: how often the store was found overloaded.
    """

    ceiling: int
    lowest: int = 0
    overloads: int = 0
    _limit: float = 0.0
    _shrunk_at: float = float("-inf")
    _usual: float = 0.0
    _recent: float = 0.0

    def __post_init__(self) -> None:
        self._limit, self.lowest = float(self.ceiling), self.ceiling

    @property
    def limit(self) -> int:
        """Requests at once now; never less than one."""
        return int(self._limit)

    def bound(self, ceiling: int) -> None:
        """Another ceiling; a higher one is reached as after an overload, step by step."""
        self.ceiling = ceiling
        self._limit = min(self._limit, float(ceiling))
        self.lowest = min(self.lowest, self.limit)

    def good(self, *, began: float, seconds: float | None, now: float) -> None:
        """A request succeeded.

        Args:
            began: when it was sent.
            seconds: until its answer, where this tells of the store's load and not of the body's size.
            now: on the same clock.
        """
        if seconds is not None:
            self._usual = self._usual or seconds
            self._usual += (seconds - self._usual) * (_USUAL_RISES if seconds > self._usual else _USUAL_FALLS)
            self._recent += (seconds - self._recent) * (_RECENT_WEIGHT if self._recent else 1)
            if self._recent > max(_SLOW_SECONDS, _TIMES_SLOWER * self._usual):
                self.overloaded(began=began, now=now)
                return
        self._limit = min(float(self.ceiling), self._limit + 1 / self._limit)

    def overloaded(self, *, began: float, now: float) -> None:
        """The store said so, ran out of time, or became slow."""
        self.overloads += 1
        if began < self._shrunk_at:
            return
        self._shrunk_at = now
        self._limit = max(1.0, self._limit * _SHRINK)
        self.lowest = min(self.lowest, self.limit)


class PaceFacts(NamedTuple):
    """How a store was pressed, for people to look at.

    Attributes:
        limit: requests at once, at the end.
        lowest: the fewest in between.
        overloads: how often the store was found overloaded.
        reads, writes: requests that were sent, as stores charge them.
        bytes: that passed.
    """

    limit: int = 0
    lowest: int = 0
    overloads: int = 0
    reads: int = 0
    writes: int = 0
    bytes: int = 0

    def plus(self, other: "PaceFacts") -> "PaceFacts":
        """Of two passes, one after the other."""
        lowest = min(self.lowest or other.lowest, other.lowest or self.lowest)
        return PaceFacts(
            other.limit or self.limit,
            lowest,
            self.overloads + other.overloads,
            self.reads + other.reads,
            self.writes + other.writes,
            self.bytes + other.bytes,
        )


_LOOK_AGAIN = 1.0
"""Seconds after which whoever waits for a rate looks whether it is another by now."""


@dataclass(slots=True)
class _Rate:
    """So much a second, evenly, in the order of asking."""

    per_second: float | None
    _next: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def wait(self, amount: float, clock: Clock, sleep: Sleep) -> None:
        """Wait until this much may pass; it counts as passed."""
        if not self.per_second:
            return
        async with self._turn:
            while self.per_second and (rest := self._next - clock()) > 0:
                await sleep(min(rest, _LOOK_AGAIN))
            if self.per_second:
                self._next = max(self._next, clock()) + amount / self.per_second

    def change(self, per_second: float | None, now: float) -> None:
        """Another rate from now on; what passed already is paid at the new one."""
        owed = max(0.0, self._next - now) * (self.per_second or 0.0)
        self.per_second = per_second or None
        self._next = now + owed / self.per_second if self.per_second else 0.0


@dataclass(slots=True)
class Pace:
    """One store's limits, in force. For one event loop.

    Attributes:
        ceiling: requests at once at most.
        requests_per_second: at most; `None` for no bound.
        bytes_per_second: at most; `None` for no bound.
    """

    ceiling: int
    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep
    _limit: AdaptiveLimit = field(init=False)
    _requests: _Rate = field(init=False)
    _bytes: _Rate = field(init=False)
    _at_work: int = 0
    _rest_until: float = 0.0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    _sent: tuple[int, int] = (0, 0)
    _passed: int = 0

    def __post_init__(self) -> None:
        self._limit = AdaptiveLimit(self.ceiling)
        self._requests, self._bytes = _Rate(self.requests_per_second), _Rate(self.bytes_per_second)

    @property
    def facts(self) -> PaceFacts:
        return PaceFacts(self._limit.limit, self._limit.lowest, self._limit.overloads, *self._sent, self._passed)

    def request(self, *, reads: int = 1, writes: int = 0) -> "Request":
        """A place for one request, once the store may be asked; its end teaches the limit.

        Args:
            reads: requests that it is charged as, where it is several in truth.
            writes: the same of those that cost as writes do.
        """
        return Request(self, reads, writes)

    async def pass_bytes(self, amount: int) -> None:
        """Wait until so many bytes may pass."""
        await self._bytes.wait(amount, self.clock, self.sleep)
        self._passed += amount

    def adjust(self, ceiling: int, requests_per_second: float | None, bytes_per_second: float | None) -> None:
        """Other bounds from now on; requests under way end as they are."""
        now = self.clock()
        self.ceiling, self.requests_per_second, self.bytes_per_second = ceiling, requests_per_second, bytes_per_second
        self._limit.bound(ceiling)
        self._requests.change(requests_per_second, now)
        self._bytes.change(bytes_per_second, now)
        self._wake()

    async def enter(self) -> None:
        """Wait for a place, and for the moment from which the store may be asked."""
        if self._waiting or self._at_work >= self._limit.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._at_work -= 1
                    self._wake()
                raise
        else:
            self._at_work += 1
        try:
            while (rest := self._rest_until - self.clock()) > 0:
                await self.sleep(rest)
            await self._requests.wait(1, self.clock, self.sleep)
        except BaseException:
            self._at_work -= 1
            self._wake()
            raise

    def leave(self, request: "Request", error: BaseException | None) -> None:
        """Give the place back, and learn from how the request ended."""
        now = self.clock()
        self._sent = self._sent[0] + request.reads, self._sent[1] + request.writes
        if error is None:
            self._limit.good(began=request.began, seconds=request.seconds, now=now)
        elif isinstance(error, Transient):
            if error.retry_after is not None:
                self._rest_until = max(self._rest_until, now + min(error.retry_after, LONGEST_REST))
            if error.overload:
                self._limit.overloaded(began=request.began, now=now)
        self._at_work -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._at_work < self._limit.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._at_work += 1
                turn.set_result(None)


class Request:
    """One request under way, for the `async with` block that sends it.

    Attributes:
        began: when it was sent.
        seconds: until its answer, if that was noted.
        reads, writes: what it is charged as.
    """

    __slots__ = ("_pace", "began", "reads", "seconds", "writes")

    def __init__(self, pace: Pace, reads: int, writes: int) -> None:
        self._pace, self.began = pace, 0.0
        self.reads, self.writes = reads, writes
        self.seconds: float | None = None

    async def __aenter__(self) -> Self:
        await self._pace.enter()
        self.began = self._pace.clock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pace.leave(self, error)

    def answered(self) -> None:
        """Take the time until now as the store's own: call it before a body of any size is waited for."""
        self.seconds = self._pace.clock() - self.began
