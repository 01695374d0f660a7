"""What operators, and the breaker, say to the runs at work; and the record of what they did."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.control import Limits, Said
from migration_pipeline.core.model import Outcome, SourceFile

T = TypeVar("T")
_Cursor = psycopg.Cursor[tuple[Any, ...]]
InTransaction = Callable[[Callable[[_Cursor], Any]], Any]

BREAKER = "breaker"
"""Who paused, where no person did."""
AT_WORK_SECONDS = 15
"""A run that said nothing for so long is not counted among those that share the limits."""
_NAME = "control"

_RECENT = "greatest(now() - interval '10 minutes', (SELECT (value ->> 'resumed_at')::timestamptz FROM said))"
HEAR = f"""
    WITH said AS (SELECT value FROM {{s}}.state WHERE name = '{_NAME}')
    SELECT (SELECT value FROM said),
        (SELECT count(*) FROM {{s}}.ranges WHERE seen_at > now() - make_interval(secs => %(seconds)s)),
        coalesce(sum(files + failed), 0), coalesce(sum(failed), 0)
    FROM {{s}}.progress WHERE at >= {_RECENT}
"""  # noqa: S608 - of constants
WHAT_FAILS = f"""
    WITH said AS (SELECT value FROM {{s}}.state WHERE name = '{_NAME}')
    SELECT outcome, count(*) FROM {{s}}.files
    WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there') AND ended_at >= {_RECENT}
    GROUP BY outcome ORDER BY 2 DESC, 1
"""  # noqa: S608 - of constants


class Selection(NamedTuple):
    """Dead letters: of one class, range or file where these are given, else all."""

    outcome: Outcome | None = None
    range_key: str | None = None
    file: SourceFile | None = None


class Chosen(NamedTuple):
    """Dead letters that something was done to, and the ranges whose profiles need them."""

    files: int
    ranges: Sequence[str]


def said(value: Mapping[str, Any] | None) -> Said:
    """What the ledger's state holds, as the core has it."""
    paused, limits = (value or {}).get("paused"), (value or {}).get("limits", {})
    if not paused:
        return Said(limits=Limits(**limits))
    return Said(paused["why"], paused["by"], datetime.fromisoformat(paused["at"]), Limits(**limits))


def pause(cursor: _Cursor, schema: sql.Identifier, *, by: str, why: str) -> bool:
    """Pause the migration where nobody did; return whether it was not paused before."""
    value = _locked(cursor, schema)
    if value.get("paused"):
        return False
    cursor.execute("SELECT now()")
    ((now,),) = cursor.fetchall()
    _keep(cursor, schema, {**value, "paused": {"why": why, "by": by, "at": now.isoformat()}})
    note(cursor, schema, by, "pause", why, {})
    return True


