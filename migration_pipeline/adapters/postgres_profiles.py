"""The app's Postgres database: profiles, and the rows that belong to them.

Every write is one short transaction under row locks, and nothing but Postgres is spoken to inside it. The locks
are `FOR NO KEY UPDATE`: as strong as an UPDATE's own, and unlike `FOR UPDATE` they do not make the app wait when
it inserts rows that refer to the profile.

No transaction of ours waits for a lock while it holds one: rows that somebody else has locked are passed over, and
taken one profile at a time later. So the app never waits for us longer than a batch takes, and there can be no deadlock
of which it might be the victim.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres import RUN_AGAIN, StillBusy, connect, in_transaction, translated
from migration_pipeline.adapters.postgres_tables import (
    ProfileTable,
    RelatedTable,
    Table,
    column_types,
    looked_up,
    no_column,
)
from migration_pipeline.core.errors import RangeLost
from migration_pipeline.core.model import Profile, ProfileId, ProfileRange, Rewritten
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.values import ReplaceFor

_BATCH = 200  # profiles of one read
_LOCKED = 50  # profiles of one transaction: rows are locked for some hundredths of a second
_LOCK_WAIT, _STATEMENT, _IDLE = "2s", "30s", "15s"
"""How long a transaction of ours may wait for a lock, run one statement, or hold locks while our process hangs."""

_UNLOCKED, _PROFILE, _REWRITTEN = sql.SQL(""), sql.SQL("FOR NO KEY UPDATE"), sql.SQL("FOR NO KEY UPDATE NOWAIT")

T = TypeVar("T")
_Cursor = psycopg.Cursor[tuple[Any, ...]]
_Work = Callable[[_Cursor, list[ProfileId]], T]
"""What is done, in a transaction, to profiles whose rows are locked."""


class PostgresProfiles:
    """Fulfils `ProfileStore` and `ProfileIndex`. One connection, one thread at a time."""

    def __init__(
        self,
        url: str,
        *,
        profiles: ProfileTable,
        related: Sequence[RelatedTable] = (),
        ledger_schema: str | None = None,
    ) -> None:
        """Connect, and look up the columns' types.

        Args:
            url: of the database.
            profiles: the table of profiles.
            related: tables whose rows belong to profiles.
            ledger_schema: of the ledger, where it is in this database: a fence is then compared in the transaction
                that writes. Elsewhere it is asked just before.

        Raises:
            Fatal: the server cannot be reached, or a table or column is missing or of a type we cannot rewrite.
        """
        self._connection = connect(url, setting="DATABASE_URL")
        self._epochs = sql.SQL("{}.ranges").format(sql.Identifier(ledger_schema)) if ledger_schema else None
        try:
            self._open(profiles, related)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, profiles: ProfileTable, related: Sequence[RelatedTable]) -> None:
        types = column_types(self._connection, profiles.name, "database.profiles.table")
        self._profiles = looked_up(
            profiles.name, profiles.id, profiles.id, profiles.columns, types, "database.profiles"
        )
        optional = ("migrated_at", "deleted_at", "updated_at")
        for setting, name in ((setting, getattr(profiles, setting)) for setting in optional):
            if name is not None and name not in types:
                raise no_column(profiles.name, name, f"database.profiles.{setting}")
        self._related = [
            looked_up(
                other.name,
                other.id,
                other.profile_id,
                other.columns,
                column_types(self._connection, other.name, "database.related"),
                "database.related",
            )
            for other in related
        ]
        self._updated_at = [
            (part, column)
            for part, column in zip(
                (self._profiles, *self._related),
                (profiles.updated_at, *(other.updated_at for other in related)),
                strict=True,
            )
            if column is not None
        ]
        self._flag_name = profiles.migrated_at
        self._flag = sql.Identifier(profiles.migrated_at)
        self._deleted: sql.Composable = (
            sql.SQL("{} IS NOT NULL").format(sql.Identifier(profiles.deleted_at))
            if profiles.deleted_at
            else sql.SQL("false")
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def missing_rights(self) -> list[str]:
        """What the role may not do and has to, in words."""
        wanted = [(part.name, column.name) for part in (self._profiles, *self._related) for column in part.columns]
        wanted.append((self._profiles.name, self._flag_name))
        missing = []
        with translated("database"), self._connection.cursor() as cursor:
            for name, column in wanted:
                quoted = name.as_string(self._connection)
                for right in ("SELECT", "UPDATE"):
                    cursor.execute("SELECT has_column_privilege(%s, %s, %s)", [quoted, column, right])
                    if cursor.fetchone() != (True,):
                        missing.append(f"{right} {quoted}.{column}")
        return missing

    def unindexed(self) -> list[str]:
        """Columns by which rows are looked up and that no index begins with."""
        missing = []
        with translated("database"), self._connection.cursor() as cursor:
            for part in (self._profiles, *self._related):
                quoted, owner = part.name.as_string(self._connection), part.owner_name
                cursor.execute(
                    "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a"
                    " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
                    " WHERE i.indrelid = %s::regclass AND i.indisvalid AND i.indpred IS NULL AND a.attname = %s)",
                    [quoted, owner],
                )
                if cursor.fetchone() != (True,):
                    missing.append(f"{quoted}.{owner}")
        return missing

    def read(self, bounds: ProfileRange) -> Iterator[Sequence[Profile]]:
        after = bounds.after
        query = sql.SQL("{within} ORDER BY {id} LIMIT {batch}").format(
            within=self._where_in_range(), id=self._profiles.id, batch=sql.Literal(_BATCH)
        )
        while True:
            batch = self._read(query, {"after": after, "last": bounds.last})
            if not batch:
                return
            yield batch
            after = batch[-1].profile_id

    def find(self, profile_ids: Sequence[ProfileId]) -> Sequence[Profile]:
        clause = sql.SQL("WHERE {id} = ANY(%(ids)s::{cast}[]) ORDER BY {id}").format(
            id=self._profiles.id, cast=self._profiles.id_cast
        )
        return self._read(clause, {"ids": list(profile_ids)})

    def holding(self, texts: Sequence[str]) -> Iterator[Sequence[Profile]]:
        owners: set[ProfileId] = set()
        for part in (self._profiles, *self._related):
            query = sql.SQL("SELECT DISTINCT {owner} FROM {t} WHERE concat_ws(' ', {columns}) LIKE ANY(%s)").format(
                owner=part.owner,
                t=part.name,
                columns=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c.name)) for c in part.columns),
            )
            with translated("database"), self._connection.cursor() as cursor:
                cursor.execute(query, [[f"%{text}%" for text in texts]])
                owners.update(_plain(row[0]) for row in cursor.fetchall())
        yield from self._in_batches(sorted(owners, key=str))

    def flagged_after(self, after: ProfileId | None, limit: int) -> Sequence[Profile]:
        """The next flagged profiles in id order."""
        clause = sql.SQL("WHERE {above} AND {flag} IS NOT NULL ORDER BY {id} LIMIT {limit}").format(
            above=self._above(), flag=self._flag, id=self._profiles.id, limit=sql.Literal(limit)
        )
        return self._read(clause, {"after": after})

    def flagged_since(self, since: datetime) -> Iterator[Sequence[Profile]]:
        """Flagged profiles that the app wrote since then, by its own columns."""
        owners: set[ProfileId] = set()
        with translated("database.profiles.updated_at"), self._connection.cursor() as cursor:
            for part, column in self._updated_at:
                cursor.execute(
                    sql.SQL("SELECT DISTINCT {owner} FROM {t} WHERE {column} >= %s").format(
                        owner=part.owner, t=part.name, column=sql.Identifier(column)
                    ),
                    [since],
                )
                owners.update(_plain(row[0]) for row in cursor.fetchall())
        for batch in self._in_batches(sorted(owners, key=str)):
            yield [profile for profile in batch if profile.flagged]

    def _in_batches(self, profile_ids: Sequence[ProfileId]) -> Iterator[Sequence[Profile]]:
        for start in range(0, len(profile_ids), _BATCH):
            yield self.find(profile_ids[start : start + _BATCH])

    def sample(self, limit: int) -> Sequence[Profile]:
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = %s::regclass",
                [self._profiles.name.as_string(self._connection)],
            )
            ((rows,),) = cursor.fetchall()
        # Twice as many pages as needed, for pages are unevenly filled; a table never analysed is read from its start.
        percent = min(100.0, 200.0 * limit / float(rows))
        return self._read(
            sql.SQL("TABLESAMPLE SYSTEM ({}) LIMIT {}").format(sql.Literal(percent), sql.Literal(limit)), {}
        )

    def bounds(self) -> tuple[ProfileId, ProfileId] | None:
        query = sql.SQL(
            "(SELECT {id} FROM {t} ORDER BY {id} LIMIT 1) UNION ALL (SELECT {id} FROM {t} ORDER BY {id} DESC LIMIT 1)"
        )
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query.format(id=self._profiles.id, t=self._profiles.name))
            ids = [_plain(row[0]) for row in cursor.fetchall()]
        return (ids[0], ids[1]) if ids else None

    def cut(self, *, after: ProfileId | None, size: int) -> Iterator[tuple[ProfileId, ProfileId, int]]:
        # One pass over the primary key; only the ends of ranges leave the server.
        query = sql.SQL(
            "SELECT id, n, at_end FROM (SELECT {id} AS id,"
            " row_number() OVER w AS n, lead({id}) OVER w IS NULL AS at_end"
            " FROM {t} WHERE {above} WINDOW w AS (ORDER BY {id})) AS numbered"
            " WHERE n %% %(size)s IN (0, 1 %% %(size)s) OR at_end ORDER BY n"
        ).format(id=self._profiles.id, t=self._profiles.name, above=self._above())
        with (
            translated("database.profiles"),
            self._connection.transaction(),
            self._connection.cursor(name="migration_ranges") as cursor,
        ):
            cursor.execute(query, {"after": after, "size": size})
            first: ProfileId | None = None
            before = 0
            for id_, number, at_end in cursor:
                # Rows come in pairs, a range's first and last; a range of one profile is one row.
                first = _plain(id_) if first is None else first
                if at_end or number % size == 0:
                    yield first, _plain(id_), number - before
                    first, before = None, number

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        prepared = _Prepared(replace)

        def work(cursor: _Cursor, alive: list[ProfileId]) -> Rewritten:
            changed: set[ProfileId] = set()
            urls = 0
            for part in (self._profiles, *self._related):
                owners, count = _rewrite_rows(cursor, part, alive, prepared)
                changed |= owners
                urls += count
            return Rewritten(len(changed), urls)

        total = Rewritten()
        for start in range(0, len(profile_ids), _LOCKED):
            ids = profile_ids[start : start + _LOCKED]
            # Most of the work is done before anything is locked; it counts for the values that are still the same.
            self._prepare(ids, prepared)
            for done, conflicts, seconds in self._on_locked(ids, work, fence):
                total = total.plus(done._replace(conflicts=conflicts, longest_lock=seconds))
            prepared.forget()
        return total

    def _prepare(self, profile_ids: Sequence[ProfileId], prepared: "_Prepared") -> None:
        with translated("database"), self._connection.cursor() as cursor:
            for part in (self._profiles, *self._related):
                for owner, _, *values in _rows(cursor, part, profile_ids, _UNLOCKED):
                    prepared.replaced(part, _plain(owner), values)

    def set_flags(
        self, profile_ids: Sequence[ProfileId], unmoved: Callable[[str], bool], fence: Fence
    ) -> Sequence[ProfileId]:
        def work(cursor: _Cursor, alive: list[ProfileId]) -> list[ProfileId]:
            strings = self._strings(cursor, alive, _REWRITTEN)
            clean = [id_ for id_ in alive if not any(map(unmoved, strings[id_]))]
            self._set_flag(cursor, clean, sql.SQL("coalesce({}, now())").format(self._flag))
            return clean

        # The stronger lock, for the moment that this takes: no row that refers to the profile may come meanwhile.
        flagged: list[ProfileId] = []
        for start in range(0, len(profile_ids), _LOCKED):
            ids = profile_ids[start : start + _LOCKED]
            flagged += [id_ for done, *_ in self._on_locked(ids, work, fence, sql.SQL("FOR UPDATE")) for id_ in done]
        return flagged

    def clear_flags(self, profile_ids: Sequence[ProfileId]) -> int:
        def work(cursor: _Cursor, alive: list[ProfileId]) -> int:
            return self._set_flag(cursor, alive, sql.SQL("NULL"))

        return sum(done for done, _, _ in self._on_locked(profile_ids, work, None))

    def _set_flag(self, cursor: _Cursor, profile_ids: Sequence[ProfileId], value: sql.Composable) -> int:
        cursor.execute(
            sql.SQL(
                "UPDATE {t} SET {flag} = {value} WHERE {id} = ANY(%s::{cast}[]) AND {flag} IS DISTINCT FROM {value}"
            ).format(
                t=self._profiles.name, flag=self._flag, value=value, id=self._profiles.id, cast=self._profiles.id_cast
            ),
            [list(profile_ids)],
        )
        return cursor.rowcount

    def _on_locked(
        self,
        profile_ids: Sequence[ProfileId],
        work: _Work[T],
        fence: Fence | None,
        lock: sql.SQL = _PROFILE,
    ) -> Iterator[tuple[T, int, float]]:
        """Do `work` to all profiles that nobody else has locked at once, and to each other one as it becomes free.

        Yields:
            What `work` returned, tries that were thrown away, and the seconds that rows were locked. A profile that
            stays locked all the time is left alone: whoever confirms the range finds it as it is.
        """
        if not profile_ids:
            return
        with translated("database"):
            try:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    locked = self._lock(cursor, profile_ids, fence, lock + sql.SQL(" SKIP LOCKED"))
                    began, done = time.monotonic(), work(cursor, locked)
                yield done, 0, time.monotonic() - began
                busy = self._alive_but(profile_ids, locked)
            except RUN_AGAIN:  # a related row is locked
                busy = list(profile_ids)
            for id_ in busy:
                yield from self._when_free(id_, work, fence, lock)

    def _when_free(
        self, id_: ProfileId, work: _Work[T], fence: Fence | None, lock: sql.SQL
    ) -> Iterator[tuple[T, int, float]]:
        began = 0.0

        def alone(cursor: _Cursor) -> T:
            nonlocal began
            locked = self._lock(cursor, [id_], fence, lock)
            began = time.monotonic()
            return work(cursor, locked)

        try:
            done, lost = in_transaction(self._connection, alone)
        except StillBusy:
            return
        yield done, lost + 1, time.monotonic() - began

    def _lock(
        self, cursor: _Cursor, profile_ids: Sequence[ProfileId], fence: Fence | None, lock: sql.Composable
    ) -> list[ProfileId]:
        """Bound all waiting, make sure that the range is ours, lock the rows; return those not deleted meanwhile."""
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),"
            " set_config('idle_in_transaction_session_timeout', %s, true)",
            [_LOCK_WAIT, _STATEMENT, _IDLE],
        )
        if fence is not None:
            self._pass(cursor, fence)
        cursor.execute(
            sql.SQL(
                "SELECT {id} FROM {t} WHERE {id} = ANY(%s::{cast}[]) AND NOT ({deleted}) ORDER BY {id} {lock}"
            ).format(
                t=self._profiles.name,
                id=self._profiles.id,
                cast=self._profiles.id_cast,
                deleted=self._deleted,
                lock=lock,
            ),
            [list(profile_ids)],
        )
        return [_plain(row[0]) for row in cursor.fetchall()]

    def _pass(self, cursor: _Cursor, fence: Fence) -> None:
        """Whoever takes the range raises its epoch, and waits for this transaction to end."""
        if self._epochs is None:
            fence.check()
            return
        cursor.execute(
            sql.SQL("SELECT FROM {} WHERE range_id = %s AND epoch = %s FOR SHARE").format(self._epochs),
            [fence.range_id, fence.epoch],
        )
        if not cursor.rowcount:
            raise RangeLost(fence.range_key)

    def _alive_but(self, profile_ids: Sequence[ProfileId], locked: list[ProfileId]) -> list[ProfileId]:
        """Those among the others that are there, and were passed over for somebody had locked them."""
        others = set(profile_ids) - set(locked)
        if not others:
            return []
        with self._connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("SELECT {id} FROM {t} WHERE {id} = ANY(%s::{cast}[]) AND NOT ({deleted}) ORDER BY {id}").format(
                    t=self._profiles.name,
                    id=self._profiles.id,
                    cast=self._profiles.id_cast,
                    deleted=self._deleted,
                ),
                [list(others)],
            )
            return [_plain(row[0]) for row in cursor.fetchall()]

    def _read(self, clause: sql.Composable, parameters: dict[str, Any]) -> list[Profile]:
        query = sql.SQL("SELECT {id}, {deleted}, {flag} IS NOT NULL FROM {t} {clause}").format(
            id=self._profiles.id, deleted=self._deleted, flag=self._flag, t=self._profiles.name, clause=clause
        )
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query, parameters)
            rows = [(_plain(id_), deleted, flagged) for id_, deleted, flagged in cursor.fetchall()]
            strings = self._strings(cursor, [row[0] for row in rows])
        return [Profile(id_, deleted, flagged, tuple(strings[id_])) for id_, deleted, flagged in rows]

    def _strings(
        self, cursor: _Cursor, profile_ids: Sequence[ProfileId], lock: sql.SQL = _UNLOCKED
    ) -> dict[ProfileId, list[str]]:
        found: dict[ProfileId, list[str]] = {id_: [] for id_ in profile_ids}
        for part in (self._profiles, *self._related):
            for owner, _, *values in _rows(cursor, part, profile_ids, lock):
                for column, value in zip(part.columns, values, strict=True):
                    found[_plain(owner)].extend(column.strings(value))
        return found

    def _where_in_range(self) -> sql.Composed:
        return sql.SQL("WHERE {above} AND {id} <= %(last)s::{cast}").format(
            above=self._above(), id=self._profiles.id, cast=self._profiles.id_cast
        )

    def _above(self) -> sql.Composed:
        return sql.SQL("(%(after)s::{cast} IS NULL OR {id} > %(after)s::{cast})").format(
            id=self._profiles.id, cast=self._profiles.id_cast
        )


class _Prepared:
    """What values become, remembered: the same value of the same profile is looked through once."""

    def __init__(self, replace: ReplaceFor) -> None:
        self._replace = replace
        self._seen: dict[tuple[ProfileId, str, str], tuple[Any, int]] = {}

    def replaced(self, part: Table, owner: ProfileId, values: Sequence[Any]) -> list[tuple[Any, int]]:
        """The new values of a row's columns, and how many strings of each were replaced."""
        new = []
        for column, value in zip(part.columns, values, strict=True):
            # Lists, of text[] columns, are few and short, and cannot be keys.
            key = (owner, column.name, value) if isinstance(value, str) else None
            if key is None or key not in self._seen:
                found = column.replaced(value, self._replace(owner))
                if key is not None:
                    self._seen[key] = found
                new.append(found)
            else:
                new.append(self._seen[key])
        return new

    def forget(self) -> None:
        """These profiles are done."""
        self._seen.clear()


