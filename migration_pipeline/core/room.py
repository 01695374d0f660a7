"""Room for bodies in memory: bounded by a setting, whatever the files' sizes."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self


class Share:
    """What one file holds of the room; given back at the end of the `async with` block."""

    __slots__ = ("_room", "size")

    def __init__(self, room: "Room") -> None:
        self._room, self.size = room, 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.give_back(self.size)

    async def take(self, size: int) -> None:
        """Wait until there is room for so many bytes more, in turn."""
        await self._room.take(size)
        self.size += size


class Room:
    """So many bytes for all bodies together. For one event loop.

    Places are given in the order of asking, so that a large part is not overtaken for ever by small files. A body
    larger than the whole room gets it alone.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def share(self) -> Share:
        """A share, empty at first."""
        return Share(self)

    async def take(self, size: int) -> None:
        """Wait for room; whoever takes gives back."""
        if not self._waiting and self._fits(size):
            self._free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)
            raise

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._free += size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self._fits(wanted):
                self._waiting.popleft()
                self._free -= wanted
                turn.set_result(None)
            else:
                return

    def _fits(self, size: int) -> bool:
        return size <= self._free or self._free == self._size
