"""Rows of ranges that nobody will need any more: exported, then dropped, a group of ranges at a time."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import errors

from migration_pipeline.adapters.ledger import groups
from migration_pipeline.adapters.ledger.exports import BATCH, Stream
from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.adapters.ledger.removal import LedgerRemoval
from migration_pipeline.adapters.ledger.results import MAY_BE_OURS, UNSURE, VERIFIED
from migration_pipeline.adapters.postgres.connection import StillBusy
from migration_pipeline.core.alert_words import counted
from migration_pipeline.core.removal_ports import How

ACT = "archive"
"""What the record of operators' acts calls it."""
_PATIENCE_SECONDS = 10


class ArchiveRow(NamedTuple):
    """What the ledger knew of one file that one profile needed.

    Attributes:
        spelling: the reference as it was, without query string.
        outcome, size_bytes, md5, etag, source_etag, attempts, ended_at: see `exports.FileRow`.
        ours: the object in S3 was made by the migration.
        versions: of it that were.
        removed_at: when the blob was removed from the source, or archived there.
        removed: which of the two.
    """

    range_key: str
    profile_id: str
    container: str
    blob: str
    spelling: str | None
    had_query: bool
    outcome: str | None
    size_bytes: int
    md5: bytes | None
    etag: str | None
    source_etag: str | None
    attempts: int
    ended_at: datetime | None
    ours: bool
    versions: Sequence[str]
    waived_at: datetime | None
    waived_by: str | None
    waived_why: str | None
    removed_at: datetime | None
    removed: str | None


class Group(NamedTuple):
    """A group of ranges with rows in the ledger.

    Attributes:
        ranges: all of them, in order.
        rows: what their profiles need, a row a profile and file.
        why_not: those whose rows are needed still, and why.
    """

    number: int
    ranges: Sequence[str]
    rows: int
    why_not: Mapping[str, str]


class Archive(NamedTuple):
    """A file that rows were exported to, of how many ranges, and when."""

    name: str
    sha256: str
    ranges: int
    rows: int
    at: datetime


class LedgerArchive:
    """Says which groups are finished, gives their rows, and drops them."""

    def __init__(self, query: Query, stream: Stream, removal: LedgerRemoval) -> None:
        self._query, self._stream, self._removal = query, stream, removal

    def groups(self, how: How) -> Sequence[Group]:
        """Every group that has rows, in order.

        Args:
            how: what becomes of blobs of the source once they are proven.
        """
        numbers = {groups.group_of(range_id) for (range_id,) in self._query("SELECT range_id FROM {s}.ranges")}
        found = (self._look(number, how) for number in sorted(numbers))
        return [group for group in found if group is not None]

    def take(self, number: int, how: How) -> Group | None:
        """Look again, and have nobody write for ranges of the group until the transaction ends.

        Runs write only while their range's row says that it is theirs, and who takes a range changes that row.
        """
        self._query(
            "SELECT FROM {s}.ranges WHERE range_id >= %(first)s AND range_id < %(end)s ORDER BY range_id FOR UPDATE",
            _bounds(number),
        )
        return self._look(number, how)

    def _look(self, number: int, how: How) -> Group | None:
        table = groups.table_of(number)
        ((rows,),) = self._query(f"SELECT count(*) FROM {{s}}.{table}")  # noqa: S608 - of a number
        if not rows:
            return None
        keys = [
            key
            for (key,) in self._query(
                "SELECT key FROM {s}.ranges WHERE range_id >= %(first)s AND range_id < %(end)s ORDER BY range_id",
                _bounds(number),
            )
        ]
        states = self._removal.states(keys)
        whys = {key: why for key in keys if (why := states[key].why_not()) is not None}
        whys |= dict.fromkeys(self._removal.held(keys), "somebody works on it")
        needed = self._query(
            _NEEDED.replace("<wanted>", table), {"verified": VERIFIED, "unsure": UNSURE, "how": how.value}
        )
        for key, dropped, in_source in needed:
            if dropped:
                copies = counted(dropped, "copy", "was", "were", "copies")
                whys.setdefault(key, f"{copies} not erased yet that no profile of it holds any more")
            elif in_source:
                whys.setdefault(key, f"{counted(in_source, 'blob', 'was', 'were')} not removed from the source")
        return Group(number, keys, rows, whys)

    def rows(self, number: int) -> Iterator[list[ArchiveRow]]:
        """A group's rows in the order of its ranges and profiles; within a transaction."""
        batches = self._stream(_ROWS.replace("<wanted>", groups.table_of(number)), BATCH)
        return ([ArchiveRow(*row) for row in batch] for batch in batches)

    def drop(self, number: int, archive: str) -> int:
        """Drop a group's rows, and files that no other group needs; return how many files went.

        Whoever thinks that a range of it is theirs has lost it.
        """
        table = groups.table_of(number)
        self._query(_GOING.replace("<wanted>", table), _bounds(number))
        self._query(_KEPT_WITH_REMOVAL)
        # Not row by row, which would leave as much to vacuum as there were rows.
        # Whoever reads the table for long, as a report does, would hold up everybody who comes behind us.
        self._query(f"SET LOCAL lock_timeout = '{_PATIENCE_SECONDS}s'")
        self._query(f"TRUNCATE {{s}}.{table}")
        self._query("SET LOCAL lock_timeout = 0")
        try:
            ((files,),) = self._query(_DELETE)
        except errors.ForeignKeyViolation:
            raise StillBusy("another range came to need one of these files just now; archive again") from None
        self._query("DROP TABLE going")
        self._query(
            "UPDATE {s}.ranges SET epoch = epoch + 1, archive = %(archive)s, archived_at = now()"
            " WHERE range_id >= %(first)s AND range_id < %(end)s",
            {**_bounds(number), "archive": archive},
        )
        return int(files)

    def archives(self) -> Sequence[Archive]:
        """What rows were exported to before they were dropped, oldest first."""
        rows = self._query(
            "SELECT details ->> 'file', details ->> 'sha256', (details ->> 'ranges')::integer,"
            " (details ->> 'rows')::bigint, at FROM {s}.acts WHERE what = %s ORDER BY act_id",
            [ACT],
        )
        return [Archive(*row) for row in rows]


