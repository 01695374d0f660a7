"""Which copies nobody refers to any more, as the ledger keeps it, and the marks of those that are being erased."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.ledger import tallies
from migration_pipeline.adapters.ledger.control import InTransaction
from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.adapters.ledger.results import MAY_BE_OURS, UNSURE, record
from migration_pipeline.core.model import CopyResult, SourceFile
from migration_pipeline.core.ports import Dropped, Erased

_Cursor = psycopg.Cursor[tuple[Any, ...]]
_WANTED_MEANWHILE = "files came to be needed while their copies were being erased"


class LedgerErasing:
    """The ledger's part of erasing; see `core.ports.Ledger`."""

    def __init__(self, in_transaction: InTransaction, query: Query, schema: str) -> None:
        self._in_transaction, self._query, self._schema = in_transaction, query, sql.Identifier(schema)

    def dropped(self, *, seconds: float) -> Sequence[Dropped]:
        rows = self._query(
            "SELECT f.container, f.blob, f.etag, f.versions, array_agg(DISTINCT r.key),"  # noqa: S608 - of a constant
            " array_agg(DISTINCT w.profile_id), bool_and(r.numeric_ids), f.noted_at"
            " FROM {s}.files f JOIN {s}.wanted w USING (file_id) JOIN {s}.ranges r USING (range_id)"
            f" WHERE {MAY_BE_OURS}"
            " AND f.file_id IN (SELECT file_id FROM {s}.wanted WHERE dropped_at IS NOT NULL) GROUP BY f.file_id"
            " HAVING bool_and(w.dropped_at IS NOT NULL)"
            " AND max(w.dropped_at) <= now() - make_interval(secs => %(seconds)s)"
            " ORDER BY array_agg(DISTINCT r.key)",
            {"seconds": seconds, "unsure": UNSURE},
        )
        return [
            Dropped(SourceFile(*name), etag, versions, keys, [int(i) if numeric else i for i in ids], noted_at)
            for *name, etag, versions, keys, ids, numeric, noted_at in rows
        ]

    def begin(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        ids = [file.file_id for file in files]

        def work(cursor: _Cursor) -> Sequence[SourceFile]:
            # Waits for ranges that are just about to want one of them: their new rows refer to these.
            cursor.execute(
                self._sql("SELECT FROM {s}.files WHERE file_id = ANY(%s) ORDER BY file_id FOR UPDATE"), [ids]
            )
            cursor.execute(
                self._sql(
                    "UPDATE {s}.files f SET erasing = true WHERE file_id = ANY(%s) AND NOT EXISTS"
                    " (SELECT FROM {s}.wanted w WHERE w.file_id = f.file_id AND w.dropped_at IS NULL)"
                    " RETURNING container, blob"
                ),
                [ids],
            )
            return [SourceFile(*row) for row in cursor.fetchall()]

        return self._files(work)

    def still(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        def work(cursor: _Cursor) -> Sequence[SourceFile]:
            cursor.execute(
                self._sql(
                    "SELECT container, blob FROM {s}.files f WHERE file_id = ANY(%s) AND erasing ORDER BY file_id"
                    " FOR UPDATE"
                ),
                [[file.file_id for file in files]],
            )
            return [SourceFile(*row) for row in cursor.fetchall()]

        return self._files(work)

    def spare(self, files: Sequence[SourceFile]) -> None:
        self._in_transaction(lambda cursor: self._spare(cursor, files))

    def brought_back(self, results: Sequence[CopyResult]) -> None:
        def work(cursor: _Cursor) -> None:
            self._spare(cursor, [item.file for item in results])
            record(cursor, self._schema, tallies.NOBODY, [item for item in results if item.renewed is not None])

        self._in_transaction(work)

    def _spare(self, cursor: _Cursor, files: Sequence[SourceFile]) -> None:
        ids = [file.file_id for file in files]
        # Some of it may be gone: whoever is to rely on it looks first.
        cursor.execute(
            self._sql("UPDATE {s}.files SET erasing = false, proven_at = NULL WHERE file_id = ANY(%s)"), [ids]
        )
        self._ask_for(cursor, ids)

    def _ask_for(self, cursor: _Cursor, file_ids: Sequence[Any]) -> None:
        """Ask for runs of ranges that have come to want these while nobody could rely on them."""
        cursor.execute(
            self._sql(
                "UPDATE {s}.ranges SET requested_at = now(), requested_why = %s WHERE requested_at IS NULL AND range_id"
                " IN (SELECT range_id FROM {s}.wanted WHERE file_id = ANY(%s) AND dropped_at IS NULL)"
            ),
            [_WANTED_MEANWHILE, list(file_ids)],
        )

    def erased(self, removed: Sequence[Erased]) -> None:
        def work(cursor: _Cursor) -> None:
            for item in removed:
                file = item.dropped.file
                cursor.execute(
                    self._sql(
                        "INSERT INTO {s}.erased (file_id, container, blob, key, etag, md5, removed, profiles)"
                        " SELECT file_id, container, blob, %s, etag, md5, %s, %s FROM {s}.files"
                        # Nothing was there, or nothing of ours: there is nothing to tell.
                        " WHERE file_id = %s AND (%s OR etag IS NOT NULL)"
                    ),
                    [
                        item.key, item.removed, [str(id_) for id_ in item.dropped.profiles], file.file_id,
                        item.removed > 0,
                    ],
                )  # fmt: skip
                cursor.execute(
                    self._sql("DELETE FROM {s}.wanted WHERE file_id = %s AND dropped_at IS NOT NULL"), [file.file_id]
                )
                tallies.take_out(cursor, self._schema, tallies.NOBODY, [file.file_id])
                # Perhaps a range wants it again by now: to it, the file was never copied.
                cursor.execute(
                    self._sql(
                        "UPDATE {s}.files SET outcome = NULL, message = '', size_bytes = 0, md5 = NULL, etag = NULL,"
                        " source_etag = NULL, ours = false, versions = '{{}}', replaces = NULL, erasing = false,"
                        # A run may have taken the mark away, and copied it again.
                        " proven_at = NULL, noted_at = now() WHERE file_id = %s AND erasing"
                    ),
                    [file.file_id],
                )
                cursor.execute(
                    self._sql(
                        "DELETE FROM {s}.files f WHERE file_id = %s"
                        " AND NOT EXISTS (SELECT FROM {s}.wanted w WHERE w.file_id = f.file_id)"
                    ),
                    [file.file_id],
                )
                tallies.put_in(cursor, self._schema, tallies.NOBODY, [file.file_id])
                cursor.execute(
                    self._sql("UPDATE {s}.removed SET ours = NULL, versions = NULL WHERE file_id = %s"), [file.file_id]
                )
            self._ask_for(cursor, [item.dropped.file.file_id for item in removed])

        self._in_transaction(work)

    def _files(self, work: Callable[[_Cursor], Sequence[SourceFile]]) -> Sequence[SourceFile]:
        found: Sequence[SourceFile] = self._in_transaction(work)
        return found

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=self._schema)