def _rows(
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], suffix: sql.Composable
) -> Iterator[tuple[Any, ...]]:
    cursor.execute(
        sql.SQL("SELECT {columns} FROM {t} WHERE {owner} = ANY(%s::{cast}[]) ORDER BY {id} {suffix}").format(
            columns=part.selected(), t=part.name, owner=part.owner, cast=part.owner_cast, id=part.id, suffix=suffix
        ),
        [list(owners)],
    )
    yield from cursor.fetchall()


def _rewrite_rows(
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], prepared: "_Prepared"
) -> tuple[set[ProfileId], int]:
    """Replace in one table's rows of these owners, writing only rows that change."""
    writes, changed, urls = [], set(), 0
    for owner, id_, *values in _rows(cursor, part, owners, _REWRITTEN):
        new = prepared.replaced(part, _plain(owner), values)
        count = sum(n for _, n in new)
        if count:
            writes.append([*(value for value, _ in new), id_])
            changed.add(_plain(owner))
            urls += count
    if writes:
        sets = sql.SQL(", ").join(
            sql.SQL("{} = %s::{}").format(sql.Identifier(c.name), sql.SQL(c.type)) for c in part.columns
        )
        cursor.executemany(
            sql.SQL("UPDATE {t} SET {sets} WHERE {id} = %s::{cast}").format(
                t=part.name, sets=sets, id=part.id, cast=part.id_cast
            ),
            writes,
        )
    return changed, urls


def _plain(id_: Any) -> ProfileId:  # noqa: ANN401 - int, str or UUID
    return id_ if isinstance(id_, int) else str(id_)
