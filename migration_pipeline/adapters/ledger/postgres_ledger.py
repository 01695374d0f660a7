"""The ledger: Postgres schema `migration`. Holds names, outcomes and digests; never a query string or a secret."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger import groups
from migration_pipeline.adapters.ledger.archive import LedgerArchive
from migration_pipeline.adapters.ledger.control import LedgerControl
from migration_pipeline.adapters.ledger.counts import LedgerCounts
from migration_pipeline.adapters.ledger.erasing import LedgerErasing
from migration_pipeline.adapters.ledger.exports import LedgerExports
from migration_pipeline.adapters.ledger.found import LedgerFound
from migration_pipeline.adapters.ledger.inventory import LedgerInventory
from migration_pipeline.adapters.ledger.listings import LedgerListings
from migration_pipeline.adapters.ledger.orphans import LedgerOrphans
from migration_pipeline.adapters.ledger.overview import Overview
from migration_pipeline.adapters.ledger.phases import LedgerPhases
from migration_pipeline.adapters.ledger.postgres_range import PostgresRangeLedger
from migration_pipeline.adapters.ledger.removal import LedgerRemoval
from migration_pipeline.adapters.ledger.results import KNOWN, known_file
from migration_pipeline.adapters.ledger.schema import bring_up_to_date, is_there
from migration_pipeline.adapters.ledger.status import is_done, is_incomplete
from migration_pipeline.adapters.ledger.tallies import LedgerTallies
from migration_pipeline.adapters.postgres.connection import connect, in_transaction, shares_sessions, translated
from migration_pipeline.core.errors import Fatal, RangeBusy
from migration_pipeline.core.model import CopyResult, KnownFile, ProfileId, ProfileRange, SourceFile
from migration_pipeline.core.ports import Dropped, Erased
from migration_pipeline.core.spent import Expected

SETTING = "LEDGER_URL"
POOLED = "goes through a pooler that gives sessions to single transactions, so that two runs could hold one range."
UNPOOLED = "Give LEDGER_URL the server's own address, or a pool in session mode; DATABASE_URL may stay as it is."
_ANSWERS = (errors.UniqueViolation, errors.ForeignKeyViolation)
"""What somebody who writes the ledger at the same time leads to; callers look for it."""
_EXPECTED = "what is expected"  # what the ledger keeps it under
T = TypeVar("T")


class Request(NamedTuple):
    """A range that a run is asked for, since when, and why."""

    range_key: str
    at: datetime
    why: str


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
        self._keeps_sessions = False  # as far as is known
        self.overview = Overview(self.query)
        self.tallies = LedgerTallies(self.query)
        self.control = LedgerControl(self._in_transaction, self.query, schema)
        self.phases = LedgerPhases(self._in_transaction, self.query, schema)
        self.inventory = LedgerInventory(self.query)
        self.listings = LedgerListings(self._in_transaction, lambda: connect(url, setting=SETTING), schema)
        self.counts = LedgerCounts(self._in_transaction, self.query, schema)
        self.found = LedgerFound(self.query)
        self.orphans = LedgerOrphans(self._in_transaction, self.query, schema)
        self._erasing = LedgerErasing(self._in_transaction, self.query, schema)
        self.removal = LedgerRemoval(self._in_transaction, self.query, url, schema, self.held)
        self.exports = LedgerExports(self.query, self._stream)
        self.archive = LedgerArchive(self.query, self._stream, self.removal)
        self._connection = connect(url, setting=SETTING)
        try:
            with translated("ledger.schema"):
                self._connection.execute("SET timezone TO 'UTC'")
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

    def keeps_sessions(self) -> bool:
        """Whether the locks by which runs hold their ranges hold anything."""
        with connect(self._url, setting=SETTING) as other:
            return not shares_sessions(other, self._connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ranges(self) -> Sequence[ProfileRange]:
        rows = self.query(
            "SELECT key, range_id, after_id, last_id, profiles, numeric_ids FROM {s}.ranges ORDER BY range_id"
        )
        return [_range(row) for row in rows]

    def not_understood(self) -> Sequence[ProfileRange]:
        rows = self.query(
            "SELECT key, range_id, after_id, last_id, profiles, numeric_ids FROM {s}.ranges"
            " WHERE coalesce((report->>'embedded')::bigint, 0) + coalesce((report->>'unparsable')::bigint, 0) > 0"
            " ORDER BY range_id"
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
            with (
                translated("ledger.schema", but=_ANSWERS),
                self._connection.transaction(),
                self._connection.cursor() as cursor,
            ):
                groups.make_tables(cursor, sql.Identifier(self._schema), [item.ordinal for item in new])
                cursor.executemany(statement, rows)
        except errors.UniqueViolation:
            raise Fatal(
                "another planner added ranges at the same time.", setting="plan", remedy="Plan again."
            ) from None

    @contextmanager
    def hold(self, range_key: str, *, run: bool = True) -> Iterator[tuple[ProfileRange, PostgresRangeLedger]]:
        found = self.query(
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
            name = [self._lock_name(range_key)]
            row = lock.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", name).fetchone()
            if row != (True,):
                raise RangeBusy(range_key)
            if not self._keeps_sessions:
                if shares_sessions(lock, self._connection):
                    raise Fatal(POOLED, setting=SETTING, remedy=UNPOOLED)
                self._keeps_sessions = True
            ((epoch,),) = self.query(
                "UPDATE {s}.ranges SET epoch = epoch + 1 WHERE range_id = %s RETURNING epoch", [bounds.ordinal]
            )
            if run:
                self.query(
                    "UPDATE {s}.ranges SET started_at = now(), ended_at = NULL, requested_at = NULL,"
                    " requested_why = NULL WHERE range_id = %s",
                    [bounds.ordinal],
                )
            try:
                yield bounds, PostgresRangeLedger(self._connection, self._schema, bounds, epoch, lock, self.held)
            finally:
                # Closing alone gives the lock back a moment later, and the next in turn would find the range busy.
                with suppress(psycopg.Error):
                    lock.execute("SELECT pg_advisory_unlock_all()")

    def done(self) -> set[str]:
        return {state.key for state in self.overview.states() if is_done(state)}

    def waiting(self) -> set[str]:
        return {state.key for state in self.overview.states() if is_incomplete(state)}

    def noted(self, profiles: Mapping[ProfileId, str]) -> Mapping[ProfileId, set[SourceFile]]:
        ids, found = list(profiles), dict[ProfileId, set[SourceFile]]()
        if not ids:
            return found
        rows = self.query(
            "SELECT p.n, f.container, f.blob FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS p (id, key, n)"
            " JOIN {s}.ranges r ON r.key = p.key JOIN {s}.wanted w ON w.range_id = r.range_id AND w.profile_id = p.id"
            " JOIN {s}.files f ON f.file_id = w.file_id",
            [[str(id_) for id_ in ids], list(profiles.values())],
        )
        for number, container, blob in rows:
            found.setdefault(ids[number - 1], set()).add(SourceFile(container, blob))
        return found

    def request(self, range_keys: Sequence[str], why: str) -> None:
        """Ask for a run of these ranges; a run that begins later fulfils it."""
        self.query(
            "UPDATE {s}.ranges SET requested_at = now(), requested_why = %s"
            " WHERE key = ANY(%s) AND requested_at IS NULL",
            [why, list(range_keys)],
        )

    def rolled_back(self, range_keys: Sequence[str]) -> set[str]:
        """Those of the ranges that went back to the source, wholly or in part, and that nobody has named since."""
        rows = self.query(
            "SELECT key FROM {s}.ranges WHERE rolled_back_at IS NOT NULL AND key = ANY(%s)", [list(range_keys)]
        )
        return {row[0] for row in rows}

    def name_again(self, range_keys: Sequence[str], *, by: str) -> list[str]:
        """Ask for runs of those that were rolled back: somebody named them. Return which they were."""
        rows = self.query(
            "UPDATE {s}.ranges SET rolled_back_at = NULL, requested_at = now(), requested_why = %s"
            " WHERE key = ANY(%s) AND rolled_back_at IS NOT NULL RETURNING key",
            [f"named by {by} after a rollback", list(range_keys)],
        )
        keys = sorted(row[0] for row in rows)
        if keys:
            self.control.note("migrate again", by=by, details={"ranges": ", ".join(keys)})
        return keys

    def requested(self) -> Sequence[Request]:
        """Ranges that a run is asked for and none is at work in, oldest first."""
        rows = self.query(
            # What was rolled back stays so until somebody names it.
            "SELECT key, requested_at, requested_why FROM {s}.ranges WHERE requested_at IS NOT NULL"
            " AND rolled_back_at IS NULL ORDER BY requested_at, range_id"
        )
        held = self.held([row[0] for row in rows])
        return [Request(*row) for row in rows if row[0] not in held]

    def held(self, range_keys: Sequence[str]) -> set[str]:
        """Those of the ranges that a run, on any machine, holds."""
        # Looked up and not tried: whoever tries a lock has it for a moment, in which a run would find its range busy.
        rows = self.query(
            "SELECT n.key FROM unnest(%s::text[], %s::text[]) AS n (key, name) WHERE hashtextextended(n.name, 0) IN"
            " (SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND datname = current_database())",
            [list(range_keys), [self._lock_name(key) for key in range_keys]],
        )
        return {row[0] for row in rows}

    def _in_transaction(self, work: Callable[[psycopg.Cursor[tuple[Any, ...]]], T]) -> T:
        with translated("ledger.schema", but=_ANSWERS):
            return in_transaction(self._connection, work)[0]

    def _lock_name(self, range_key: str) -> str:
        return f"migration_pipeline range {self._schema} {range_key}"

    def find(self, files: Sequence[SourceFile]) -> Mapping[SourceFile, KnownFile]:
        """Those of the files that any range knows, or knew before it was archived."""
        rows = self.query(
            f"SELECT container, blob, {KNOWN} FROM {{s}}.files WHERE file_id = ANY(%(files)s)"  # noqa: S608 - of a constant
            " UNION ALL (SELECT DISTINCT ON (file_id) container, blob,"
            " CASE WHEN ours THEN 'copied' ELSE 'already_there' END, false, false, size_bytes, md5, target_etag,"
            " source_etag FROM {s}.removed m WHERE file_id = ANY(%(files)s) AND ours IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM {s}.files f WHERE f.file_id = m.file_id)"
            " ORDER BY file_id, removed_id DESC)",
            {"files": [file.file_id for file in files]},
        )
        return {SourceFile(*row[:2]): known_file(*row[2:]) for row in rows}

    def removed(self, files: Collection[SourceFile]) -> set[SourceFile]:
        return self.removal.removed(files)

    def source_kept(self) -> AbstractContextManager[None]:
        return self.removal.kept()

    def dropped(self, *, seconds: float) -> Sequence[Dropped]:
        return self._erasing.dropped(seconds=seconds)

    def begin_erasing(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        return self._erasing.begin(files)

    def still_erasing(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        return self._erasing.still(files)

    def spare(self, files: Sequence[SourceFile]) -> None:
        self._erasing.spare(files)

    def brought_back(self, results: Sequence[CopyResult]) -> None:
        self._erasing.brought_back(results)

    def erased(self, removed: Sequence[Erased]) -> None:
        self._erasing.erased(removed)

    def remembered(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        """What was kept under a name; `None` where nothing was."""
        rows = self.query("SELECT value FROM {s}.state WHERE name = %s", [name])
        return rows[0][0] if rows else None

    def remember(self, name: str, value: Any) -> None:  # noqa: ANN401 - as above
        """Keep a JSON value under a name."""
        self.query(
            "INSERT INTO {s}.state VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [name, Jsonb(value)],
        )

    def expect(self, expected: Expected) -> None:
        """Keep what is to be expected of the migration."""
        self.remember(_EXPECTED, expected.plain())

    def expected(self) -> Expected | None:
        """What was to be expected when the ranges were planned; `None` where that was not kept."""
        kept = self.remembered(_EXPECTED)
        return Expected.of(kept) if kept is not None else None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have all questions answered as of one moment, and write nothing meanwhile."""
        with translated("ledger.schema"), self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Have everything that is asked and written meanwhile hold together, or not at all."""
        with translated("ledger.schema"), self._connection.transaction():
            yield

    def now(self) -> datetime:
        """By the ledger's clock."""
        with translated("ledger.schema"):
            ((at,),) = self._connection.execute("SELECT clock_timestamp()").fetchall()
        return cast("datetime", at)

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=sql.Identifier(self._schema))

    def _stream(self, text: str, rows: int) -> Iterator[list[tuple[Any, ...]]]:
        """A statement's rows, so many at a time, by a cursor of the server; within a `snapshot`."""
        if self._absent:
            return
        with translated("ledger.schema"), self._connection.cursor("stream", withhold=False) as cursor:
            cursor.execute(self._sql(text))
            while batch := cursor.fetchmany(rows):
                yield batch

    def query(self, text: str, parameters: Any = None) -> list[tuple[Any, ...]]:  # noqa: ANN401 - as the driver has it
        """Run a statement, `{s}` standing for the schema; no row where there is no ledger yet."""
        if self._absent:
            return []
        with translated("ledger.schema", but=_ANSWERS), self._connection.cursor() as cursor:
            cursor.execute(self._sql(text), parameters)
            return cursor.fetchall() if cursor.description else []


def _range(row: Sequence[Any]) -> ProfileRange:
    key, ordinal, after, last, profiles, numeric = row

    def plain(id_: str) -> ProfileId:
        return int(id_) if numeric else id_

    return ProfileRange(key, ordinal, None if after is None else plain(after), plain(last), profiles)
