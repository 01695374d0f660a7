"""What a run obeys while it works: operators, the breaker, the hours set aside for it, and the app's own word."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

ASK_SECONDS = 2.0
"""How often a run asks for orders; they are obeyed within five seconds, a request under way aside."""
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z,\-]+)\s+)?(\d\d):(\d\d)-(\d\d):(\d\d)")
_MINUTES_A_DAY = 24 * 60

Say = Callable[[str], None]
Wait = Callable[[], None]
"""Called between two steps; returns once the run may go on."""
T = TypeVar("T")


def go_on() -> None:
    """For whoever never waits."""


class Limits(NamedTuple):
    """How hard to copy; `None` where nothing is said.

    Attributes:
        in_flight: files at the same time in one run.
        requests_per_second: to each store; 0 for no bound.
        bytes_per_second: read from the source; 0 for no bound.
    """

    in_flight: int | None = None
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    def over(self, others: "Limits") -> "Limits":
        """These, and the others where nothing is said here."""
        return Limits(
            _first(self.in_flight, others.in_flight),
            _first(self.requests_per_second, others.requests_per_second),
            _first(self.bytes_per_second, others.bytes_per_second),
        )

    def shared_by(self, runs: int) -> "Limits":
        """One run's part of what all runs may do together."""
        return Limits(self.in_flight, _part(self.requests_per_second, runs), _part(self.bytes_per_second, runs))


def _first(mine: T | None, other: T | None) -> T | None:
    return other if mine is None else mine


def _part(rate: float | None, runs: int) -> float | None:
    return rate / max(1, runs) if rate is not None else None


class Said(NamedTuple):
    """What operators, or the breaker, said last.

    Attributes:
        paused_why: in words; `None` where nobody paused the migration.
        paused_by: who did: `breaker` where the breaker did.
        limits: in place of what the settings say.
    """

    paused_why: str | None = None
    paused_by: str = ""
    paused_at: datetime | None = None
    limits: Limits = Limits()


class Heard(NamedTuple):
    """What a run hears when it asks.

    Attributes:
        runs: at work now, this one included.
        ended: files of all runs that ended in the last ten minutes, and since the last pause.
        failed: of them, those that became dead letters.
    """

    said: Said
    runs: int
    ended: int
    failed: int


class Windows(NamedTuple):
    """When runs may work: days and minutes of the day, in one time zone. None at all means always.

    Attributes:
        spans: first day's number, from, to (minutes; a `to` beyond a day's end reaches into the next day).
    """

    spans: Sequence[tuple[int, int, int]] = ()
    zone: ZoneInfo | None = None

    def open_at(self, now: datetime) -> bool:
        """Whether a window is open."""
        if not self.spans:
            return True
        here = now.astimezone(self.zone)
        minute = here.hour * 60 + here.minute
        today, yesterday = here.weekday(), (here.weekday() - 1) % 7
        return any(
            (day == today and start <= minute < end)
            or (day == yesterday and minute < end - _MINUTES_A_DAY)
            for day, start, end in self.spans
        )  # fmt: skip


def parse_windows(texts: Sequence[str], zone: str = "UTC") -> Windows:
    """Windows written as `mon-fri 22:00-06:00`, `sat,sun 00:00-24:00` or `01:00-05:00`.

    Raises:
        ValueError: naming the text, and how windows are written.
    """
    spans: list[tuple[int, int, int]] = []
    for text in texts:
        found = _WINDOW.fullmatch(text.strip().lower())
        if not found:
            raise ValueError(f"{text!r} is no window. Write 'mon-fri 22:00-06:00', or '01:00-05:00' for every day.")
        start, end = (int(found[n]) * 60 + int(found[n + 1]) for n in (2, 4))
        if max(start, end) > _MINUTES_A_DAY or start == end or max(int(found[3]), int(found[5])) > 59:  # noqa: PLR2004
            raise ValueError(f"{text!r} has times that are none, or ends where it begins.")
        # After midnight it belongs to the day on which it began.
        spans += [(day, start, end if end > start else end + _MINUTES_A_DAY) for day in _days(found[1], text)]
    try:
        return Windows(tuple(spans), ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{zone!r} is no time zone. Write 'Europe/Berlin', for example.") from None


def _days(names: str | None, text: str) -> list[int]:
    days: list[int] = []
    for part in (names or "mon-sun").split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"{text!r} names no days. Days are {', '.join(_DAYS)}.")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days += [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)]
    return days


