"""The story of one range: discover, transfer, rewrite, rewrite, confirm."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.confirm import Confirmed, confirm
from migration_pipeline.core.control import Listener, Say, StandingOrders
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.discover import Discovered, discover
from migration_pipeline.core.each import make_sure
from migration_pipeline.core.model import ProfileRange, Rewritten
from migration_pipeline.core.ports import (
    DocumentStore,
    Ledger,
    ProfileStore,
    RangeLedger,
    SourceStore,
    TargetStore,
)
from migration_pipeline.core.reading import HOLDING
from migration_pipeline.core.rewrite import rewrite
from migration_pipeline.core.spent import spent
from migration_pipeline.core.transfer import Transferred, transfer
from migration_pipeline.core.urls import UrlRules

T = TypeVar("T")

_EXAMPLES = 3
MAX_PASSES = 3
"""Passes over a range whose users add references while it is worked on; the rest waits for the next run."""


OpenByteStores = Callable[[], AbstractAsyncContextManager[tuple[SourceStore, TargetStore]]]
"""Opens the source and the target, within the event loop that will use them."""


class RunInLoop(Protocol):
    """Runs a coroutine to its end."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T:
        """Its result."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything that a range's migration talks to.

    Attributes:
        run: runs the copying in an event loop of the outer layer's choice.
        standing: when a run may work, and how hard.
    """

    open_byte_stores: OpenByteStores
    profiles: ProfileStore
    documents: DocumentStore
    ledger: Ledger
    urls: UrlRules
    run: RunInLoop = asyncio.run
    standing: StandingOrders = field(default_factory=StandingOrders)


