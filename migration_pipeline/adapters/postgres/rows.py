"""Rows of the app's tables: reading them, and replacing strings in them."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres.tables import Column, Table
from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.values import ReplaceFor

UNLOCKED, LOCKED = sql.SQL(""), sql.SQL("FOR NO KEY UPDATE NOWAIT")
_Cursor = psycopg.Cursor[tuple[Any, ...]]


class Prepared:
    """What values become, remembered: the same value of the same profile is looked through once."""

    def __init__(self, replace: ReplaceFor) -> None:
        self._replace = replace
        self._seen: dict[tuple[ProfileId, Column, str], tuple[Any, int]] = {}

    def replaced(self, part: Table, owner: ProfileId, values: Sequence[Any]) -> list[tuple[Any, int]]:
        """The new values of a row's columns, and how many strings of each were replaced."""
        new = []
        for column, value in zip(part.columns, values, strict=True):
            # Lists, of text[] columns, are few and short, and cannot be keys.
            key = (owner, column, value) if isinstance(value, str) else None
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


def rows(
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], suffix: sql.Composable
) -> Iterator[tuple[Any, ...]]:
    """These owners' rows: owner, id and the configured columns; `suffix` may lock them."""
    cursor.execute(
        sql.SQL("SELECT {columns} FROM {t} WHERE {owner} = ANY(%s::{cast}[]) ORDER BY {id} {suffix}").format(
            columns=part.selected(), t=part.name, owner=part.owner, cast=part.owner_cast, id=part.id, suffix=suffix
        ),
        [list(owners)],
    )
    yield from cursor.fetchall()


def rewrite_rows(
    cursor: _Cursor, part: Table, owners: Sequence[ProfileId], prepared: Prepared
) -> tuple[set[ProfileId], int]:
    """Replace in one table's rows of these owners, writing only rows that change."""
    writes, changed, urls = [], set(), 0
    for owner, id_, *values in rows(cursor, part, owners, LOCKED):
        new = prepared.replaced(part, plain(owner), values)
        count = sum(n for _, n in new)
        if count:
            writes.append([*(value for value, _ in new), id_])
            changed.add(plain(owner))
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


def plain(id_: Any) -> ProfileId:  # noqa: ANN401 - int, str or UUID
    """An id as the core has it."""
    return id_ if isinstance(id_, int) else str(id_)
