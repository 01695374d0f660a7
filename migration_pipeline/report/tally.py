"""What is counted while all files of the ledger go by, once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from migration_pipeline.adapters.ledger.exports import FileRow
from migration_pipeline.core.model import Outcome

NOT_TRIED = "not tried"
_VERIFIED = frozenset(outcome.value for outcome in Outcome if outcome.verified)


@dataclass(slots=True)
class Tally:
    """Files by outcome, size and hour.

    Attributes:
        files, bytes, tries: by outcome.
        sizes: proven files, by the highest bit of their size, so that each class holds less than twice its smallest.
        size_bytes: of these.
        hours: files by hour of their last try and outcome, and their bytes.
        with_digest: proven files whose MD5 is kept.
        held: bytes of the proven files.
        ours: proven files whose object this migration made.
    """

    files: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    size_bytes: Counter[int] = field(default_factory=Counter)
    hours: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    hour_bytes: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    with_digest: int = 0
    held: int = 0
    ours: int = 0

    def add(self, batch: Sequence[FileRow]) -> None:
        """Count some files."""
        for row in batch:
            outcome = row.outcome or NOT_TRIED
            self.files[outcome] += 1
            self.bytes[outcome] += row.size_bytes
            self.tries[outcome] += row.attempts
            if row.ended_at is not None:
                hour = row.ended_at.replace(minute=0, second=0, microsecond=0), outcome
                self.hours[hour] += 1
                self.hour_bytes[hour] += row.size_bytes
            if outcome in _VERIFIED:
                power = 2 ** max(0, row.size_bytes.bit_length() - 1)
                self.sizes[power] += 1
                self.size_bytes[power] += row.size_bytes
                self.held += row.size_bytes
                self.with_digest += row.md5 is not None
                self.ours += row.ours

    @property
    def verified(self) -> int:
        """Files that are in S3 and proven."""
        return sum(count for outcome, count in self.files.items() if outcome in _VERIFIED)

    def by_outcome(self) -> list[tuple[str, int]]:
        """The most frequent first."""
        return sorted(self.files.items(), key=lambda item: (-item[1], item[0]))

    def by_size(self) -> list[tuple[int, int, int]]:
        """A power of two of bytes, files of at least that and less than twice that, and their bytes."""
        return [(power, self.sizes[power], self.size_bytes[power]) for power in sorted(self.sizes)]
