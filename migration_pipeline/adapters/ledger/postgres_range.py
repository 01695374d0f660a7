"""The ledger's part of one range, written only while the range is held."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger import tallies
from migration_pipeline.adapters.ledger.control import AT_WORK_SECONDS, BREAKER, HEAR, WHAT_FAILS, pause, said
from migration_pipeline.adapters.ledger.results import (
    AGED,
    IS_AGED,
    KNOWN,
    UNSURE,
    VERIFIED,
    known_file,
    record,
    wanted_file,
)
from migration_pipeline.adapters.postgres.connection import Connection, in_transaction, translated
from migration_pipeline.core.control import Heard
from migration_pipeline.core.errors import RangeLost
from migration_pipeline.core.model import (
    CopyResult,
    KnownFile,
    Needed,
    Outcome,
    ProfileId,
    ProfileRange,
    SourceFile,
    Spelling,
    WantedFile,
    Wish,
)
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.spent import summable

T = TypeVar("T")
_Cursor = psycopg.Cursor[tuple[Any, ...]]

_NOT_OURS = "the source has newer bytes than the object in S3, which is not proven to be ours to replace"


class PostgresRangeLedger:
    """Fulfils `RangeLedger`. Calls may come from any thread; they take turns."""

    def __init__(
        self,
        connection: Connection,
        schema: str,
        bounds: ProfileRange,
        epoch: int,
        lock: Connection,
        held: Callable[[Sequence[str]], set[str]],
    ) -> None:
        self._connection, self._lock, self._held = connection, lock, held
        self._schema = sql.Identifier(schema)
        self._bounds = bounds
        self._turn = threading.Lock()
        self.fence = Fence(bounds.key, bounds.ordinal, epoch, self._check)

    def hear(self) -> Heard:
        def work(cursor: _Cursor) -> Heard:
            cursor.execute(
                self._sql("UPDATE {s}.ranges SET seen_at = now() WHERE range_id = %s"), [self._bounds.ordinal]
            )
            cursor.execute(self._sql(HEAR), {"seconds": AT_WORK_SECONDS})
            ((control, runs, ended, failed),) = cursor.fetchall()
            return Heard(said(control), runs, int(ended), int(failed))

        # A connection that nobody uses for hours is cut off somewhere on its way, and the lock with it.
        with translated("ledger.schema"):
            self._lock.execute("SELECT")
        return self._write(work)

    def trip(self) -> str:
        def work(cursor: _Cursor) -> str:
            cursor.execute(self._sql(WHAT_FAILS))
            classes = ", ".join(f"{count} {outcome}" for outcome, count in cursor.fetchall())
            why = f"too many files fail; of the last ten minutes: {classes}"
            pause(cursor, self._schema, by=BREAKER, why=why)
            return why

        return self._write(work)

    def want(self, wanted: Iterable[Wish]) -> Needed:
        def work(cursor: _Cursor) -> Needed:
            cursor.execute(
                "CREATE TEMP TABLE wanted_now (profile_id text, file_id uuid, container text, blob text,"
                " spelling text, had_query boolean, places jsonb) ON COMMIT DROP"
            )
            with cursor.copy("COPY wanted_now FROM STDIN") as copy:
                for wish in rows:
                    file = wish.file
                    copy.write_row((
                        str(wish.profile_id), file.file_id, file.container, file.blob, wish.spelling, wish.had_query,
                        Jsonb(wish.places) if wish.places else None,
                    ))  # fmt: skip
            # However few rows of a new range Postgres expects, each is then looked up and not compared with all others.
            cursor.execute("CREATE INDEX ON wanted_now (profile_id, file_id)")
            cursor.execute(self._sql(_NOTE))
            new = {file_id for (file_id,) in cursor}
            cursor.execute(self._sql(_RESTORE), [list(new)])
            new -= {file_id for (file_id,) in cursor}  # those were counted when they were copied
            tallies.put_in(cursor, self._schema, self._bounds.ordinal, list(new))
            # The first spelling stays: it is the one from before anything was re-pointed.
            cursor.execute(
                self._sql(
                    "INSERT INTO {s}.wanted (range_id, profile_id, file_id, spelling, had_query, places)"
                    " SELECT %s::integer, profile_id, file_id, min(spelling), bool_or(had_query),"
                    " (array_agg(places) FILTER (WHERE places IS NOT NULL))[1] FROM wanted_now"
                    " GROUP BY profile_id, file_id ORDER BY file_id ON CONFLICT DO NOTHING"
                ),
                [self._bounds.ordinal],
            )
            cursor.execute(self._sql(_SPELLED), {"range": self._bounds.ordinal})
            cursor.execute(
                self._sql(
                    "UPDATE {s}.wanted w SET dropped_at = NULL FROM wanted_now n WHERE w.range_id = %s"
                    " AND w.profile_id = n.profile_id AND w.file_id = n.file_id AND w.dropped_at IS NOT NULL"
                ),
                [self._bounds.ordinal],
            )
            self._forget_unwanted(cursor)
            self._end_erasing(cursor)
            cursor.execute("SELECT count(DISTINCT file_id) FROM wanted_now")
            ((files,),) = cursor.fetchall()
            cursor.execute(self._sql(AGED), {"range": self._bounds.ordinal, "verified": VERIFIED})
            return Needed(int(files), [wanted_file(*row) for row in cursor.fetchall()])

        rows = list(wanted)  # read before the transaction begins: no other store is waited for inside it
        # An archive that drops a file while it is noted here takes the row from under us: then we begin anew.
        return self._write(work, again=errors.ForeignKeyViolation)

    def _forget_unwanted(self, cursor: _Cursor) -> None:
        """Unfinished files that their profiles do not need any more.

        Of those that could be copied, a run that was cut off may have made a copy that nobody noted: they are only
        dropped, and erasing looks there.
        """
        values = {"range": self._bounds.ordinal, "verified": VERIFIED, "unsure": UNSURE}
        for change, those in (
            ("UPDATE {s}.wanted w SET dropped_at = now() FROM", "AND w.dropped_at IS NULL"),
            ("DELETE FROM {s}.wanted w USING", "IS NOT TRUE"),
        ):
            cursor.execute(self._sql(_FORGET.replace("<change>", change).replace("<those>", those)), values)

    def _end_erasing(self, cursor: _Cursor) -> None:
        """What an erasing was cut off at, and a profile needs again: nobody knows whether the copy is still there.

        Whoever erases holds every range that once needed the file, takes them first, and looks at the mark after that.
        So where none of them is held now, nobody is at it.
        """
        cursor.execute(
            self._sql(
                "SELECT file_id FROM {s}.files WHERE erasing AND file_id IN (SELECT file_id FROM wanted_now)"
                " ORDER BY file_id FOR UPDATE"
            )
        )
        marked = [file_id for (file_id,) in cursor.fetchall()]
        if not marked:
            return
        cursor.execute(
            self._sql(
                "SELECT w.file_id, array_agg(DISTINCT r.key) FROM {s}.wanted w JOIN {s}.ranges r USING (range_id)"
                " WHERE w.file_id = ANY(%s) AND w.range_id <> %s GROUP BY 1"
            ),
            [marked, self._bounds.ordinal],
        )
        others = {file_id: set(keys) for file_id, keys in cursor.fetchall()}
        held = self._held(sorted(set().union(*others.values())))
        cursor.execute(
            self._sql("UPDATE {s}.files SET erasing = false, proven_at = NULL WHERE file_id = ANY(%s)"),
            [[file_id for file_id in marked if not others.get(file_id, set()) & held]],
        )

    def unfinished(self) -> Sequence[WantedFile]:
        rows = self._fetch(
            # Where the copy was found gone, and could not be made anew, it may have been brought back.
            "SELECT container, blob, attempts, replaces, CASE WHEN etag IS NULL THEN md5 END, size_bytes, etag,"
            " source_etag, file_id IN (SELECT file_id FROM {s}.accepted) FROM {s}.files WHERE file_id IN"
            " (SELECT file_id FROM {s}.wanted WHERE range_id = %(range)s AND dropped_at IS NULL)"
            " AND (outcome IS NULL OR outcome <> ALL(%(verified)s)) AND waived_at IS NULL AND NOT erasing"
            # Some dead letters are to be tried again: then those alone, beside what was not tried yet.
            " AND (outcome IS NULL OR retry_at IS NOT NULL OR NOT EXISTS (SELECT FROM {s}.wanted w JOIN {s}.files f"
            " USING (file_id) WHERE w.range_id = %(range)s AND w.dropped_at IS NULL AND f.retry_at IS NOT NULL))"
        )
        return [wanted_file(*row) for row in rows]

    def record(self, results: Sequence[CopyResult]) -> None:
        def work(cursor: _Cursor) -> None:
            verified, failed = record(cursor, self._schema, self._bounds.ordinal, results)
            copied = [item for item in results if item.outcome is Outcome.COPIED]
            cursor.execute(
                self._sql("UPDATE {s}.ranges SET copied = copied + %s, bytes = bytes + %s WHERE range_id = %s"),
                [len(copied), sum(item.size for item in copied), self._bounds.ordinal],
            )
            cursor.execute(
                self._sql(
                    "INSERT INTO {s}.progress AS p (at, range_id, files, failed, bytes) VALUES"
                    " (date_bin('10 seconds', now(), 'epoch'::timestamptz), %s, %s, %s, %s)"
                    " ON CONFLICT (at, range_id) DO UPDATE SET files = p.files + excluded.files,"
                    " failed = p.failed + excluded.failed, bytes = p.bytes + excluded.bytes"
                ),
                [self._bounds.ordinal, verified, failed, sum(item.size for item in copied)],
            )

        self._write(work)

    def known(self) -> Mapping[SourceFile, KnownFile]:
        rows = self._fetch(
            f"SELECT container, blob, {KNOWN}, {IS_AGED} FROM {{s}}.files WHERE file_id IN"  # noqa: S608 - of constants
            " (SELECT file_id FROM {s}.wanted WHERE range_id = %(range)s)"
        )
        return {SourceFile(*row[:2]): known_file(*row[2:]) for row in rows}

    def profiles_with_files(self) -> Sequence[ProfileId]:
        rows = self._fetch(
            "SELECT DISTINCT profile_id FROM {s}.wanted JOIN {s}.files USING (file_id) WHERE range_id = %(range)s"
            " AND (dropped_at IS NULL OR outcome = ANY(%(verified)s))"
        )
        return sorted(self._plain(row[0]) for row in rows)

    def spellings(self) -> Mapping[ProfileId, Mapping[SourceFile, Spelling]]:
        rows = self._fetch(
            "SELECT w.profile_id, f.container, f.blob, w.spelling, w.had_query, w.places FROM {s}.wanted w"
            " JOIN {s}.files f USING (file_id) WHERE w.range_id = %(range)s"
        )
        found: dict[ProfileId, dict[SourceFile, Spelling]] = {}
        for profile_id, container, blob, spelling, had_query, places in rows:
            file = SourceFile(container, blob)
            found.setdefault(self._plain(profile_id), {})[file] = Spelling(spelling, had_query, places or ())
        return found

    def note_held(self, held: Collection[SourceFile]) -> int:
        def work(cursor: _Cursor) -> int:
            cursor.execute("CREATE TEMP TABLE held_now (file_id uuid PRIMARY KEY) ON COMMIT DROP")
            with cursor.copy("COPY held_now FROM STDIN") as copy:
                for file in held:
                    copy.write_row((file.file_id,))
            cursor.execute(self._sql(_REMEMBER), {"range": self._bounds.ordinal})
            again = [file_id for (file_id,) in cursor.fetchall()]
            tallies.put_in(cursor, self._schema, self._bounds.ordinal, again)
            cursor.execute(
                self._sql(
                    "INSERT INTO {s}.wanted (range_id, profile_id, file_id, dropped_at) SELECT DISTINCT %s::integer,"
                    " unnest(profiles), file_id, now() FROM {s}.removed WHERE file_id = ANY(%s) ON CONFLICT DO NOTHING"
                ),
                [self._bounds.ordinal, again],
            )
            # In two steps, each of which looks up what is held: Postgres knows nothing yet of how many rows a new range
            # has, and a join of these rows with themselves would compare each with every other.
            for change, those in (("now()", "IS NULL AND NOT"), ("NULL", "IS NOT NULL AND")):
                cursor.execute(
                    self._sql(
                        f"UPDATE {{s}}.wanted w SET dropped_at = {change} WHERE range_id = %(range)s"  # noqa: S608 - of constants
                        f" AND dropped_at {those} EXISTS (SELECT FROM held_now h WHERE h.file_id = w.file_id)"
                    ),
                    {"range": self._bounds.ordinal},
                )
            cursor.execute(
                self._sql(
                    "SELECT count(DISTINCT file_id) FROM {s}.wanted JOIN {s}.files USING (file_id)"
                    " WHERE range_id = %(range)s AND dropped_at IS NOT NULL AND outcome = ANY(%(verified)s)"
                ),
                {"range": self._bounds.ordinal, "verified": VERIFIED},
            )
            ((dropped,),) = cursor.fetchall()
            return int(dropped)

        return self._write(work)

    def held_elsewhere(self, files: Collection[SourceFile]) -> set[SourceFile]:
        def work(cursor: _Cursor) -> set[SourceFile]:
            cursor.execute(
                self._sql(
                    "SELECT container, blob FROM {s}.files f WHERE file_id = ANY(%s) AND EXISTS (SELECT FROM {s}.wanted"
                    " w WHERE w.file_id = f.file_id AND w.range_id <> %s AND w.dropped_at IS NULL)"
                ),
                [[file.file_id for file in files], self._bounds.ordinal],
            )
            return {SourceFile(*row) for row in cursor.fetchall()}

        return self._do(work)

    def unsure(self) -> Mapping[SourceFile, datetime]:
        def work(cursor: _Cursor) -> dict[SourceFile, datetime]:
            cursor.execute(
                self._sql(
                    "SELECT container, blob, noted_at FROM {s}.files f WHERE file_id IN"
                    " (SELECT file_id FROM {s}.wanted WHERE range_id = %(range)s AND dropped_at IS NOT NULL)"
                    " AND coalesce(outcome, 'gave_up') = ANY(%(unsure)s) AND NOT EXISTS"
                    " (SELECT FROM {s}.wanted w WHERE w.file_id = f.file_id AND w.dropped_at IS NULL)"
                ),
                {"range": self._bounds.ordinal, "unsure": UNSURE},
            )
            return {SourceFile(*row[:2]): row[2] for row in cursor.fetchall()}

        return self._do(work)

    def archived(self) -> set[SourceFile]:
        rows = self._fetch(
            "SELECT DISTINCT container, blob FROM {s}.removed m WHERE range_id = %(range)s AND ours"
            " AND ended_at IS NOT NULL AND NOT EXISTS (SELECT FROM {s}.files f WHERE f.file_id = m.file_id)"
        )
        return {SourceFile(*row) for row in rows}

    def outdate(self, files: Sequence[SourceFile], why: str) -> Sequence[str]:
        file_ids = [file.file_id for file in files]

        def work(cursor: _Cursor) -> Sequence[str]:
            tallies.take_out(cursor, self._schema, self._bounds.ordinal, file_ids)
            cursor.execute(
                self._sql(
                    "UPDATE {s}.files SET replaces = CASE WHEN ours THEN etag END,"
                    " outcome = CASE WHEN NOT ours THEN %s END, message = CASE WHEN NOT ours THEN %s ELSE '' END"
                    " WHERE file_id = ANY(%s)"
                ),
                [Outcome.TARGET_CONFLICT.value, _NOT_OURS, file_ids],
            )
            tallies.put_in(cursor, self._schema, self._bounds.ordinal, file_ids)
            cursor.execute(
                self._sql(
                    "UPDATE {s}.ranges SET requested_at = coalesce(requested_at, now()),"
                    " requested_why = coalesce(requested_why, %s) WHERE range_id IN"
                    " (SELECT range_id FROM {s}.wanted WHERE file_id = ANY(%s) AND dropped_at IS NULL) RETURNING key"
                ),
                [why, file_ids],
            )
            return [key for (key,) in cursor.fetchall()]

        return self._write(work) if files else []

    def begin_rollback(self) -> None:
        def work(cursor: _Cursor) -> None:
            cursor.execute(
                self._sql("UPDATE {s}.ranges SET rolled_back_at = now(), done_at = NULL WHERE range_id = %s"),
                [self._bounds.ordinal],
            )

        self._write(work)

    def finish(self, report: Mapping[str, object], *, rolled_back: bool = False) -> None:
        def work(cursor: _Cursor) -> None:
            cursor.execute(
                self._sql(
                    "UPDATE {s}.ranges SET ended_at = now(), seen_at = NULL, report = %s,"
                    " rolled_back_at = CASE WHEN %s THEN now() END,"
                    " done_at = CASE WHEN %s THEN coalesce(done_at, now()) WHEN NOT %s THEN done_at END,"
                    " spent = spent || (SELECT coalesce(jsonb_object_agg("
                    " key, coalesce((spent ->> key)::numeric, 0) + value::numeric), '{{}}') FROM jsonb_each_text(%s))"
                    " WHERE range_id = %s"
                ),
                [
                    Jsonb(report),
                    rolled_back,
                    report.get("waiting") == 0 and not rolled_back,
                    rolled_back,
                    Jsonb(summable(report)),
                    self._bounds.ordinal,
                ],
            )

        self._write(work)

    def audited(self, began: datetime, findings: Mapping[str, int]) -> None:
        def work(cursor: _Cursor) -> None:
            cursor.execute(
                self._sql("UPDATE {s}.ranges SET audited_at = %s, findings = %s WHERE range_id = %s"),
                [began, Jsonb(dict(findings)), self._bounds.ordinal],
            )

        self._write(work)

    def _fetch(self, text: str) -> list[tuple[Any, ...]]:
        def work(cursor: _Cursor) -> list[tuple[Any, ...]]:
            cursor.execute(self._sql(text), {"range": self._bounds.ordinal, "verified": VERIFIED})
            return cursor.fetchall()

        return self._do(work)

    def _write(self, work: Callable[[_Cursor], T], *, again: type[psycopg.Error] = errors.DeadlockDetected) -> T:
        """Do `work` if the range is still ours; whoever takes it waits for this transaction to end.

        Args:
            work: to be done.
            again: an error after which it may succeed when it is done anew, beside those that are such everywhere.
        """

        def fenced(cursor: _Cursor) -> T:
            self._pass(cursor, sql.SQL("FOR NO KEY UPDATE"))
            return work(cursor)

        return self._do(fenced, again=again)

    def _check(self) -> None:
        self._do(lambda cursor: self._pass(cursor, sql.SQL("")))

    def _pass(self, cursor: _Cursor, lock: sql.SQL) -> None:
        statement = sql.SQL("SELECT FROM {s}.ranges WHERE range_id = %s AND epoch = %s {lock}")
        cursor.execute(
            statement.format(s=self._schema, lock=lock),
            [self._bounds.ordinal, self.fence.epoch],
        )
        if not cursor.rowcount:
            raise RangeLost(self._bounds.key)

    def _plain(self, id_: str) -> ProfileId:
        return int(id_) if isinstance(self._bounds.last, int) else id_

    def _do(self, work: Callable[[_Cursor], T], *, again: type[psycopg.Error] = errors.DeadlockDetected) -> T:
        with self._turn, translated("ledger.schema"):
            return in_transaction(self._connection, work, again=again)[0]

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(s=self._schema)


# In one order everywhere: two ranges that share files then wait for each other, and never in a ring.
_NOTE = """
    INSERT INTO {s}.files (file_id, container, blob)
    SELECT DISTINCT file_id, container, blob FROM wanted_now ORDER BY file_id ON CONFLICT DO NOTHING RETURNING file_id
