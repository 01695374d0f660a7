"""The Realtime Database: nodes that clients read.

Each field's node is read with its ETag, replaced, and written back on the condition that it still has that ETag
(Firebase documentation, "Saving Data", conditional requests), so an edit in between makes the write fail, and the node
is read again. What lies beside the fields is neither read nor written.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from migration_pipeline.adapters.firebase.app import CREDENTIALS, connect
from migration_pipeline.adapters.firebase.write_rate import WriteRate
from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.model import ProfileId, Rewritten
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.texts import WHOLE, Form, Text
from migration_pipeline.core.values import ReplaceFor, replace_in, texts_in

EMULATOR = "FIREBASE_DATABASE_EMULATOR_HOST"
_PROBES = "migration_pipeline_probes"
_THREADS = 8
_TRIES = 8  # readings of one node that its users keep editing
_NOT_IN_KEYS = frozenset(".#$[]")
"""Firebase documentation, "Structure Your Database": keys cannot hold these, nor control characters."""


class _Node(NamedTuple):
    """A field of one profile, as it was read."""

    profile_id: ProfileId
    path: str
    field: str
    value: Any
    etag: str


class RealtimeDatabaseDocuments:
    """Fulfils `DocumentStore`."""

    def __init__(
        self,
        project_id: str,
        database_url: str,
        document: str,
        fields: Sequence[str],
        writes: WriteRate,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        """Connect.

        Args:
            project_id: the Firebase project.
            database_url: of the database.
            document: a profile's path, with `{id}` for its id.
            fields: paths below it that hold URLs, with dots between keys.
            writes: how many are made a second.
            forms: how the strings of some fields are read.

        Raises:
            Fatal: no credentials were found.
        """
        self._app = connect(project_id, emulator=EMULATOR, options={"databaseURL": database_url})
        self._document, self._writes = document, writes
        self._fields, self._forms = list(fields), forms or {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="realtime-database")

    def close(self) -> None:
        """Close the connections."""
        import firebase_admin  # noqa: PLC0415 - loaded already

        self._pool.shutdown(cancel_futures=True)
        firebase_admin.delete_app(self._app)

    def read(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, Sequence[Text]]:
        found: dict[ProfileId, list[Text]] = {}
        for node in self._nodes(profile_ids):
            if node.value is not None:
                found.setdefault(node.profile_id, []).extend(
                    texts_in(node.value, node.field, self._forms.get(node.field, WHOLE))
                )
        bare = [id_ for id_ in profile_ids if id_ not in found and self._can_have(id_)]
        for id_, there in zip(bare, self._pool.map(self._is_there, bare), strict=True):
            if there:
                found[id_] = []
        return found

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        total, changed, todo = Rewritten(), set[ProfileId](), list(profile_ids)
        for _ in range(_TRIES):
            changes = list(self._changes(todo, replace))
            if not changes:
                break
            self._writes.take(len(changes))
            # Asked after the reading, and after the wait for the rate, which may be long: a run that takes the range
            # later finds what is written here, or makes the write fail.
            fence.check()
            wrote = list(zip(changes, self._pool.map(self._write, changes), strict=True))
            done = [change for change, there in wrote if there]
            changed.update(node.profile_id for node, _, _ in done)
            total = total.plus(Rewritten(0, sum(count for *_, count in done), len(changes) - len(done)))
            # Of a profile's fields, one may be written and another not.
            todo = sorted({node.profile_id for (node, *_), there in wrote if not there}, key=str)
        # Nodes still edited faster than we read them stay as they are: confirm finds them waiting.
        return total._replace(profiles=len(changed))

    def try_writing(self) -> None:
        """Ask to write a node that nobody has, on the condition of an ETag that it cannot have; for `doctor`.

        Raises:
            Fatal: the right is missing, which the store says before it looks at the ETag.
        """
        reference = self._reference(f"/{_PROBES}/{os.urandom(8).hex()}")
        with _translated():
            wrote, _, _ = reference.set_if_unchanged("of-no-node", value=True)
            if wrote:
                reference.delete()

    def _changes(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor) -> Iterator[tuple[_Node, Any, int]]:
        for node in self._nodes(profile_ids):
            form = self._forms.get(node.field, WHOLE)
            value, count = replace_in(node.value, replace(node.profile_id), node.field, form)
            if count:
                yield node, value, count

    def _nodes(self, profile_ids: Sequence[ProfileId]) -> Iterator[_Node]:
        wanted = [
            (id_, f"{self._path(id_)}/{quote(field.replace('.', '/'))}", field)
            for id_ in profile_ids
            if self._can_have(id_)
            for field in self._fields
        ]
        yield from self._pool.map(lambda one: self._get(*one), wanted)

    def _get(self, profile_id: ProfileId, path: str, field: str) -> _Node:
        with _translated():
            value, etag = self._reference(path).get(etag=True)
        return _Node(profile_id, path, field, value, etag)

    def _write(self, change: tuple[_Node, Any, int]) -> bool:
        node, value, _ = change
        with _translated():
            wrote, _, _ = self._reference(node.path).set_if_unchanged(node.etag, value)
        return bool(wrote)

    def _is_there(self, profile_id: ProfileId) -> bool:
        with _translated():
            return self._reference(self._path(profile_id)).get(shallow=True) is not None

    def _reference(self, path: str) -> Any:  # noqa: ANN401 - firebase-admin has no types
        from firebase_admin import db  # noqa: PLC0415 - loaded already

        return db.reference(path, self._app)

    def _path(self, profile_id: ProfileId) -> str:
        return "/" + self._document.format(id=quote(str(profile_id), safe="")).strip("/")

    def _can_have(self, profile_id: ProfileId) -> bool:
        """Whether there can be a node of that name."""
        text = str(profile_id)
        return bool(text) and text.isprintable() and "/" not in text and not _NOT_IN_KEYS & set(text)


@contextmanager
def _translated() -> Iterator[None]:
    from firebase_admin import exceptions  # noqa: PLC0415 - loaded already

    try:
        yield
    except exceptions.FirebaseError as error:
        said = f"the Realtime Database answered {type(error).__name__}"
        if isinstance(error, exceptions.UnauthenticatedError | exceptions.PermissionDeniedError):
            remedy = "Grant the service account roles/firebasedatabase.admin."
            raise Fatal(said, setting=CREDENTIALS, remedy=remedy) from None
        if isinstance(error, exceptions.InvalidArgumentError | exceptions.NotFoundError):
            remedy = "Check firebase.database_url, document and fields."
            raise Fatal(said, setting="firebase.database_url", remedy=remedy) from None
        raise Transient(said) from None
