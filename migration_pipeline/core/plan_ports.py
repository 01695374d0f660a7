"""What planning needs of the outside world, beside ports.py: it writes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from migration_pipeline.core.model import Profile, ProfileId, SourceFile


class Block(NamedTuple):
    """Some consecutive profiles, the stuff that ranges are made of.

    Attributes:
        profiles: how many.
        bytes: of their own columns with URLs; those of deleted and of flagged profiles do not count.
        files: that they need from the source, where these were counted.
    """

    first: ProfileId
    last: ProfileId
    profiles: int
    bytes: int
    files: int | None = None


class ProfileIndex(Protocol):
    """The app's database."""

    def bounds(self) -> tuple[ProfileId, ProfileId] | None:
        """The lowest and the highest id; `None` for an empty table."""

    def count(self, *, after: ProfileId | None) -> int:
        """How many profiles there are above `after`."""

    def blocks(self, *, after: ProfileId | None, profiles: int) -> Iterator[Block]:
        """All profiles above `after` in id order, in blocks of so many; one pass, and no value leaves the database."""

    def weigh(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, int]:
        """Bytes that may hold references still, as `Block.bytes` counts them."""

    def sample(self, limit: int) -> Sequence[Profile]:
        """Up to `limit` profiles spread over the table."""


class SourceSizes(Protocol):
    """The store that files come from."""

    async def size(self, file: SourceFile) -> int:
        """Bytes of a blob, which is not read; raises `Permanent` (source_missing, source_archived)."""