class Breaker(NamedTuple):
    """When so many files fail that going on makes no sense.

    Attributes:
        files: that must have ended before it may trip.
        share: of them that must have failed.
    """

    files: int = 500
    share: float = 0.2

    def trips(self, heard: Heard) -> bool:
        """Whether it is time to stop."""
        return heard.ended >= self.files and heard.failed >= self.share * heard.ended


@dataclass(frozen=True, slots=True)
class StandingOrders:
    """What the settings say.

    Attributes:
        app_says: asks the app's database; why runs are to pause, or `None`. Raises nothing.
    """

    limits: Limits = field(default_factory=Limits)
    windows: Windows = field(default_factory=Windows)
    breaker: Breaker = field(default_factory=Breaker)
    app_says: Callable[[], str | None] = lambda: None


class Orders(NamedTuple):
    """What holds now for one run.

    Attributes:
        paused: why, in words; `None` to go on.
        limits: this run's part.
    """

    paused: str | None
    limits: Limits


def decide(standing: StandingOrders, heard: Heard, *, now: datetime, app_says: str | None) -> Orders:
    """Whoever says stop is obeyed.

    ========  ============  ========  ===========================================
    operator  window        the app   then
    ========  ============  ========  ===========================================
    pause     any           any       paused, by whom and why
    go on     closed        any       paused until the next window
    go on     open          a reason  paused for it
    go on     open          nothing   at work
    ========  ============  ========  ===========================================
    """
    said = heard.said
    if said.paused_why is not None:
        paused: str | None = f"paused by {said.paused_by}: {said.paused_why}"
    elif not standing.windows.open_at(now):
        paused = "outside the hours of control.windows"
    else:
        paused = app_says
    return Orders(paused, said.limits.over(standing.limits).shared_by(heard.runs))


class Ear(Protocol):
    """The part of a range's ledger that orders come from."""

    def hear(self) -> Heard:
        """What operators said, and how it goes; tells them that this run is at work."""

    def trip(self) -> str:
        """Pause the migration, for too many files fail; return why, in words."""


@dataclass(slots=True)
class Listener:
    """Asks for orders, and waits while they say so. For one run.

    Attributes:
        say: told when the run pauses and goes on.
        paused_seconds: that the run has waited so far.
    """

    ear: Ear
    standing: StandingOrders
    say: Say = lambda _: None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    paused_seconds: float = 0.0
    _orders: Orders = field(default=Orders(None, Limits()))
    _asked: float = float("-inf")
    _paused_at: float | None = None

    @property
    def newest(self) -> Orders:
        """The orders that were heard last."""
        return self._orders

    def wait(self) -> None:
        """Between two steps of a run: wait while it is to pause."""
        if self.clock() - self._asked >= ASK_SECONDS:
            self._take(*self._ask())
        while self._orders.paused is not None:
            self.sleep(ASK_SECONDS)
            self._take(*self._ask())

    async def follow(self, obey: Callable[[Orders], None]) -> None:
        """Within an event loop: have the newest orders obeyed, until cancelled."""
        while True:
            self._take(*await asyncio.to_thread(self._ask))
            obey(self._orders)
            await asyncio.sleep(ASK_SECONDS)

    def _ask(self) -> tuple[Orders, str | None]:
        """The newest orders, and what there is to tell of them."""
        heard, told = self.ear.hear(), None
        if heard.said.paused_why is None and self.standing.breaker.trips(heard):
            told = f"the breaker trips: {self.ear.trip()}"
            heard = self.ear.hear()
        app_says = self.standing.app_says()
        return decide(self.standing, heard, now=self.now(), app_says=app_says), told

    def _take(self, orders: Orders, told: str | None) -> None:
        if told is not None:
            self.say(told)
        if orders.paused is not None and self._paused_at is None:
            self._paused_at = self.clock()
            self.say(f"waiting: {orders.paused}")
        elif orders.paused is None and self._paused_at is not None:
            self.paused_seconds += self.clock() - self._paused_at
            self._paused_at = None
            self.say("going on")
        self._orders, self._asked = orders, self.clock()
