"""Firestore: the documents that clients read.

A document's fields are read, replaced and written back under the precondition that the document is as it was read
(`last_update_time`), so an edit in between makes the write fail and the document is read again.
"""

import os
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from google.api_core import exceptions

from migration_pipeline.adapters.firebase.app import CREDENTIALS, connect
from migration_pipeline.adapters.firebase.write_rate import WriteRate
from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.model import ProfileId, Rewritten
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.texts import WHOLE, Form, Text
from migration_pipeline.core.values import ReplaceFor, replace_in, texts_in

_READ_BATCH = 100
_WRITE_BATCH = 50
"""Documents of one commit. Firestore bounds a commit's size at 10 MiB and a document's at 1 MiB ("Usage and
limits"), and a commit is refused whole where one precondition fails, so small batches cost little when one does."""
_MAX_BATCH_BYTES = 8 * 1024 * 1024
_TRIES = 8  # readings of one document that its users keep editing
_DEADLINE = 30.0  # seconds a call may take, the client's own retries included

_SETTING = "firebase"
_PROBES = "migration_pipeline_probes"  # a collection that nobody has
EMULATOR = "FIRESTORE_EMULATOR_HOST"


_Change = tuple[ProfileId, tuple[Any, dict[str, Any]], int]
"""A profile, its document as it was read and the fields to write, and how many URLs these replace."""


class Ended(Enum):
    """What became of a commit."""

    WRITTEN = "written"
    CONFLICT = "conflict"  # with an edit, or a document is gone
    REFUSED = "refused"  # for what it holds: a document that the new URLs would make larger than 1 MiB


