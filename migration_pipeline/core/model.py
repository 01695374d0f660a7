"""The nouns: profiles, ranges, files and what became of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from migration_pipeline.core.texts import Text

ProfileId = int | str
"""A profile's key: an `int` for integer columns, else text (a uuid in its canonical lower-case form)."""


class ProfileRange(NamedTuple):
    """Consecutive profile ids, one Dagster partition: every id above `after`, up to and including `last`.

    The lower bound is exclusive so that ranges tile the key space: a profile that gets an id between two
    planned ones (random uuids do) belongs to exactly one range. The first range has no lower bound.
    """

    key: str
    ordinal: int
    after: ProfileId | None
    last: ProfileId
    profiles: int


class SourceFile(NamedTuple):
    """One blob of the source. Two URLs that name the same blob give equal values."""

    container: str
    blob: str

    @property
    def file_id(self) -> UUID:
        """A stable 128-bit identity; the container's name cannot hold a slash, so the joined text is unique."""
        return UUID(bytes=hashlib.sha256(f"{self.container}/{self.blob}".encode()).digest()[:16])

    def __str__(self) -> str:
        return f"{self.container}/{self.blob}"


class Outcome(StrEnum):
    """How the copying of one file ended."""

    COPIED = "copied"
    ALREADY_THERE = "already_there"
    SOURCE_MISSING = "source_missing"
    SOURCE_ARCHIVED = "source_archived"
    SOURCE_UNREADABLE = "source_unreadable"
    SOURCE_CHANGED = "source_changed"
    DIGEST_MISMATCH = "digest_mismatch"
    TARGET_CONFLICT = "target_conflict"
    TARGET_REFUSED = "target_refused"
    TARGET_ARCHIVED = "target_archived"
    TOO_LONG_KEY = "too_long_key"
    GAVE_UP = "gave_up"
    UNFORESEEN = "unforeseen"

    @property
    def verified(self) -> bool:
        """Whether the file is in S3 and proven equal, so that references may point there."""
        return self in (Outcome.COPIED, Outcome.ALREADY_THERE)


REMEDIES: Mapping[Outcome, str] = {
    Outcome.COPIED: "Nothing to do.",
    Outcome.ALREADY_THERE: "Nothing to do: S3 held the same bytes.",
    Outcome.SOURCE_MISSING: "Restore the blob, or remove the reference in the app, then run the range again.",
    Outcome.SOURCE_ARCHIVED: "Rehydrate the blob to Hot or Cool, then run the range again.",
    Outcome.SOURCE_UNREADABLE: "Look at the message: the source refuses this one blob.",
    Outcome.SOURCE_CHANGED: "The blob was written while it was read; run the range again.",
    Outcome.DIGEST_MISMATCH: "The bytes are not those of the Content-MD5; repair the blob, or accept them as they are.",
    Outcome.TARGET_CONFLICT: "S3 holds other bytes under this key, not ours to replace; move them, run it again.",
    Outcome.TARGET_REFUSED: "Look at the message: the target refuses this one key or its headers.",
    Outcome.TARGET_ARCHIVED: "S3 holds it in an archive class; copy it to one that is read at once, then try it again.",
    Outcome.TOO_LONG_KEY: "S3 keys end at 1,024 bytes; shorten target.prefix or key_template, or rename the blob.",
    Outcome.GAVE_UP: "All attempts met passing errors; look at the store, then run the range again.",
    Outcome.UNFORESEEN: "A fault of this program: report the message, waive the file or retry it with a newer release.",
}
"""What an operator can do about each outcome, in one sentence."""
WAIVED = "Nothing to do: waived, so its profiles finish without it."
"""The same of dead letters that somebody waived, whatever their outcome."""


@dataclass(frozen=True, slots=True)
class FileHeaders:
    """What travels with a file's bytes; names as in HTTP, absent values are `None`."""

    content_type: str | None = None
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file that some profile of a range needs in S3.

    Attributes:
        attempts: tries in earlier runs.
        replaces: the ETag of our own copy of older bytes, where the source was written after it was copied.
        proven: what an earlier run proved of its copy. That is looked at again, and made anew if it is not as it was.
        accepted: an operator said that its stored Content-MD5 is wrong: it is proven from our read to S3.
    """

    file: SourceFile
    attempts: int = 0
    replaces: str | None = None
    proven: "Evidence | None" = None
    accepted: bool = False


class Needed(NamedTuple):
    """What a range's profiles need now.

    Attributes:
        files: how many different ones.
        aged: those of them whose copies an earlier run proved, and that nobody has looked at since this one began.
    """

    files: int
    aged: Sequence[WantedFile] = ()


Places = Sequence[tuple[str, Sequence[str]]]
"""Each place of a profile that names a file, with the spellings there, in order."""


class Wish(NamedTuple):
    """A file that a profile needs in S3, and how the profile spells it.

    Attributes:
        spelling: the reference without query string and fragment, as a rollback will write it again.
        had_query: there was a SAS, which is not kept.
        places: where that spelling is not all: each place that names the file, with the spellings there, in order,
            as they stand in the raw value, a SAS left out.
    """

    profile_id: ProfileId
    file: SourceFile
    spelling: str
    had_query: bool
    places: Places = ()


class Spelling(NamedTuple):
    """How a profile's references to a file read; `url` is `None` for those noted by releases that kept none."""

    url: str | None
    had_query: bool
    places: Places = ()


