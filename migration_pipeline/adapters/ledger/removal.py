"""Blobs removed from the source, as the ledger keeps them: noted before anything is done, and again once it is done."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.ledger.control import InTransaction, note
from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.adapters.ledger.results import KNOWN, VERIFIED, known_file
from migration_pipeline.adapters.postgres.connection import connect
from migration_pipeline.core.errors import Fatal, RangeLost
from migration_pipeline.core.model import ProfileId, SourceFile
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.removal_ports import Begun, Candidate, How, Proven, RangeState, RemovedTotals

_Cursor = psycopg.Cursor[tuple[Any, ...]]
Held = Callable[[Sequence[str]], set[str]]


class LedgerRemoval:
    """Fulfils `RemovalLedger`."""

    def __init__(self, in_transaction: InTransaction, query: Query, url: str, schema: str, held: Held) -> None:
        self._in_transaction, self._query, self._url = in_transaction, query, url
        self._name, self._schema = f"migration_pipeline removal {schema}", sql.Identifier(schema)
        self.held = held

    def alone(self) -> AbstractContextManager[None]:
        return self._locked("", "somebody else removes blobs from the source, or rolls ranges back, at this moment.")

    def kept(self) -> AbstractContextManager[None]:
        """Have nobody remove blobs meanwhile; any number may ask for that at once."""
        return self._locked("_shared", "blobs are being removed from the source at this moment.")

    @contextmanager
    def _locked(self, kind: str, taken: str) -> Iterator[None]:
        # The lock belongs to a connection of its own: it ends with this process, however that ends.
        with connect(self._url, setting="LEDGER_URL") as lock:
            query = f"SELECT pg_try_advisory_lock{kind}(hashtextextended(%s, 0))"
            if lock.execute(query, [self._name]).fetchone() != (True,):
                raise Fatal(taken, setting="decommission", remedy="Let that run end, or end it.")
            try:
                yield
            finally:
                with suppress(psycopg.Error):
                    lock.execute("SELECT pg_advisory_unlock_all()")

    def note(self, *, who: str, why: str, details: Mapping[str, object]) -> None:
        self._in_transaction(lambda cursor: note(cursor, self._schema, who, "decommission", why, details))

    def states(self, range_keys: Collection[str]) -> Mapping[str, RangeState]:
        rows = self._query(
            "SELECT key, audited_at, coalesce(findings, '{{}}'), started_at, ended_at, rolled_back_at IS NOT NULL,"
            " CASE WHEN requested_at IS NOT NULL THEN coalesce(requested_why, '') END"
            " FROM {s}.ranges WHERE key = ANY(%s)",
            [list(range_keys)],
        )
        return {row[0]: RangeState(*row[1:]) for row in rows}

    def candidates(self, range_key: str, how: How) -> Sequence[Candidate]:
        rows = self._query(
            f"SELECT container, blob, erasing, {KNOWN},"  # noqa: S608 - of a constant
            " (SELECT array_agg(DISTINCT r.key ORDER BY r.key) FROM {s}.wanted w JOIN {s}.ranges r USING (range_id)"
            " WHERE w.file_id = f.file_id) FROM {s}.files f"
            " JOIN LATERAL (SELECT range_id FROM {s}.ranges WHERE key = %(range)s) o ON true"
            " WHERE file_id IN (SELECT file_id FROM {s}.wanted WHERE range_id = o.range_id)"
            " AND NOT EXISTS (SELECT FROM {s}.wanted w WHERE w.file_id = f.file_id AND w.range_id < o.range_id)"
            # A blob that was archived may be deleted later, one that was deleted and is there again is another one.
            " AND NOT EXISTS (SELECT FROM {s}.removed m WHERE m.file_id = f.file_id AND m.ended_at IS NOT NULL"
            " AND m.source_etag = f.source_etag AND m.how IN ('delete', %(how)s)) ORDER BY container, blob",
            {"range": range_key, "how": how},
        )
        return [
            Candidate(SourceFile(container, blob), known_file(*known), erasing, ranges)
            for container, blob, erasing, *known, ranges in rows
        ]

    def needed_by(self, files: Collection[SourceFile]) -> Mapping[SourceFile, Sequence[str]]:
        rows = self._query(
            "SELECT f.container, f.blob, array_agg(DISTINCT r.key) FROM {s}.files f JOIN {s}.wanted w USING (file_id)"
            " JOIN {s}.ranges r USING (range_id) WHERE f.file_id = ANY(%s) GROUP BY f.file_id",
            [_ids(files)],
        )
        return {SourceFile(container, blob): keys for container, blob, keys in rows}

    def wanters(self, files: Collection[SourceFile]) -> Sequence[ProfileId]:
        rows = self._query(
            "SELECT DISTINCT w.profile_id, r.numeric_ids FROM {s}.wanted w JOIN {s}.ranges r USING (range_id)"
            " WHERE w.file_id = ANY(%s)",
            [_ids(files)],
        )
        return [int(id_) if numeric else id_ for id_, numeric in rows]

    def begin(self, proven: Sequence[Proven], how: How, *, who: str, fence: Fence) -> set[SourceFile]:
        def work(cursor: _Cursor) -> set[SourceFile]:
            cursor.execute(
                self._sql("SELECT FROM {s}.ranges WHERE range_id = %s AND epoch = %s FOR NO KEY UPDATE"),
                [fence.range_id, fence.epoch],
            )
            if not cursor.rowcount:
                raise RangeLost(fence.range_key)
            begun = set[SourceFile]()
            for item in proven:
                cursor.execute(
                    self._sql(_BEGIN),
                    {
                        "file": item.file.file_id, "key": item.key, "target_etag": item.target_etag, "who": who,
                        "how": how, "verified": VERIFIED, "size": item.size, "md5": item.md5,
                        "source_etag": item.source_etag, "range": fence.range_id,
                    },
                )  # fmt: skip
                if cursor.rowcount:
                    begun.add(item.file)
            return begun

        found: set[SourceFile] = self._in_transaction(work)
        return found

    def end(self, files: Collection[SourceFile]) -> None:
        self._query(
            "UPDATE {s}.removed SET ended_at = now() WHERE file_id = ANY(%s) AND ended_at IS NULL", [_ids(files)]
        )

    def withdraw(self, files: Collection[SourceFile]) -> None:
        self._query("DELETE FROM {s}.removed WHERE file_id = ANY(%s) AND ended_at IS NULL", [_ids(files)])

    def begun(self) -> Sequence[Begun]:
        rows = self._query(
            "SELECT r.key, m.container, m.blob, m.source_etag, m.how"
            " FROM {s}.removed m JOIN {s}.ranges r USING (range_id)"
            " WHERE m.ended_at IS NULL ORDER BY range_id, removed_id"
        )
        return [Begun(key, SourceFile(container, blob), etag, How(how)) for key, container, blob, etag, how in rows]

    def removed(self, files: Collection[SourceFile]) -> set[SourceFile]:
        """Those of the files whose blob was removed from the source, or is about to be."""
        rows = self._query("SELECT container, blob FROM {s}.removed WHERE file_id = ANY(%s)", [_ids(files)])
        return {SourceFile(*row) for row in rows}

    def totals(self) -> RemovedTotals:
        rows = self._query(
            "SELECT count(*) FILTER (WHERE how = 'delete' AND ended_at IS NOT NULL),"
            " count(*) FILTER (WHERE how = 'archive' AND ended_at IS NOT NULL),"
            " coalesce(sum(size_bytes) FILTER (WHERE ended_at IS NOT NULL), 0)::bigint,"
            " count(*) FILTER (WHERE ended_at IS NULL), min(ended_at), max(ended_at) FROM {s}.removed"
        )
        return RemovedTotals(*rows[0]) if rows else RemovedTotals()

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=self._schema)


# Only where the ledger still vouches for the very bytes that were proven, and nobody is erasing the copy.
_BEGIN = """
    INSERT INTO {s}.removed
        (file_id, range_id, container, blob, key, size_bytes, md5, source_etag, target_etag, who, how)
    SELECT file_id, %(range)s, container, blob, %(key)s, size_bytes, md5, source_etag, %(target_etag)s, %(who)s, %(how)s
    FROM {s}.files WHERE file_id = %(file)s AND outcome = ANY(%(verified)s) AND NOT erasing AND waived_at IS NULL
        AND size_bytes = %(size)s AND md5 = %(md5)s AND source_etag = %(source_etag)s
    ON CONFLICT DO NOTHING
"""


def _ids(files: Collection[SourceFile]) -> list[Any]:
    return [file.file_id for file in files]
