"""Every single call to a store or to a database, below all of the product's own code: counted, and cut off after."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
from azure.core.pipeline import Pipeline
from botocore.client import BaseClient

from migration_pipeline.adapters.firebase.firestore import FirestoreDocuments
from migration_pipeline.adapters.http.wire import Wire
from migration_pipeline_tests.scenarios.watched import Cut

_AT_THE_END = "pg_advisory_unlock_all"
"""What the server does by itself, a moment later, where a process is gone."""


class Calls:
    """Counts calls, and ends the process after one of them: from then on, nothing is called any more."""

    def __init__(self, at: int = 0) -> None:
        self.made = 0
        self.cut = False
        self._at, self._turn = at, threading.Lock()

    def before(self) -> None:
        """A call is to be made."""
        if self.cut:
            raise Cut

    def after(self) -> None:
        """It was made."""
        with self._turn:
            self.made += 1
            self.cut = self.cut or self.made == self._at
        self.before()


@contextmanager
def counted(calls: Calls) -> Iterator[None]:
    """All calls go by there meanwhile. A transaction that is open when the process ends is rolled back."""

    def plain(owner: type, name: str) -> Any:
        original = getattr(owner, name)

        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            if arguments and _AT_THE_END in str(arguments[0]):
                return original(self, *arguments, **named)
            calls.before()
            found = original(self, *arguments, **named)
            calls.after()
            return found

        return patch.object(owner, name, call)

    def awaited(owner: type, name: str) -> Any:
        original = getattr(owner, name)

        async def call(self: Any, *arguments: Any, **named: Any) -> Any:
            calls.before()
            found = await original(self, *arguments, **named)
            calls.after()
            return found

        return patch.object(owner, name, call)

    with ExitStack() as stack:
        for owner, name in (
            (psycopg.Cursor, "execute"),
            (psycopg.Cursor, "executemany"),
            (psycopg.ServerCursor, "execute"),
            (psycopg.ServerCursor, "fetchmany"),
            (BaseClient, "_make_api_call"),
            (Pipeline, "run"),
            (FirestoreDocuments, "_snapshots"),
            (FirestoreDocuments, "_commit"),
        ):
            stack.enter_context(plain(owner, name))
        for name in ("send", "open"):
            stack.enter_context(awaited(Wire, name))
        yield


def cut_after(number: int, act: Callable[[], object]) -> bool:
    """Whether an act was cut off after so many calls; it may have fewer."""
    calls = Calls(number)
    try:
        with counted(calls):
            act()
    except* Cut:
        pass
    return calls.cut


def calls_of(act: Callable[[], object]) -> int:
    """How many calls an act makes."""
    calls = Calls()
    with counted(calls):
        act()
    return calls.made
