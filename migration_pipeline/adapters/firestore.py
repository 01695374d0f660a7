"""Firestore: the documents that clients read.

A document's fields are read, replaced and written back under the precondition that the document is as it was read
(`last_update_time`), so an edit in between makes the write fail and the document is read again.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from google.api_core import exceptions

from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.model import ProfileId, Rewritten
from migration_pipeline.core.values import Replace, replace_in, strings_in

_READ_BATCH = 100
_WRITE_BATCH = 50
"""Documents of one commit. Firestore bounds a commit's size at 10 MiB and a document's at 1 MiB ("Usage and
limits"), and a commit is refused whole where one precondition fails, so small batches cost little when one does."""
_MAX_BATCH_BYTES = 8 * 1024 * 1024
_TRIES = 8  # readings of one document that its users keep editing
_DEADLINE = 30.0  # seconds a call may take, the client's own retries included

_SETTING = "firebase"
_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"


class FirestoreDocuments:
    """Fulfils `DocumentStore`."""

    def __init__(self, project_id: str, document: str, fields: Sequence[str]) -> None:
        """Connect.

        Args:
            project_id: the Firebase project.
            document: a document's path, with `{id}` for the profile's id.
            fields: paths of the fields that hold URLs.

        Raises:
            Fatal: no credentials were found.
        """
        self._client = _client(project_id)
        self._document = document
        self._fields = list(fields)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def read(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, Sequence[str]]:
        return {
            profile_id: [text for field in self._fields for text in strings_in(_value(snapshot, field))]
            for profile_id, snapshot in self._snapshots(profile_ids).items()
        }

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: Replace) -> Rewritten:
        total, todo = Rewritten(), list(profile_ids)
        for attempt in range(_TRIES):
            total, todo = self._rewrite_once(todo, replace, total, together=attempt == 0)
            if not todo:
                break
        # Documents still edited faster than we read them stay as they are: confirm finds them waiting.
        return total

    def _rewrite_once(
        self, profile_ids: Sequence[ProfileId], replace: Replace, total: Rewritten, *, together: bool
    ) -> tuple[Rewritten, list[ProfileId]]:
        """Write what changes; return the ids to try again, one commit each after a first refusal."""
        again: list[ProfileId] = []
        changes = self._changes(profile_ids, replace)
        for batch in _batches(changes, _WRITE_BATCH if together else 1):
            if self._commit([change for _, change, _ in batch]):
                total = total.plus(Rewritten(len(batch), sum(count for _, _, count in batch)))
            else:
                total = total.plus(Rewritten(conflicts=1))
                again += [profile_id for profile_id, _, _ in batch]
        return total, again

    def _changes(
        self, profile_ids: Sequence[ProfileId], replace: Replace
    ) -> list[tuple[ProfileId, tuple[Any, dict[str, Any]], int]]:
        changes = []
        for profile_id, snapshot in self._snapshots(profile_ids).items():
            new = {field: replace_in(_value(snapshot, field), replace) for field in self._fields}
            count = sum(n for _, n in new.values())
            if count:
                changes.append((profile_id, (snapshot, {f: value for f, (value, n) in new.items() if n}), count))
        return changes

    def _commit(self, changes: Sequence[tuple[Any, dict[str, Any]]]) -> bool:
        """Write all, each under its precondition, or none."""
        batch = self._client.batch()
        for snapshot, fields in changes:
            option = self._client.write_option(last_update_time=snapshot.update_time)
            batch.update(snapshot.reference, fields, option=option)
        try:
            batch.commit(timeout=_DEADLINE)
        except (exceptions.FailedPrecondition, exceptions.NotFound, exceptions.Aborted):
            return False
        except exceptions.GoogleAPIError as error:
            raise _translated(error) from None
        return True

    def _snapshots(self, profile_ids: Sequence[ProfileId]) -> dict[ProfileId, Any]:
        found: dict[ProfileId, Any] = {}
        for start in range(0, len(profile_ids), _READ_BATCH):
            ids = {self._document.format(id=id_): id_ for id_ in profile_ids[start : start + _READ_BATCH]}
            references = [self._client.document(path) for path in ids]
            try:
                for snapshot in self._client.get_all(references, field_paths=self._fields, timeout=_DEADLINE):
                    if snapshot.exists:
                        found[ids[snapshot.reference.path]] = snapshot
            except exceptions.GoogleAPIError as error:
                raise _translated(error) from None
        return found


def _client(project_id: str) -> Any:  # noqa: ANN401 - firebase-admin has no types
    import firebase_admin  # noqa: PLC0415 - 0.3 s that processes without documents need not spend
    from firebase_admin import credentials, firestore  # noqa: PLC0415 - as above
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - as above
    from google.auth.exceptions import DefaultCredentialsError  # noqa: PLC0415 - as above

    class Anonymous(credentials.Base):  # type: ignore[misc] # firebase-admin has no types
        """What an emulator takes; firebase-admin would ask for real credentials even there."""

        def get_credential(self) -> AnonymousCredentials:
            return AnonymousCredentials()  # type: ignore[no-untyped-call] # as above

    emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
    credential = Anonymous() if emulator else credentials.ApplicationDefault()
    try:
        # Named apart from the default app, which belongs to whoever imports us.
        app = firebase_admin.initialize_app(
            credential, {"projectId": project_id}, name=f"migration-pipeline-{os.urandom(4).hex()}"
        )
        return firestore.client(app)
    except (DefaultCredentialsError, OSError, ValueError) as error:
        raise Fatal(
            f"no usable credentials ({type(error).__name__}).",
            setting=_CREDENTIALS,
            remedy="Name a service account's key file that may read and write the documents.",
        ) from None


def _translated(error: exceptions.GoogleAPIError) -> Exception:
    said = f"Firestore answered {type(error).__name__}"
    if isinstance(error, exceptions.Unauthenticated | exceptions.PermissionDenied | exceptions.Forbidden):
        return Fatal(said, setting=_CREDENTIALS, remedy="Grant the service account roles/datastore.user.")
    if isinstance(error, exceptions.ServiceUnavailable | exceptions.RetryError | exceptions.DeadlineExceeded):
        return Transient(said)
    if isinstance(error, exceptions.ServerError | exceptions.TooManyRequests):
        return Transient(said)
    return Fatal(f"{said}: {error}", setting=_SETTING, remedy="Check firebase.project_id, document and fields.")


def _value(snapshot: Any, field: str) -> Any:  # noqa: ANN401 - whatever the document holds
    try:
        return snapshot.get(field)
    except KeyError:
        return None


def _batches(
    changes: Sequence[tuple[ProfileId, tuple[Any, dict[str, Any]], int]], most: int
) -> list[list[tuple[ProfileId, tuple[Any, dict[str, Any]], int]]]:
    """Batches of at most so many documents, and of few enough bytes."""
    batches: list[list[tuple[ProfileId, tuple[Any, dict[str, Any]], int]]] = []
    size = 0
    for change in changes:
        length = sum(len(text) for text in strings_in(change[1][1])) * 2
        if not batches or len(batches[-1]) >= most or size + length > _MAX_BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(change)
        size += length
    return batches
