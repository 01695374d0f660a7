"""Rows of the app's tables: reading them, and replacing strings in them.

A row is written by its key and its owner, and exactly the rows that were locked are the rows that are written.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeVar

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres.refusals import CHANGED_BACK, OTHER_ROWS, UNLOCKABLE, RowRefused, why_refused
from migration_pipeline.adapters.postgres.tables import Column, Table
from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.values import ReplaceFor

UNLOCKED, LOCKED = sql.SQL(""), sql.SQL("FOR NO KEY UPDATE NOWAIT")
T = TypeVar("T")
_Cursor = psycopg.Cursor[tuple[Any, ...]]


class Row(NamedTuple):
    """A row: whose it is, its key, and the configured columns, as text."""

    owner: ProfileId
    key: tuple[str | None, ...]
    values: Sequence[str | None]


class Remembered(Generic[T]):
    """What is found out of values: the same value of the same profile is looked through once.

    Most of the work is so done before anything is locked; it counts for the values that are still the same then.
    """

    def __init__(self, look: Callable[[ProfileId, Column, str | None], T]) -> None:
        self._look = look
        self._seen: dict[tuple[ProfileId, Column, str | None], T] = {}

    def of(self, part: Table, row: Row) -> list[T]:
        """What there is to say of each column of a row."""
        found = []
        for key in ((row.owner, column, value) for column, value in zip(part.columns, row.values, strict=True)):
            if key not in self._seen:
                self._seen[key] = self._look(*key)
            found.append(self._seen[key])
        return found

    def forget(self) -> None:
        """These profiles are done."""
        self._seen.clear()


Replaced = Remembered[tuple[str | None, int]]
"""The new values, and how many strings of each were replaced."""


def replaced(replace: ReplaceFor) -> Replaced:
    """What values become."""
    return Remembered(lambda owner, column, value: column.replaced(value, replace(owner)))


class Written(NamedTuple):
    """What was written of one table: owners of changed rows, URLs in them, and rows that refused, with the reason."""

    owners: set[ProfileId]
    urls: int
    refused: list[tuple[ProfileId, str]]


class _Write(NamedTuple):
    """A row that changes: places of its columns that do, and their new values.

    Attributes:
        after: its owner and key once it is written: a URL may be part of the key.
    """

    row: Row
    places: tuple[int, ...]
    values: list[str | None]
    urls: int
    after: tuple[ProfileId, tuple[str | None, ...]]


def rows(cursor: _Cursor, part: Table, owners: Sequence[ProfileId], suffix: sql.Composable) -> Iterator[Row]:
    """These owners' rows; `suffix` may lock them."""
    cursor.execute(
        sql.SQL("SELECT {columns} FROM {t} WHERE {owner} = ANY(%s::{cast}[]) ORDER BY {key} {suffix}").format(
            columns=part.selected(),
            t=part.name,
            owner=part.owner,
            cast=part.owner_cast,
            key=part.in_order(),
            suffix=suffix,
        ),
        [list(owners)],
    )
    yield from (_row(part, row) for row in cursor.fetchall())


