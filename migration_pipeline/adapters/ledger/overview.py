"""The ledger as people read it: ranges, outcomes, dead letters, progress, and what operators did."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from migration_pipeline.core.model import Outcome, SourceFile

_RANGE_COLUMNS = (
    "key, profiles, started_at IS NOT NULL, started_at IS NOT NULL AND ended_at IS NULL, report, copied, bytes,"
    " rolled_back_at IS NOT NULL, requested_at IS NOT NULL, requested_why, started_at, ended_at, seen_at, done_at"
)


class DeadLetter(NamedTuple):
    """A file that waits for an operator, with one of the profiles that need it.

    Attributes:
        attempts: tries over all runs.
        ended_at: of the last try.
        waived: who let its profiles go on without it, and why; `None` where nobody did.
        accepted: who had it copied in spite of its stored Content-MD5, and why; `None` where nobody did.
    """

    range_key: str
    profile_id: str
    file: SourceFile
    outcome: Outcome
    message: str
    attempts: int
    ended_at: datetime | None
    waived: "Waiver | None"
    accepted: "Waiver | None" = None


class Waiver(NamedTuple):
    """An operator let a file's profiles go on without it, or had it copied as it is."""

    at: datetime
    by: str
    why: str


class LetterClass(NamedTuple):
    """Dead letters of one class.

    Attributes:
        waiting: files that nobody waived.
        waived: files that somebody did.
        newest: when the last of them failed.
        examples: some of those waiting.
    """

    outcome: Outcome
    waiting: int
    waived: int
    newest: datetime | None
    examples: Sequence[SourceFile]


class RangeState(NamedTuple):
    """A planned range and the counters of its newest run that ended.

    Attributes:
        running: a run works on it, or broke off in it.
        copied: files, over all runs.
        bytes: of these.
        seen_at: when the run at work last said so.
        done_at: when first nobody of it waited any more.
    """

    key: str
    profiles: int
    started: bool
    running: bool
    report: Mapping[str, Any] | None
    copied: int
    bytes: int
    rolled_back: bool
    requested: bool
    requested_why: str | None
    started_at: datetime | None
    ended_at: datetime | None
    seen_at: datetime | None
    done_at: datetime | None


class RangeTotals(NamedTuple):
    """What is true of the files that a range's profiles need now, whichever runs did it.

    Attributes:
        files_in_s3: verified.
        bytes: of these.
        tries: of all of them, over all runs.
    """

    files_in_s3: int = 0
    bytes: int = 0
    tries: int = 0


class ProgressRow(NamedTuple):
    """What all runs together did in some stretch of time.

    Attributes:
        at: its beginning.
        files: that ended verified.
        failed: that ended as dead letters.
        bytes: copied.
    """

    at: datetime
    files: int
    failed: int
    bytes: int


class Act(NamedTuple):
    """Something an operator, or the breaker, did; `act_id` rises."""

    act_id: int
    at: datetime
    who: str
    what: str
    why: str
    details: Mapping[str, Any]


Query = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement of the ledger, `{s}` standing for its schema; gives no row where there is no ledger yet."""


_BY_SOMEBODY = "SELECT true FROM {s}.wanted w WHERE w.file_id = f.file_id AND w.dropped_at IS NULL"
# As values, which are looked up file by file: for EXISTS, Postgres would read who needs any file at all.
_NEEDED = f"coalesce(({_BY_SOMEBODY} AND w.range_id = f.tried_in LIMIT 1), ({_BY_SOMEBODY} LIMIT 1), false)"
_NEEDED_IN = f"EXISTS ({_BY_SOMEBODY} AND w.range_id = (SELECT range_id FROM {{s}}.ranges WHERE key = %(range)s))"  # noqa: S608 - of constants

# A few examples are looked up: to collect and sort the names of all would take most of the time.
_CLASSES = """
    WITH failed AS NOT MATERIALIZED (
        SELECT * FROM {s}.files f WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there')
            AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
            AND (%(file)s::uuid IS NULL OR file_id = %(file)s) AND <needed>
    ), classes AS (
        SELECT outcome, count(*) FILTER (WHERE waived_at IS NULL) AS waiting, count(waived_at) AS waived,
            max(ended_at) AS newest
        FROM failed GROUP BY outcome
    )
    SELECT c.*, CASE WHEN waiting > 0 THEN ARRAY(SELECT container || '/' || blob FROM failed f
        WHERE f.outcome = c.outcome AND waived_at IS NULL LIMIT 3) END
    FROM classes c ORDER BY 2 DESC, 1
