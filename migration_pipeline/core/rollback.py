"""The way back: references that point at S3 point at the source again, by the same rules as on the way there.

Only where the source still has the very version that was copied. Files that the app itself uploaded to S3 stay there,
and so do the copies: migrating again finds them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from migration_pipeline.core.alert_words import count, counted
from migration_pipeline.core.control import Say
from migration_pipeline.core.each import Refused, ask_one_by_one
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import (
    KnownFile,
    Profile,
    ProfileId,
    ProfileRange,
    Rewritten,
    SourceFile,
    Spelling,
    Waiting,
)
from migration_pipeline.core.ports import ObjectFacts
from migration_pipeline.core.reading import references, target_file
from migration_pipeline.core.rewrite import batches
from migration_pipeline.core.spellings import edits_back, tails
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import Reference, UrlKind
from migration_pipeline.core.values import Replace

_AT_ONCE = 32
_REASONS = 5

CHANGED = "the source was written after it was copied"
REPLACED = "its copy in S3 was replaced since, so that the source has older bytes"
MISSING = "the source has no such file any more"
LOCKED = "its row was locked all along, so that its flag could not be cleared; roll back again"
NO_EVIDENCE = "the ledger does not know which version was copied"
HAD_QUERY = "its URL had a SAS, which is not kept; without_queries brings it back without"
SPELLED_DIFFERENTLY = "the profile referred to the file with different query strings, and has been edited since"


@dataclass(slots=True)
class RolledBack:
    """What a rollback of one range did.

    Attributes:
        profiles: of the range, deleted ones left out.
        unflagged: flags cleared.
        stayed: references to files that the app uploaded to S3 itself; they stay there.
        left: profiles with a reference that could not go back, and why.
    """

    key: str
    profiles: int = 0
    unflagged: int = 0
    stayed: int = 0
    database: Rewritten = field(default_factory=Rewritten)
    firebase: Rewritten = field(default_factory=Rewritten)
    left: list[Waiting] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether no reference to a copy of ours is left."""
        return not self.left

    def why_left(self) -> str:
        """What could not go back, and why, in a few lines; empty where everything did."""
        if self.complete:
            return ""
        lines = [f"{count(len(self.left), 'profile')} of {self.profiles:,} could not go back, and still refer to S3."]
        for reason, number in Counter(item.reason for item in self.left).most_common(_REASONS):
            ids = [str(item.profile_id) for item in self.left if item.reason == reason][:_REASONS]
            more = ", …" if number > len(ids) else ""
            lines.append(f"{count(number, 'profile')} ({', '.join(ids)}{more}): {reason}.")
        return "\n".join(lines)

    def counters(self) -> dict[str, object]:
        """For the ledger; plain JSON."""
        return {
            "rolled_back": self.profiles - len(self.left),
            "waiting": len(self.left),
            "waiting_for": dict(Counter(item.reason for item in self.left)),
            "database_urls": self.database.urls,
            "firebase_urls": self.firebase.urls,
        }


def roll_back_range(
    range_key: str, stores: Stores, *, without_queries: bool = False, say: Say = lambda _: None
) -> RolledBack:
    """Re-point a range's references to the source, where its files are there and unchanged.

    Args:
        range_key: a planned range.
        stores: everything to talk to.
        without_queries: also bring back URLs that had a SAS, without it.
        say: told of each stage as it ends.

    Raises:
        RangeBusy: another run holds the range.
        Fatal: the range is unknown, blobs of it were removed from the source, or a whole store refuses us.
    """
    with stores.ledger.source_kept():
        # Asked first, so that a refusal leaves the range, and its audit, as they are.
        with stores.ledger.hold(range_key, run=False) as (bounds, ledger):
            _refuse_removed(range_key, {*ledger.known(), *_copied(bounds, stores)}, stores)
        return _roll_back(range_key, stores, without_queries=without_queries, say=say)


