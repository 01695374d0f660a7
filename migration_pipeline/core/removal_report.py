"""What removing blobs from the source did, or would do."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from migration_pipeline.core.alert_words import count
from migration_pipeline.core.model import SourceFile
from migration_pipeline.core.removal_ports import How, Proven

_MAX_EXAMPLES = 20


class Stay(StrEnum):
    """Why a blob stays in the source."""

    COPY_DIFFERS = "copy_differs"
    COPY_MISSING = "copy_missing"
    REFUSED = "refused"
    REFERRED_TO = "referred_to"
    CHANGED_AT_SOURCE = "changed_at_source"
    CHANGED_MEANWHILE = "changed_meanwhile"
    NEEDED_ELSEWHERE = "needed_elsewhere"
    NOT_COPIED = "not_copied"
    WAIVED = "waived"
    ERASING = "erasing"
    NO_EVIDENCE = "no_evidence"
    GONE = "gone"

    @property
    def alarming(self) -> bool:
        """Whether users see a broken file already: the copy is not what was proven."""
        return self in (Stay.COPY_DIFFERS, Stay.COPY_MISSING)


@dataclass(slots=True)
class Decommissioned:
    """What a run removed, or a dry run would.

    Attributes:
        how: what became of the blobs.
        applied: false for a dry run, which wrote nothing.
        ranges: blobs and bytes removed, by range.
        left: ranges passed over, and why.
        reasons: blobs that stay, by reason.
        examples: of each reason, the first few, with more about it where there is more.
        closed: removals of an earlier run, cut off, that turned out to be done.
        withdrawn: such that turned out not to be.
        capped: no more were removed, for the cap was reached.
        refusals: of a dry run: why nothing would be removed now.
    """

    how: How
    applied: bool
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    reasons: Counter[Stay] = field(default_factory=Counter)
    examples: dict[Stay, list[tuple[str, str]]] = field(default_factory=dict)
    closed: int = 0
    withdrawn: int = 0
    capped: bool = False
    refusals: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """Blobs removed."""
        return sum(files for files, _ in self.ranges.values())

    @property
    def bytes(self) -> int:
        """Of these."""
        return sum(size for _, size in self.ranges.values())

    @property
    def alarming(self) -> int:
        """Blobs whose copy is not what was proven."""
        return sum(count for stay, count in self.reasons.items() if stay.alarming)

    @property
    def complete(self) -> bool:
        """Whether nothing of what was named is in the source any more."""
        return not self.left and not self.capped and not self.reasons.total() - self.reasons[Stay.GONE]

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "how": self.how,
            "applied": self.applied,
            "files": self.files,
            "bytes": self.bytes,
            "ranges": {key: {"files": files, "bytes": size} for key, (files, size) in self.ranges.items()},
            "passed_over": self.left,
            "stays": dict(self.reasons),
            "examples": [
                {"stays": stay, "file": file, "more": more}
                for stay, examples in self.examples.items()
                for file, more in examples
            ],
            "closed": self.closed,
            "withdrawn": self.withdrawn,
            "capped": self.capped,
            "refusals": self.refusals,
        }

    def begin_range(self, key: str) -> None:
        """Have the range listed, whatever becomes of its files."""
        self.ranges.setdefault(key, (0, 0))

    def removed(self, key: str, proven: Collection[Proven]) -> None:
        """Count blobs of a range."""
        files, size = self.ranges.get(key, (0, 0))
        self.ranges[key] = files + len(proven), size + sum(item.size for item in proven)

    def stays(self, file: SourceFile, why: Stay, more: str = "") -> None:
        """Count one that stays."""
        self.reasons[why] += 1
        examples = self.examples.setdefault(why, [])
        if len(examples) < _MAX_EXAMPLES:
            examples.append((str(file), more))

    def said_of(self, key: str) -> str:
        """How a range ended."""
        if key in self.left:
            return f"range {key}: passed over, {self.left[key]}"
        files, size = self.ranges.get(key, (0, 0))
        done = {How.DELETE: "deleted", How.ARCHIVE: "archived"}[self.how]
        return (
            f"range {key}: {count(files, 'blob')}, {size / 1e6:,.1f} MB {done if self.applied else f'would be {done}'}"
        )
