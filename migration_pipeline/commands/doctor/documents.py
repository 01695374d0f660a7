"""Firebase: whether documents are found, and may be written, tried without changing any."""

from collections.abc import Sequence
from contextlib import closing
from typing import Protocol, runtime_checkable

from migration_pipeline.commands.doctor.findings import Findings, What, ok, warning
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.model import ProfileId
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_documents, open_index

_DOCUMENTS = 20  # profiles of which a document is looked for


@runtime_checkable
class TriesWriting(Protocol):
    """Documents that tell whether they may be written, without being."""

    def try_writing(self) -> None:
        """Raise `Fatal` where writing is refused."""


@runtime_checkable
class KnowsFields(Protocol):
    """Documents that tell which of the fields none of them has."""

    def without(self, profile_ids: Sequence[ProfileId]) -> Sequence[str]:
        """These fields."""


def documents(settings: Settings) -> Findings:
    """Read some documents of sampled profiles; then try a write that cannot happen."""
    if settings.firebase.kind == "none":
        yield ok(What.FIREBASE, "not used")
        return
    with closing(open_index(settings)) as profiles, open_documents(settings) as opened:
        ids = [profile.profile_id for profile in profiles.sample(_DOCUMENTS) if not profile.deleted]
        found = opened.read(ids)
        if ids and not found:
            yield warning(
                What.FIREBASE,
                f"none of {count(len(ids), 'profile')} has a document.",
                "Check firebase.project_id and firebase.document.",
            )
        else:
            yield ok(What.FIREBASE, f"{len(found)} of {len(ids)} sampled profiles have a document")
        if isinstance(opened, KnowsFields):
            for field in opened.without(ids):
                yield warning(
                    What.FIREBASE,
                    f"none of {count(len(found), 'document')} has the field {field!r}.",
                    "Check firebase.fields: a dot reaches into a map.",
                )
        if isinstance(opened, TriesWriting):
            opened.try_writing()
            yield ok(What.FIREBASE_RIGHTS, "a write on a condition that cannot hold is not refused for rights")
