"""The phases of the cut-over as the ledger keeps them: a row for each entry, on the way there or back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger.control import InTransaction, note
from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.cutover import Phase, RangeAudit
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.findings import ACCEPTED, Finding

_SWITCHED_AT = "switched_at"
_BAD = (Finding.DANGLING, Finding.CORRUPT, Finding.STALE, Finding.UNPARSABLE, Finding.EMBEDDED)


class Path(NamedTuple):
    """The way to the present phase.

    Attributes:
        entered: when each phase on it was entered; what was gone back on is left out.
        switched_at: from when on no upload URL of the old store was issued.
    """

    phase: Phase
    entered: Mapping[Phase, datetime]
    switched_at: datetime | None


class LedgerPhases:
    """Reads the way to the present phase, and enters others."""

    def __init__(self, in_transaction: InTransaction, query: Query, schema: str) -> None:
        self._in_transaction, self._query = in_transaction, query
        self._schema = sql.Identifier(schema)

    def path(self) -> Path:
        """Where the cut-over is, and since when."""
        return _path(self._query("SELECT phase, at, details FROM {s}.phases ORDER BY phase_id"))

    def audits(self) -> Mapping[str, RangeAudit]:
        """The newest audit of each range in which no run has been at work since."""
        rows = self._query(
            "SELECT key, audited_at, findings FROM {s}.ranges WHERE audited_at IS NOT NULL"
            " AND coalesce(started_at < audited_at AND ended_at < audited_at, true)"
        )
        return {key: RangeAudit(at, _bad(findings)) for key, at, findings in rows}

    def removed(self) -> tuple[int, datetime | None]:
        """How many blobs were removed from the source, or begun to be, and when the newest was."""
        rows = self._query("SELECT count(*), max(coalesce(ended_at, begun_at)) FROM {s}.removed")
        return (rows[0][0], rows[0][1]) if rows else (0, None)

    def still_in_source(self, *, archived: bool) -> int:
        """Blobs that are proven to be in S3 and that the newest listing still saw; with `archived`, not in Archive.

        Joins all files with the inventory: not to be asked often.
        """
        rows = self._query(
            "SELECT count(*) FROM {s}.inventory i JOIN {s}.files f USING (file_id)"
            " WHERE f.outcome IN ('copied', 'already_there') AND NOT (%s AND coalesce(i.tier, '') = 'Archive')",
            [archived],
        )
        return int(rows[0][0]) if rows else 0

    def enter(self, phase: Phase, *, present: Phase, by: str, why: str, switched_at: datetime | None = None) -> None:
        """Enter a phase, on the way there or back, and record the act.

        Args:
            phase: to enter.
            present: the one that its gate was judged by.
            by: who enters it.
            why: for the record.
            switched_at: kept with it.

        Raises:
            Fatal: somebody else was faster.
        """
        details = {_SWITCHED_AT: switched_at.isoformat()} if switched_at else {}

        def work(cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
            cursor.execute(sql.SQL("LOCK TABLE {s}.phases IN EXCLUSIVE MODE").format(s=self._schema))
            cursor.execute(
                sql.SQL("SELECT phase FROM {s}.phases ORDER BY phase_id DESC LIMIT 1").format(s=self._schema)
            )
            newest = cursor.fetchone()
            if (Phase(newest[0]) if newest else Phase.PREPARE) is not present:
                raise Fatal(
                    "somebody else entered a phase at the same time.", setting="PHASE", remedy="Look at it again."
                )
            cursor.execute(
                sql.SQL("INSERT INTO {s}.phases (phase, who, why, details) VALUES (%s, %s, %s, %s)").format(
                    s=self._schema
                ),
                [phase, by, why, Jsonb(details)],
            )
            note(cursor, self._schema, by, "cutover", why, {"from": present, "to": phase, **details})

        self._in_transaction(work)


def _bad(findings: Mapping[str, int]) -> int:
    """References that are not right; those that lead nowhere because an operator waived their file are known."""
    return sum(findings.get(name, 0) for name in _BAD) - findings.get(ACCEPTED, 0)


def _path(rows: list[tuple[Any, ...]]) -> Path:
    phase, entered = Phase.PREPARE, dict[Phase, datetime]()
    switched_at: datetime | None = None
    order = list(Phase)
    for name, at, details in rows:
        phase = Phase(name)
        # Gone back: what was entered after it does not hold any more.
        entered = {earlier: when for earlier, when in entered.items() if order.index(earlier) < order.index(phase)}
        entered[phase] = at
        if phase is Phase.UPLOADS_SWITCHED and _SWITCHED_AT in details:
            switched_at = datetime.fromisoformat(details[_SWITCHED_AT])
        elif Phase.UPLOADS_SWITCHED not in entered:
            switched_at = None
    return Path(phase, entered, switched_at)
