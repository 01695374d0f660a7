"""Listings on their way into the ledger.

A listing fills a table of its own, in transactions that also keep how far it is. At its end the table gets its indexes
and becomes a part of `inventory`, in one transaction with the going of what older listings saw in the same containers:
nobody ever sees half a listing, and one that is cut off, or refused, changes nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.azure.inventory_rows import COLUMNS, Rows, as_csv
from migration_pipeline.adapters.ledger.control import InTransaction
from migration_pipeline.adapters.postgres.connection import Connection
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.inventory import Listed

_Cursor = psycopg.Cursor[tuple[Any, ...]]
_COPIED = COLUMNS[:-1]


class Begun(NamedTuple):
    """A listing under way, perhaps one that was cut off before."""

    listing_id: int
    began_at: datetime
    progress: Mapping[str, Any]
    blobs: int
    skipped: Mapping[str, int]


class LedgerListings:
    """Keeps listings. Hold it while one is under way: there is one at a time, on all machines."""

    def __init__(self, in_transaction: InTransaction, connect: Callable[[], Connection], schema: str) -> None:
        self._in_transaction, self._connect, self._schema = in_transaction, connect, schema

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other inventory out, on any machine.

        Raises:
            Fatal: there is one under way.
        """
        # The lock belongs to a connection of its own: it ends with this process, however that ends.
        with self._connect() as lock:
            row = lock.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"migration_pipeline inventory {self._schema}"]
            ).fetchone()
            if row != (True,):
                raise Fatal("another one is under way.", setting="inventory", remedy="Let it end, or end it.")
            try:
                yield
            finally:
                with suppress(psycopg.Error):
                    lock.execute("SELECT pg_advisory_unlock_all()")

    def begin(
        self, source: str, containers: Sequence[str], *, began_at: datetime | None = None, seconds: float | None = None
    ) -> Begun:
        """Begin a listing, or go on with the same one where it was cut off; any other unfinished one is forgotten.

        Args:
            source: what is read.
            containers: that it will cover.
            began_at: of a report; now, where none is given.
            seconds: an unfinished listing older than that is not gone on with.
        """

        def work(cursor: _Cursor) -> Begun:
            self._run(
                cursor,
                "SELECT listing_id, began_at, progress, blobs, skipped, source = %s AND containers = %s"
                " AND (%s::timestamptz IS NULL OR began_at = %s)"
                " AND (%s::float8 IS NULL OR began_at > now() - make_interval(secs => %s))"
                " FROM {s}.listings WHERE ended_at IS NULL ORDER BY listing_id",
                [source, list(containers), began_at, began_at, seconds, seconds],
            )
            found = None
            for *listing, same in cursor.fetchall():
                if same and found is None:
                    found = Begun(*listing)
                else:
                    self._forget(cursor, listing[0])
            return found or self._new(cursor, source, containers, began_at)

        begun: Begun = self._in_transaction(work)
        return begun

    def _new(self, cursor: _Cursor, source: str, containers: Sequence[str], began_at: datetime | None) -> Begun:
        self._run(
            cursor,
            "INSERT INTO {s}.listings (began_at, source, containers) VALUES (coalesce(%s, now()), %s, %s)"
            " RETURNING listing_id, began_at, progress, blobs, skipped",
            [began_at, source, list(containers)],
        )
        (row,) = cursor.fetchall()
        begun = Begun(*row)
        # The check is what spares Postgres a look at every row when the table is attached.
        self._run(
            cursor,
            "CREATE TABLE {part} (LIKE {s}.inventory INCLUDING DEFAULTS, CHECK (listing_id = {id}));"
            " ALTER TABLE {part} ALTER listing_id SET DEFAULT {id}",
            listing_id=begun.listing_id,
        )
        return begun

    def keep(self, listing_id: int, rows: Rows, *, after: Mapping[str, Any]) -> None:
        """Keep some blobs and how far the listing is, in one transaction.

        Args:
            listing_id: of the listing.
            rows: the blobs.
            after: how far it was before, so that a process that was cut off from its lock keeps nothing twice.
        """

        def work(cursor: _Cursor) -> None:
            self._run(
                cursor,
                "UPDATE {s}.listings SET progress = %s, blobs = blobs + %s, bytes = bytes + %s, skipped = %s"
                " WHERE listing_id = %s AND ended_at IS NULL AND progress = %s",
                [Jsonb(rows.progress), rows.blobs, rows.bytes, Jsonb(dict(rows.skipped)), listing_id, Jsonb(after)],
            )
            if cursor.rowcount != 1:
                raise Fatal("another one went on with this listing.", setting="inventory", remedy="Let it end.")
            self._copy(cursor, listing_id, rows.text)

        self._in_transaction(work)

    def add(self, listing_id: int, blobs: Sequence[Listed]) -> None:
        """Add blobs that a complete listing had not seen yet."""

        def work(cursor: _Cursor) -> None:
            self._copy(cursor, listing_id, as_csv(blobs))
            self._run(
                cursor,
                "UPDATE {s}.listings SET blobs = blobs + %s, bytes = bytes + %s WHERE listing_id = %s",
                [len(blobs), sum(blob.size for blob in blobs), listing_id],
            )

        self._in_transaction(work)

    def _copy(self, cursor: _Cursor, listing_id: int, text: bytes) -> None:
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
            self._part(listing_id), sql.SQL(", ").join(map(sql.Identifier, _COPIED))
        )
        with cursor.copy(statement) as copy:
            copy.write(text)

    def forget(self, listing_id: int, container: str | None = None, progress: Mapping[str, Any] | None = None) -> None:
        """Forget an unfinished listing, or what it saw of one container, being `progress` far then."""

        def work(cursor: _Cursor) -> None:
            if container is None:
                self._forget(cursor, listing_id)
                return
            self._run(cursor, "DELETE FROM {part} WHERE container = %s", [container], listing_id=listing_id)
            self._run(
                cursor,
                "UPDATE {s}.listings SET progress = %s, (blobs, bytes) ="
                " (SELECT count(*), coalesce(sum(size_bytes), 0) FROM {part}) WHERE listing_id = %s",
                [Jsonb(progress or {}), listing_id],
                listing_id=listing_id,
            )

        self._in_transaction(work)

    def _forget(self, cursor: _Cursor, listing_id: int) -> None:
        self._run(cursor, "DROP TABLE IF EXISTS {part}", listing_id=listing_id)
        self._run(cursor, "DELETE FROM {s}.listings WHERE listing_id = %s AND ended_at IS NULL", [listing_id])

    def finish(self, listing_id: int) -> None:
        """Make a listing the inventory of the containers that it covers.

        Raises:
            Fatal: it names a blob twice.
        """

        def work(cursor: _Cursor) -> None:
            self._run(cursor, "SELECT containers FROM {s}.listings WHERE listing_id = %s FOR UPDATE", [listing_id])
            ((containers,),) = cursor.fetchall()
            # Built now, in one go: filling them row by row would take many times as long.
            self._run(
                cursor,
                "ALTER TABLE {part} ADD PRIMARY KEY (file_id, listing_id); CREATE INDEX ON {part} (written_at);"
                " ANALYZE {part}",
                listing_id=listing_id,
            )
            self._replace_older(cursor, containers)
            self._run(
                cursor, "ALTER TABLE {s}.inventory ATTACH PARTITION {part} FOR VALUES IN ({id})", listing_id=listing_id
            )
            self._run(cursor, "UPDATE {s}.listings SET ended_at = now() WHERE listing_id = %s", [listing_id])

        try:
            self._in_transaction(work)
        except errors.UniqueViolation:
            raise Fatal(
                f"it names {self._twice(listing_id)} twice.",
                setting="inventory",
                remedy="Give the files of one report alone, each once.",
            ) from None

    def _replace_older(self, cursor: _Cursor, containers: Collection[str]) -> None:
        self._run(
            cursor,
            "SELECT listing_id, containers FROM {s}.listings WHERE ended_at IS NOT NULL"
            " AND to_regclass(format('%%I.%%I', %s::text, 'inventory_' || listing_id)) IS NOT NULL",
            [self._schema],
        )
        for older, covered in cursor.fetchall():
            if set(covered) <= set(containers):
                self._run(cursor, "DROP TABLE {part}", listing_id=older)
            else:
                self._run(cursor, "DELETE FROM {part} WHERE container = ANY(%s)", [list(containers)], listing_id=older)

    def _twice(self, listing_id: int) -> str:
        def work(cursor: _Cursor) -> str:
            self._run(
                cursor,
                "SELECT container, blob FROM {part} GROUP BY container, blob HAVING count(*) > 1 LIMIT 1",
                listing_id=listing_id,
            )
            return "/".join(cursor.fetchall()[0])

        name: str = self._in_transaction(work)
        return name

    def _run(self, cursor: _Cursor, text: str, values: Sequence[Any] | None = None, *, listing_id: int = 0) -> None:
        # Values go into the text here, for two statements at once take none from the driver, and none is a name.
        cursor.execute(
            sql.SQL(text).format(
                s=sql.Identifier(self._schema), part=self._part(listing_id), id=sql.Literal(listing_id)
            ),
            values,
        )

    def _part(self, listing_id: int) -> sql.Identifier:
        return sql.Identifier(self._schema, f"inventory_{listing_id}")
