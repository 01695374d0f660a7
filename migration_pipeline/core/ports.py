"""What the migration needs of the outside world. Adapters fulfil these; core imports nothing else.

Errors, everywhere: `Transient` where trying again may help, `Fatal` where a whole store refuses us, and for
single files `Permanent` with the outcome that the file ends with. Vendors' errors never pass an adapter.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from migration_pipeline.core.control import Heard
from migration_pipeline.core.model import (
    CopyResult,
    FileHeaders,
    Flagged,
    KnownFile,
    Needed,
    Profile,
    ProfileId,
    ProfileRange,
    Rewritten,
    SourceFile,
    Spelling,
    WantedFile,
    Wish,
)
from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import ReplaceFor

Body = bytes | memoryview
"""Bytes of a file, wherever they lie."""


@dataclass(frozen=True, slots=True)
class SourceBlob:
    """A blob as the source answered.

    Attributes:
        size: bytes, as the source states it.
        md5: the stored Content-MD5, 16 bytes, where the blob has one.
        etag: pins later ranged reads to these very bytes.
        body: the bytes; `None` where the blob is larger than was asked for, to be read in parts.
    """

    size: int
    md5: bytes | None
    etag: str
    headers: FileHeaders
    body: Body | None


@dataclass(frozen=True, slots=True)
class Fence:
    """What tells whether a run still holds its range, so that a run which lost it while it was away writes no more.

    Attributes:
        range_key: the range.
        range_id: its ordinal.
        epoch: raised each time that somebody takes the range; a writer compares it in the transaction that writes.
        check: raises `RangeLost` where the epoch is another by now; asked between reading and a conditional write,
            where writes cannot be in one transaction with the ledger.
    """

    range_key: str
    range_id: int
    epoch: int
    check: Callable[[], None]


Admit = Callable[[int], Awaitable[None]]
"""Waits until there is room for a body of so many bytes."""


class SourceStore(Protocol):
    """The store that files come from; nothing is ever written to it."""

    async def check(self) -> None:
        """Raise `Unreachable` where nobody answers, and `Fatal` where a container cannot be read."""

    async def read(self, file: SourceFile, *, whole_up_to: int, admit: Admit) -> SourceBlob:
        """Read a blob: whole if it has at most `whole_up_to` bytes, else its properties only.

        `admit` is awaited with the body's size once the store has answered, and before a body is read.
        Raises `Permanent` (source_missing, source_archived, source_unreadable). A body cut short is `Transient`.
        """

    async def etag(self, file: SourceFile) -> str | None:
        """The blob's ETag now; `None` where there is no such blob."""

    async def read_part(self, file: SourceFile, *, etag: str, start: int, length: int) -> Body:
        """Exactly `length` bytes from `start`; raises `Permanent` (source_changed) if the blob was written since."""


class ObjectFacts(NamedTuple):
    """What the target says of an object it holds.

    Attributes:
        md5: of the bytes, 16 bytes; `None` where the store does not know it.
        etag: as references will see it.
        version: names the object on a bucket with versioning.
        made_at: when it was written, by the store's clock, in whole seconds.
        archived: it is in a class, other than the one that is asked for, from which nobody reads it at once.
    """

    size: int
    md5: bytes | None
    etag: str
    version: str | None = None
    made_at: datetime | None = None
    archived: bool = False


class Receipt(NamedTuple):
    """What the target confirmed of a write.

    Attributes:
        md5: the digest of what it stored, where its answer says it (16 bytes).
        version: names the very object written, on a bucket with versioning.
    """

    etag: str
    md5: bytes | None
    version: str | None


class KeyTaken(Exception):  # noqa: N818 - an answer, not a failure
    """A conditional create met an object under the key; nothing was written."""


class BytesRefused(Exception):  # noqa: N818 - as above
    """The bytes that the target got have another digest than it was told; nothing was written."""


class TargetStore(Protocol):
    """The store that files go to. Writes only create: nothing is replaced but, where asked, a copy of our own."""

    async def check(self) -> None:
        """Raise `Unreachable` where nobody answers, and `Fatal` where the bucket is missing or refuses us."""

    async def create(
        self, key: str, body: Body, md5: bytes, headers: FileHeaders, *, replaces: str | None = None
    ) -> Receipt:
        """Create an object from bytes whose digest the server verifies; raises `KeyTaken`, `BytesRefused`.

        `md5` is what the source says of the bytes, or what was computed of them: the server compares, so that nobody
        computes it in between. An object whose ETag is `replaces` is replaced; any other is in the way.
        """

    async def begin(self, key: str, headers: FileHeaders, *, replaces: str | None = None) -> "Upload":
        """Begin an upload in parts; raises `KeyTaken` where there is an object already, other than `replaces`."""

    async def describe(self, key: str, *, read: bool = False) -> ObjectFacts | None:
        """The object under the key, `None` where there is none; with `read`, its bytes are read and digested."""

    async def remove(self, key: str, receipt: Receipt) -> None:
        """Remove the very object that `receipt` confirmed, and no other."""

    async def erase(self, key: str, etag: str, versions: Sequence[str]) -> int:
        """Remove these versions of a key or, on a bucket without, the object if it has that ETag; return how many."""


