"""One line that changes while something goes on, where there is a terminal; a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

Say = Callable[[str], None]

LINE_EVERY = 10.0  # seconds, where there is no terminal to draw on


@contextmanager
def live_line(say: Say) -> Iterator[Say]:
    """What is told in the block stands on one line of the terminal, until its end; elsewhere `say` gets some of it."""
    if sys.stderr.isatty():
        with Console(stderr=True).status("") as line:
            yield line.update
    else:
        yield _now_and_then(say)


def _now_and_then(say: Say) -> Say:
    said = time.monotonic() - LINE_EVERY

    def tell(text: str) -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_EVERY:
            said = time.monotonic()
            say(text)

    return tell
