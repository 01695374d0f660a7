"""Real stores, watched: something happens just before a chosen operation on any of them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from migration_pipeline.core.decommission import Removal
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import ProfileRange

OPERATIONS = {
    "read", "find", "holding", "rewrite", "set_flags", "clear_flags",
    "want", "unfinished", "record", "known", "profiles_with_files", "spellings", "note_held", "outdate", "finish",
    "request", "dropped", "begin_erasing", "spare", "erased",
    "create", "describe", "erase", "etag",
    "audited", "removed", "states", "candidates", "needed_by", "wanters", "begin", "end", "withdraw", "begun", "note",
    "look", "remove", "kept_days",
    "still_erasing", "brought_back", "noted", "waiting", "unsure", "archived",
}  # fmt: skip


class Cut(BaseException):
    """The process ends here. Nothing catches it, as nothing catches SIGKILL."""


class Watch:
    """Counts operations, and acts before one of them."""

    def __init__(self, at: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.seen: list[str] = []
        self._at, self._act = at, act

    def stores(self, stores: Stores) -> Stores:
        """The same stores, watched."""

        @asynccontextmanager
        async def open_byte_stores() -> AsyncIterator[tuple[Any, Any]]:
            async with stores.open_byte_stores() as (source, target):
                yield _Watched(source, self._step), _Watched(target, self._step)

        return replace(
            stores,
            open_byte_stores=open_byte_stores,
            profiles=_Watched(stores.profiles, self._step),  # type: ignore[arg-type] # stands for any port
            documents=_Watched(stores.documents, self._step),  # type: ignore[arg-type] # as above
            ledger=_WatchedLedger(stores.ledger, self._step),  # type: ignore[arg-type] # as above
        )

    def removal(self, removal: Removal) -> Removal:
        """What removes blobs from the source, watched."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            async with removal.open() as source:
                yield _Watched(source, self._step)

        return Removal(_Watched(removal.ledger, self._step), opened)  # type: ignore[arg-type] # as above

    def _step(self, name: str) -> None:
        self.seen.append(name)
        if len(self.seen) == self._at:
            self._act()


class _Watched:
    """Any port."""

    def __init__(self, watched: Any, step: Callable[[str], None]) -> None:
        self._watched, self._step = watched, step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._watched, name)
        if name not in OPERATIONS:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._step(name)
            return found(*arguments, **named)

        return call


class _WatchedLedger:
    """The ledger, which hands out the range's own part."""

    def __init__(self, ledger: Any, step: Callable[[str], None]) -> None:
        self._ledger, self._step = ledger, step

    def __getattr__(self, name: str) -> Any:
        return getattr(_Watched(self._ledger, self._step), name)

    @contextmanager
    def hold(self, range_key: str, *, run: bool = True) -> Iterator[tuple[ProfileRange, Any]]:
        with self._ledger.hold(range_key, run=run) as (bounds, ledger):
            yield bounds, _Watched(ledger, self._step)