class Upload(Protocol):
    """An upload in parts. There is no object before `complete`, and none at all after `abort`."""

    async def put(self, number: int, body: Body, md5: bytes) -> None:
        """Upload a part, the first has number 1, in any order and again at will; the server verifies its digest."""

    async def complete(self) -> Receipt:
        """Make the object of all parts, in their numbers' order; raises `KeyTaken`."""

    async def abort(self) -> None:
        """Drop all parts; also where the upload is over already."""


class ProfileStore(Protocol):
    """The app's database. Every write is one short transaction that no network transfer is part of."""

    def read(self, bounds: ProfileRange) -> Iterator[Sequence[Profile]]:
        """The range's profiles in id order, in batches."""

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        """Replace parts of strings in the values as they are now, under row locks; deleted profiles are left.

        A row that the database refuses to have written is told of, and harms no other.
        """

    def set_flags(self, profile_ids: Sequence[ProfileId], unmoved: Callable[[Text], bool], fence: Fence) -> Flagged:
        """Set `migrated_at` where, under row lock, no text is `unmoved`."""

    def find(self, profile_ids: Sequence[ProfileId]) -> Sequence[Profile]:
        """These profiles, those that are there."""

    def below(self, profile_ids: Sequence[ProfileId], bounds: Sequence[ProfileId]) -> Sequence[int]:
        """For each profile, how many of these ids, which ascend, are below its own; in the order of the id column."""

    def holding(self, texts: Sequence[str], *, any_case: bool = False) -> Iterator[Sequence[Profile]]:
        """Profiles, deleted ones too, that hold a string with one of these in it, and perhaps others; in batches.

        A string in which one of these is escaped, in any way that `core.seeing` undoes, is found too; and so is what
        the app makes a URL of by putting a host before it, whatever it names. Reads the whole table.
        """

    def unowned(self, texts: Sequence[str] = (), *, any_case: bool = False) -> Iterator[Sequence[Text]]:
        """Rows that belong to no profile, their profile's row being gone: the strings of each.

        With `texts`, of those rows that hold one of these, and perhaps of others. Reads whole tables.
        """

    def clear_flags(self, profile_ids: Sequence[ProfileId]) -> Flagged:
        """Clear `migrated_at` of profiles that proved not to be migrated.

        Needs no fence: a flag that is missing says nothing untrue.
        """


class DocumentStore(Protocol):
    """Firebase: the copies of the URLs that clients read."""

    def read(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, Sequence[Text]]:
        """Every string in the configured fields, keys of maps too; profiles without a document are absent."""

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        """Replace parts of strings, each write conditional on the document being as it was read.

        The fence is asked after each reading and before the write that depends on it.
        """


class RangeLedger(Protocol):
    """What we know of one range and its files, while holding the range.

    Every write raises `RangeLost`, and writes nothing, where another run holds the range by now.
    """

    @property
    def fence(self) -> Fence:
        """For everybody who writes for this range."""

    def hear(self) -> Heard:
        """What operators said, and how all runs get on; notes that this one is at work."""

    def trip(self) -> str:
        """Pause the migration, for too many files fail; return why, in words."""

    def want(self, wanted: Iterable[Wish]) -> Needed:
        """Note the files that the range's profiles need now.

        Unfinished files that nobody in the range needs any more are forgotten; evidence of copies stays. What an
        erasing was cut off at may be relied on again, once somebody has looked at it.
        """

    def unfinished(self) -> Sequence[WantedFile]:
        """Files of the range that are neither verified nor waived.

        Where an operator asked for another try of some dead letters, the other ones are left alone.
        """

    def record(self, results: Sequence[CopyResult]) -> None:
        """Keep outcomes and evidence; a verified file stays verified, unless its copy was not as it was proven."""

    def known(self) -> Mapping[SourceFile, KnownFile]:
        """Every file of the range."""

    def profiles_with_files(self) -> Sequence[ProfileId]:
        """Profiles of the range that had something to move, in id order."""

    def spellings(self) -> Mapping[ProfileId, Mapping[SourceFile, Spelling]]:
        """How the range's profiles spelled their references before they were re-pointed."""

    def unsure(self) -> Mapping[SourceFile, datetime]:
        """Files that nobody needs any more, and that may have been copied without anybody noting it.

        Each with when it was first seen to be needed: what is older under its key is somebody else's.
        """

    def archived(self) -> set[SourceFile]:
        """Files with copies of ours whose rows were archived, since their blobs are gone from the source."""

    def note_held(self, held: Collection[SourceFile]) -> int:
        """Note which files the range's profiles hold now; return how many of the others it once needed.

        What was archived is noted again where nobody holds it.
        """

    def held_elsewhere(self, files: Collection[SourceFile]) -> set[SourceFile]:
        """Those of the files that some other range's profiles held when it was last confirmed."""

    def outdate(self, files: Sequence[SourceFile], why: str) -> Sequence[str]:
        """Have these copied again: the source has newer bytes. Copies not proven ours end as target_conflict.

        Every range whose profiles need one is asked to run again, in the same transaction; return which these are.
        """

    def begin_rollback(self) -> None:
        """The range is on its way back: no run migrates it again before somebody names it."""

    def finish(self, report: Mapping[str, object], *, rolled_back: bool = False) -> None:
        """Keep the range's counters for status and report; `rolled_back` also where some profiles could not go back."""

    def audited(self, began: datetime, findings: Mapping[str, int]) -> None:
        """Keep what the newest audit found, see `audit.Audited.to_keep`, and when it began."""


