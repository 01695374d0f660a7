"""Counts of all references on their way into the ledger, and what the newest complete one says.

As with listings, a count fills a table of its own, a row a profile and file; at its end that becomes a row a file, in
one transaction with the going of the older count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger.control import InTransaction
from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.count import Counted, Referred, Totals
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.plan_ports import Block

_Cursor = psycopg.Cursor[tuple[Any, ...]]
_BATCHES_AT_ONCE = 200  # of profiles, read from the ledger


class Counting(NamedTuple):
    """A count, under way or complete.

    Attributes:
        settings: digest of those that say what a reference is.
        after: the last profile counted; `None` before the first.
        batches: counted.
    """

    count_id: int
    began_at: datetime
    settings: str
    after: ProfileId | None
    batches: int
    totals: Totals


_COLUMNS = "count_id, began_at, settings, progress, numeric_ids"


class LedgerCounts:
    """Keeps counts; only who holds the inventory does so."""

    def __init__(self, in_transaction: InTransaction, query: Query, schema: str) -> None:
        self._in_transaction, self._query, self._schema = in_transaction, query, schema

    def newest(self) -> Counting | None:
        """The newest complete count."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM {{s}}.counts WHERE ended_at IS NOT NULL"  # noqa: S608 - of a constant
            " ORDER BY count_id DESC LIMIT 1"
        )
        return _counting(rows[0]) if rows else None

    def begin(self, settings: str, *, seconds: float) -> Counting:
        """Begin a count, or go on with one that was cut off less than so many seconds after its beginning."""

        def work(cursor: _Cursor) -> Counting:
            self._run(
                cursor,
                f"SELECT settings = %s AND began_at > now() - make_interval(secs => %s), {_COLUMNS}"  # noqa: S608 - as above
                " FROM {s}.counts WHERE ended_at IS NULL ORDER BY count_id",
                [settings, seconds],
            )
            found = None
            for same, *row in cursor.fetchall():
                if same and found is None:
                    found = _counting(row)
                else:
                    self._run(cursor, "DROP TABLE IF EXISTS {raw}", count_id=row[0])
                    self._run(cursor, "DELETE FROM {s}.counted WHERE count_id = %s", [row[0]])
                    self._run(cursor, "DELETE FROM {s}.counts WHERE count_id = %s", [row[0]])
            if found is not None:
                return found
            self._run(cursor, f"INSERT INTO {{s}}.counts (settings) VALUES (%s) RETURNING {_COLUMNS}", [settings])  # noqa: S608 - as above
            (new,) = cursor.fetchall()
            self._run(
                cursor,
                "CREATE TABLE {raw} (file_id uuid, container text, blob text, profile_id text, alive boolean,"
                " to_move boolean, too_long boolean)",
                count_id=new[0],
            )
            return _counting(new)

        counting: Counting = self._in_transaction(work)
        return counting

    def keep(self, counting: Counting, batches: Sequence[Counted], totals: Totals) -> Counting:
        """Keep what some batches of profiles refer to, with how far the count is; return it as it is then."""
        after, ordinal = batches[-1].ids[-1], counting.batches
        progress = {"after": str(after), "batches": ordinal + len(batches), "totals": totals.plain()}

        def work(cursor: _Cursor) -> None:
            self._run(
                cursor,
                "UPDATE {s}.counts SET progress = %s, numeric_ids = %s WHERE count_id = %s AND ended_at IS NULL"
                " AND coalesce((progress ->> 'batches')::integer, 0) = %s",
                [Jsonb(progress), isinstance(after, int), counting.count_id, ordinal],
            )
            if cursor.rowcount != 1:
                raise Fatal("another one went on with this count.", setting="inventory", remedy="Let it end.")
            with cursor.copy(self._sql("COPY {raw} FROM STDIN", counting.count_id)) as copy:
                for row in (row for batch in batches for row in batch.referred):
                    copy.write_row(_raw(row))
            with cursor.copy(self._sql("COPY {s}.counted FROM STDIN", counting.count_id)) as copy:
                for number, batch in enumerate(batches, start=ordinal):
                    copy.write_row((counting.count_id, number, list(map(str, batch.ids)), list(batch.files)))

        self._in_transaction(work)
        return counting._replace(after=after, batches=ordinal + len(batches), totals=totals)

    def keep_more(self, counting: Counting, referred: Sequence[Referred]) -> None:
        """Keep what rows refer to that are in no batch of profiles; twice is as good as once."""

        def work(cursor: _Cursor) -> None:
            with cursor.copy(self._sql("COPY {raw} FROM STDIN", counting.count_id)) as copy:
                for row in referred:
                    copy.write_row(_raw(row))

        self._in_transaction(work)

    def finish(self, count_id: int) -> None:
        """Make a count the newest one; older ones go."""

        def work(cursor: _Cursor) -> None:
            self._run(
                cursor,
                "CREATE TABLE {part} (LIKE {s}.referenced INCLUDING DEFAULTS, CHECK (count_id = {id}));"
                " INSERT INTO {part} SELECT file_id, min(container), min(blob), count(DISTINCT profile_id),"
                " min(profile_id), bool_or(alive), bool_or(alive AND to_move), bool_or(too_long), {id}"
                " FROM {raw} GROUP BY file_id;"
                " DROP TABLE {raw}; ALTER TABLE {part} ADD PRIMARY KEY (file_id, count_id); ANALYZE {part}",
                count_id=count_id,
            )
            self._run(cursor, "SELECT count_id FROM {s}.counts WHERE ended_at IS NOT NULL")
            for (older,) in cursor.fetchall():
                self._run(cursor, "DROP TABLE IF EXISTS {part}", count_id=older)
            self._run(
                cursor, "ALTER TABLE {s}.referenced ATTACH PARTITION {part} FOR VALUES IN ({id})", count_id=count_id
            )
            self._run(cursor, "DELETE FROM {s}.counted WHERE count_id <> %s", [count_id])
            self._run(cursor, "DELETE FROM {s}.counts WHERE ended_at IS NOT NULL")
            self._run(cursor, "UPDATE {s}.counts SET ended_at = now() WHERE count_id = %s", [count_id])

        self._in_transaction(work)

    def blocks(self, counting: Counting, *, after: ProfileId | None, profiles: int) -> Iterator[Block] | None:
        """The counted profiles above `after`, in blocks of so many; `None` where the count does not know that one."""
        start = self._place_of(counting, after)
        return None if start is None else _blocks(self._profiles(counting, *start), profiles)

    def _place_of(self, counting: Counting, after: ProfileId | None) -> tuple[int, int] | None:
        """Batch and place in it of the profile beyond `after`."""
        if after is None:
            return 0, 0
        rows = self._query(
            "SELECT ordinal, array_position(ids, %s) FROM {s}.counted WHERE count_id = %s AND %s = ANY(ids)",
            [str(after), counting.count_id, str(after)],
        )
        if rows:
            return rows[0]
        # The last planned profile is gone by now. Text ids are in the order of the app's database, and not in ours.
        if not isinstance(after, int):
            return None
        rows = self._query(
            "SELECT ordinal, (SELECT count(*) FROM unnest(ids) AS id WHERE id::bigint <= %s) FROM {s}.counted"
            " WHERE count_id = %s AND ids[array_upper(ids, 1)]::bigint > %s ORDER BY ordinal LIMIT 1",
            [after, counting.count_id, after],
        )
        return rows[0] if rows else (counting.batches, 0)

    def _profiles(self, counting: Counting, ordinal: int, place: int) -> Iterator[tuple[ProfileId, int]]:
        plain: Callable[[str], ProfileId] = int if isinstance(counting.after, int) else str
        while rows := self._query(
            "SELECT ordinal, ids, files FROM {s}.counted WHERE count_id = %s AND ordinal >= %s"
            " ORDER BY ordinal LIMIT %s",
            [counting.count_id, ordinal, _BATCHES_AT_ONCE],
        ):
            for _, ids, files in rows:
                yield from zip(map(plain, ids[place:]), files[place:], strict=True)
                place = 0
            ordinal = rows[-1][0] + 1

    def _run(self, cursor: _Cursor, text: str, values: Sequence[Any] | None = None, *, count_id: int = 0) -> None:
        cursor.execute(self._sql(text, count_id), values)

    def _sql(self, text: str, count_id: int) -> sql.Composed:
        return sql.SQL(text).format(
            s=sql.Identifier(self._schema),
            part=sql.Identifier(self._schema, f"referenced_{count_id}"),
            raw=sql.Identifier(self._schema, f"counting_{count_id}"),
            id=sql.Literal(count_id),
        )


def _blocks(profiles: Iterator[tuple[ProfileId, int]], size: int) -> Iterator[Block]:
    first: ProfileId | None = None
    last: ProfileId = 0
    held = files = 0
    for profile_id, wanted in profiles:
        first, last = profile_id if first is None else first, profile_id
        held, files = held + 1, files + wanted
        if held == size:
            yield Block(first, last, held, 0, files)
            first, held, files = None, 0, 0
    if first is not None:
        yield Block(first, last, held, 0, files)


def _counting(row: Sequence[Any]) -> Counting:
    count_id, began_at, settings, progress, numeric = row
    kept: Mapping[str, Any] = progress
    after = kept.get("after")
    return Counting(
        count_id,
        began_at,
        settings,
        int(after) if after is not None and numeric else after,
        kept.get("batches", 0),
        Totals.of(kept.get("totals", {})),
    )


def _raw(row: Referred) -> tuple[Any, ...]:
    file, profile_id, alive, to_move, too_long = row
    return file.file_id, file.container, file.blob, str(profile_id), alive, to_move, too_long
