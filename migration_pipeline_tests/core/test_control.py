"""What runs obey: the decision by its truth table, hours by the calendar, the breaker, and listening by our clock."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.control import (
    ASK_SECONDS,
    Breaker,
    Heard,
    Limits,
    Listener,
    Orders,
    Said,
    StandingOrders,
    decide,
    parse_windows,
)

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
CALM = Heard(Said(), runs=1, ended=0, failed=0)
PAUSED = CALM._replace(said=Said("disks are full", "ann", NOON))
OPEN, CLOSED = parse_windows(["11:00-13:00"]), parse_windows(["22:00-06:00"])


@pytest.mark.parametrize(
    ("heard", "windows", "app_says", "words"),
    [
        (PAUSED, OPEN, None, "paused by ann: disks are full"),
        (PAUSED, CLOSED, "busy", "paused by ann: disks are full"),
        (CALM, CLOSED, None, "outside the hours of control.windows"),
        (CALM, CLOSED, "busy", "outside the hours of control.windows"),
        (CALM, OPEN, "busy", "busy"),
        (CALM, OPEN, None, None),
    ],
)
def test_whoever_says_stop_is_obeyed(heard: Heard, windows: object, app_says: str | None, words: str | None) -> None:
    standing = StandingOrders(windows=windows)  # type: ignore[arg-type] # of the table above
    assert decide(standing, heard, now=NOON, app_says=app_says).paused == words


def test_limits_of_operators_come_before_the_settings_and_rates_are_shared() -> None:
    standing = StandingOrders(Limits(64, 100.0, None))
    said = Said(limits=Limits(in_flight=8, bytes_per_second=3e6))
    heard = CALM._replace(said=said, runs=3)
    assert decide(standing, heard, now=NOON, app_says=None).limits == Limits(8, pytest.approx(100 / 3), 1e6)
    assert decide(standing, CALM, now=NOON, app_says=None).limits == Limits(64, 100.0, None)


@pytest.mark.parametrize(
    ("text", "zone", "moment", "is_open"),
    [
        ("01:00-05:00", "UTC", "2026-03-04T00:59", False),
        ("01:00-05:00", "UTC", "2026-03-04T01:00", True),
        ("01:00-05:00", "UTC", "2026-03-04T05:00", False),
        ("mon-fri 22:00-06:00", "UTC", "2026-03-06T23:00", True),  # Friday night
        ("mon-fri 22:00-06:00", "UTC", "2026-03-07T05:59", True),  # belongs to Friday
        ("mon-fri 22:00-06:00", "UTC", "2026-03-07T22:30", False),
        ("mon-fri 22:00-06:00", "UTC", "2026-03-09T05:00", False),  # Monday morning belongs to Sunday
        ("sat,sun 00:00-24:00", "UTC", "2026-03-08T23:59", True),
        ("sat,sun 00:00-24:00", "UTC", "2026-03-09T00:00", False),
        ("fri-mon 10:00-11:00", "UTC", "2026-03-09T10:30", True),
        ("fri-mon 10:00-11:00", "UTC", "2026-03-10T10:30", False),
        ("Mon 10:00-11:00", "UTC", "2026-03-09T10:30", True),
        ("01:00-05:00", "Europe/Berlin", "2026-03-04T00:30", True),
        ("01:00-05:00", "Europe/Berlin", "2026-07-04T00:30", True),
        ("01:00-05:00", "Europe/Berlin", "2026-07-03T23:30", True),  # summer time
        ("01:00-05:00", "Europe/Berlin", "2026-03-03T23:30", False),
    ],
)
def test_windows(text: str, zone: str, moment: str, *, is_open: bool) -> None:
    assert parse_windows([text], zone).open_at(datetime.fromisoformat(moment).replace(tzinfo=UTC)) is is_open


def test_without_windows_it_is_always_open_and_any_open_one_will_do() -> None:
    assert parse_windows([]).open_at(NOON)
    assert parse_windows(["01:00-02:00", "wed 11:00-13:00"]).open_at(NOON)


@pytest.mark.parametrize(
    "text", ["22-6", "funday 01:00-02:00", "25:00-26:00", "01:00-01:00", "01:60-02:00", "mon fri 01:00-02:00", ""]
)
def test_a_window_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_windows([text])
    assert repr(text) in str(refused.value)


def test_a_zone_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="Middle/Earth"):
        parse_windows(["01:00-02:00"], "Middle/Earth")


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_breaker_needs_enough_files_and_enough_failures(ended: int, failed: int) -> None:
    heard = CALM._replace(ended=ended, failed=min(failed, ended))
    assert Breaker(500, 0.2).trips(heard) == (ended >= 500 and heard.failed * 5 >= ended)


@dataclass
class Ear:
    """Says what it is told to."""

    heard: list[Heard]
    asked: int = 0
    tripped: list[str] = field(default_factory=list)

    def hear(self) -> Heard:
        self.asked += 1
        return self.heard[min(self.asked, len(self.heard)) - 1]

    def trip(self) -> str:
        self.tripped.append("many failed")
        return "many failed"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def listener(ear: Ear, said: list[str], **standing: object) -> tuple[Listener, Clock]:
    clock = Clock()
    orders = StandingOrders(**standing)  # type: ignore[arg-type] # given by name
    made = Listener(ear, orders, said.append, clock, lambda: NOON + timedelta(seconds=clock.now), clock.sleep)
    return made, clock


def test_a_run_waits_while_it_is_paused_and_tells_so_once() -> None:
    said: list[str] = []
    run, clock = listener(Ear([CALM, PAUSED, PAUSED, PAUSED, CALM]), said)
    run.wait()
    assert (clock.now, said) == (0.0, [])
    clock.now = 10.0
    run.wait()
    assert clock.now == 10.0 + 3 * ASK_SECONDS
    assert said == ["waiting: paused by ann: disks are full", "going on"]
    assert run.paused_seconds == 3 * ASK_SECONDS


def test_nobody_is_asked_more_often_than_that() -> None:
    ear = Ear([CALM])
    run, clock = listener(ear, [])
    for _ in range(100):
        clock.now += ASK_SECONDS / 10
        run.wait()
    assert 9 <= ear.asked <= 11


def test_a_window_that_closes_is_waited_out() -> None:
    run, clock = listener(Ear([CALM]), [], windows=parse_windows(["12:00-12:01", "12:05-12:06"]))
    clock.now = 61.0
    run.wait()
    assert 300 <= clock.now < 300 + 2 * ASK_SECONDS


def test_the_breaker_pauses_once() -> None:
    ear, said = Ear([CALM._replace(ended=600, failed=300), PAUSED, PAUSED, CALM]), list[str]()
    run, _ = listener(ear, said)
    run.wait()
    assert ear.tripped == ["many failed"]
    assert said[:2] == ["the breaker trips: many failed", "waiting: paused by ann: disks are full"]


def test_within_an_event_loop_the_newest_orders_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration_pipeline.core.control.ASK_SECONDS", 0.001)
    obeyed: list[Orders] = []

    async def story() -> None:
        run, _ = listener(Ear([CALM, PAUSED, CALM]), [])
        following = asyncio.create_task(run.follow(obeyed.append))
        async with asyncio.timeout(5):
            while len(obeyed) < 3:
                await asyncio.sleep(0.001)
        following.cancel()

    asyncio.run(story())
    assert [orders.paused is None for orders in obeyed[:3]] == [True, False, True]
