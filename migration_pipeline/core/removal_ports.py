"""What removing blobs from the source needs of the outside world, and the nouns of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from migration_pipeline.core.audit import WAIVED
from migration_pipeline.core.findings import ACCEPTED, Finding
from migration_pipeline.core.model import KnownFile, ProfileId, SourceFile
from migration_pipeline.core.ports import Fence


class How(StrEnum):
    """What becomes of a blob that is proven to be in S3."""

    DELETE = "delete"
    ARCHIVE = "archive"


class SourceNow(NamedTuple):
    """A blob as it is now.

    Attributes:
        md5: its Content-MD5, where it has one.
        archived: it is in the tier Archive, and cannot be read.
    """

    etag: str
    size: int
    md5: bytes | None
    archived: bool


class SourceRemoval(Protocol):
    """The one port that takes anything from the source."""

    async def kept_days(self) -> int | None:
        """For how many days the account keeps deleted blobs; `None` where it keeps none.

        Raises `Fatal` where nobody may ask that with these credentials.
        """

    async def look(self, file: SourceFile) -> SourceNow | None:
        """The blob as it is now; `None` where there is none."""

    async def remove(self, file: SourceFile, etag: str) -> None:
        """Delete the blob, or archive it, if it has this ETag.

        Returns where it is gone already, too. Raises `Permanent` where it stays: source_changed if it was written
        since, source_unreadable if the source refuses (a lease of somebody else's, snapshots, a policy).
        """


OpenRemoval = Callable[[], AbstractAsyncContextManager[SourceRemoval]]
"""Opens it, within the event loop that will use it."""


class Candidate(NamedTuple):
    """A file of the source, and all that the ledger knows of who needs it.

    Attributes:
        erasing: its copy is being removed from S3.
        ranges: whose profiles need it, or once did.
    """

    file: SourceFile
    known: KnownFile
    erasing: bool
    ranges: Sequence[str]


class Proven(NamedTuple):
    """A blob of which S3 was just seen to hold the same bytes.

    Attributes:
        key: of the copy.
        source_etag: of the blob.
        target_etag: of the copy.
    """

    file: SourceFile
    key: str
    size: int
    md5: bytes
    source_etag: str
    target_etag: str


class Begun(NamedTuple):
    """A removal that was begun while a range was held, and of which nobody noted how it ended."""

    range_key: str
    file: SourceFile
    source_etag: str
    how: How


class RemovedTotals(NamedTuple):
    """What was removed from the source in all.

    Attributes:
        deleted: blobs.
        archived: blobs.
        bytes: of both.
        begun: removals that a crash left open; the next run closes them.
        first_at: when the first ended.
        last_at: when the newest did.
    """

    deleted: int = 0
    archived: int = 0
    bytes: int = 0
    begun: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


class RangeState(NamedTuple):
    """What bears on whether a range's files may go.

    Attributes:
        audited_at: when its newest audit began.
        findings: of that.
        started_at: of the newest run.
        ended_at: of the same; `None` while it runs, and after a crash.
        rolled_back: its references are at the source again.
        requested: why a run is asked for, if one is.
    """

    audited_at: datetime | None
    findings: Mapping[str, int]
    started_at: datetime | None
    ended_at: datetime | None
    rolled_back: bool
    requested: str | None

    def why_not(self) -> str | None:
        """Why nothing of the range may go; `None` where it was audited since its last run, and found sound."""
        if self.rolled_back:
            return "it is rolled back"
        if self.started_at is None or self.ended_at is None:
            return "its newest run has not ended" if self.started_at else "it was never run"
        if self.requested is not None:
            return f"a run is asked for: {self.requested}"
        if self.audited_at is None:
            return "it was never audited"
        if self.audited_at <= max(self.started_at, self.ended_at):
            return "it was not audited since its newest run"
        left = {name: self.findings.get(name, 0) - self.findings.get(known, 0) for name, known in _BAD.items()}
        found = ", ".join(f"{count} {name}" for name, count in left.items() if count)
        return f"its audit found {found}" if found else None


_BAD = {
    Finding.DANGLING: ACCEPTED,
    Finding.WAITING: WAIVED,
    **dict.fromkeys((Finding.CORRUPT, Finding.STALE, Finding.UNPARSABLE, Finding.EMBEDDED), ""),
}
"""What must not have been found, and what the part of it is called that an operator let be.

Drift and orphan copies say nothing against removing: each file's references are looked at again.
"""


class RemovalLedger(Protocol):
    """What the ledger keeps of removals."""

    def alone(self) -> AbstractContextManager[None]:
        """Be the only one who removes, and have nobody roll back, on any machine; raises `Fatal` where one does."""

    def note(self, *, who: str, why: str, details: Mapping[str, object]) -> None:
        """Record the act."""

    def states(self, range_keys: Collection[str]) -> Mapping[str, RangeState]:
        """Of these ranges, those that are planned."""

    def held(self, range_keys: Sequence[str]) -> set[str]:
        """Those of the ranges that somebody works on."""

    def candidates(self, range_key: str, how: How) -> Sequence[Candidate]:
        """Files of the range that were not removed so yet.

        A file that several ranges need is the first one's.
        """

    def needed_by(self, files: Collection[SourceFile]) -> Mapping[SourceFile, Sequence[str]]:
        """The ranges whose profiles need these files, or once did."""

    def wanters(self, files: Collection[SourceFile]) -> Sequence[ProfileId]:
        """Profiles that need these files, or once did."""

    def begin(self, proven: Sequence[Proven], how: How, *, who: str, fence: Fence) -> set[SourceFile]:
        """Record that these are about to go; return those of which the ledger says the same as was proven.

        Raises `RangeLost` where somebody else holds the range by now.
        """

    def end(self, files: Collection[SourceFile]) -> None:
        """Record that these are gone."""

    def withdraw(self, files: Collection[SourceFile]) -> None:
        """Forget that these were about to go: they stayed."""

    def begun(self) -> Sequence[Begun]:
        """Removals that a crash left open."""

    def totals(self) -> RemovedTotals:
        """What was removed in all."""
