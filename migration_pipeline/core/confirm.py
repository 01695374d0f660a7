"""The flag, set last: only for profiles whose two sites, read afresh, hold no source URL."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from migration_pipeline.core.control import Wait, go_on
from migration_pipeline.core.model import KnownFile, Profile, ProfileId, ProfileRange, SourceFile, Waiting
from migration_pipeline.core.ports import DocumentStore, ProfileStore, RangeLedger
from migration_pipeline.core.reading import references
from migration_pipeline.core.rewrite import batches
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules

NEW_REFERENCE = "a reference appeared after the range was read"
NOT_REWRITTEN = (
    "its file is copied, but the reference came back, its row was locked or its document edited all along, "
    "or Firestore refused the document (the new URLs make it larger than 1 MiB)"
)
NOT_RENEWED = "an earlier run copied its file, and the copy was not looked at again since this one began"
ASKS = "a reference has a query string or a fragment that may mean something"
NOT_UNDERSTOOD = "a value names the source and is not understood (embedded or unparsable)"
REASONS: Mapping[str, str] = {
    ASKS: "Set source.query to keep or to drop, then run the range again.",
    NOT_UNDERSTOOD: (
        "The page of the range's references and `migration-pipeline status` show examples. Where a column holds texts, "
        "set embedded = true for it; else put the value right in the app. Then run the range again."
    ),
}
"""What an operator can do about profiles that wait for no file."""


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
        dropped: files copied for the range that no profile of it holds any more.
        longest_lock: seconds that rows were locked at the longest.
    """

    migrated: int = 0
    newly_flagged: int = 0
    unflagged: int = 0
    untouched: int = 0
    left_in_database: int = 0
    left_in_firebase: int = 0
    unproven: int = 0
    uploaded: int = 0
    dropped: int = 0
    longest_lock: float = 0.0
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def overtaken(self) -> bool:
        """Whether some profile waits only because its user was faster than the run."""
        return any(item.reason in (NEW_REFERENCE, NOT_REWRITTEN, NOT_RENEWED) for item in self.waiting)


@dataclass(slots=True)
class _Seen:
    """What one site of a profile holds.

    Attributes:
        unmoved: a file of the source that no operator waived, if any.
        holds: why else the profile is not migrated, if it is not.
        outdated: a file in S3 of which the source has newer bytes, if any.
        uploaded: references into S3 to files that this migration never saw.
        unproven: references into S3 to files that the ledger knows and cannot vouch for.
        source: files referred to in the source.
        staying: of these, those named in a way that is never re-pointed.
        target: the migration's files referred to in S3.
    """

    unmoved: SourceFile | None = None
    holds: str | None = None
    outdated: SourceFile | None = None
    uploaded: int = 0
    unproven: int = 0
    source: list[SourceFile] = field(default_factory=list)
    staying: set[SourceFile] = field(default_factory=set)
    target: list[SourceFile] = field(default_factory=list)


class Judge:
    """Says of texts whether they keep a profile from being migrated."""

    def __init__(
        self, known: Mapping[SourceFile, KnownFile], urls: UrlRules, archived: Collection[SourceFile] = ()
    ) -> None:
        """Judge by what the ledger knows of files; of those whose rows were archived, that their copies are ours."""
        self._known, self._urls = known, urls
        self._by_key = {urls.unchecked_key_of(file): file for file in (*archived, *known)}

    def unmoved(self, text: Text) -> bool:
        """Whether a profile that holds this text is not migrated."""
        seen = self.look([text])
        return seen.unmoved is not None or seen.holds is not None or seen.outdated is not None

    def look(self, texts: Iterable[Text]) -> _Seen:
        """All texts of one site of a profile, each looked at once."""
        seen = _Seen()
        for reference in references(texts, self._urls):
            if reference.kind is UrlKind.SOURCE and reference.file is not None:
                self._look_at_source(reference.file, reference, seen)
            elif reference.kind is UrlKind.TARGET:
                self._look_at_target(reference, seen)
            elif reference.holds:
                seen.holds = NOT_UNDERSTOOD
        return seen

    def _look_at_source(self, file: SourceFile, reference: Reference, seen: _Seen) -> None:
        seen.source.append(file)
        if reference.stays:
            seen.staying.add(file)
        state = self._known.get(file)
        if state is not None and (state.waived or (reference.stays and state.verified and not state.outdated)):
            return
        if reference.waits and state is not None and state.verified:
            seen.holds = seen.holds or ASKS
        elif seen.unmoved is None:
            seen.unmoved = file

    def _look_at_target(self, reference: Reference, seen: _Seen) -> None:
        file = self._by_key.get(reference.key or "")
        if file is None:
            seen.uploaded += 1
            return
        seen.target.append(file)
        state = self._known.get(file)
        if state is None:
            return
        seen.unproven += not state.verified
        if state.outdated and not state.waived:
            seen.outdated = file

    def reason(self, file: SourceFile) -> str:
        """Why a profile waits that holds this file."""
        state = self._known.get(file)
        if state is None:
            return NEW_REFERENCE
        if state.verified:
            return NOT_RENEWED if state.aged else NOT_REWRITTEN
        if state.outcome is None:
            return "the source has newer bytes than its copy" if state.outdated else "its file was not tried yet"
        return state.outcome.value