"""
# What is spelled otherwise than before is added: all of it may have been re-pointed by the time of a rollback.
_SPELLED = """
    UPDATE {s}.wanted w SET places = coalesce(w.places, jsonb_build_array(jsonb_build_array('', ARRAY[w.spelling])))
        || coalesce(n.places, jsonb_build_array(jsonb_build_array('', ARRAY[n.spelling])))
    FROM wanted_now n WHERE w.range_id = %(range)s AND w.profile_id = n.profile_id AND w.file_id = n.file_id
        AND (w.places IS NOT NULL OR n.places IS NOT NULL)
        AND NOT coalesce(w.places, '[]') @> coalesce(n.places, jsonb_build_array(jsonb_build_array('',
            ARRAY[n.spelling])))
"""
# Where a file's row was archived and its blob is gone, the record of its removal says that S3 has it. It is a statement
# of its own, for whoever noted the file may have waited for that very archive to end.
_RESTORE = """
    UPDATE {s}.files f SET outcome = CASE WHEN m.ours THEN 'copied' ELSE 'already_there' END, size_bytes = m.size_bytes,
        md5 = m.md5, etag = m.target_etag, source_etag = m.source_etag, ended_at = m.ended_at, ours = m.ours,
        versions = m.versions
    FROM (SELECT DISTINCT ON (file_id) * FROM {s}.removed WHERE file_id = ANY(%s) AND ours IS NOT NULL
        ORDER BY file_id, removed_id DESC) m
    WHERE f.file_id = m.file_id RETURNING f.file_id
