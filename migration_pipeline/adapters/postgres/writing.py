"""The three things that are done to locked profiles: rewriting their rows, setting their flag, clearing it."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres.refusals import CHANGED_BACK, RowRefused
from migration_pipeline.adapters.postgres.rows import (
    LOCKED,
    UNLOCKED,
    Remembered,
    plain,
    replaced,
    rewrite_rows,
    rows,
)
from migration_pipeline.adapters.postgres.tables import Column, Table
from migration_pipeline.core.model import Flagged, ProfileId, Rewritten
from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import ReplaceFor

_Cursor = psycopg.Cursor[tuple[Any, ...]]


class Rewriting:
    """Replaces strings in the rows of all tables."""

    def __init__(self, parts: Sequence[Table], replace: ReplaceFor) -> None:
        self._parts, self._replace, self.new = parts, replace, replaced(replace)

    def __call__(self, cursor: _Cursor, locked: list[ProfileId], /, *, one_by_one: bool) -> Rewritten:
        changed: set[ProfileId] = set()
        total = Rewritten()
        for part in self._parts:
            done = rewrite_rows(cursor, part, locked, self.new, self._replace, one_by_one=one_by_one)
            changed |= done.owners
            total = total.plus(Rewritten(0, done.urls, refused=tuple(done.refused)))
        return total._replace(profiles=len(changed))

    def refused(self, profile_id: ProfileId, why: str, /) -> Rewritten:
        return Rewritten(refused=((profile_id, why),))


class Flagging:
    """Sets the flag where no value keeps it from being true."""

    def __init__(
        self, profiles: Table, related: Sequence[Table], flag: sql.Identifier, unmoved: Callable[[Text], bool]
    ) -> None:
        def look(_: ProfileId, column: Column, value: str | None) -> bool:
            return any(map(unmoved, column.strings(value)))

        self._profiles, self._parts, self._flag = profiles, (profiles, *related), flag
        self.unmoved = Remembered(look)

    def __call__(self, cursor: _Cursor, locked: list[ProfileId], /, *, one_by_one: bool) -> Flagged:
        del one_by_one
        clean = self._clean(cursor, locked, LOCKED)
        _set_flag(cursor, self._profiles, self._flag, clean, sql.SQL("coalesce({}, now())").format(self._flag))
        if self._profiles.watched:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            # A trigger may keep the flag from being set, or take the moment to write values of its own.
            if self._clean(cursor, clean, UNLOCKED) != clean or self._flagged(cursor, clean) != set(clean):
                raise RowRefused(CHANGED_BACK.format(table=self._profiles.shown))
        return Flagged(tuple(clean))

    def refused(self, profile_id: ProfileId, why: str, /) -> Flagged:
        return Flagged(refused=((profile_id, why),))

    def _clean(self, cursor: _Cursor, profile_ids: Sequence[ProfileId], lock: sql.SQL) -> list[ProfileId]:
        # All of them are locked before the first is looked at.
        found = [(part, row) for part in self._parts for row in rows(cursor, part, profile_ids, lock)]
        held = {row.owner for part, row in found if any(self.unmoved.of(part, row))}
        return [id_ for id_ in profile_ids if id_ not in held]

    def _flagged(self, cursor: _Cursor, profile_ids: Sequence[ProfileId]) -> set[ProfileId]:
        cursor.execute(
            sql.SQL("SELECT {id} FROM {t} WHERE {id} = ANY(%s::{cast}[]) AND {flag} IS NOT NULL").format(
                id=self._profiles.owner, t=self._profiles.name, cast=self._profiles.owner_cast, flag=self._flag
            ),
            [list(profile_ids)],
        )
        return {plain(row[0]) for row in cursor.fetchall()}


class Unflagging:
    """Clears the flag."""

    def __init__(self, profiles: Table, flag: sql.Identifier) -> None:
        self._profiles, self._flag = profiles, flag

    def __call__(self, cursor: _Cursor, locked: list[ProfileId], /, *, one_by_one: bool) -> Flagged:
        del one_by_one
        return Flagged(tuple(_set_flag(cursor, self._profiles, self._flag, locked, sql.SQL("NULL"))))

    def refused(self, profile_id: ProfileId, why: str, /) -> Flagged:
        return Flagged(refused=((profile_id, why),))


def _set_flag(
    cursor: _Cursor, profiles: Table, flag: sql.Identifier, profile_ids: Sequence[ProfileId], value: sql.Composable
) -> list[ProfileId]:
    """Those of the profiles of which it was changed."""
    cursor.execute(
        sql.SQL(
            "UPDATE {t} SET {flag} = {value} WHERE {id} = ANY(%s::{cast}[]) AND {flag} IS DISTINCT FROM {value}"
            " RETURNING {id}"
        ).format(t=profiles.name, flag=flag, value=value, id=profiles.owner, cast=profiles.owner_cast),
        [list(profile_ids)],
    )
    return [plain(row[0]) for row in cursor.fetchall()]
