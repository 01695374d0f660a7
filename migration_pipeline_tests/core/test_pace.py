"""How hard stores are pressed: the rule without clocks, and in force over an event loop with a clock of ours."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.errors import Permanent, Transient
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.pace import AdaptiveLimit, Pace, PaceFacts
from migration_pipeline.core.room import Room


def good(limit: AdaptiveLimit, times: int, seconds: float | None = 0.1) -> None:
    for _ in range(times):
        limit.good(began=1e9, seconds=seconds, now=1e9)


def test_one_more_request_after_each_round_of_good_answers() -> None:
    limit = AdaptiveLimit(64)
    for now in range(1, 6):
        limit.overloaded(began=now, now=now)
    low = limit.limit
    assert low == int(64 * 0.7**5)
    for step in range(1, 5):
        good(limit, low + step)
        assert abs(limit.limit - (low + step)) <= 1
    good(limit, 10_000)
    assert limit.limit == 64


def test_requests_of_one_moment_count_once() -> None:
    limit = AdaptiveLimit(100)
    for number in range(100):
        limit.overloaded(began=5, now=10 + number)
    assert (limit.limit, limit.overloads) == (70, 100)
    limit.overloaded(began=11, now=200)
    assert limit.limit == 49


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 1024))
def test_never_below_one_nor_above_the_ceiling(answers: list[bool], ceiling: int) -> None:
    limit = AdaptiveLimit(ceiling)
    for now, is_good in enumerate(answers):
        if is_good:
            limit.good(began=now, seconds=0.1, now=now)
        else:
            limit.overloaded(began=now, now=now)
        assert 1 <= limit.lowest <= limit.limit <= ceiling


def test_a_store_that_becomes_slow_is_pressed_less() -> None:
    limit = AdaptiveLimit(64)
    good(limit, 200, seconds=0.5)
    assert limit.limit == 64
    for now in range(100):
        limit.good(began=now, seconds=5.0, now=now)
    assert limit.lowest < 10
    # A store that was always slow is none that became so.
    slow = AdaptiveLimit(64)
    good(slow, 500, seconds=30.0)
    assert slow.limit == 64


def test_facts_of_two_passes() -> None:
    assert PaceFacts(64, 10, 2).plus(PaceFacts(32, 20, 1)) == PaceFacts(32, 10, 3)
    assert PaceFacts().plus(PaceFacts(32, 20, 1)) == PaceFacts(32, 20, 1)
    assert PaceFacts(32, 20, 1).plus(PaceFacts()) == PaceFacts(32, 20, 1)


@dataclass
class Clock:
    """Time that passes when somebody sleeps."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def paced(story: Callable[[Pace, Clock], Awaitable[None]], ceiling: int = 4, **rates: float) -> None:
    async def in_loop() -> None:
        clock = Clock()
        await story(Pace(ceiling, **rates, clock=clock, sleep=clock.sleep), clock)

    asyncio.run(in_loop())


def test_no_more_requests_at_once_than_the_limit() -> None:
    async def story(pace: Pace, _: Clock) -> None:
        at_once = most = 0

        async def one() -> None:
            nonlocal at_once, most
            async with pace.request():
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(0)
                at_once -= 1

        await asyncio.gather(*(one() for _ in range(100)))
        assert most == 4

    paced(story)


def test_a_cancelled_request_gives_its_place_back() -> None:
    async def story(pace: Pace, _: Clock) -> None:
        never = asyncio.Event()

        async def hold() -> None:
            async with pace.request():
                await never.wait()

        holding = [asyncio.create_task(hold()) for _ in range(8)]
        for _ in range(3):
            await asyncio.sleep(0)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        async with asyncio.timeout(1), pace.request(), pace.request(), pace.request(), pace.request():
            pass

    paced(story)


def test_retry_after_is_waited_out_by_everybody() -> None:
    async def story(pace: Pace, clock: Clock) -> None:
        with pytest.raises(Transient):
            async with pace.request():
                raise Transient("503", 7.0, overload=True)
        async with pace.request():
            assert clock.now == pytest.approx(107.0)
        assert pace.facts.overloads == 1

    paced(story)