class LedgerControl:
    """The operators' desk. Every act is recorded: who, when, what, why."""

    def __init__(self, in_transaction: InTransaction, query: Query, schema: str) -> None:
        self._in_transaction, self._query = in_transaction, query
        self._schema = sql.Identifier(schema)

    def said(self) -> Said:
        """What holds now."""
        rows = self._query("SELECT value FROM {s}.state WHERE name = %s", [_NAME])
        return said(rows[0][0] if rows else None)

    def pause(self, *, by: str, why: str) -> bool:
        """Have all runs wait; return whether they did not before."""
        return bool(self._in_transaction(lambda cursor: pause(cursor, self._schema, by=by, why=why)))

    def resume(self, *, by: str, why: str = "") -> bool:
        """Have all runs go on; return whether they had been paused. The breaker counts from now on."""

        def work(cursor: _Cursor) -> bool:
            value = _locked(cursor, self._schema)
            if not value.get("paused"):
                return False
            cursor.execute("SELECT now()")
            ((now,),) = cursor.fetchall()
            _keep(cursor, self._schema, {**value, "paused": None, "resumed_at": now.isoformat()})
            note(cursor, self._schema, by, "resume", why, {})
            return True

        return bool(self._in_transaction(work))

    def limit(self, limits: Limits, *, by: str, why: str = "") -> Limits:
        """Have runs copy harder or less hard; return what operators said in all. Empty limits take all back."""

        def work(cursor: _Cursor) -> Limits:
            value = _locked(cursor, self._schema)
            now = limits.over(said(value).limits) if any(part is not None for part in limits) else Limits()
            given = {name: part for name, part in now._asdict().items() if part is not None}
            _keep(cursor, self._schema, {**value, "limits": given})
            note(cursor, self._schema, by, "limits", why, given)
            return now

        found: Limits = self._in_transaction(work)
        return found

    def waive(self, selection: Selection, *, by: str, why: str) -> Chosen:
        """Let profiles go on without these files: their references stay as they are. Asks for runs of the ranges."""
        return self._choose(
            selection,
            "waive",
            "waived_at = now(), waived_by = %(by)s, waived_why = %(why)s, retry_at = NULL",
            "waived_at IS NULL",
            "SELECT",
            by=by,
            why=why,
        )

    def accept(self, selection: Selection, *, by: str, why: str) -> Chosen:
        """Have files copied whose bytes are not those of their stored Content-MD5; asks for runs of the ranges."""
        return self._choose(
            selection._replace(outcome=Outcome.DIGEST_MISMATCH),
            "accept",
            "retry_at = now()",
            "waived_at IS NULL",
            "INSERT INTO {s}.accepted AS a (file_id, container, blob, accepted_by, why)"
            " SELECT file_id, container, blob, %(by)s, %(why)s FROM chosen ON CONFLICT (file_id) DO UPDATE"
            " SET accepted_at = now(), accepted_by = excluded.accepted_by, why = excluded.why",
            by=by,
            why=why,
        )

    def retry(self, selection: Selection, *, by: str, why: str = "", waived: bool = False) -> Chosen:
        """Have these files tried again, and no other dead letter.

        A waived one is meant where it is named alone; with `waived`, those alone are, and their waivers taken back.
        What was accepted and is not copied yet is tried as all others are.
        """
        which = "waived_at IS NOT NULL" if waived else "true" if selection.file else "waived_at IS NULL"
        return self._choose(
            selection,
            "retry",
            "waived_at = NULL, waived_by = NULL, waived_why = NULL, retry_at = now()",
            which,
            "DELETE FROM {s}.accepted WHERE used_at IS NULL AND file_id IN (SELECT file_id FROM chosen)",
            by=by,
            why=why,
        )

    def note(self, what: str, *, by: str, why: str = "", details: Mapping[str, object] | None = None) -> None:
        """Record an act that is done elsewhere."""
        self._in_transaction(lambda cursor: note(cursor, self._schema, by, what, why, details or {}))

    def _choose(
        self, selection: Selection, what: str, change: str, which: str, also: str, *, by: str, why: str
    ) -> Chosen:
        values = {
            "outcome": selection.outcome,
            "range": selection.range_key,
            "file": selection.file.file_id if selection.file else None,
            "by": by,
            "why": why,
            "asked": f"{what} of dead letters" + (f": {why}" if why else ""),
        }

        def work(cursor: _Cursor) -> Chosen:
            statement = _CHOOSE.replace("<change>", change).replace("<which>", which).replace("<also>", also)
            cursor.execute(self._sql(statement), values)
            ((files, ranges),) = cursor.fetchall()
            details = {
                "files": files,
                "ranges": len(ranges),
                "class": selection.outcome,
                "range": selection.range_key,
                "file": str(selection.file) if selection.file else None,
            }
            if files:
                note(cursor, self._schema, by, what, why, details)
            return Chosen(files, sorted(ranges))

        found: Chosen = self._in_transaction(work)
        return found

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=self._schema)


_CHOOSE = """
    WITH chosen AS (
        SELECT f.file_id, f.container, f.blob FROM {s}.files f
        WHERE outcome IS NOT NULL AND outcome NOT IN ('copied', 'already_there') AND <which>
            AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
            AND (%(file)s::uuid IS NULL OR file_id = %(file)s)
            AND EXISTS (SELECT FROM {s}.wanted w JOIN {s}.ranges r USING (range_id) WHERE w.file_id = f.file_id
                AND w.dropped_at IS NULL AND (%(range)s::text IS NULL OR r.key = %(range)s))
        ORDER BY file_id FOR UPDATE
    ), changed AS (
        UPDATE {s}.files SET <change> WHERE file_id IN (SELECT file_id FROM chosen) RETURNING file_id
    ), noted AS (
        <also>
    ), concerned AS (
        SELECT DISTINCT range_id FROM {s}.wanted WHERE dropped_at IS NULL AND file_id IN (SELECT file_id FROM changed)
    ), asked AS (
        UPDATE {s}.ranges SET requested_at = coalesce(requested_at, now()),
            requested_why = coalesce(requested_why, %(asked)s)
        WHERE range_id IN (SELECT range_id FROM concerned) RETURNING key
    )
    SELECT (SELECT count(*) FROM changed), (SELECT coalesce(array_agg(key), '{{}}') FROM asked)
"""


def _locked(cursor: _Cursor, schema: sql.Identifier) -> Mapping[str, Any]:
    """What was said, locked against everybody who says something at the same time."""
    cursor.execute(
        sql.SQL("INSERT INTO {s}.state VALUES (%s, '{{}}') ON CONFLICT DO NOTHING").format(s=schema), [_NAME]
    )
    cursor.execute(sql.SQL("SELECT value FROM {s}.state WHERE name = %s FOR UPDATE").format(s=schema), [_NAME])
    ((value,),) = cursor.fetchall()
    found: Mapping[str, Any] = value
    return found


def _keep(cursor: _Cursor, schema: sql.Identifier, value: Mapping[str, Any]) -> None:
    cursor.execute(sql.SQL("UPDATE {s}.state SET value = %s WHERE name = %s").format(s=schema), [Jsonb(value), _NAME])


def note(cursor: _Cursor, schema: sql.Identifier, who: str, what: str, why: str, details: Mapping[str, object]) -> None:
    """Record an act within the transaction that does it."""
    cursor.execute(
        sql.SQL("INSERT INTO {s}.acts (who, what, why, details) VALUES (%s, %s, %s, %s)").format(s=schema),
        [who, what, why, Jsonb(dict(details))],
    )