def rewrite_rows(
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], new: Replaced, replace: ReplaceFor, *, one_by_one: bool
) -> Written:
    """Replace in one table's rows of these owners, writing only rows, and columns of them, that change.

    Args:
        cursor: in a transaction.
        part: the table.
        owners: whose profiles are locked.
        new: what values become.
        replace: by which what is stored is looked at again, where triggers may have changed it.
        one_by_one: a row that refuses is left and told of, and the others are written; else it is an error.

    Raises:
        RowRefused: something else was stored than was written.
        psycopg.Error: the database refuses a row.
    """
    locked = list(rows(cursor, part, owners, LOCKED))
    writes = [write for row in locked if (write := _write(part, row, new)) is not None]
    unlockable = _unlockable(cursor, part, owners, locked, new)
    if unlockable and not one_by_one:
        raise RowRefused(UNLOCKABLE.format(table=part.shown))
    if not one_by_one:
        for _, alike in groupby(sorted(writes, key=lambda write: write.places), key=lambda write: write.places):
            _store(cursor, part, list(alike), replace)
        return Written({write.row.owner for write in writes}, sum(write.urls for write in writes), [])
    done = Written(set(), 0, [(owner, UNLOCKABLE.format(table=part.shown)) for owner in unlockable])
    for write in writes:
        try:
            with cursor.connection.transaction():
                _store(cursor, part, [write], replace)
        except (RowRefused, psycopg.Error) as error:
            why = why_refused(error, part, [part.columns[place].name for place in write.places])
            if why is None:
                raise
            done.refused.append((write.row.owner, why))
        else:
            done.owners.add(write.row.owner)
            done = done._replace(urls=done.urls + write.urls)
    return done


def _unlockable(
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], locked: Sequence[Row], new: Replaced
) -> list[ProfileId]:
    """Owners of rows that would change, and that row-level security lets nobody lock."""
    if not part.secured:
        return []
    held = {row[:2] for row in locked}
    others = [row for row in rows(cursor, part, owners, UNLOCKED) if row[:2] not in held]
    return [row.owner for row in others if _write(part, row, new) is not None]


def _write(part: Table, row: Row, new: Replaced) -> _Write | None:
    found = new.of(part, row)
    places = tuple(place for place, (_, urls) in enumerate(found) if urls)
    if not places:
        return None
    values = [found[place][0] for place in places]
    new_of = {part.columns[place].name: value for place, value in zip(places, values, strict=True)}
    key = tuple(new_of.get(name, value) for (name, _), value in zip(part.key, row.key, strict=True))
    return _Write(row, places, values, sum(urls for _, urls in found), (row.owner, key))


def _store(cursor: _Cursor, part: Table, writes: Sequence[_Write], replace: ReplaceFor) -> None:
    """Write rows of which the same columns change."""
    columns = [part.columns[place] for place in writes[0].places]
    cursor.executemany(
        sql.SQL("UPDATE {t} SET {sets} WHERE {is_row} RETURNING {columns}").format(
            t=part.name,
            sets=sql.SQL(", ").join(column.assigned() for column in columns),
            is_row=part.is_row(),
            columns=part.identity(),
        ),
        [[*write.values, *write.row.key, write.row.owner] for write in writes],
        returning=True,
    )
    for write in writes:
        if [_row(part, row)[:2] for row in cursor.fetchall()] != [write.after]:
            why = CHANGED_BACK if part.watched and not cursor.rowcount else OTHER_ROWS
            raise RowRefused(why.format(table=part.shown))
        cursor.nextset()
    if part.watched:
        _read_back(cursor, part, writes, replace)


def _read_back(cursor: _Cursor, part: Table, writes: Sequence[_Write], replace: ReplaceFor) -> None:
    """Whether what triggers left of it, also those that wait for the end of the transaction, is what was written."""
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    now = {row[:2]: row for row in rows(cursor, part, [write.row.owner for write in writes], UNLOCKED)}
    for write in writes:
        row = now.get(write.after)
        for place, value in zip(write.places, write.values, strict=True):
            column = part.columns[place]
            stored = row.values[place] if row is not None else None
            back = column.replaced(stored, replace(write.row.owner))[1]
            if back or not set(column.strings(value)) <= set(column.strings(stored)):
                raise RowRefused(CHANGED_BACK.format(table=part.shown))


def _row(part: Table, row: Sequence[Any]) -> Row:
    end = 1 + len(part.key)
    return Row(plain(row[0]), tuple(row[1:end]), row[end:])


def plain(id_: Any) -> ProfileId:  # noqa: ANN401 - int, str or UUID
    """An id as the core has it."""
    return id_ if isinstance(id_, int) else str(id_)