class FirestoreDocuments:
    """Fulfils `DocumentStore`."""

    def __init__(
        self,
        project_id: str,
        document: str,
        fields: Sequence[str],
        writes: WriteRate,
        *,
        database: str | None = None,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        """Connect.

        Args:
            project_id: the Firebase project.
            document: a document's path, with `{id}` for the profile's id.
            fields: paths of the fields that hold URLs.
            writes: how many are made a second.
            database: a named one; else the project's default.
            forms: how the strings of some fields are read.

        Raises:
            Fatal: no credentials were found.
        """
        self._app = connect(project_id, emulator=EMULATOR)
        self._forms = forms or {}
        from firebase_admin import firestore  # noqa: PLC0415 - loaded already

        self._client = firestore.client(self._app, database)
        self._writes = writes
        self._document = document
        self._fields = list(fields)

    def close(self) -> None:
        """Close the connection."""
        import firebase_admin  # noqa: PLC0415 - loaded already

        self._client.close()
        # firebase-admin keeps all apps that were not deleted, with their clients.
        firebase_admin.delete_app(self._app)

    def read(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, Sequence[Text]]:
        return {
            profile_id: [
                text for field in self._fields for text in texts_in(_value(snapshot, field), *self._read(field))
            ]
            for profile_id, snapshot in self._snapshots(profile_ids).items()
        }

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        total, todo = Rewritten(), list(profile_ids)
        for attempt in range(_TRIES):
            changes = self._changes(todo, replace)
            total, todo = self._write(changes, total, fence, together=attempt == 0)
            if not todo:
                break
        # Documents still edited faster than we read them, and refused ones, stay as they are: confirm finds them
        # waiting.
        return total

    def without(self, profile_ids: Sequence[ProfileId]) -> Sequence[str]:
        """Those of the fields that no document of these profiles has; for `doctor`."""
        snapshots = self._snapshots(profile_ids).values()
        return [field for field in self._fields if snapshots and not any(_has(found, field) for found in snapshots)]

    def try_writing(self) -> None:
        """Ask to update a document that is not there, which changes nothing; for `doctor`.

        Raises:
            Fatal: the right is missing, which the store says before it looks for the document.
        """
        try:
            self._client.collection(_PROBES).document(os.urandom(8).hex()).update({"probe": True}, timeout=_DEADLINE)
        except exceptions.NotFound:
            return
        except exceptions.GoogleAPIError as error:
            raise _translated(error) from None

    def _write(
        self, changes: Sequence[_Change], total: Rewritten, fence: Fence, *, together: bool
    ) -> tuple[Rewritten, list[ProfileId]]:
        """Write what changes; return the ids to try again, one commit each after a first refusal."""
        again: list[ProfileId] = []
        for batch in _batches(changes, _WRITE_BATCH if together else 1):
            ended = self._commit([change for _, change, _ in batch], fence)
            if ended is Ended.WRITTEN:
                total = total.plus(Rewritten(len(batch), sum(count for _, _, count in batch)))
                continue
            total = total.plus(Rewritten(conflicts=ended is Ended.CONFLICT))
            if ended is Ended.CONFLICT or len(batch) > 1:
                again += [profile_id for profile_id, _, _ in batch]
        return total, again

    def _changes(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor) -> list[_Change]:
        changes = []
        for profile_id, snapshot in self._snapshots(profile_ids).items():
            new = {
                field: replace_in(_value(snapshot, field), replace(profile_id), *self._read(field))
                for field in self._fields
            }
            count = sum(n for _, n in new.values())
            if count:
                changes.append((profile_id, (snapshot, {f: value for f, (value, n) in new.items() if n}), count))
        return changes

    def _read(self, field: str) -> tuple[str, Form]:
        """What texts of the field are called, and how they are read."""
        return f"{self._document.partition('/')[0]}.{field}", self._forms.get(field, WHOLE)

    def _commit(self, changes: Sequence[tuple[Any, dict[str, Any]]], fence: Fence) -> Ended:
        """Write all, each under its precondition, or none."""
        self._writes.take(len(changes))
        # Asked after the reading, and after the wait for the rate, which may be long: a run that takes the range
        # later finds what is written here, or makes the write fail.
        fence.check()
        batch = self._client.batch()
        for snapshot, fields in changes:
            option = self._client.write_option(last_update_time=snapshot.update_time)
            batch.update(snapshot.reference, fields, option=option)
        try:
            batch.commit(timeout=_DEADLINE)
        except (exceptions.FailedPrecondition, exceptions.NotFound, exceptions.Aborted):
            return Ended.CONFLICT
        except exceptions.InvalidArgument:
            # What these very writes would make is more than Firestore takes; the read before had the same project
            # and fields, so these are right.
            return Ended.REFUSED
        except exceptions.GoogleAPIError as error:
            raise _translated(error) from None
        return Ended.WRITTEN

    def _snapshots(self, profile_ids: Sequence[ProfileId]) -> dict[ProfileId, Any]:
        found: dict[ProfileId, Any] = {}
        for start in range(0, len(profile_ids), _READ_BATCH):
            batch = profile_ids[start : start + _READ_BATCH]
            ids = {self._document.format(id=id_): id_ for id_ in batch if _can_be(str(id_))}
            if not ids:
                continue
            references = [self._client.document(path) for path in ids]
            try:
                for snapshot in self._client.get_all(references, field_paths=self._fields, timeout=_DEADLINE):
                    if snapshot.exists:
                        found[ids[snapshot.reference.path]] = snapshot
            except exceptions.GoogleAPIError as error:
                raise _translated(error) from None
        return found


def _can_be(text: str) -> bool:
    """Whether a document can have that id. With a slash in it, it would name a document below another profile's."""
    return text not in ("", ".", "..") and "/" not in text and not re.fullmatch(r"__.*__", text, re.DOTALL)


def _translated(error: exceptions.GoogleAPIError) -> Exception:
    said = f"Firestore answered {type(error).__name__}"
    if isinstance(error, exceptions.Unauthenticated | exceptions.PermissionDenied | exceptions.Forbidden):
        return Fatal(said, setting=CREDENTIALS, remedy="Grant the service account roles/datastore.user.")
    if isinstance(error, exceptions.ServiceUnavailable | exceptions.RetryError | exceptions.DeadlineExceeded):
        return Transient(said)
    if isinstance(error, exceptions.ServerError | exceptions.TooManyRequests):
        return Transient(said)
    return Fatal(f"{said}: {error}", setting=_SETTING, remedy="Check firebase.project_id, document and fields.")


def _has(snapshot: Any, field: str) -> bool:  # noqa: ANN401 - a document
    try:
        snapshot.get(field)
    except KeyError:
        return False
    return True


def _value(snapshot: Any, field: str) -> Any:  # noqa: ANN401 - whatever the document holds
    try:
        return snapshot.get(field)
    except KeyError:
        return None


def _batches(changes: Sequence[_Change], most: int) -> list[list[_Change]]:
    """Batches of at most so many documents, and of few enough bytes."""
    batches: list[list[_Change]] = []
    size = 0
    for change in changes:
        length = sum(len(text.text) for text in texts_in(change[1][1])) * 2
        if not batches or len(batches[-1]) >= most or size + length > _MAX_BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(change)
        size += length
    return batches