"""


class Overview:
    """Reads; nothing here is written."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def states(self) -> Sequence[RangeState]:
        """Every range with its newest counters, in id order."""
        return [RangeState(*row) for row in self._query(f"SELECT {_RANGE_COLUMNS} FROM {{s}}.ranges ORDER BY range_id")]  # noqa: S608 - of a constant

    def totals(self, range_key: str) -> RangeTotals:
        """Over all runs of a range."""
        rows = self._query(
            "SELECT count(*) FILTER (WHERE outcome IN ('copied', 'already_there')),"
            " coalesce(sum(size_bytes) FILTER (WHERE outcome IN ('copied', 'already_there')), 0)::bigint,"
            " coalesce(sum(attempts), 0)::bigint FROM {s}.files WHERE file_id IN (SELECT file_id FROM {s}.wanted"
            " WHERE dropped_at IS NULL AND range_id = (SELECT range_id FROM {s}.ranges WHERE key = %s))",
            [range_key],
        )
        return RangeTotals(*rows[0]) if rows else RangeTotals()

    def dead_letters(
        self,
        *,
        outcome: Outcome | None = None,
        range_key: str | None = None,
        file: SourceFile | None = None,
        waived: bool | None = None,
        limit: int = 1000,
        after: DeadLetter | None = None,
    ) -> Sequence[DeadLetter]:
        """Failed files that some profile still needs, once for each range, by file; only those `after` one."""
        rows = self._query(
            "SELECT DISTINCT ON (f.file_id, r.range_id) r.key, w.profile_id, f.container, f.blob, f.outcome,"
            " f.message, f.attempts, f.ended_at, f.waived_at, f.waived_by, f.waived_why,"
            " a.accepted_at, a.accepted_by, a.why FROM {s}.files f JOIN {s}.wanted w USING (file_id)"
            " JOIN {s}.ranges r USING (range_id) LEFT JOIN {s}.accepted a USING (file_id)"
            " WHERE f.outcome IS NOT NULL AND f.outcome NOT IN ('copied', 'already_there') AND w.dropped_at IS NULL"
            " AND (%(outcome)s::text IS NULL OR f.outcome = %(outcome)s)"
            " AND (%(range)s::text IS NULL OR r.key = %(range)s)"
            " AND (%(file)s::uuid IS NULL OR f.file_id = %(file)s)"
            " AND (%(waived)s::boolean IS NULL OR (f.waived_at IS NOT NULL) = %(waived)s)"
            # By file: with an index in that order, a page costs what is on it, however many letters there are.
            " AND (%(after)s::uuid IS NULL OR f.file_id >= %(after)s AND (f.file_id, r.range_id)"
            " > (%(after)s, (SELECT range_id FROM {s}.ranges WHERE key = %(after_range)s)))"
            " ORDER BY f.file_id, r.range_id, w.profile_id LIMIT %(limit)s",
            {
                "outcome": outcome, "range": range_key, "file": file.file_id if file else None, "waived": waived,
                "limit": limit, "after": after.file.file_id if after else None,
                "after_range": after.range_key if after else None,
            },
        )  # fmt: skip
        return [
            DeadLetter(
                key, profile, SourceFile(container, blob), Outcome(ended), message, attempts, ended_at,
                *(Waiver(*said) if said[0] else None for said in (acts[:3], acts[3:])),
            )
            for key, profile, container, blob, ended, message, attempts, ended_at, *acts in rows
        ]  # fmt: skip

    def letter_classes(
        self, *, outcome: Outcome | None = None, range_key: str | None = None, file: SourceFile | None = None
    ) -> Sequence[LetterClass]:
        """Dead letters by class, the most frequent first; only those of one class, range or file where given."""
        rows = self._query(
            _CLASSES.replace("<needed>", _NEEDED if range_key is None else _NEEDED_IN),
            {"outcome": outcome, "range": range_key, "file": file.file_id if file else None},
        )
        return [
            LetterClass(
                Outcome(name), waiting, waived, newest, [SourceFile(*text.split("/", 1)) for text in examples or ()]
            )
            for name, waiting, waived, newest, examples in rows
        ]

    def progress(self, *, since: datetime | None = None, every: str = "10 seconds") -> Sequence[ProgressRow]:
        """What happened in each stretch of time in which something did, oldest first; `every` as Postgres writes it."""
        rows = self._query(
            "SELECT date_bin(%(every)s::interval, at, 'epoch'::timestamptz), sum(files), sum(failed), sum(bytes)"
            " FROM {s}.progress WHERE %(since)s::timestamptz IS NULL OR at >= %(since)s GROUP BY 1 ORDER BY 1",
            {"every": every, "since": since},
        )
        return [ProgressRow(at, int(files), int(failed), int(size)) for at, files, failed, size in rows]

    def last_progress(self) -> datetime | None:
        """When a file last ended, to ten seconds; `None` before the first."""
        rows = self._query("SELECT max(at) FROM {s}.progress")
        at: datetime | None = rows[0][0] if rows else None
        return at

    def acts(self, *, limit: int = 20) -> Sequence[Act]:
        """What operators did, newest first."""
        rows = self._query(
            "SELECT act_id, at, who, what, why, details FROM {s}.acts ORDER BY act_id DESC LIMIT %s", [limit]
        )
        return [Act(*row) for row in rows]

    def acts_after(self, act_id: int, *, limit: int) -> Sequence[Act]:
        """What operators did since, oldest first."""
        rows = self._query(
            "SELECT act_id, at, who, what, why, details FROM {s}.acts WHERE act_id > %s ORDER BY act_id LIMIT %s",
            [act_id, limit],
        )
        return [Act(*row) for row in rows]