"""
# Copies whose rows were archived, and that nobody in the range holds any more: erasing has to know of them again.
_REMEMBER = """
    INSERT INTO {s}.files (file_id, container, blob, outcome, size_bytes, md5, etag, source_etag, ended_at, ours,
        versions)
    SELECT DISTINCT ON (file_id) file_id, container, blob, 'copied', size_bytes, md5, target_etag, source_etag,
        ended_at, true, versions
    FROM {s}.removed m WHERE range_id = %(range)s AND ours AND ended_at IS NOT NULL AND profiles IS NOT NULL
        AND NOT EXISTS (SELECT FROM held_now h WHERE h.file_id = m.file_id)
    ORDER BY file_id, removed_id DESC ON CONFLICT DO NOTHING RETURNING file_id
"""
# First what is not needed any more, by itself: Postgres expects so few unfinished files that it would compare each with
# all that are needed.
_FORGET = """
    WITH unneeded AS MATERIALIZED (
        SELECT profile_id, file_id FROM {s}.wanted WHERE range_id = %(range)s
        EXCEPT SELECT profile_id, file_id FROM wanted_now
    )
    <change> unneeded u JOIN {s}.files f USING (file_id)
    WHERE w.range_id = %(range)s AND w.profile_id = u.profile_id AND w.file_id = u.file_id AND f.replaces IS NULL
        AND (f.outcome IS NULL OR f.outcome <> ALL(%(verified)s))
        AND (f.versions <> '{{}}' OR coalesce(f.outcome, 'gave_up') = ANY(%(unsure)s)) <those>
"""