class Dropped(NamedTuple):
    """A copy of ours that no profile holds any more.

    Attributes:
        etag: of the copy; `None` where it is not known whether there is one, for a run was cut off.
        versions: of the object that we made, on a bucket with versioning.
        ranges: whose profiles once needed it.
        profiles: these profiles.
        noted_at: when a profile was first seen to need it.
    """

    file: SourceFile
    etag: str | None
    versions: Sequence[str]
    ranges: Sequence[str]
    profiles: Sequence[ProfileId]
    noted_at: datetime


class Erased(NamedTuple):
    """A copy that was removed from S3, and how many objects or versions of one that were."""

    dropped: Dropped
    key: str
    removed: int


class Ledger(Protocol):
    """The whole ledger."""

    def ranges(self) -> Sequence[ProfileRange]:
        """Every planned range, in id order."""

    def not_understood(self) -> Sequence[ProfileRange]:
        """Ranges of which the newest run found values that name the source and are not understood."""

    def add_ranges(self, new: Sequence[ProfileRange]) -> None:
        """Plan further ranges."""

    def done(self) -> set[str]:
        """Keys of ranges that are done: nobody waits, nothing came late, and no run is at work."""

    def waiting(self) -> set[str]:
        """Keys of ranges whose newest run ended and left profiles waiting, and that no run is asked for."""

    def noted(self, profiles: Mapping[ProfileId, str]) -> Mapping[ProfileId, set[SourceFile]]:
        """Which files the ledger has noted for these profiles, each in the range that is named with it."""

    def request(self, range_keys: Sequence[str], why: str) -> None:
        """Ask for a run of these ranges; a run that begins later fulfils it."""

    def removed(self, files: Collection[SourceFile]) -> set[SourceFile]:
        """Those of the files whose blob was removed from the source, or is about to be."""

    def source_kept(self) -> AbstractContextManager[None]:
        """Have nobody remove blobs from the source meanwhile; raises `Fatal` where somebody does."""

    def now(self) -> datetime:
        """By the ledger's clock."""

    def find(self, files: Sequence[SourceFile]) -> Mapping[SourceFile, KnownFile]:
        """Those of the files that any range knows."""

    def hold(self, range_key: str, *, run: bool = True) -> AbstractContextManager[tuple[ProfileRange, RangeLedger]]:
        """Hold a range against every other run, on any machine; raises `RangeBusy`, `Fatal` for an unknown key.

        With `run`, what is asked for of the range counts as begun.
        """

    def dropped(self, *, seconds: float) -> Sequence[Dropped]:
        """Copies that no range's profiles have held for so long, shared ones where that is so of all."""

    def begin_erasing(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        """Have nobody rely on these copies any more; return those that no range has come to want meanwhile."""

    def still_erasing(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        """Those of the files that nobody has come to want since `begin_erasing`; waits for whoever is about to."""

    def spare(self, files: Sequence[SourceFile]) -> None:
        """Let everybody rely on these copies again, after another look at each."""

    def brought_back(self, results: Sequence[CopyResult]) -> None:
        """Let everybody rely on these copies again, which were looked at, or made anew."""

    def erased(self, removed: Sequence[Erased]) -> None:
        """Record that these copies are gone, and forget that they were there.

        Ranges that have come to want one meanwhile are asked to run again.
        """
