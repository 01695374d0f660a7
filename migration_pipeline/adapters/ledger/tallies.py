"""Files counted by outcome and size, as they change: no question of how many needs to look at all of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from migration_pipeline.adapters.ledger.overview import Query

_Cursor = psycopg.Cursor[tuple[Any, ...]]

NOBODY = -1
"""Whose tallies they are where no range is held; they count only when summed over all ranges."""

# The place of a number's highest bit: exact, and a tenth of a logarithm's time.
_POWER = "CASE WHEN size_bytes > 0 THEN 64 - position(B'1' IN size_bytes::bit(64)) ELSE 0 END"
_CHANGE = f"""
    INSERT INTO {{s}}.tallies AS t (range_id, outcome, power, files, bytes, attempts)
    SELECT %(range)s::integer, coalesce(outcome, ''), {_POWER}, %(sign)s * count(*), %(sign)s * sum(size_bytes),
        %(sign)s * sum(attempts)
    FROM {{s}}.files WHERE file_id = ANY(%(files)s) GROUP BY 2, 3 ORDER BY 2, 3
    ON CONFLICT (range_id, outcome, power) DO UPDATE SET files = t.files + excluded.files,
        bytes = t.bytes + excluded.bytes, attempts = t.attempts + excluded.attempts
"""  # noqa: S608 - of constants

FILL = f"""
    INSERT INTO {{s}}.tallies
    SELECT {NOBODY}, coalesce(outcome, ''), {_POWER}, count(*), sum(size_bytes), sum(attempts)
    FROM {{s}}.files GROUP BY 2, 3
"""  # noqa: S608 - of constants
"""Counts all files of a ledger that had no tallies."""


class Size(NamedTuple):
    """Files with proven copies, by size.

    Attributes:
        least: bytes, a power of two; the files have less than twice that. 1 holds empty files, too.
    """

    least: int
    files: int
    bytes: int


def take_out(cursor: _Cursor, schema: sql.Identifier, range_id: int, file_ids: Sequence[Any]) -> None:
    """Lock files that are about to be changed, and count them no more.

    Whoever changes a file calls this before and `put_in` afterwards, in one transaction.
    """
    cursor.execute(
        # In one order everywhere: two ranges that share files then wait for each other, and never in a ring.
        sql.SQL("SELECT FROM {s}.files WHERE file_id = ANY(%s) ORDER BY file_id FOR UPDATE").format(s=schema),
        [file_ids],
    )
    _change(cursor, schema, range_id, file_ids, -1)


def put_in(cursor: _Cursor, schema: sql.Identifier, range_id: int, file_ids: Sequence[Any]) -> None:
    """Count files as they are now."""
    _change(cursor, schema, range_id, file_ids, +1)


def _change(cursor: _Cursor, schema: sql.Identifier, range_id: int, file_ids: Sequence[Any], sign: int) -> None:
    cursor.execute(sql.SQL(_CHANGE).format(s=schema), {"range": range_id, "files": file_ids, "sign": sign})


class LedgerTallies:
    """Reads them."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def outcomes(self) -> Sequence[tuple[str, int, int, float]]:
        """Files by outcome (`not tried` for none): count, bytes, average number of tries; the most frequent first."""
        rows = self._query(
            "SELECT coalesce(nullif(outcome, ''), 'not tried'), sum(files), sum(bytes), sum(attempts) / sum(files)"
            " FROM {s}.tallies GROUP BY 1 HAVING sum(files) > 0 ORDER BY 2 DESC, 1"
        )
        return [(outcome, int(files), int(size), float(tries)) for outcome, files, size, tries in rows]

    def sizes(self) -> Sequence[Size]:
        """Files with proven copies by size, the smallest first."""
        rows = self._query(
            "SELECT power, sum(files), sum(bytes) FROM {s}.tallies WHERE outcome IN ('copied', 'already_there')"
            " GROUP BY 1 HAVING sum(files) > 0 ORDER BY 1"
        )
        return [Size(2**power, int(files), int(size)) for power, files, size in rows]
