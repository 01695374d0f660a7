"""What the source holds, beside what the app refers to: missing, archived and unwanted blobs, before any byte moves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple, Self

from migration_pipeline.core.model import SourceFile

ARCHIVE = "Archive"
"""The tier whose blobs cannot be read."""
SIZE_CLASSES = ((0, "empty"), (100_000, "up to 100 KB"), (1_000_000, "up to 1 MB"), (8 * 2**20, "up to 8 MiB"))
"""Largest size of each class; what is larger still is copied in parts."""
LARGEST = "larger"


class Listed(NamedTuple):
    """A blob as a listing shows it.

    Attributes:
        md5: the stored Content-MD5, 16 bytes, where the blob has one.
        etag: quoted, as in HTTP, however the listing spelled it.
        tier: Hot, Cool, Cold, Archive; `None` where the account has none.
        written_at: Last-Modified.
    """

    file: SourceFile
    size: int
    md5: bytes | None
    etag: str | None
    tier: str | None
    written_at: datetime


class Page(NamedTuple):
    """One answer of a store that lists.

    Attributes:
        marker: where to go on; `None` at the end.
        skipped: entries that are no blob of now, by reason.
    """

    blobs: Sequence[Listed]
    marker: str | None
    skipped: Mapping[str, int]


def quoted(etag: str) -> str:
    """An ETag as HTTP has it: listings and reports leave the quotes off."""
    return '"' + etag.strip('"') + '"'


class Held(NamedTuple):
    """Blobs of one container, tier and size class."""

    container: str
    tier: str
    size_class: str
    blobs: int
    bytes: int


class Example(NamedTuple):
    """A blob that somebody may want to look at, and one of the profiles that refer to it, if any does."""

    file: SourceFile
    profile_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The inventory beside the references. Files are different ones, however many profiles refer to them.

    Attributes:
        listed_at: when the listing began.
        counted_at: when the count of references began.
        held: what the source holds.
        files: that are to move.
        bytes: of those that can be copied.
        missing: to move, and not in the source.
        archived_needed: to move, and archived.
        too_long: to move, and under a key that S3 cannot hold.
        archived: blobs, whoever refers to them.
        archived_bytes: of these.
        orphans: blobs that nobody refers to.
        orphan_bytes: of these.
        young: blobs that nobody refers to and that are too young to be called so.
        only_deleted: blobs that only soft-deleted profiles refer to; they are no orphans, for profiles may come back.
        came_late: of the files to move, those that the listing had not seen and the source has all the same.
        large: of the files that can be copied, those that are uploaded in parts.
        parts: of these.
        examples: by what is the matter.
    """

    listed_at: datetime
    counted_at: datetime
    held: Sequence[Held] = ()
    files: int = 0
    bytes: int = 0
    missing: int = 0
    archived_needed: int = 0
    too_long: int = 0
    archived: int = 0
    archived_bytes: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    young: int = 0
    only_deleted: int = 0
    came_late: int = 0
    large: int = 0
    parts: int = 0
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """As `plain` gave them."""
        examples = {
            what: [Example(SourceFile(container, blob), profile) for container, blob, profile in rows]
            for what, rows in values["examples"].items()
        }
        return cls(
            **{
                **values,
                "listed_at": datetime.fromisoformat(values["listed_at"]),
                "counted_at": datetime.fromisoformat(values["counted_at"]),
                "held": [Held(*row) for row in values["held"]],
                "examples": examples,
            }
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        examples = {what: [(*item.file, item.profile_id) for item in items] for what, items in self.examples.items()}
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moments = {"listed_at": self.listed_at.isoformat(), "counted_at": self.counted_at.isoformat()}
        return {**values, **moments, "held": [list(item) for item in self.held], "examples": examples}

    @property
    def blobs(self) -> int:
        """All that the source holds."""
        return sum(item.blobs for item in self.held)

    @property
    def size(self) -> int:
        """Bytes of these."""
        return sum(item.bytes for item in self.held)

    @property
    def copyable(self) -> int:
        """Files that can be copied as they are now."""
        return self.files - self.missing - self.archived_needed - self.too_long

    def by(self, what: str) -> Mapping[str, tuple[int, int]]:
        """Blobs and bytes by `container`, `tier` or `size_class`."""
        blobs, size = Counter[str](), Counter[str]()
        for item in self.held:
            name = getattr(item, what)
            blobs[name] += item.blobs
            size[name] += item.bytes
        return {name: (blobs[name], size[name]) for name in blobs}