def _roll_back(range_key: str, stores: Stores, *, without_queries: bool, say: Say) -> RolledBack:
    with stores.ledger.hold(range_key) as (bounds, ledger):
        done = RolledBack(range_key)
        files = _copied(bounds, stores)
        _refuse_removed(range_key, files, stores)
        back = _Back(stores, files, ledger.spellings(), without_queries=without_queries)
        # Before anything is written: killed from here on, the range stays on its way back until somebody names it.
        ledger.begin_rollback()
        say(f"{len(back.ready)} of {count(len(files), 'file')} can go back")
        had_files = set(ledger.profiles_with_files())
        _clear_flags(bounds, stores, done, had_files)
        flagged = {item.profile_id for item in done.left}
        ids = [
            profile.profile_id
            for batch in stores.profiles.read(bounds)
            for profile in batch
            if not (profile.deleted or profile.profile_id in flagged)
        ]
        for batch in batches(ids):
            done.database = done.database.plus(stores.profiles.rewrite(batch, back.replace_for, ledger.fence))
            done.firebase = done.firebase.plus(stores.documents.rewrite(batch, back.replace_for, ledger.fence))
        say(f"{done.database.urls} URLs in the database and {done.firebase.urls} in Firebase point at the source again")
        _look_again(bounds, stores, back, done)
        ledger.finish(done.counters(), rolled_back=True)
    return done


def _refuse_removed(range_key: str, files: Collection[SourceFile], stores: Stores) -> None:
    """Nothing of a range goes back to a source that does not have all of it."""
    removed = stores.ledger.removed(files)
    if removed:
        raise Fatal(
            f"range {range_key} cannot be rolled back any more: {counted(len(removed), 'file', 'was', 'were')} removed "
            f"from the source, or archived there, {min(removed)} for example.",
            setting="RANGES",
            remedy="The bytes are in S3. While the account keeps deleted blobs they can be undeleted there by hand.",
        )


def _clear_flags(bounds: ProfileRange, stores: Stores, done: RolledBack, had_files: set[ProfileId]) -> None:
    """First of all: a flag on a profile that is on its way back would not be true.

    A run cut off after this leaves profiles without a flag, of which nothing is untrue; running it again goes on. Flags
    of profiles that had nothing to move are not ours. A profile whose flag cannot be cleared stays as it is.
    """
    for batch in stores.profiles.read(bounds):
        done.profiles += sum(not profile.deleted for profile in batch)
        flagged = [p.profile_id for p in batch if p.flagged and not p.deleted and p.profile_id in had_files]
        cleared = stores.profiles.clear_flags(flagged)
        done.unflagged += len(cleared.ids)
        why = dict.fromkeys(set(flagged) - set(cleared.ids), LOCKED) | dict(cleared.refused)
        # Of the others, the app may have cleared the flag itself, or deleted the profile.
        still = {p.profile_id for p in stores.profiles.find(list(why)) if p.flagged and not p.deleted} if why else set()
        done.left += [Waiting(id_, why[id_]) for id_ in flagged if id_ in still]


def _copied(bounds: ProfileRange, stores: Stores) -> dict[SourceFile, KnownFile]:
    """Every file that the range's profiles refer to in S3 and that some range copied there."""
    found: dict[SourceFile, KnownFile] = {}
    for batch, copies in _read(bounds, stores):
        files = {
            file
            for profile in batch
            for reference in references([*profile.strings, *copies.get(profile.profile_id, ())], stores.urls)
            if (file := target_file(reference, stores.urls)) is not None
        }
        found.update(stores.ledger.find(sorted(files - found.keys())))
    return found


