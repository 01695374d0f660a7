"""What a reference turns out to be, of facts that others gathered."""

from dataclasses import dataclass
from enum import StrEnum

from migration_pipeline.core.model import Evidence
from migration_pipeline.core.ports import ObjectFacts
from migration_pipeline.core.urls import UrlKind


class Finding(StrEnum):
    """What a reference turned out to be."""

    SOUND = "sound"
    WAITING = "waiting"
    FOREIGN = "foreign"
    UNPARSABLE = "unparsable"
    EMBEDDED = "embedded"
    DRIFTED = "drifted"
    STALE = "stale"
    ORPHAN_COPY = "orphan_copy"
    DANGLING = "dangling"
    CORRUPT = "corrupt"

    @property
    def severity(self) -> int:
        """0 all is well, 1 somebody should look, 3 a user sees a broken file."""
        return _SEVERITY.get(self, 0)


ACCEPTED = "accepted"
"""What audits call those dangling references whose file an operator waived: they led nowhere before the migration."""
_SEVERITY = {
    Finding.WAITING: 1,
    Finding.UNPARSABLE: 1,
    Finding.EMBEDDED: 1,
    Finding.DRIFTED: 1,
    Finding.STALE: 1,
    Finding.ORPHAN_COPY: 1,
    Finding.DANGLING: 3,
    Finding.CORRUPT: 3,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """All that bears on one reference.

    Attributes:
        kind: what the URL is to us.
        holds: it names the source and is not understood, so that its profile is not migrated.
        stays: it is a name that the app makes a URL of, which is never re-pointed.
        flagged: the profile is flagged as migrated.
        only_in_firebase: the document holds it, and the database does not.
        waived: an operator let the profile go on without the file.
        in_source: the blob is there.
        source_changed: the blob is another version than the one that was copied.
        found: the object in S3; `None` where there is none.
        evidence: of the copy, where it is one of ours.
    """

    kind: UrlKind
    holds: bool = False
    stays: bool = False
    flagged: bool = False
    only_in_firebase: bool = False
    waived: bool = False
    in_source: bool = False
    source_changed: bool = False
    found: ObjectFacts | None = None
    evidence: Evidence | None = None


def classify(facts: Facts) -> Finding:
    """The one finding of a reference: the worst that the facts say."""
    if facts.holds and facts.flagged:
        return Finding.STALE
    match facts.kind:
        case UrlKind.FOREIGN | UrlKind.OTHER_CONTAINER:
            return Finding.FOREIGN
        case UrlKind.UNPARSABLE:
            # One that only looks like a URL of S3 was never ours.
            return Finding.UNPARSABLE if facts.holds else Finding.FOREIGN
        case UrlKind.EMBEDDED:
            return Finding.EMBEDDED
        case UrlKind.SOURCE:
            return _at_source(facts)
        case UrlKind.TARGET:
            return _at_target(facts)


def _at_source(facts: Facts) -> Finding:
    if facts.stays and facts.found is not None:
        return _at_target(facts)
    if not facts.in_source:
        return Finding.DANGLING
    if facts.flagged and not facts.waived:
        return Finding.STALE
    return Finding.DRIFTED if facts.only_in_firebase else Finding.WAITING


def _at_target(facts: Facts) -> Finding:
    if facts.found is None or facts.found.archived:
        return Finding.DANGLING
    found = facts.found
    if facts.evidence is not None and not facts.evidence.is_of(found.size, found.md5, found.etag):
        return Finding.CORRUPT
    if facts.source_changed:
        return Finding.STALE
    return Finding.DRIFTED if facts.only_in_firebase else Finding.SOUND
