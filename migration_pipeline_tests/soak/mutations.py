"""The promises broken on purpose, one at a time: what the schedules must find."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any
from unittest.mock import patch

from google.api_core.exceptions import NotFound
from psycopg import sql

from migration_pipeline.adapters.firebase.firestore import Ended, FirestoreDocuments
from migration_pipeline.adapters.ledger.postgres_range import PostgresRangeLedger
from migration_pipeline.adapters.postgres import profiles as postgres_profiles
from migration_pipeline.adapters.postgres import rows as postgres_rows
from migration_pipeline.adapters.postgres.locks import RowLocks
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.adapters.s3 import objects
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core import erase, migrate, rewrite, rollback, sweep
from migration_pipeline.core.copy_file import Copier
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import CopyResult, KnownFile, Outcome, SourceFile
from migration_pipeline.core.ports import Fence, KeyTaken
from migration_pipeline.core.reading import read
from migration_pipeline.core.seeing import Seeing
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import UrlRules
from migration_pipeline.core.values import Edit, Replace

Mutation = Callable[[], Any]
"""Gives a context in which the product is broken."""


def no_row_locks() -> Any:
    """Rows are read without a lock, and written back whole."""
    rows, lock = postgres_rows.rows, RowLocks._lock  # noqa: SLF001 - broken from inside
    nothing, stack = sql.SQL(""), ExitStack()
    stack.enter_context(
        patch.object(postgres_rows, "rows", lambda cursor, part, owners, _: rows(cursor, part, owners, nothing))
    )
    stack.enter_context(
        patch.object(RowLocks, "_lock", lambda self, cursor, ids, fence, _: lock(self, cursor, ids, fence, nothing))
    )
    return stack


def snapshot_written_back() -> Any:
    """Values are replaced as they were when the range was read, not as they are."""
    seen: dict[Any, Any] = {}
    rows, stack = postgres_rows.rows, ExitStack()

    def remembered(cursor: Any, part: Any, owners: Any, suffix: Any) -> Iterable[Any]:
        for row in rows(cursor, part, owners, suffix):
            key = (str(part.name), row[1])
            if not suffix.as_string(None):
                seen[key] = row
            yield seen.get(key, row)

    # Read without a lock by the one module, and under it by the other.
    stack.enter_context(patch.object(postgres_rows, "rows", remembered))
    stack.enter_context(patch.object(postgres_profiles, "rows", remembered))
    return stack


def no_precondition() -> Any:
    """Documents are written whatever they have become."""

    def commit(_: Any, changes: Sequence[Any], fence: Fence) -> Ended:
        fence.check()
        for snapshot, fields in changes:
            with suppress(NotFound):
                snapshot.reference.update(fields)
        return Ended.WRITTEN

    return patch.object(FirestoreDocuments, "_commit", commit)


def flag_before_firebase() -> Any:
    """The flag is set by the database alone, and the documents are re-pointed after it."""
    rewritten, confirmed, stack = migrate.rewrite, migrate.confirm, ExitStack()
    later: list[Callable[[], Any]] = []

    class Nothing:
        def read(self, _: Any) -> Mapping[Any, Any]:
            return {}

    def put_off(site: Any, **given: Any) -> Any:
        if hasattr(site, "clear_flags"):  # the database
            later.clear()
            return rewritten(site, **given)
        later.append(lambda: rewritten(site, **given))
        return rewrite.Rewritten()

    def early(bounds: Any, **given: Any) -> Any:
        found = confirmed(bounds, **{**given, "documents": Nothing()})
        for documents in later:
            documents()
        return found

    stack.enter_context(patch.object(migrate, "rewrite", put_off))
    stack.enter_context(patch.object(migrate, "confirm", early))
    return stack


def flag_without_another_look() -> Any:
    """The row is not looked at again under its lock before it is flagged."""
    original = PostgresProfiles.set_flags

    def unasked(self: Any, ids: Any, _: Any, fence: Any) -> Any:
        return original(self, ids, lambda _: False, fence)

    return patch.object(PostgresProfiles, "set_flags", unasked)


def rewrite_before_copy() -> Any:
    """References are re-pointed as soon as a file is known."""
    original = rewrite.moved

    def moved(known: Mapping[SourceFile, KnownFile], urls: UrlRules) -> Replace:
        return original(dict.fromkeys(known, KnownFile(Outcome.COPIED, waived=False)), urls)

    return patch.object(rewrite, "moved", moved)


def objects_replaced() -> Any:
    """What is under the key is written over."""
    create = S3Target.create

    async def over(self: Any, key: str, body: bytes, md5: bytes, headers: Any, **_: Any) -> Any:
        try:
            return await create(self, key, body, md5, headers)
        except KeyTaken:
            there = await self.describe(key)
            return await create(self, key, body, md5, headers, replaces=there.etag)

    return patch.object(S3Target, "create", over)


def missing_files_blanked() -> Any:
    """A reference to a file that is not found is taken away."""
    original = rewrite.moved

    def moved(known: Mapping[SourceFile, KnownFile], urls: UrlRules) -> Replace:
        replace = original(known, urls)
        missing = {file for file, state in known.items() if state.outcome is Outcome.SOURCE_MISSING}

        def blank(texts: Sequence[Text]) -> list[Sequence[Edit]]:
            gone = [[f for f in read(text, urls) if f.reference.file in missing] for text in texts]
            blanked = [[Edit(f.start, f.end, "") for f in found] for found in gone]
            return [mine or theirs for mine, theirs in zip(blanked, replace(texts), strict=True)]

        return blank

    return patch.object(rewrite, "moved", moved)


def one_bad_file_stops_all() -> Any:
    """A file that fails ends the run."""
    copy = Copier.copy

    async def strict(self: Any, wanted: Any) -> Any:
        result = await copy(self, wanted)
        if not result.outcome.verified:
            raise Fatal("a file failed", setting="none")
        return result

    return patch.object(Copier, "copy", strict)


def nothing_recorded() -> Any:
    """Outcomes are forgotten: every run copies again."""
    return patch.object(PostgresRangeLedger, "known", lambda _: {})


def no_sweep() -> Any:
    """What came late is not looked for."""
    return patch.object(sweep, "_outdated", lambda *_: [])


def erased_while_referred_to() -> Any:
    """Nobody looks whether copies are referred to: neither the run that drops them, nor erasing itself."""
    note_held, stack = PostgresRangeLedger.note_held, ExitStack()
    stack.enter_context(patch.object(PostgresRangeLedger, "note_held", lambda self, _: note_held(self, [])))
    stack.enter_context(patch.object(erase, "referred_to", lambda *_: set()))
    stack.enter_context(patch.object(erase, "still_held", lambda *_: set()))
    return stack


def nothing_erased() -> Any:
    """Nobody notes what is not held any more."""
    return patch.object(PostgresRangeLedger, "note_held", lambda *_: 0)


def rollback_by_half() -> Any:
    """The way back is taken in the database alone."""

    def rewrite_nothing(*_: Any) -> Any:
        return rollback.Rewritten()

    original = rollback.roll_back_range

    def half(key: str, stores: Any, **given: Any) -> Any:
        with patch.object(FirestoreDocuments, "rewrite", rewrite_nothing):
            return original(key, stores, **given)

    from migration_pipeline_tests.soak import schedules  # noqa: PLC0415 - it knows this module

    return patch.object(schedules, "roll_back_range", half)


def flag_kept_on_the_way_back() -> Any:
    """A rollback leaves the flags as they are."""
    return patch.object(rollback, "_clear_flags", lambda *_: None)


def old_evidence_relied_on() -> Any:
    """What an earlier run proved of a copy is taken for granted."""

    async def unasked(_: Any, wanted: Any) -> Any:
        proven = wanted.proven
        if proven is None:
            return None
        return CopyResult(
            wanted.file, Outcome.ALREADY_THERE, proven.size, proven.md5, proven.etag, source_etag=proven.source_etag
        )

    return patch.object(Copier, "_seen_again", unasked)


def archived_copies_relied_on() -> Any:
    """Nobody looks at an object's storage class."""
    return patch.object(objects, "is_archived", lambda *_: False)


