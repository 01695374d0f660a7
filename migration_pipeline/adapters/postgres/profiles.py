"""The app's Postgres database: profiles, and the rows that belong to them.

Every write is one short transaction under row locks (postgres_locks), and nothing but Postgres is spoken to inside it.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres.connection import connect, translated
from migration_pipeline.adapters.postgres.locks import RowLocks
from migration_pipeline.adapters.postgres.rows import LOCKED, UNLOCKED, Prepared, plain, rewrite_rows, rows
from migration_pipeline.adapters.postgres.tables import (
    ProfileTable,
    RelatedTable,
    column_types,
    looked_up,
    no_column,
)
from migration_pipeline.core.model import Profile, ProfileId, ProfileRange, Rewritten
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.values import ReplaceFor

_BATCH = 200  # profiles of one read
_AT_ONCE = 50  # profiles of one transaction: rows are locked for some hundredths of a second
_Cursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresProfiles:
    """Fulfils `ProfileStore`. One connection, one thread at a time."""

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
            ledger_schema: of the ledger, where it is in this database.

        Raises:
            Fatal: the server cannot be reached, or a table or column is missing or of a type we cannot rewrite.
        """
        self._connection = connect(url, setting="DATABASE_URL")
        try:
            self._open(profiles, related)
        except BaseException:
            self._connection.close()
            raise
        self._locks = RowLocks(self._connection, self._profiles, self._deleted, ledger_schema)

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

    def holding(self, texts: Sequence[str], *, any_case: bool = False) -> Iterator[Sequence[Profile]]:
        owners: set[ProfileId] = set()
        for part in (self._profiles, *self._related):
            query = sql.SQL("SELECT DISTINCT {owner} FROM {t} WHERE concat_ws(' ', {columns}) {like} ANY(%s)").format(
                owner=part.owner,
                like=sql.SQL("ILIKE" if any_case else "LIKE"),
                t=part.name,
                columns=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c.name)) for c in part.columns),
            )
            with translated("database"), self._connection.cursor() as cursor:
                cursor.execute(query, [[f"%{text}%" for text in texts]])
                owners.update(plain(row[0]) for row in cursor.fetchall())
        yield from self._in_batches(sorted(owners, key=str))

    def following(self, after: ProfileId | None, limit: int) -> Sequence[Profile]:
        """The next profiles in id order."""
        clause = sql.SQL("WHERE {above} ORDER BY {id} LIMIT {limit}").format(
            above=self._above(), id=self._profiles.id, limit=sql.Literal(limit)
        )
        return self._read(clause, {"after": after})

    def written_since(self, since: datetime) -> Iterator[Sequence[Profile]]:
        """Profiles that the app wrote since then, by its own columns."""
        owners: set[ProfileId] = set()
        with translated("database.profiles.updated_at"), self._connection.cursor() as cursor:
            for part, column in self._updated_at:
                cursor.execute(
                    sql.SQL("SELECT DISTINCT {owner} FROM {t} WHERE {column} >= %s").format(
                        owner=part.owner, t=part.name, column=sql.Identifier(column)
                    ),
                    [since],
                )
                owners.update(plain(row[0]) for row in cursor.fetchall())
        yield from self._in_batches(sorted(owners, key=str))

    def _in_batches(self, profile_ids: Sequence[ProfileId]) -> Iterator[Sequence[Profile]]:
        for start in range(0, len(profile_ids), _BATCH):
            yield self.find(profile_ids[start : start + _BATCH])

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        prepared = Prepared(replace)

        def work(cursor: _Cursor, alive: list[ProfileId]) -> Rewritten:
            changed: set[ProfileId] = set()
            urls = 0
            for part in (self._profiles, *self._related):
                owners, count = rewrite_rows(cursor, part, alive, prepared)
                changed |= owners
                urls += count
            return Rewritten(len(changed), urls)

        total = Rewritten()
        for start in range(0, len(profile_ids), _AT_ONCE):
            ids = profile_ids[start : start + _AT_ONCE]
            # Most of the work is done before anything is locked; it counts for the values that are still the same.
            self._prepare(ids, prepared)
            for done, conflicts, seconds in self._locks.each(ids, work, fence):
                total = total.plus(done._replace(conflicts=conflicts, longest_lock=seconds))
            prepared.forget()
        return total

    def _prepare(self, profile_ids: Sequence[ProfileId], prepared: Prepared) -> None:
        with translated("database"), self._connection.cursor() as cursor:
            for part in (self._profiles, *self._related):
                for owner, _, *values in rows(cursor, part, profile_ids, UNLOCKED):
                    prepared.replaced(part, plain(owner), values)

    def set_flags(
        self, profile_ids: Sequence[ProfileId], unmoved: Callable[[str], bool], fence: Fence
    ) -> Sequence[ProfileId]:
        def work(cursor: _Cursor, alive: list[ProfileId]) -> list[ProfileId]:
            strings = self._strings(cursor, alive, LOCKED)
            clean = [id_ for id_ in alive if not any(map(unmoved, strings[id_]))]
            self._set_flag(cursor, clean, sql.SQL("coalesce({}, now())").format(self._flag))
            return clean

        # The stronger lock, for the moment that this takes: no row that refers to the profile may come meanwhile.
        flagged: list[ProfileId] = []
        for start in range(0, len(profile_ids), _AT_ONCE):
            ids = profile_ids[start : start + _AT_ONCE]
            flagged += [id_ for done, *_ in self._locks.each(ids, work, fence, sql.SQL("FOR UPDATE")) for id_ in done]
        return flagged

    def clear_flags(self, profile_ids: Sequence[ProfileId]) -> int:
        def work(cursor: _Cursor, alive: list[ProfileId]) -> int:
            return self._set_flag(cursor, alive, sql.SQL("NULL"))

        return sum(done for done, _, _ in self._locks.each(profile_ids, work, None))

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

    def _read(self, clause: sql.Composable, parameters: dict[str, Any]) -> list[Profile]:
        query = sql.SQL("SELECT {id}, {deleted}, {flag} IS NOT NULL FROM {t} {clause}").format(
            id=self._profiles.id, deleted=self._deleted, flag=self._flag, t=self._profiles.name, clause=clause
        )
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query, parameters)
            rows = [(plain(id_), deleted, flagged) for id_, deleted, flagged in cursor.fetchall()]
            strings = self._strings(cursor, [row[0] for row in rows])
        return [Profile(id_, deleted, flagged, tuple(strings[id_])) for id_, deleted, flagged in rows]

    def _strings(
        self, cursor: _Cursor, profile_ids: Sequence[ProfileId], lock: sql.SQL = UNLOCKED
    ) -> dict[ProfileId, list[str]]:
        found: dict[ProfileId, list[str]] = {id_: [] for id_ in profile_ids}
        for part in (self._profiles, *self._related):
            for owner, _, *values in rows(cursor, part, profile_ids, lock):
                for column, value in zip(part.columns, values, strict=True):
                    found[plain(owner)].extend(column.strings(value))
        return found

    def _where_in_range(self) -> sql.Composed:
        return sql.SQL("WHERE {above} AND {id} <= %(last)s::{cast}").format(
            above=self._above(), id=self._profiles.id, cast=self._profiles.id_cast
        )

    def _above(self) -> sql.Composed:
        return sql.SQL("(%(after)s::{cast} IS NULL OR {id} > %(after)s::{cast})").format(
            id=self._profiles.id, cast=self._profiles.id_cast
        )
