"""The ledger's record of orphans: blobs that nobody refers to, and that are copied all the same. Never a reference."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from migration_pipeline.adapters.ledger.control import AT_WORK_SECONDS, HEAR, InTransaction, said
from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.control import Heard
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile

_Cursor = psycopg.Cursor[tuple[Any, ...]]
_MESSAGE_CHARACTERS = 500
_VERIFIED = [outcome.value for outcome in Outcome if outcome.verified]


class OrphanCopies(NamedTuple):
    """Orphans by what became of them."""

    outcome: Outcome
    files: int
    bytes: int


class LedgerOrphans:
    """Which orphans are still to be copied, and what became of the others. Fulfils `Ear` as well."""

    def __init__(self, in_transaction: InTransaction, query: Query, schema: str) -> None:
        self._in_transaction, self._query, self._schema = in_transaction, query, sql.Identifier(schema)

    def left(
        self, containers: Sequence[str], *, before: datetime, after: str | None, limit: int
    ) -> Sequence[tuple[str, WantedFile]]:
        """Orphans, written before a moment, that no verified copy is known of; in the order of their ids.

        One that was written anew since it was copied is not among them: S3 keeps what it has.
        """
        rows = self._query(
            "SELECT i.file_id::text, i.container, i.blob, coalesce(o.attempts, 0) FROM {s}.inventory i"
            " LEFT JOIN {s}.orphans o ON o.file_id = i.file_id"
            " WHERE NOT EXISTS (SELECT FROM {s}.referenced r WHERE r.file_id = i.file_id)"
            " AND i.container = ANY(%(containers)s) AND i.written_at < %(before)s"
            " AND (o.outcome IS NULL OR o.outcome <> ALL(%(verified)s))"
            " AND (%(after)s::uuid IS NULL OR i.file_id > %(after)s::uuid) ORDER BY i.file_id LIMIT %(limit)s",
            {"containers": list(containers), "before": before, "after": after, "limit": limit, "verified": _VERIFIED},
        )
        return [(file_id, WantedFile(SourceFile(container, blob), tries)) for file_id, container, blob, tries in rows]

    def record(self, results: Sequence[CopyResult], keys: Sequence[str]) -> None:
        """Keep outcomes and evidence, each with the key that the copy is under."""

        def work(cursor: _Cursor) -> None:
            cursor.executemany(
                sql.SQL(
                    "INSERT INTO {s}.orphans AS o (file_id, container, blob, key, outcome, message, size_bytes, md5,"
                    " etag, source_etag, attempts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " ON CONFLICT (file_id) DO UPDATE SET key = excluded.key, outcome = excluded.outcome,"
                    " message = excluded.message, size_bytes = excluded.size_bytes, md5 = excluded.md5,"
                    " etag = excluded.etag, source_etag = excluded.source_etag,"
                    " attempts = o.attempts + excluded.attempts, ended_at = now()"
                ).format(s=self._schema),
                [
                    [
                        item.file.file_id, item.file.container, item.file.blob, key, item.outcome.value,
                        item.message.replace("\0", "\\0")[:_MESSAGE_CHARACTERS], item.size, item.md5, item.etag,
                        item.source_etag, item.attempts,
                    ]
                    for item, key in zip(results, keys, strict=True)
                ],
            )  # fmt: skip

        self._in_transaction(work)

    def outcomes(self) -> Sequence[OrphanCopies]:
        """What became of all orphans that were tried so far."""
        rows = self._query("SELECT outcome, count(*), sum(size_bytes) FROM {s}.orphans GROUP BY 1 ORDER BY 2 DESC, 1")
        return [OrphanCopies(Outcome(outcome), files, int(size)) for outcome, files, size in rows]

    def hear(self) -> Heard:
        """What operators said; this run counts as one more beside those that migrate ranges."""
        ((control, runs, *_),) = self._query(HEAR, {"seconds": AT_WORK_SECONDS})
        # How the ranges' files fare is the affair of their runs, which stop everybody where it must be.
        return Heard(said(control), runs + 1, 0, 0)

    def trip(self) -> str:
        """Never called: orphans that fail stop nobody."""
        raise AssertionError("nothing was heard that the breaker could trip for")
