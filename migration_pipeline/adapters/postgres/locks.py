"""Row locks: short, in one order, and never waited for while others are held.

The locks are `FOR NO KEY UPDATE`: as strong as an UPDATE's own, and unlike `FOR UPDATE` they do not make the app wait
when it inserts rows that refer to the profile.

No transaction of ours waits for a lock while it holds one: rows that somebody else has locked are passed over, and
taken one profile at a time later. So the app never waits for us longer than a batch takes, and there can be no deadlock
of which it might be the victim.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import psycopg
from psycopg import sql

from migration_pipeline.adapters.postgres.connection import RUN_AGAIN, Connection, StillBusy, in_transaction, translated
from migration_pipeline.adapters.postgres.refusals import UNLOCKABLE, RowRefused, why_refused
from migration_pipeline.adapters.postgres.rows import plain
from migration_pipeline.adapters.postgres.tables import Table
from migration_pipeline.core.errors import RangeLost
from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.ports import Fence

PROFILE = sql.SQL("FOR NO KEY UPDATE")
_LOCK_WAIT, _STATEMENT, _IDLE = "2s", "30s", "15s"
"""How long a transaction of ours may wait for a lock, run one statement, or hold locks while our process hangs."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_Cursor = psycopg.Cursor[tuple[Any, ...]]


class Work(Protocol[T_co]):
    """What is done, in a transaction, to profiles whose rows are locked."""

    def __call__(self, cursor: _Cursor, locked: list[ProfileId], /, *, one_by_one: bool) -> T_co:
        """Do it.

        With `one_by_one` there is one profile, and rows that refuse are left; else they raise `RowRefused` or the
        driver's error.
        """

    def refused(self, profile_id: ProfileId, why: str, /) -> T_co:
        """What it comes to where the database refuses a whole profile."""


class Done(NamedTuple, Generic[T]):
    """Something that was done under locks: its result, tries that were thrown away, seconds that rows were locked."""

    result: T
    conflicts: int
    seconds: float


class RowLocks:
    """Does things to profiles under their locks."""

    def __init__(self, connection: Connection, profiles: Table, deleted: sql.Composable, epochs: str | None) -> None:
        """Set up.

        Args:
            connection: to the app's database.
            profiles: the table.
            deleted: says of a row that it is soft-deleted; such rows are never locked.
            epochs: the ledger's schema, where it is in this database: a fence is then compared in the transaction that
                writes. Elsewhere it is asked at its beginning.
        """
        self._connection, self._profiles, self._deleted = connection, profiles, deleted
        self._epochs = sql.SQL("{}.ranges").format(sql.Identifier(epochs)) if epochs else None

    def each(
        self,
        profile_ids: Sequence[ProfileId],
        work: Work[T],
        fence: Fence | None,
        lock: sql.SQL = PROFILE,
    ) -> Iterator[Done[T]]:
        """Do `work` to all profiles that nobody else has locked at once, and to each other one as it becomes free.

        Where a row refuses, the whole of it is rolled back, and each profile gets a transaction of its own: those that
        refuse are told of, and all others are done.

        Yields:
            What came of it. A profile that stays locked all the time is left alone: whoever confirms the range finds it
            as it is.
        """
        if not profile_ids:
            return
        with translated("database"):
            one_by_one = False
            try:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    began = time.monotonic()
                    locked = self._lock(cursor, profile_ids, fence, lock + sql.SQL(" SKIP LOCKED"))
                    done = work(cursor, locked, one_by_one=False)
                yield Done(done, 0, time.monotonic() - began)
                busy = self._alive_but(profile_ids, locked)
            except RUN_AGAIN:  # a related row is locked
                busy = list(profile_ids)
            except (RowRefused, psycopg.Error) as error:
                if why_refused(error, self._profiles) is None:
                    raise
                busy, one_by_one = list(profile_ids), True
            for id_ in busy:
                yield from self._when_free(id_, work, fence, lock, conflicts=0 if one_by_one else 1)

    def _when_free(
        self, id_: ProfileId, work: Work[T], fence: Fence | None, lock: sql.SQL, *, conflicts: int
    ) -> Iterator[Done[T]]:
        began = 0.0

        def alone(cursor: _Cursor) -> T:
            nonlocal began
            locked = self._lock(cursor, [id_], fence, lock)
            began = time.monotonic()
            if not locked and self._profiles.secured and self._alive_but([id_], locked):
                raise RowRefused(UNLOCKABLE.format(table=self._profiles.shown))
            return work(cursor, locked, one_by_one=True)

        try:
            done, lost = in_transaction(self._connection, alone)
        except StillBusy:
            return
        except (RowRefused, psycopg.Error) as error:
            why = why_refused(error, self._profiles)
            if why is None:
                raise
            done, lost = work.refused(id_, why), 0
        yield Done(done, lost + conflicts, time.monotonic() - began)

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
                id=self._profiles.owner,
                cast=self._profiles.owner_cast,
                deleted=self._deleted,
                lock=lock,
            ),
            [list(profile_ids)],
        )
        return [plain(row[0]) for row in cursor.fetchall()]

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
                    id=self._profiles.owner,
                    cast=self._profiles.owner_cast,
                    deleted=self._deleted,
                ),
                [list(others)],
            )
            return [plain(row[0]) for row in cursor.fetchall()]