def test_errors_of_single_files_say_nothing_of_the_store() -> None:
    async def story(pace: Pace, _: Clock) -> None:
        for error in (Permanent(Outcome.SOURCE_MISSING, "404"), Transient("reset")):
            with pytest.raises(type(error)):
                async with pace.request():
                    raise error
        assert pace.facts == PaceFacts(4, 4, 0, reads=2)

    paced(story)


def test_requests_and_bytes_a_second() -> None:
    async def requests(pace: Pace, clock: Clock) -> None:
        for _ in range(51):
            async with pace.request():
                pass
        assert clock.now == pytest.approx(105.0)

    async def octets(pace: Pace, clock: Clock) -> None:
        for _ in range(11):
            await pace.pass_bytes(1000)
        assert clock.now == pytest.approx(110.0)

    paced(requests, requests_per_second=10.0)
    paced(octets, bytes_per_second=1000.0)


@given(st.lists(st.integers(0, 150), min_size=1, max_size=40))
def test_room_is_never_exceeded_and_everybody_gets_in(sizes: list[int]) -> None:
    async def story() -> None:
        room, held, most_others = Room(100), 0, 0

        async def one(size: int) -> None:
            nonlocal held, most_others
            async with room.share() as share:
                await share.take(size)
                held += size
                if held > 100:
                    assert held == size, "a body larger than the room is alone in it"
                await asyncio.sleep(0)
                held -= size

        async with asyncio.timeout(5):
            await asyncio.gather(*map(one, sizes))

    asyncio.run(story())


def test_room_asked_for_in_vain_is_not_lost() -> None:
    async def story() -> None:
        room = Room(100)
        async with room.share() as first:
            await first.take(80)
            waiting = asyncio.create_task(room.take(50))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1):
            await room.take(100)

    asyncio.run(story())


def test_other_bounds_hold_at_once_for_those_who_wait_already() -> None:
    async def story(pace: Pace, clock: Clock) -> None:
        async def one() -> float:
            async with pace.request():
                return clock.now

        waiting = [asyncio.create_task(one()) for _ in range(4)]
        await asyncio.sleep(0)
        pace.adjust(4, 10.0, None)  # instead of one in a hundred seconds
        sent = await asyncio.gather(*waiting)
        assert sent[-1] - sent[0] < 3.0

    paced(story, requests_per_second=0.01)


def test_what_is_owed_is_paid_at_the_new_rate() -> None:
    async def story(pace: Pace, clock: Clock) -> None:
        await pace.pass_bytes(1000)  # ten seconds' worth
        pace.adjust(4, None, 1000.0)
        await pace.pass_bytes(1)
        assert clock.now == pytest.approx(101.0)
        pace.adjust(4, None, 0)
        await pace.pass_bytes(10**12)
        assert clock.now == pytest.approx(101.0)

    paced(story, bytes_per_second=100.0)


def test_a_lower_ceiling_is_kept_and_a_higher_one_reached() -> None:
    async def story(pace: Pace, _: Clock) -> None:
        async def most_at_once() -> int:
            at_once = most = 0

            async def one() -> None:
                nonlocal at_once, most
                async with pace.request():
                    at_once += 1
                    most = max(most, at_once)
                    await asyncio.sleep(0)
                    at_once -= 1

            await asyncio.gather(*(one() for _ in range(200)))
            return most

        pace.adjust(2, None, None)
        assert await most_at_once() == 2
        pace.adjust(8, None, None)
        assert await most_at_once() == 8

    paced(story)


def test_requests_are_counted_as_they_are_charged_and_bytes_as_they_pass() -> None:
    async def work() -> PaceFacts:
        pace = Pace(4)
        async with pace.request():
            await pace.pass_bytes(7)
        async with pace.request(reads=1, writes=2):
            pass
        with pytest.raises(Transient):
            async with pace.request(reads=0, writes=1):
                raise Transient("busy", overload=True)
        return pace.facts

    facts = asyncio.run(work())
    assert (facts.reads, facts.writes, facts.bytes, facts.overloads) == (2, 3, 7, 1)
    both = facts.plus(facts)
    assert (both.reads, both.writes, both.bytes, both.overloads) == (4, 6, 14, 2)