def _bounds(number: int) -> dict[str, int]:
    return {"first": number * groups.RANGES, "end": (number + 1) * groups.RANGES}


# A blob that was put into the tier Archive may be deleted later: its file is needed until then.
_REMOVED = (
    "EXISTS (SELECT FROM {s}.removed m WHERE m.file_id = f.file_id AND m.ended_at IS NOT NULL"
    " AND m.source_etag = f.source_etag AND m.how IN ('delete', %(how)s))"
)
_NEEDED = f"""
    SELECT r.key,
        count(*) FILTER (WHERE w.dropped_at IS NOT NULL
            AND {MAY_BE_OURS}
            AND NOT EXISTS (SELECT FROM {{s}}.wanted o WHERE o.file_id = f.file_id AND o.dropped_at IS NULL)),
        count(*) FILTER (WHERE f.outcome = ANY(%(verified)s) AND NOT {_REMOVED})
    FROM {{s}}.<wanted> w JOIN {{s}}.files f USING (file_id) JOIN {{s}}.ranges r USING (range_id) GROUP BY r.key
"""  # noqa: S608 - of constants
_ROWS = """
    SELECT r.key, w.profile_id, f.container, f.blob, w.spelling, w.had_query, f.outcome, f.size_bytes, f.md5, f.etag,
        f.source_etag, f.attempts, f.ended_at, f.ours, f.versions, f.waived_at, f.waived_by, f.waived_why, m.ended_at,
        m.how
    FROM {s}.<wanted> w JOIN {s}.files f USING (file_id) JOIN {s}.ranges r USING (range_id)
    LEFT JOIN LATERAL (SELECT ended_at, how FROM {s}.removed m WHERE m.file_id = f.file_id AND ended_at IS NOT NULL
        ORDER BY removed_id DESC LIMIT 1) m ON true
    ORDER BY w.range_id, w.profile_id, w.file_id
"""
_GOING = """
    CREATE TEMP TABLE going ON COMMIT DROP AS SELECT DISTINCT file_id FROM {s}.<wanted> w
    WHERE NOT EXISTS (SELECT FROM {s}.wanted o WHERE o.file_id = w.file_id
        AND (o.range_id < %(first)s OR o.range_id >= %(end)s))
"""
# A range of another group may have come to need one since.
_DELETE = """
    WITH gone AS (DELETE FROM {s}.files f USING going g WHERE f.file_id = g.file_id
        AND NOT EXISTS (SELECT FROM {s}.wanted w WHERE w.file_id = f.file_id) RETURNING true)
    SELECT count(*) FROM gone
"""
# Somebody may refer to such a blob again: then this alone says that its copy was proven, and whose it is.
_KEPT_WITH_REMOVAL = """
    UPDATE {s}.removed m SET ours = f.ours, versions = f.versions,
        profiles = ARRAY(SELECT DISTINCT profile_id FROM {s}.wanted w WHERE w.file_id = f.file_id)
    FROM {s}.files f JOIN going USING (file_id)
    WHERE m.file_id = f.file_id AND m.ended_at IS NOT NULL AND m.source_etag = f.source_etag
"""