@dataclass(slots=True)
class RangeReport:
    """What one run did for one range. `seconds` are wall time by stage, `cpu_seconds` this process's meanwhile.

    For `paused_seconds` more it waited, because the migration was paused.
    """

    key: str
    discovered: Discovered = field(default_factory=Discovered)
    transferred: Transferred = field(default_factory=Transferred)
    database: Rewritten = field(default_factory=Rewritten)
    firebase: Rewritten = field(default_factory=Rewritten)
    confirmed: Confirmed = field(default_factory=Confirmed)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    paused_seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every profile of the range is migrated, or had nothing to move."""
        return not self.confirmed.waiting

    def reasons(self) -> Counter[str]:
        """How many profiles wait, by reason."""
        return Counter(item.reason for item in self.confirmed.waiting)

    def counters(self) -> dict[str, object]:
        """The figures that status and report are made of, with some examples; plain JSON, no query string in it."""
        return {
            "profiles": self.discovered.profiles,
            "deleted": self.discovered.deleted,
            "with_files": self.discovered.with_files,
            "files": self.discovered.files,
            "foreign": self.discovered.foreign,
            "other_container": self.discovered.other_container,
            "unparsable": self.discovered.unparsable,
            "embedded": self.discovered.embedded,
            "with_query": self.discovered.asking,
            "examples": {
                kind: texts[:_EXAMPLES] for kind, texts in self.discovered.examples.items() if kind in HOLDING
            },
            "drifted": self.discovered.drifted,
            "copied": self.transferred.copied,
            "bytes": self.transferred.bytes,
            **spent(self.transferred),
            "database_urls": self.database.urls,
            "database_profiles": self.database.profiles,
            "firebase_urls": self.firebase.urls,
            "firebase_documents": self.firebase.profiles,
            "migrated": self.confirmed.migrated,
            "untouched": self.confirmed.untouched,
            "waiting": len(self.confirmed.waiting),
            "dropped": self.confirmed.dropped,
            "waiting_for": dict(self.reasons()),
            "longest_lock_seconds": round(max(self.database.longest_lock, self.confirmed.longest_lock), 3),
            "paused_seconds": round(self.paused_seconds, 3),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "cpu_seconds": {stage: round(seconds, 3) for stage, seconds in self.cpu_seconds.items()},
        }


def migrate_range(range_key: str, stores: Stores, limits: CopyLimits, *, say: Say = lambda _: None) -> RangeReport:
    """Migrate every profile of a range as far as its files allow.

    Each stage reads what it needs from the ledger and the stores as they are then, and each may be cut off
    anywhere: running the range again does what is left.

    Args:
        range_key: a planned range.
        stores: everything to talk to.
        limits: how hard to copy.
        say: told of each stage as it ends.

    Raises:
        RangeBusy: another run holds the range.
        Fatal: the range is unknown, or a whole store refuses us.
    """
    with stores.ledger.hold(range_key) as (bounds, ledger):
        report, listener = RangeReport(range_key), Listener(ledger, stores.standing, say)
        for _ in range(MAX_PASSES):
            _one_pass(report, bounds, stores, ledger, limits, listener)
            if not report.confirmed.overtaken:
                break
            say("users added references meanwhile: going over the range again")
        report.paused_seconds = listener.paused_seconds
        ledger.finish(report.counters())
    return report


def _one_pass(
    report: RangeReport,
    bounds: ProfileRange,
    stores: Stores,
    ledger: RangeLedger,
    limits: CopyLimits,
    listener: Listener,
) -> None:
    profiles, documents, urls, say = stores.profiles, stores.documents, stores.urls, listener.say
    wait = listener.wait

    with _stage(report, "discover", listener):
        found = discover(bounds, profiles=profiles, documents=documents, ledger=ledger, urls=urls, wait=wait)
        report.discovered = found
    say(f"discovered {count(found.files, 'file')} of {count(found.with_files, 'profile')}")

    with _stage(report, "transfer", listener):
        report.transferred = report.transferred.plus(_transfer(found, stores, ledger, limits, listener))
    say(f"copied {count(report.transferred.copied, 'file')}, {report.transferred.failed} failed")

    # Crash window: files are in S3 and no reference points there. All still lead to the source, which is untouched.
    with _stage(report, "rewrite_database", listener):
        report.database = report.database.plus(rewrite(profiles, ledger=ledger, urls=urls, wait=wait))
    # Crash window: the two sites name the same file by different URLs, both of which lead to its bytes. The next run
    # reads both, and re-points what is left; the flag is not set before.
    with _stage(report, "rewrite_firebase", listener):
        report.firebase = report.firebase.plus(rewrite(documents, ledger=ledger, urls=urls, wait=wait))
    say(f"re-pointed {report.database.urls} URLs in the database, {report.firebase.urls} in Firebase")

    with _stage(report, "confirm", listener):
        report.confirmed = confirm(
            bounds,
            profiles=profiles,
            documents=documents,
            ledger=ledger,
            urls=urls,
            wait=wait,
            refused=dict(report.database.refused),
        )
    say(f"{count(report.confirmed.migrated, 'profile')} migrated, {len(report.confirmed.waiting)} waiting")


def _transfer(
    found: Discovered, stores: Stores, ledger: RangeLedger, limits: CopyLimits, listener: Listener
) -> Transferred:
    wanted = [*ledger.unfinished(), *found.aged]
    if not wanted:
        return Transferred()
    listener.wait()

    async def copy_all() -> Transferred:
        async with stores.open_byte_stores() as (source, target):
            await make_sure(source, target)
            return await transfer(wanted, Copier(source, target, stores.urls, limits), ledger.record, listener)

    return stores.run(copy_all())


@contextmanager
def _stage(report: RangeReport, name: str, listener: Listener) -> Iterator[None]:
    began, cpu_began, paused = time.monotonic(), time.process_time(), listener.paused_seconds
    yield
    at_work = time.monotonic() - began - (listener.paused_seconds - paused)
    report.seconds[name] = report.seconds.get(name, 0.0) + at_work
    report.cpu_seconds[name] = report.cpu_seconds.get(name, 0.0) + time.process_time() - cpu_began
