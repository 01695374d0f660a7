"""The app's Postgres database: profiles, and the rows that belong to them.

Every write is one short transaction under row locks (postgres_locks), and nothing but Postgres is spoken to inside it.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres.checks import parts, refusals
from migration_pipeline.adapters.postgres.connection import connect, translated
from migration_pipeline.adapters.postgres.locks import RowLocks
from migration_pipeline.adapters.postgres.rows import UNLOCKED, Remembered, plain, rows
from migration_pipeline.adapters.postgres.tables import (
    ID_TYPES,
    ProfileTable,
    RelatedTable,
    Table,
    formed,
    holds,
    is_deleted,
    looked_up,
    type_name,
    unowned,
    written_since,
)
from migration_pipeline.adapters.postgres.writing import Flagging, Rewriting, Unflagging
from migration_pipeline.core.model import Flagged, Profile, ProfileId, ProfileRange, Rewritten
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.seeing import HIDDEN
from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import ReplaceFor

_BATCH, _BATCH_BYTES = 200, 32_000_000
"""Profiles of one read, and bytes of their rows."""
_AT_ONCE, _BYTES_AT_ONCE = 50, 1_000_000
"""The same of one transaction: rows are locked for some hundredths of a second. A larger row is alone in one."""
_Cursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresProfiles:
    """Fulfils `ProfileStore`. One connection, one thread at a time."""

    _writes = True

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
        found = parts(self._connection, profiles, related)
        for refusal in refusals(self._connection, found, writes=self._writes):
            raise refusal
        first, others = found[0], found[1:]
        self._profiles = looked_up(first.facts, [first.id or ""], first.owner, first.columns)
        self._related = [
            replace(
                looked_up(part.facts, part.key(), part.owner, part.columns),
                unowned=unowned(part.facts, part.owner, first.facts, first.owner),
            )
            for part in others
        ]
        self._profiles = formed(self._profiles, profiles, "database.profiles")
        self._related = [
            formed(part, other, "database.related") for part, other in zip(self._related, related, strict=True)
        ]
        self._updated_at = [
            (part, column, written_since(column, looked.facts.columns[column].type))
            for part, looked, column in zip(
                (self._profiles, *self._related),
                found,
                (profiles.updated_at, *(other.updated_at for other in related)),
                strict=True,
            )
            if column is not None
        ]
        self._flag_name = profiles.migrated_at
        self._flag = sql.Identifier(profiles.migrated_at)
        self._deleted = is_deleted(profiles)
        id_ = first.facts.columns[first.owner]
        self._collation = id_.collation if ID_TYPES[id_.type] == "text" and not id_.ordered_by_bytes else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def read(self, bounds: ProfileRange) -> Iterator[Sequence[Profile]]:
        after = last = bounds.after
        query = sql.SQL("{within} ORDER BY {id} LIMIT {batch}").format(
            within=self._where_in_range(), id=self._profiles.owner, batch=sql.Literal(_BATCH)
        )
        while True:
            for batch in self._read(query, {"after": after, "last": bounds.last}):
                yield batch
                last = batch[-1].profile_id
            if last == after:
                return
            after = last

    def find(self, profile_ids: Sequence[ProfileId]) -> Sequence[Profile]:
        clause = sql.SQL("WHERE {id} = ANY(%(ids)s::{cast}[]) ORDER BY {id}").format(
            id=self._profiles.owner, cast=self._profiles.owner_cast
        )
        return [profile for batch in self._read(clause, {"ids": list(profile_ids)}) for profile in batch]

    def holding(self, texts: Sequence[str], *, any_case: bool = False) -> Iterator[Sequence[Profile]]:
        owners: set[ProfileId] = set()
        for part in (self._profiles, *self._related):
            query = sql.SQL("SELECT DISTINCT {owner} FROM {t} WHERE {holds} AND {owned}").format(
                owner=part.owner, t=part.name, holds=holds(part, any_case=any_case), owned=_owned(part)
            )
            with translated("database"), self._connection.cursor() as cursor:
                cursor.execute(query, {"texts": [f"%{text}%" for text in texts], "hidden": HIDDEN})
                owners.update(plain(row[0]) for row in cursor.fetchall())
        yield from self._in_batches(sorted(owners, key=str))

    def unowned(self, texts: Sequence[str] = (), *, any_case: bool = False) -> Iterator[Sequence[Text]]:
        for part in self._related:
            if part.unowned is None:
                continue
            query = sql.SQL("SELECT {columns} FROM {t} WHERE {unowned} AND {holds}").format(
                columns=sql.SQL(", ").join(column.selected() for column in part.columns),
                t=part.name,
                unowned=part.unowned,
                holds=holds(part, any_case=any_case) if texts else sql.SQL("true"),
            )
            with (
                translated("database"),
                self._connection.transaction(),
                self._connection.cursor(name="migration_unowned") as cursor,
            ):
                cursor.itersize = _BATCH
                cursor.execute(query, {"texts": [f"%{text}%" for text in texts], "hidden": HIDDEN})
                for values in cursor:
                    pairs = zip(part.columns, values, strict=True)
                    yield [text for column, value in pairs for text in column.strings(value)]

    def following(self, after: ProfileId | None, limit: int) -> Sequence[Profile]:
        """The next profiles in id order, so many at most; none only where there are none."""
        clause = sql.SQL("WHERE {above} ORDER BY {id} LIMIT {limit}").format(
            above=self._above(), id=self._profiles.owner, limit=sql.Literal(limit)
        )
        return next(self._read(clause, {"after": after}), [])

    def written_since(self, since: datetime) -> Iterator[Sequence[Profile]]:
        """Profiles that the app wrote since then, by its own columns."""
        owners: set[ProfileId] = set()
        with translated("database.profiles.updated_at"), self._connection.cursor() as cursor:
            for part, _, since_then in self._updated_at:
                cursor.execute(
                    sql.SQL("SELECT DISTINCT {owner} FROM {t} WHERE {since} AND {owned}").format(
                        owner=part.owner, t=part.name, since=since_then, owned=_owned(part)
                    ),
                    [since],
                )
                owners.update(plain(row[0]) for row in cursor.fetchall())
        yield from self._in_batches(sorted(owners, key=str))

    def below(self, profile_ids: Sequence[ProfileId], bounds: Sequence[ProfileId]) -> Sequence[int]:
        if self._collation is None:
            return [bisect_left(bounds, id_) for id_ in profile_ids]
        # A language's own order is the database's business. It counts the bounds up to an id, and itself among them.
        query = sql.SQL(
            "SELECT width_bucket(id COLLATE {collation}, bounds) - (id = ANY(bounds))::integer"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS given (id, n), (SELECT %s::text[]) AS all_ (bounds) ORDER BY n"
        ).format(collation=type_name(self._collation))
        with translated("database.profiles.id"), self._connection.cursor() as cursor:
            cursor.execute(query, [list(profile_ids), list(bounds)])
            return [int(count) for (count,) in cursor.fetchall()]

    def _in_batches(self, profile_ids: Sequence[ProfileId]) -> Iterator[Sequence[Profile]]:
        for start in range(0, len(profile_ids), _BATCH):
            for ids in self._by_weight(profile_ids[start : start + _BATCH], _BATCH, _BATCH_BYTES):
                yield self.find(ids)

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        total, work = Rewritten(), Rewriting((self._profiles, *self._related), replace)
        for ids in self._by_weight(profile_ids, _AT_ONCE, _BYTES_AT_ONCE):
            self._prepare(ids, work.new)
            for done, conflicts, seconds in self._locks.each(ids, work, fence):
                total = total.plus(done._replace(conflicts=conflicts, longest_lock=seconds))
            work.new.forget()
        return total

    def _prepare(self, profile_ids: Sequence[ProfileId], at: Remembered[Any]) -> None:
        """Most of the work is done before anything is locked; it counts for the values that are still the same."""
        with translated("database"), self._connection.cursor() as cursor:
            for part in (self._profiles, *self._related):
                for row in rows(cursor, part, profile_ids, UNLOCKED):
                    at.of(part, row)

    def set_flags(self, profile_ids: Sequence[ProfileId], unmoved: Callable[[Text], bool], fence: Fence) -> Flagged:
        # The stronger lock, for the moment that this takes: no row that refers to the profile may come meanwhile.
        total, work = Flagged(), Flagging(self._profiles, self._related, self._flag, unmoved)
        for ids in self._by_weight(profile_ids, _AT_ONCE, _BYTES_AT_ONCE):
            self._prepare(ids, work.unmoved)
            for done, _, seconds in self._locks.each(ids, work, fence, sql.SQL("FOR UPDATE")):
                total = total.plus(done._replace(longest_lock=seconds))
            work.unmoved.forget()
        return total

    def clear_flags(self, profile_ids: Sequence[ProfileId]) -> Flagged:
        total, work = Flagged(), Unflagging(self._profiles, self._flag)
        for done, _, seconds in self._locks.each(profile_ids, work, None):
            total = total.plus(done._replace(longest_lock=seconds))
        return total

    def _read(self, clause: sql.Composable, parameters: dict[str, Any]) -> Iterator[list[Profile]]:
        """Profiles, as many at a time as memory is to hold."""
        query = sql.SQL("SELECT {id}, {deleted}, {flag} IS NOT NULL FROM {t} {clause}").format(
            id=self._profiles.owner, deleted=self._deleted, flag=self._flag, t=self._profiles.name, clause=clause
        )
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query, parameters)
            found = {plain(id_): (deleted, flagged) for id_, deleted, flagged in cursor.fetchall()}
        for ids in self._by_weight(list(found), _BATCH, _BATCH_BYTES):
            with translated("database.profiles"), self._connection.cursor() as cursor:
                strings = self._strings(cursor, ids)
            yield [Profile(id_, *found[id_], tuple(strings[id_])) for id_ in ids]

    def _by_weight(self, profile_ids: Sequence[ProfileId], most: int, most_bytes: int) -> Iterator[list[ProfileId]]:
        """The profiles in their order, so many at a time, and so many bytes of their rows; one at least."""
        weights: Counter[ProfileId] = Counter()
        for part in (self._profiles, *self._related) if profile_ids else ():
            query = sql.SQL(
                "SELECT {owner}, sum({bytes}) FROM {t} WHERE {owner} = ANY(%s::{cast}[]) GROUP BY 1"
            ).format(
                owner=part.owner,
                bytes=sql.SQL(" + ").join(column.octets() for column in part.columns),
                t=part.name,
                cast=part.owner_cast,
            )
            with translated("database"), self._connection.cursor() as cursor:
                cursor.execute(query, [list(profile_ids)])
                weights.update({plain(owner): int(size) for owner, size in cursor.fetchall()})
        held: list[ProfileId] = []
        weight = 0
        for id_ in profile_ids:
            if held and (len(held) == most or weight + weights[id_] > most_bytes):
                yield held
                held, weight = [], 0
            held.append(id_)
            weight += weights[id_]
        if held:
            yield held

    def _strings(self, cursor: _Cursor, profile_ids: Sequence[ProfileId]) -> dict[ProfileId, list[Text]]:
        found: dict[ProfileId, list[Text]] = {id_: [] for id_ in profile_ids}
        for part in (self._profiles, *self._related):
            for row in rows(cursor, part, profile_ids, UNLOCKED):
                for column, value in zip(part.columns, row.values, strict=True):
                    found[row.owner].extend(column.strings(value))
        return found

    def _where_in_range(self) -> sql.Composed:
        return sql.SQL("WHERE {above} AND {id} <= %(last)s::{cast}").format(
            above=self._above(), id=self._profiles.owner, cast=self._profiles.owner_cast
        )

    def _above(self) -> sql.Composed:
        return sql.SQL("(%(after)s::{cast} IS NULL OR {id} > %(after)s::{cast})").format(
            id=self._profiles.owner, cast=self._profiles.owner_cast
        )


def _owned(part: Table) -> sql.Composable:
    """Says of a row that it belongs to a profile."""
    return sql.SQL("true") if part.unowned is None else sql.SQL("NOT ({})").format(part.unowned)
