"""The ledger as it is exported: rows in batches, and sums over ranges, all of one moment."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.spent import SECONDS, Spent

Stream = Callable[[str, int], Iterator[list[tuple[Any, ...]]]]
"""Gives a statement's rows, so many at a time; `{s}` stands for the ledger's schema."""
BATCH = 50_000  # rows held at the same time


class FileRow(NamedTuple):
    """A file with its evidence.

    Attributes:
        outcome: `None` where it was not tried.
        size_bytes, md5, etag, source_etag: of the copy that was proven, where there is one.
        attempts: over all runs.
        ended_at: of the last try.
        ours: the object in S3 was made by this migration.
        waived: an operator let its profiles go on without it.
        removed_at: when its blob was removed from the source.
        removed: how.
    """

    container: str
    blob: str
    outcome: str | None
    size_bytes: int
    md5: bytes | None
    etag: str | None
    source_etag: str | None
    attempts: int
    ended_at: datetime | None
    ours: bool
    waived: bool
    removed_at: datetime | None
    removed: str | None


class LetterRow(NamedTuple):
    """A dead letter that some profile still needs.

    Attributes:
        ranges: whose profiles need it.
        profiles: that need it.
        a_profile: one of them.
    """

    container: str
    blob: str
    outcome: str
    message: str
    attempts: int
    ended_at: datetime | None
    ranges: Sequence[str]
    profiles: int
    a_profile: str
    waived_at: datetime | None
    waived_by: str | None
    waived_why: str | None


class AcceptedRow(NamedTuple):
    """A file that was copied though its bytes are not those of its stored Content-MD5.

    Attributes:
        md5: of the bytes that were copied.
    """

    container: str
    blob: str
    md5: bytes | None
    by: str
    why: str
    at: datetime


class Entered(NamedTuple):
    """A phase of the cut-over that was entered, on the way there or back."""

    phase: str
    at: datetime
    who: str
    why: str


class Totals(NamedTuple):
    """Sums that no other question gives.

    Attributes:
        spent: asked of the stores by all runs that ended.
        seconds: of these, by stage, and `paused`.
        began_at: when the first run began; of ranges that ran again, their newest run counts.
        ended_at: when the last ended.
        audited: ranges.
        audited_at: when the newest audit began.
        findings: of the newest audit of each range.
        erased: copies of what users had deleted.
        orphans: blobs that nobody referred to, by what became of them.
        acts: of operators, all of them.
    """

    spent: Spent
    seconds: dict[str, float]
    began_at: datetime | None
    ended_at: datetime | None
    audited: int
    audited_at: datetime | None
    findings: dict[str, int]
    erased: int
    orphans: dict[str, int]
    acts: int


class LedgerExports:
    """Reads, within a snapshot of the ledger; nothing here is written."""

    def __init__(self, query: Query, stream: Stream) -> None:
        self._query, self._stream = query, stream

    def files(self) -> Iterator[list[FileRow]]:
        """Every file that any range knows, as it is stored: no order would be worth sorting them all."""
        batches = self._stream(
            "SELECT container, blob, outcome, size_bytes, md5, etag, source_etag, attempts, f.ended_at, ours,"
            " waived_at IS NOT NULL, m.ended_at, m.how FROM {s}.files f LEFT JOIN (SELECT DISTINCT ON (file_id)"
            " file_id, ended_at, how FROM {s}.removed WHERE ended_at IS NOT NULL"
            " ORDER BY file_id, removed_id DESC) m USING (file_id)",
            BATCH,
        )
        return ([FileRow(*row) for row in batch] for batch in batches)

    def letters(self, *, waived: bool) -> Iterator[list[LetterRow]]:
        """Dead letters that nobody waived, or those that somebody did; each file once."""
        which = "IS NOT NULL" if waived else "IS NULL"
        batches = self._stream(
            "SELECT container, blob, outcome, message, attempts, ended_at, w.ranges, w.profiles, w.a_profile,"  # noqa: S608 - of constants
            " waived_at, waived_by, waived_why FROM {s}.files f JOIN LATERAL (SELECT"
            " array_agg(DISTINCT r.key) AS ranges, count(*) AS profiles, min(profile_id) AS a_profile"
            " FROM {s}.wanted JOIN {s}.ranges r USING (range_id) WHERE file_id = f.file_id AND dropped_at IS NULL) w"
            " ON w.profiles > 0 WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there')"
            f" AND waived_at {which} ORDER BY outcome, container, blob",
            BATCH,
        )
        return ([LetterRow(*row) for row in batch] for batch in batches)

    def accepted(self, most: int) -> tuple[int, list[AcceptedRow]]:
        """How many files were copied in spite of their stored Content-MD5, and the first of them."""
        rows = self._query(
            "SELECT container, blob, md5, accepted_by, why, accepted_at, count(*) OVER () FROM {s}.accepted"
            " WHERE used_at IS NOT NULL ORDER BY container, blob LIMIT %s",
            [most],
        )
        return (rows[0][-1] if rows else 0), [AcceptedRow(*row[:-1]) for row in rows]

    def phases(self) -> Sequence[Entered]:
        """Every phase as it was entered, on the way there and back."""
        return [Entered(*row) for row in self._query("SELECT phase, at, who, why FROM {s}.phases ORDER BY phase_id")]

    def totals(self) -> Totals:
        """Sums over ranges, and counts of small tables."""
        summed = ", ".join(f"coalesce(sum((spent ->> '{name}')::numeric), 0)" for name in Spent._fields)
        rows = self._query(
            f"SELECT {summed}, min(started_at), max(ended_at), count(audited_at), max(audited_at) FROM {{s}}.ranges"  # noqa: S608 - of constants
        )
        counted = len(Spent._fields)
        spent, others = (
            (Spent(*map(int, rows[0][:counted])), rows[0][counted:]) if rows else (Spent(), (None, None, 0, None))
        )
        began_at, ended_at, audited, audited_at = others
        seconds = self._query(
            "SELECT left(f.key, -length(%(end)s)), sum(f.value::float8) FROM {s}.ranges, jsonb_each_text(spent) f"
            " WHERE right(f.key, length(%(end)s)) = %(end)s GROUP BY 1 ORDER BY 1",
            {"end": SECONDS},
        )
        findings = self._query(
            "SELECT f.key, sum(f.value::bigint)::bigint FROM {s}.ranges, jsonb_each_text(coalesce(findings, '{{}}')) f"
            " GROUP BY 1 ORDER BY 1"
        )
        orphans = self._query("SELECT outcome, count(*) FROM {s}.orphans GROUP BY 1 ORDER BY 2 DESC, 1")
        counts = self._query("SELECT (SELECT count(*) FROM {s}.erased), (SELECT count(*) FROM {s}.acts)")
        erased, acts = counts[0] if counts else (0, 0)
        return Totals(
            spent, dict(seconds), began_at, ended_at, audited, audited_at, dict(findings), erased, dict(orphans), acts
        )

    def server(self) -> str:
        """The version of the ledger's Postgres."""
        rows = self._query("SELECT current_setting('server_version')")
        return str(rows[0][0]) if rows else ""
