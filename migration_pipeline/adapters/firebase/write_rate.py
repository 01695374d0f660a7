"""Writes a second, bounded: each write of a document may run one of the app's functions, and is billed."""

import time
from collections.abc import Callable


class WriteRate:
    """Lets writes through evenly, so many a second."""

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set up.

        Args:
            per_second: writes a second.
            clock: tells seconds.
            sleep: waits so many of them.
        """
        self._per_second, self._clock, self._sleep = per_second, clock, sleep
        self._free_at = clock()

    def take(self, writes: int) -> None:
        """Wait until these writes may begin; the next ones wait for the time that these take."""
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + writes / self._per_second
