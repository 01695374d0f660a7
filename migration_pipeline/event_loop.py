"""Running coroutines so that an interrupt ends them, whatever the loop is doing then."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in an event loop of its own: uvloop, where it has a build.

    A handler of SIGINT that raises does so wherever Python code happens to run, and a loop swallows what is raised in
    its callbacks; Dagster's does raise so when a run is cancelled. Meanwhile, an interrupt therefore cancels the work,
    and the handler is called after it.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler) or threading.current_thread() is not threading.main_thread():
            return runner.run(work)
        interrupt = _Interrupt(runner.get_loop())
        signal.signal(signal.SIGINT, interrupt.called)
        try:
            result = runner.run(interrupt.watch(work))
        except BaseException:
            if interrupt.came:
                _hand_over(handler)
            raise
        finally:
            signal.signal(signal.SIGINT, handler)
    if interrupt.came:  # too late to cancel anything: it counts all the same
        _hand_over(handler)
    return result


def _hand_over(handler: Callable[[int, FrameType | None], Any]) -> NoReturn:
    """Let the handler raise what it raises; where it does not mind, the work may have been cut off all the same."""
    handler(signal.SIGINT, None)
    raise KeyboardInterrupt


class _Interrupt:
    """Cancels a task once SIGINT came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.came = False
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        return await work

    def called(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the form of signal handlers
        self.came = True
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not on every platform

    return uvloop.new_event_loop