def confirm(
    bounds: ProfileRange,
    *,
    profiles: ProfileStore,
    documents: DocumentStore,
    ledger: RangeLedger,
    urls: UrlRules,
    wait: Wait = go_on,
    refused: Mapping[ProfileId, str] = {},
) -> Confirmed:
    """Read both sites afresh, set the flag where it is true, and note which files nobody in the range holds.

    `wait` is called after each batch. `refused` says why the database refused to have rows of profiles rewritten.
    """
    confirmed, judge = Confirmed(), Judge(ledger.known(), urls, ledger.archived())
    held, had_files = set[SourceFile](), set(ledger.profiles_with_files())
    gone = set(had_files)
    for batch in profiles.read(bounds):
        copies = documents.read([profile.profile_id for profile in batch])
        clean = [profile for profile in batch if _is_clean(profile, copies, judge, confirmed, held)]
        to_flag = [p.profile_id for p in clean if not p.flagged and p.profile_id in had_files]
        # Crash window: until the next statement commits, the profiles are re-pointed and not flagged. The
        # next run finds them clean and flags them.
        flags = profiles.set_flags(to_flag, judge.unmoved, ledger.fence)
        flagged, unwritten = set(flags.ids), dict(flags.refused)
        confirmed.newly_flagged += len(flagged)
        confirmed.migrated += len(flagged) + sum(p.flagged for p in clean)
        confirmed.untouched += sum(p.deleted for p in batch)
        confirmed.untouched += sum(not p.flagged and p.profile_id not in had_files for p in clean)
        confirmed.waiting += [Waiting(p, unwritten.get(p, NEW_REFERENCE)) for p in to_flag if p not in flagged]
        untrue = [p.profile_id for p in batch if p.flagged and not p.deleted and p not in clean]
        cleared = profiles.clear_flags(untrue)
        confirmed.unflagged += len(cleared.ids)
        confirmed.longest_lock = max(confirmed.longest_lock, flags.longest_lock, cleared.longest_lock)
        gone.difference_update(profile.profile_id for profile in batch)
        wait()  # here, so that no batch is judged that was read before a pause
    for ids in batches(sorted(gone, key=str)):
        # Rows that the app removed; their documents may be there still, and hold references.
        for strings in documents.read(ids).values():
            held.update(judge.look(strings).target)
    confirmed.dropped = ledger.note_held(held)
    # A row that cannot be written is why its profile waits, whatever it looks like from here.
    confirmed.waiting = [
        item._replace(reason=refused[item.profile_id])
        if item.reason == NOT_REWRITTEN and item.profile_id in refused
        else item
        for item in confirmed.waiting
    ]
    return confirmed


def _is_clean(
    profile: Profile,
    copies: Mapping[ProfileId, Sequence[Text]],
    judge: Judge,
    confirmed: Confirmed,
    held: set[SourceFile],
) -> bool:
    """Whether the profile is migrated, or has nothing to move; deleted ones are neither."""
    here, there = judge.look(profile.strings), judge.look(copies.get(profile.profile_id, ()))
    held.update(here.target, there.target)
    if profile.deleted:
        # It may come back, so what it refers to in S3 stays; what it refers to in the source was not for it.
        return False
    held.update(here.source, there.source)
    confirmed.left_in_database += here.unmoved is not None or here.holds is not None
    confirmed.left_in_firebase += there.unmoved is not None or there.holds is not None
    file = here.unmoved or there.unmoved or here.outdated or there.outdated
    holds = here.holds or there.holds
    if file is not None:
        confirmed.waiting.append(Waiting(profile.profile_id, judge.reason(file), file))
    elif holds is not None:
        confirmed.waiting.append(Waiting(profile.profile_id, holds))
    else:
        confirmed.uploaded += here.uploaded + there.uploaded
        confirmed.unproven += here.unproven + there.unproven
        return True
    return False