class _Back:
    """What each URL into S3 becomes again, and why some do not."""

    def __init__(
        self,
        stores: Stores,
        files: Mapping[SourceFile, KnownFile],
        spellings: Mapping[ProfileId, Mapping[SourceFile, Spelling]],
        *,
        without_queries: bool,
    ) -> None:
        self._urls, self._spellings, self._without_queries = stores.urls, spellings, without_queries
        self._refused = _refusals(stores, files)
        self._files = files
        self.ready = files.keys() - self._refused.keys()

    def replace_for(self, profile_id: ProfileId) -> Replace:
        def spelling_of(file: SourceFile) -> Spelling | None:
            spelling = self._spelling(profile_id, file)
            return spelling if file in self.ready and not self._keeps(spelling) else None

        return lambda texts: edits_back(texts, spelling_of, self._urls)

    def _spelling(self, profile_id: ProfileId, file: SourceFile) -> Spelling:
        return self._spellings.get(profile_id, {}).get(file, Spelling(None, had_query=False))

    def _keeps(self, spelling: Spelling) -> bool:
        return spelling.had_query and not self._without_queries

    def why_left(self, profile_id: ProfileId, reference: Reference) -> tuple[SourceFile, str] | None:
        """Why a URL did not go back; `None` for one that is not of a copy of ours."""
        file = target_file(reference, self._urls)
        if file is None or file not in self._files:
            return None
        if file in self._refused:
            return file, self._refused[file]
        spelling = self._spelling(profile_id, file)
        if self._keeps(spelling):
            return file, HAD_QUERY
        if len(set(tails(spelling))) > 1:
            return file, SPELLED_DIFFERENTLY
        return file, "the reference came after it was looked at, or its row or document was busy; roll back again"


def _refusals(stores: Stores, files: Mapping[SourceFile, KnownFile]) -> dict[SourceFile, str]:
    async def ask() -> dict[SourceFile, tuple[str | None, ObjectFacts | None] | Refused]:
        async with stores.open_byte_stores() as (source, target):

            async def both(file: SourceFile) -> tuple[str | None, ObjectFacts | None]:
                return await source.etag(file), await target.describe(stores.urls.key_of(file))

            return await ask_one_by_one(files, both, at_once=_AT_ONCE)

    now = stores.run(ask()) if files else {}
    found = {file: _refusal(state, now[file]) for file, state in files.items()}
    return {file: why for file, why in found.items() if why is not None}


def _refusal(state: KnownFile, now: tuple[str | None, ObjectFacts | None] | Refused) -> str | None:
    """Why references to a file stay; `None` where they may go back. A copy that is gone is no reason to stay."""
    if isinstance(now, Refused):
        return now.why
    (etag, copy), evidence = now, state.evidence
    if etag is None:
        return MISSING
    if evidence is None or evidence.source_etag is None:
        return NO_EVIDENCE
    if etag != evidence.source_etag:
        return CHANGED
    return None if copy is None or evidence.is_of(copy.size, copy.md5, copy.etag) else REPLACED


def _look_again(bounds: ProfileRange, stores: Stores, back: _Back, done: RolledBack) -> None:
    """Read both sites afresh: what still points at a copy of ours, and what belongs in S3."""
    told, refused = {item.profile_id for item in done.left}, dict(done.database.refused)
    for batch, copies in _read(bounds, stores):
        for profile in batch:
            held = list(references([*profile.strings, *copies.get(profile.profile_id, ())], stores.urls))
            kept = [found for ref in held if (found := back.why_left(profile.profile_id, ref)) is not None]
            if kept and profile.profile_id not in told:
                file, why = kept[0]
                done.left.append(Waiting(profile.profile_id, refused.get(profile.profile_id, why), file))
            done.stayed += sum(ref.kind is UrlKind.TARGET for ref in held) - len(kept)


def _read(bounds: ProfileRange, stores: Stores) -> Iterable[tuple[list[Profile], Mapping[ProfileId, Sequence[Text]]]]:
    for batch in stores.profiles.read(bounds):
        alive = [profile for profile in batch if not profile.deleted]
        yield alive, stores.documents.read([profile.profile_id for profile in alive])
