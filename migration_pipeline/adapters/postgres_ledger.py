"""The ledger: Postgres schema `migration`. Holds names, outcomes and digests; never a query string or a secret."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger_schema import bring_up_to_date, is_there
from migration_pipeline.adapters.postgres import Connection, connect, in_transaction, translated
from migration_pipeline.core.errors import Fatal, RangeBusy
from migration_pipeline.core.model import (
    CopyResult,
    KnownFile,
    Outcome,
    ProfileId,
    ProfileRange,
    SourceFile,
    WantedFile,
)

T = TypeVar("T")
_Cursor = psycopg.Cursor[tuple[Any, ...]]

SETTING = "LEDGER_URL"
_VERIFIED = [outcome.value for outcome in Outcome if outcome.verified]
_MESSAGE_CHARACTERS = 500


class DeadLetter(NamedTuple):
    """A file that waits for an operator, with one of the profiles that need it."""

    range_key: str
    profile_id: str
    file: SourceFile
    outcome: Outcome
    message: str
    attempts: int
    waived: bool


class RangeState(NamedTuple):
    """A planned range and the counters of its newest run that ended."""

    key: str
    profiles: int
    started: bool
    running: bool
    report: Mapping[str, Any] | None
    copied: int
    bytes: int


class PostgresLedger:
    """Fulfils `Ledger`, and answers status and report. One connection, calls from any thread, one at a time."""

    def __init__(self, url: str, schema: str, *, create: bool = True) -> None:
        """Connect, and bring the tables up to date.

        Args:
            url: of the database.
            schema: in it.
            create: where there is no ledger yet: make one, or else read as an empty one and write nothing.

        Raises:
            Fatal: the server cannot be reached, or the schema cannot be written.
        """
        self._url = url
        self._schema = schema
        self._connection = connect(url, setting=SETTING)
        try:
            with translated("ledger.schema"):
                self._absent = not create and not is_there(self._connection, schema)
                if not self._absent:
                    bring_up_to_date(self._connection, schema)
        except BaseException:
            self._connection.close()
            raise

    def may_be_created(self) -> bool:
        """Whether there is a ledger, or the role may make one."""
        query = "SELECT has_database_privilege(current_database(), 'CREATE')"
        return not self._absent or self._connection.execute(query).fetchone() == (True,)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ranges(self) -> Sequence[ProfileRange]:
        rows = self._query(
            "SELECT key, range_id, after_id, last_id, profiles, numeric_ids FROM {s}.ranges ORDER BY range_id"
        )
        return [_range(row) for row in rows]

    def add_ranges(self, new: Sequence[ProfileRange]) -> None:
        rows = [
            [
                item.ordinal,
                item.key,
                None if item.after is None else str(item.after),
                str(item.last),
                isinstance(item.last, int),
                item.profiles,
            ]
            for item in new
        ]
        statement = self._sql(
            "INSERT INTO {s}.ranges (range_id, key, after_id, last_id, numeric_ids, profiles)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
        )
        try:
            with translated("ledger.schema"), self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(statement, rows)
        except errors.UniqueViolation:
            raise Fatal(
                "another planner added ranges at the same time.", setting="plan", remedy="Plan again."
            ) from None

    @contextmanager
    def hold(self, range_key: str) -> Iterator[tuple[ProfileRange, "PostgresRangeLedger"]]:
        found = self._query(
            "SELECT key, range_id, after_id, last_id, profiles, numeric_ids FROM {s}.ranges WHERE key = %s", [range_key]
        )
        if not found:
            raise Fatal(
                f"no range {range_key!r} is planned.",
                setting="partition",
                remedy="Partitions come from the asset profile_ranges, or from `migration-pipeline plan --apply`.",
            )
        bounds = _range(found[0])
        # The lock belongs to a connection of its own: it ends with this process, however that ends.
        with connect(self._url, setting=SETTING) as lock:
            name = f"migration_pipeline range {self._schema} {range_key}"
            row = lock.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name]).fetchone()
            if row != (True,):
                raise RangeBusy(range_key)
            self._query(
                "UPDATE {s}.ranges SET started_at = now(), ended_at = NULL WHERE range_id = %s", [bounds.ordinal]
            )
            yield bounds, PostgresRangeLedger(self._connection, self._schema, bounds)

    def states(self) -> Sequence[RangeState]:
        """Every range with its newest counters, in id order."""
        rows = self._query(
            "SELECT key, profiles, started_at IS NOT NULL, started_at IS NOT NULL AND ended_at IS NULL,"
            " report, copied, bytes FROM {s}.ranges ORDER BY range_id"
        )
        return [RangeState(*row) for row in rows]

    def outcomes(self) -> Sequence[tuple[str, int, int, float]]:
        """Files by outcome (`not tried` for none): count, bytes, average number of tries."""
        rows = self._query(
            "SELECT coalesce(outcome, 'not tried'), count(*), sum(size_bytes), avg(attempts)"
            " FROM {s}.files GROUP BY 1 ORDER BY 2 DESC"
        )
        return [(outcome, count, int(size), float(tries)) for outcome, count, size, tries in rows]

    def dead_letters(self, *, outcome: Outcome | None = None, limit: int = 1000) -> Sequence[DeadLetter]:
        """Failed files that some profile still needs, once each, by range."""
        rows = self._query(
            "SELECT DISTINCT ON (r.range_id, f.file_id) r.key, w.profile_id, f.container, f.blob, f.outcome,"
            " f.message, f.attempts, f.waived_at IS NOT NULL"
            " FROM {s}.files f JOIN {s}.wanted w USING (file_id) JOIN {s}.ranges r USING (range_id)"
            " WHERE f.outcome IS NOT NULL AND f.outcome NOT IN ('copied', 'already_there')"
            " AND (%(outcome)s::text IS NULL OR f.outcome = %(outcome)s)"
            " ORDER BY r.range_id, f.file_id, w.profile_id LIMIT %(limit)s",
            {"outcome": outcome, "limit": limit},
        )
        return [
            DeadLetter(key, profile, SourceFile(container, blob), Outcome(ended), message, attempts, waived)
            for key, profile, container, blob, ended, message, attempts, waived in rows
        ]

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=sql.Identifier(self._schema))

    def _query(self, text: str, parameters: Any = None) -> list[tuple[Any, ...]]:  # noqa: ANN401 - as the driver has it
        if self._absent:
            return []
        with translated("ledger.schema"), self._connection.cursor() as cursor:
            cursor.execute(self._sql(text), parameters)
            return cursor.fetchall() if cursor.description else []


class PostgresRangeLedger:
    """Fulfils `RangeLedger`. Calls may come from any thread; they take turns."""

    def __init__(self, connection: Connection, schema: str, bounds: ProfileRange) -> None:
        self._connection = connection
        self._schema = sql.Identifier(schema)
        self._bounds = bounds
        self._turn = threading.Lock()

    def want(self, wanted: Iterable[tuple[ProfileId, SourceFile]]) -> int:
        def work(cursor: _Cursor) -> int:
            cursor.execute(
                "CREATE TEMP TABLE wanted_now (profile_id text, file_id uuid, container text, blob text) ON COMMIT DROP"
            )
            with cursor.copy("COPY wanted_now FROM STDIN") as copy:
                for profile_id, file in rows:
                    copy.write_row((str(profile_id), file.file_id, file.container, file.blob))
            # In one order everywhere: two ranges that share files then wait for each other, and never in a ring.
            cursor.execute(
                self._sql(
                    "INSERT INTO {s}.files (file_id, container, blob)"
                    " SELECT DISTINCT file_id, container, blob FROM wanted_now ORDER BY file_id ON CONFLICT DO NOTHING"
                )
            )
            cursor.execute(
                self._sql(
                    "INSERT INTO {s}.wanted SELECT DISTINCT %s::integer, profile_id, file_id FROM wanted_now"
                    " ON CONFLICT DO NOTHING"
                ),
                [self._bounds.ordinal],
            )
            cursor.execute(
                self._sql(
                    "DELETE FROM {s}.wanted w USING {s}.files f WHERE w.range_id = %s AND f.file_id = w.file_id"
                    " AND (f.outcome IS NULL OR f.outcome <> ALL(%s))"
                    " AND NOT EXISTS (SELECT FROM wanted_now n"
                    " WHERE n.profile_id = w.profile_id AND n.file_id = w.file_id)"
                ),
                [self._bounds.ordinal, _VERIFIED],
            )
            cursor.execute("SELECT count(DISTINCT file_id) FROM wanted_now")
            ((files,),) = cursor.fetchall()
            return int(files)

        rows = list(wanted)  # read before the transaction begins: no other store is waited for inside it
        return self._do(work)

    def unfinished(self) -> Sequence[WantedFile]:
        rows = self._fetch(
            "SELECT container, blob, attempts FROM {s}.files WHERE file_id IN"
            " (SELECT file_id FROM {s}.wanted WHERE range_id = %(range)s)"
            " AND (outcome IS NULL OR outcome <> ALL(%(verified)s)) AND waived_at IS NULL"
        )
        return [WantedFile(SourceFile(container, blob), attempts) for container, blob, attempts in rows]

    def record(self, results: Sequence[CopyResult]) -> None:
        def work(cursor: _Cursor) -> None:
            cursor.execute(
                "CREATE TEMP TABLE ended (file_id uuid, outcome text, message text, attempts integer,"
                " size_bytes bigint, md5 bytea, etag text) ON COMMIT DROP"
            )
            with cursor.copy("COPY ended FROM STDIN") as copy:
                for item in results:
                    copy.write_row((
                        item.file.file_id, item.outcome.value, _storable(item.message), item.attempts,
                        item.size, item.md5, item.etag,
                    ))  # fmt: skip
            cursor.execute(
                self._sql(
                    "WITH locked AS (SELECT file_id FROM {s}.files WHERE file_id IN (SELECT file_id FROM ended)"
                    " ORDER BY file_id FOR UPDATE)"
                    " UPDATE {s}.files f SET outcome = e.outcome, message = e.message,"
                    " attempts = f.attempts + e.attempts, size_bytes = e.size_bytes, md5 = e.md5, etag = e.etag,"
                    " ended_at = now()"
                    " FROM ended e JOIN locked USING (file_id)"
                    " WHERE f.file_id = e.file_id AND (f.outcome IS NULL OR f.outcome <> ALL(%s))"
                ),
                [_VERIFIED],
            )
            copied = [item for item in results if item.outcome is Outcome.COPIED]
            cursor.execute(
                self._sql("UPDATE {s}.ranges SET copied = copied + %s, bytes = bytes + %s WHERE range_id = %s"),
                [len(copied), sum(item.size for item in copied), self._bounds.ordinal],
            )

        self._do(work)

    def known(self) -> Mapping[SourceFile, KnownFile]:
        rows = self._fetch(
            "SELECT container, blob, outcome, waived_at IS NOT NULL FROM {s}.files WHERE file_id IN"
            " (SELECT file_id FROM {s}.wanted WHERE range_id = %(range)s)"
        )
        return {
            SourceFile(container, blob): KnownFile(Outcome(outcome) if outcome else None, waived)
            for container, blob, outcome, waived in rows
        }

    def profiles_with_files(self) -> Sequence[ProfileId]:
        rows = self._fetch("SELECT DISTINCT profile_id FROM {s}.wanted WHERE range_id = %(range)s")
        if isinstance(self._bounds.last, int):
            return sorted(int(row[0]) for row in rows)
        return sorted(row[0] for row in rows)

    def finish(self, report: Mapping[str, object]) -> None:
        def work(cursor: _Cursor) -> None:
            cursor.execute(
                self._sql("UPDATE {s}.ranges SET ended_at = now(), report = %s WHERE range_id = %s"),
                [Jsonb(report), self._bounds.ordinal],
            )

        self._do(work)

    def _fetch(self, text: str) -> list[tuple[Any, ...]]:
        def work(cursor: _Cursor) -> list[tuple[Any, ...]]:
            cursor.execute(self._sql(text), {"range": self._bounds.ordinal, "verified": _VERIFIED})
            return cursor.fetchall()

        return self._do(work)

    def _do(self, work: Callable[[_Cursor], T]) -> T:
        with self._turn, translated("ledger.schema"):
            return in_transaction(self._connection, work)[0]

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=self._schema)


def _range(row: Sequence[Any]) -> ProfileRange:
    key, ordinal, after, last, profiles, numeric = row

    def plain(id_: str) -> ProfileId:
        return int(id_) if numeric else id_

    return ProfileRange(key, ordinal, None if after is None else plain(after), plain(last), profiles)


def _storable(message: str) -> str:
    return message.replace("\0", "\\0")[:_MESSAGE_CHARACTERS]
