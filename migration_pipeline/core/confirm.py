"""The flag, set last: only for profiles whose two sites, read afresh, hold no source URL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from migration_pipeline.core.model import KnownFile, Profile, ProfileId, ProfileRange, SourceFile, Waiting
from migration_pipeline.core.ports import DocumentStore, ProfileStore, RangeLedger
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules

NEW_REFERENCE = "a reference appeared after the range was read"


@dataclass(slots=True)
class Confirmed:
    """How a range stands, by profile.

    Attributes:
        migrated: flagged profiles, of this run and of earlier ones, that hold no source URL.
        newly_flagged: those of them flagged by this run.
        unflagged: profiles whose flag proved untrue and was cleared.
        untouched: deleted ones and ones with nothing to move.
        waiting: profiles that still hold a source URL, and why.
        left_in_database: profiles whose database values hold a source URL, waived ones aside.
        left_in_firebase: the same of their documents.
        unproven: references into S3, of clean profiles, to files that the ledger knows and cannot vouch for.
        uploaded: references into S3 to files that this migration never saw: uploaded there by the app.
    """

    migrated: int = 0
    newly_flagged: int = 0
    unflagged: int = 0
    untouched: int = 0
    left_in_database: int = 0
    left_in_firebase: int = 0
    unproven: int = 0
    uploaded: int = 0
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def overtaken(self) -> bool:
        """Whether some profile waits only because its user was faster than the run."""
        return any(item.reason == NEW_REFERENCE for item in self.waiting)


@dataclass(slots=True)
class _Seen:
    """What one site of a profile holds: a file that is not moved, if any, and references into S3."""

    unmoved: SourceFile | None = None
    uploaded: int = 0
    unproven: int = 0


class _Judge:
    """Says of single strings whether they keep a profile from being migrated."""

    def __init__(self, known: Mapping[SourceFile, KnownFile], urls: UrlRules) -> None:
        self._known, self._urls = known, urls
        self._proven = {
            urls.unchecked_key_of(file): state.outcome is not None and state.outcome.verified
            for file, state in known.items()
        }

    def unmoved(self, text: str) -> bool:
        return self.unmoved_file(text) is not None

    def unmoved_file(self, text: str) -> SourceFile | None:
        """The source file that the string names, unless an operator waived it."""
        reference = self._urls.classify(text)
        return None if reference is None else self._unmoved(reference)

    def look(self, strings: Iterable[str]) -> "_Seen":
        """All strings of one site of a profile, each looked at once."""
        seen = _Seen()
        for text in strings:
            reference = self._urls.classify(text)
            if reference is None:
                continue
            seen.unmoved = seen.unmoved or self._unmoved(reference)
            if reference.kind is UrlKind.TARGET:
                proven = self._proven.get(reference.key or "")
                seen.uploaded += proven is None
                seen.unproven += proven is False
        return seen

    def _unmoved(self, reference: Reference) -> SourceFile | None:
        if reference.kind is not UrlKind.SOURCE or reference.file is None:
            return None
        state = self._known.get(reference.file)
        return None if state is not None and state.waived else reference.file

    def reason(self, file: SourceFile) -> str:
        state = self._known.get(file)
        if state is None:
            return NEW_REFERENCE
        if state.outcome is None:
            return "its file was not tried yet"
        if state.outcome.verified:
            return "its file is copied, but the reference came back after it was re-pointed"
        return state.outcome.value


def confirm(
    bounds: ProfileRange,
    *,
    profiles: ProfileStore,
    documents: DocumentStore,
    ledger: RangeLedger,
    urls: UrlRules,
) -> Confirmed:
    """Read both sites afresh and set the flag where it is true."""
    confirmed, judge = Confirmed(), _Judge(ledger.known(), urls)
    had_files = set(ledger.profiles_with_files())
    for batch in profiles.read(bounds):
        alive = [profile for profile in batch if not profile.deleted]
        confirmed.untouched += len(batch) - len(alive)
        copies = documents.read([profile.profile_id for profile in alive])
        clean = [profile for profile in alive if _is_clean(profile, copies, judge, confirmed)]
        to_flag = [p.profile_id for p in clean if not p.flagged and p.profile_id in had_files]
        # Crash window: until the next statement commits, the profiles are re-pointed and not flagged. The
        # next run finds them clean and flags them.
        flagged = set(profiles.set_flags(to_flag, judge.unmoved))
        confirmed.newly_flagged += len(flagged)
        confirmed.migrated += len(flagged) + sum(p.flagged for p in clean)
        confirmed.untouched += sum(not p.flagged and p.profile_id not in had_files for p in clean)
        confirmed.waiting += [Waiting(p, NEW_REFERENCE) for p in to_flag if p not in flagged]
        untrue = [p.profile_id for p in alive if p.flagged and p not in clean]
        confirmed.unflagged += profiles.clear_flags(untrue)
    return confirmed


def _is_clean(profile: Profile, copies: Mapping[ProfileId, Sequence[str]], judge: _Judge, confirmed: Confirmed) -> bool:
    in_database = judge.look(profile.strings)
    in_firebase = judge.look(copies.get(profile.profile_id, ()))
    confirmed.left_in_database += in_database.unmoved is not None
    confirmed.left_in_firebase += in_firebase.unmoved is not None
    file = in_database.unmoved or in_firebase.unmoved
    if file is None:
        confirmed.uploaded += in_database.uploaded + in_firebase.uploaded
        confirmed.unproven += in_database.unproven + in_firebase.unproven
    else:
        confirmed.waiting.append(Waiting(profile.profile_id, judge.reason(file), file))
    return file is None