@dataclass(frozen=True, slots=True)
class CopyResult:
    """How one file's copying ended, with the evidence.

    Attributes:
        size: bytes, 0 where nothing was read.
        md5: of the bytes read, 16 bytes; `None` where nothing was read whole.
        etag: S3's ETag of the object that references will point at.
        attempts: tries made in this run.
        message: why it failed; empty when it did not. Never holds a query string.
        seconds: wall time from the first try to the end.
        guessed_type: it had no Content-Type and got one by its first bytes.
        source_etag: of the version of the blob that was read.
        version: of the S3 object, on a bucket with versioning.
        made_at: when the S3 object was made, by S3's clock; `None` where S3 was not asked, for it was made now.
        renewed: of a copy that an earlier run proved: whether it is as it was. Where it is not, what is said here takes
            the place of that proof. `None` where there was no such copy, or it could not be looked at.
        accepted: the blob's stored Content-MD5 is that of other bytes, which an operator had accepted.
    """

    file: SourceFile
    outcome: Outcome
    size: int = 0
    md5: bytes | None = None
    etag: str | None = None
    attempts: int = 1
    message: str = ""
    seconds: float = 0.0
    guessed_type: bool = False
    source_etag: str | None = None
    version: str | None = None
    made_at: datetime | None = None
    renewed: bool | None = None
    accepted: bool = False


class KnownFile(NamedTuple):
    """What the ledger says of a file.

    Attributes:
        outcome: `None` where it was not tried yet.
        waived: an operator let its profiles go on without it.
        outdated: what references point at in S3 was verified once, and has older bytes than the source by now.
        evidence: of the copy, where there is one.
        aged: nobody has looked at the copy since the range's newest run began, so that none is re-pointed to it.
    """

    outcome: Outcome | None
    waived: bool
    outdated: bool = False
    evidence: "Evidence | None" = None
    aged: bool = False

    @property
    def verified(self) -> bool:
        """Whether references may point at its copy."""
        return self.outcome is not None and self.outcome.verified


class Evidence(NamedTuple):
    """What was proven of a copy, when it was made.

    Attributes:
        size: bytes.
        md5: of the bytes, 16 bytes.
        etag: of the S3 object.
        source_etag: of the version of the blob that was copied; `None` for copies of releases that kept none.
    """

    size: int
    md5: bytes | None
    etag: str | None
    source_etag: str | None

    def is_of(self, size: int, md5: bytes | None, etag: str) -> bool:
        """Whether it was an object like this that was proven: by digest where the store says one, else by ETag."""
        if size != self.size:
            return False
        if md5 is not None and self.md5 is not None:
            return md5 == self.md5
        return etag == self.etag


@dataclass(frozen=True, slots=True)
class Profile:
    """One user's row as read a moment ago.

    Attributes:
        deleted: soft-deleted; such a profile is never written.
        flagged: its `migrated_at` column is set.
        strings: every string in its configured columns and related rows that could name a file.
    """

    profile_id: ProfileId
    deleted: bool
    flagged: bool
    strings: tuple[Text, ...]


class Rewritten(NamedTuple):
    """What a rewrite stage changed.

    Attributes:
        profiles: profiles of which something was written.
        urls: single URLs replaced.
        conflicts: writes that met a concurrent edit and were made again on the new value.
        longest_lock: seconds that rows were locked at the longest.
        refused: profiles with a row that the database refused to have written, and why, in words without values.
    """

    profiles: int = 0
    urls: int = 0
    conflicts: int = 0
    longest_lock: float = 0.0
    refused: tuple[tuple[ProfileId, str], ...] = ()

    def plus(self, other: "Rewritten") -> "Rewritten":
        """The sum of both."""
        return Rewritten(
            self.profiles + other.profiles,
            self.urls + other.urls,
            self.conflicts + other.conflicts,
            max(self.longest_lock, other.longest_lock),
            self.refused + other.refused,
        )


class Flagged(NamedTuple):
    """What setting or clearing flags came to.

    Attributes:
        ids: profiles of which the flag is now as it was to be.
        refused: profiles of which the database refused to have it written, and why, in words without values.
        longest_lock: seconds that rows were locked at the longest.
    """

    ids: tuple[ProfileId, ...] = ()
    refused: tuple[tuple[ProfileId, str], ...] = ()
    longest_lock: float = 0.0

    def plus(self, other: "Flagged") -> "Flagged":
        """The sum of both."""
        return Flagged(self.ids + other.ids, self.refused + other.refused, max(self.longest_lock, other.longest_lock))


class Waiting(NamedTuple):
    """A profile that is not migrated, and why, in words for an operator."""

    profile_id: ProfileId
    reason: str
    file: SourceFile | None = None
