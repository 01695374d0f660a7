"""An interrupt ends what runs in an event loop, wherever it comes."""

import _thread
import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from migration_pipeline.event_loop import run


class Interrupted(BaseException):
    """As Dagster raises it: no KeyboardInterrupt, so that a loop's callbacks swallow it."""


@contextmanager
def raising() -> Iterator[None]:
    def handler(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("does", ["busy", "idle"])
def test_an_interrupt_ends_the_work_in_order(does: str) -> None:
    cleaned_up = []

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def callback() -> None:
            if does == "busy":
                loop.call_soon(callback)

        callback()
        try:
            for _ in range(100):
                await asyncio.sleep(0.2)
        finally:
            cleaned_up.append(True)

    threading.Timer(0.3, _thread.interrupt_main).start()
    with raising(), pytest.raises(Interrupted):
        run(work())
    assert cleaned_up == [True]


def test_an_interrupt_that_comes_as_the_work_ends_is_not_lost() -> None:
    async def work() -> int:
        signal.raise_signal(signal.SIGINT)
        return 5

    with raising(), pytest.raises(Interrupted):
        run(work())


def test_an_interrupt_counts_more_than_what_it_breaks() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("cleaning up failed")

    with raising(), pytest.raises(Interrupted):
        run(work())


def test_results_and_errors_pass_and_the_handler_is_put_back() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def give() -> int:
        return 5

    before = signal.getsignal(signal.SIGINT)
    assert run(give()) == 5
    with pytest.raises(ValueError, match="no"):
        run(fail())
    assert signal.getsignal(signal.SIGINT) is before
