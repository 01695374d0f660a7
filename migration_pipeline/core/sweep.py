"""What came late: references to the source in profiles that were done with, and newer bytes of copied files.

An old client may write back a URL that it read before the migration, and an upload under a SAS that was issued before
the switch may land after it, even for a profile that had nothing to move until then and has no flag. Both are found
here: the flag is cleared, and the range is asked to run again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from migration_pipeline.core.confirm import Judge
from migration_pipeline.core.each import ask_each
from migration_pipeline.core.errors import RangeBusy
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import Profile, ProfileId, ProfileRange, SourceFile

_MAX_EXAMPLES = 20
_AT_ONCE = 32
LATE_REFERENCE = "late references to the source"
NEWER_BYTES = "the source has newer bytes of copied files"


@dataclass(slots=True)
class Swept:
    """What a sweep found.

    Attributes:
        looked_at: profiles that were looked at: flagged ones, those of ranges that no run has still to work on, and
            those of no range.
        late: those of ranges that hold a reference to the source; their flag is cleared now.
        unplanned: profiles of no range that do.
        ranges: asked to run again.
        files: copies that were compared with the source.
        outdated: those of which the source has newer bytes.
        unowned: rows that hold a reference to the source, and whose profile is gone: no range moves them.
        refused: late profiles of which the database refuses to have the flag cleared.
        busy: ranges passed over, for a run is at work there.
        examples: late profiles, the first few.
        unseen: what may have been written without this sweep seeing it, in words; a full sweep sees all.
    """

    looked_at: int = 0
    late: int = 0
    unplanned: int = 0
    files: int = 0
    outdated: int = 0
    unowned: int = 0
    refused: int = 0
    ranges: set[str] = field(default_factory=set)
    busy: list[str] = field(default_factory=list)
    examples: list[ProfileId] = field(default_factory=list)
    unseen: Sequence[str] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found, and nothing passed over."""
        return not (self.late or self.unplanned or self.outdated or self.unowned or self.ranges or self.busy)

    def counters(self) -> dict[str, int]:
        """Plain values, to be kept."""
        return {
            "profiles": self.looked_at,
            "late": self.late,
            "unplanned": self.unplanned,
            "files": self.files,
            "outdated": self.outdated,
            "unowned": self.unowned,
            "refused": self.refused,
            "busy": len(self.busy),
        }


def sweep_profiles(batches: Iterable[Sequence[Profile]], stores: Stores) -> Swept:
    """Look at profiles, and have those migrated again that were done with and hold references to the source.

    A run may be at work on their range meanwhile: clearing a flag is always truthful, and what that run does not see
    any more, the one that is asked for here does.
    """
    swept, ranges = Swept(), stores.ledger.ranges()
    done, waiting = stores.ledger.done(), stores.ledger.waiting()
    judge = Judge({}, stores.urls)
    for batch in batches:
        # What a range has still to do is no news; nor is what a run left waiting.
        places = _places([profile.profile_id for profile in batch if not profile.deleted], ranges, stores)
        to_look_at = [
            profile
            for profile in batch
            if profile.profile_id in places
            and (profile.flagged or (place := places[profile.profile_id]) is None or place.key in done | waiting)
        ]
        known_to_wait = {
            profile.profile_id: place.key
            for profile in to_look_at
            if not profile.flagged and (place := places[profile.profile_id]) is not None and place.key in waiting
        }
        noted = stores.ledger.noted(known_to_wait)
        copies = stores.documents.read([profile.profile_id for profile in to_look_at])
        held = {p.profile_id: judge.look([*p.strings, *copies.get(p.profile_id, ())]) for p in to_look_at}
        suspects = {file for seen in held.values() for file in seen.source}
        known = stores.ledger.find(sorted(suspects))
        waived = {file for file, state in known.items() if state.waived}
        copied = {file for file, state in known.items() if state.verified}
        late = [
            id_
            for id_, seen in held.items()
            if (seen.holds and id_ not in known_to_wait)
            or set(seen.source) - waived - (seen.staying & copied) - noted.get(id_, set())
        ]
        wanted = {place.key for id_ in late if (place := places[id_]) is not None}
        # Asked for first: a crash in between makes a run too many, and none too few. And once more: a run that began in
        # between may have set the flags that are cleared here.
        stores.ledger.request(sorted(wanted), LATE_REFERENCE)
        swept.refused += len(stores.profiles.clear_flags(late).refused)
        stores.ledger.request(sorted(wanted), LATE_REFERENCE)
        swept.looked_at += len(to_look_at)
        swept.unplanned += sum(places[id_] is None for id_ in late)
        swept.late += sum(places[id_] is not None for id_ in late)
        swept.ranges |= wanted
        swept.examples += late[: _MAX_EXAMPLES - len(swept.examples)]
    return swept


def _places(
    profile_ids: Sequence[ProfileId], ranges: Sequence[ProfileRange], stores: Stores
) -> dict[ProfileId, ProfileRange | None]:
    """The range that holds each profile; `None` for one beyond the last."""
    below = stores.profiles.below(profile_ids, [item.last for item in ranges])
    return {id_: ranges[n] if n < len(ranges) else None for id_, n in zip(profile_ids, below, strict=True)}


def sweep_unowned(stores: Stores, swept: Swept) -> None:
    """Look for rows that belong to no profile, and hold references to the source all the same; searches all tables.

    They are in no range, and have no flag that could be cleared: what they name is kept, and the source with it.
    """
    judge = Judge({}, stores.urls)
    for texts in stores.profiles.unowned(stores.urls.source_hosts, any_case=True):
        seen = judge.look(texts)
        waived = {file for file, state in stores.ledger.find(sorted(set(seen.source))).items() if state.waived}
        swept.unowned += seen.holds is not None or bool(set(seen.source) - waived)


def sweep_files(range_keys: Iterable[str], stores: Stores, swept: Swept) -> None:
    """Compare each copied file's ETag at the source with that of the version that was copied."""
    for key in range_keys:
        try:
            outdated = _outdated(key, stores, swept)
        except RangeBusy:
            swept.busy.append(key)
            continue
        swept.outdated += len(outdated)


def _outdated(key: str, stores: Stores, swept: Swept) -> list[SourceFile]:
    with stores.ledger.hold(key, run=False) as (_, ledger):
        known = ledger.known()
        copied = {
            file: state.evidence.source_etag
            for file, state in known.items()
            if state.verified and state.evidence is not None and state.evidence.source_etag is not None
        }
        swept.files += len(copied)

        async def ask() -> dict[SourceFile, str | None]:
            async with stores.open_byte_stores() as (source, _):
                return await ask_each(copied, source.etag, at_once=_AT_ONCE)

        now = stores.run(ask()) if copied else {}
        outdated = [file for file, etag in now.items() if etag is not None and etag != copied[file]]
        # Of these nobody has copied the newer bytes since an earlier sweep found them.
        waiting = [f for f, state in known.items() if state.outdated and state.outcome is None and not state.waived]
        swept.ranges.update(ledger.outdate([*outdated, *waiting], NEWER_BYTES))
    return [*outdated, *waiting]