def nobody_asked_for() -> Any:
    """A sweep notes newer bytes, and is cut off before it asks for the ranges."""
    outdate = PostgresRangeLedger.outdate

    def unasked(self: Any, files: Any, why: str) -> Any:
        keys = outdate(self, files, why)
        self._write(lambda cursor: cursor.execute(self._sql("UPDATE {s}.ranges SET requested_at = NULL")))
        return keys

    return patch.object(PostgresRangeLedger, "outdate", unasked)


def replaced_copies_left_behind() -> Any:
    """A rollback compares the source with what was copied, and not the copy."""
    refusal = rollback._refusal  # noqa: SLF001 - broken from inside

    def hidden(state: Any, now: Any) -> str | None:
        why = refusal(state, now)
        return None if why == rollback.REPLACED else why

    return patch.object(rollback, "_refusal", hidden)


def texts_not_seen() -> Any:
    """What the recogniser does not understand names nothing."""
    return patch.object(Seeing, "sees", lambda *_: False)


def texts_replaced_whole() -> Any:
    """A URL in a text takes the place of all of it."""
    original = rewrite.moved_to

    def whole(found: Any, text: Text, urls: UrlRules) -> Edit | None:
        edit = original(found, text, urls)
        return edit._replace(start=0, end=len(text.text)) if edit is not None else None

    return patch.object(rewrite, "moved_to", whole)


MUTATIONS: Mapping[Mutation, set[int]] = {
    no_row_locks: {3},
    snapshot_written_back: {3},
    no_precondition: {3},
    flag_before_firebase: {5},
    flag_without_another_look: {5},
    rewrite_before_copy: {1},
    objects_replaced: {4},
    missing_files_blanked: {1, 2, 3, 7},
    one_bad_file_stops_all: {7},
    nothing_recorded: {5, 6, 7},
    no_sweep: {2},
    erased_while_referred_to: {1},
    nothing_erased: {0},
    rollback_by_half: {10},
    flag_kept_on_the_way_back: {5, 10},
    old_evidence_relied_on: {1, 2},
    archived_copies_relied_on: {1, 7},
    nobody_asked_for: {2},
    replaced_copies_left_behind: {3},
    texts_not_seen: {5},
    texts_replaced_whole: {3},
}
"""Each, and the promises of which one must be seen broken."""
