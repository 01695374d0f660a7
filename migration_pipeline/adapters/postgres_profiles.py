"""The app's Postgres database: profiles, and the rows that belong to them.

Every write is one short transaction under row locks, and nothing but Postgres is spoken to inside it. The locks
are `FOR NO KEY UPDATE`: as strong as an UPDATE's own, and unlike `FOR UPDATE` they do not make the app wait when
it inserts rows that refer to the profile.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres import connect, in_transaction, translated
from migration_pipeline.adapters.postgres_tables import (
    ProfileTable,
    RelatedTable,
    Table,
    column_types,
    looked_up,
    no_column,
)
from migration_pipeline.core.model import Profile, ProfileId, ProfileRange, Rewritten
from migration_pipeline.core.values import Replace

_BATCH = 200  # profiles of one read
_LOCK_WAIT, _STATEMENT, _IDLE = "2s", "30s", "15s"
"""How long a transaction of ours may wait for a lock, run one statement, or hold locks while our process hangs."""

_Cursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresProfiles:
    """Fulfils `ProfileStore` and `ProfileIndex`. One connection, one thread at a time."""

    def __init__(self, url: str, *, profiles: ProfileTable, related: Sequence[RelatedTable] = ()) -> None:
        """Connect, and look up the columns' types.

        Raises:
            Fatal: the server cannot be reached, or a table or column is missing or of a type we cannot rewrite.
        """
        self._connection = connect(url, setting="DATABASE_URL")
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
        for name, setting in ((profiles.migrated_at, "migrated_at"), (profiles.deleted_at, "deleted_at")):
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

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: Replace) -> Rewritten:
        def work(cursor: _Cursor) -> Rewritten:
            _limit_waits(cursor)
            alive = self._lock(cursor, profile_ids)
            changed: set[ProfileId] = set()
            urls = 0
            for part in (self._profiles, *self._related):
                owners, count = _rewrite_rows(cursor, part, alive, replace)
                changed |= owners
                urls += count
            return Rewritten(len(changed), urls)

        with translated("database"):
            done, lost = in_transaction(self._connection, work)
        return done._replace(conflicts=lost)

    def set_flags(self, profile_ids: Sequence[ProfileId], unmoved: Callable[[str], bool]) -> Sequence[ProfileId]:
        def work(cursor: _Cursor) -> Sequence[ProfileId]:
            _limit_waits(cursor)
            alive = self._lock(cursor, profile_ids)
            strings = self._strings(cursor, alive)
            clean = [id_ for id_ in alive if not any(map(unmoved, strings[id_]))]
            cursor.execute(
                sql.SQL("UPDATE {t} SET {flag} = coalesce({flag}, now()) WHERE {id} = ANY(%s::{cast}[])").format(
                    t=self._profiles.name, flag=self._flag, id=self._profiles.id, cast=self._profiles.id_cast
                ),
                [clean],
            )
            return clean

        if not profile_ids:
            return []
        with translated("database"):
            return in_transaction(self._connection, work)[0]

    def clear_flags(self, profile_ids: Sequence[ProfileId]) -> int:
        def work(cursor: _Cursor) -> int:
            _limit_waits(cursor)
            self._lock(cursor, profile_ids)
            cursor.execute(
                sql.SQL("UPDATE {t} SET {flag} = NULL WHERE {id} = ANY(%s::{cast}[]) AND {flag} IS NOT NULL").format(
                    t=self._profiles.name, flag=self._flag, id=self._profiles.id, cast=self._profiles.id_cast
                ),
                [list(profile_ids)],
            )
            return cursor.rowcount

        if not profile_ids:
            return 0
        with translated("database"):
            return in_transaction(self._connection, work)[0]

    def _lock(self, cursor: _Cursor, profile_ids: Sequence[ProfileId]) -> list[ProfileId]:
        """Lock the rows, in id order as everybody should, and return those not deleted meanwhile."""
        cursor.execute(
            sql.SQL(
                "SELECT {id} FROM {t} WHERE {id} = ANY(%s::{cast}[]) AND NOT ({deleted})"
                " ORDER BY {id} FOR NO KEY UPDATE"
            ).format(t=self._profiles.name, id=self._profiles.id, cast=self._profiles.id_cast, deleted=self._deleted),
            [list(profile_ids)],
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

    def _strings(self, cursor: _Cursor, profile_ids: Sequence[ProfileId]) -> dict[ProfileId, list[str]]:
        found: dict[ProfileId, list[str]] = {id_: [] for id_ in profile_ids}
        for part in (self._profiles, *self._related):
            for owner, _, *values in _rows(cursor, part, profile_ids, sql.SQL("")):
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


def _limit_waits(cursor: _Cursor) -> None:
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),"
        " set_config('idle_in_transaction_session_timeout', %s, true)",
        [_LOCK_WAIT, _STATEMENT, _IDLE],
    )


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
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], replace: Replace
) -> tuple[set[ProfileId], int]:
    """Replace in one table's rows of these owners, writing only rows that change."""
    writes, changed, urls = [], set(), 0
    for owner, id_, *values in _rows(cursor, part, owners, sql.SQL("FOR NO KEY UPDATE")):
        new = [column.replaced(value, replace) for column, value in zip(part.columns, values, strict=True)]
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
