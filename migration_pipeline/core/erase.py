"""Erasing copies that this migration made and that nobody refers to: of photos and profiles deleted meanwhile.

A copy goes only if it is ours, no row refers to it (a soft-deleted profile may come back, so its references count), no
document of a profile that ever needed it does, and nobody has come to need the file again; and only some time after the
last reference went, for an old client may still write back what it read before.

It is marked first, so that no run relies on it any more, and the mark stays until all tables were searched once more:
what somebody came to refer to while it went is copied again. Cut off anywhere, the mark is left. The next erasing
comes by there and goes on; and a run whose profile needs the file again takes the mark away, and looks at the copy.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby

from migration_pipeline.core.copy_file import Copier
from migration_pipeline.core.each import Refused, ask_each, ask_one_by_one
from migration_pipeline.core.errors import Permanent, RangeBusy
from migration_pipeline.core.large_file import PART_BYTES
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import CopyResult, Outcome, Profile, ProfileId, SourceFile, WantedFile
from migration_pipeline.core.ports import Dropped, Erased, SourceStore, TargetStore
from migration_pipeline.core.reading import named, named_in_target
from migration_pipeline.core.rewrite import batches
from migration_pipeline.core.seeing import Names
from migration_pipeline.core.source_references import names_of

_AT_ONCE = 16
_NEEDLES = 500
"""Names that one search of a table looks for, and so files that are erased between two searches."""
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")
"""Characters that stand for themselves in a URL: RFC 3986, section 2.3."""


@dataclass(slots=True)
class Erasure:
    """What was erased.

    Attributes:
        files: copies removed.
        objects: objects, or versions of one, removed for them.
        spared: copies that somebody refers to after all.
        unproven: files whose key in S3 holds something of which nobody can say whose it is; left there.
        refused: files whose copy S3 refuses to remove, and why; left there.
        lost: files whose copy is gone though somebody refers to it, and that cannot be copied again, and why.
        busy: ranges passed over, for a run is at work there.
    """

    files: int = 0
    objects: int = 0
    spared: int = 0
    unproven: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)


def erase(stores: Stores, *, seconds: float) -> Erasure:
    """Remove the copies that nobody has referred to for so long.

    Args:
        stores: everything to talk to.
        seconds: since the last reference went.

    Raises:
        Transient: a store did not answer, however often it was asked; what was begun is finished by the next erasing.
        Fatal: a whole store refuses us.
    """
    done = Erasure()
    dropped = stores.ledger.dropped(seconds=seconds)
    for start in range(0, len(dropped), _NEEDLES):
        _erase(dropped[start : start + _NEEDLES], stores, done)
    return done


def _erase(dropped: Sequence[Dropped], stores: Stores, done: Erasure) -> None:
    # All tables are searched once, for all of these, before any range is held. What a run of ours re-points after that,
    # its range has come to want again, and begin_erasing leaves it out.
    items = {item.file: item for item in dropped}
    named, held, gone = _named(items, stores), set[SourceFile](), dict[SourceFile, int]()
    for ranges, group in groupby(dropped, key=lambda item: tuple(item.ranges)):
        with ExitStack() as stack:
            try:
                # While these ranges are held, no run of ours gives their profiles a reference to these copies.
                for key in ranges:
                    stack.enter_context(stores.ledger.hold(key, run=False))
            except RangeBusy as busy:
                done.busy.append(busy.range_key)
                continue
            spared, removed = _erase_group(list(group), named, stores, done)
            held |= spared
            gone |= removed
    # Crash window: copies are gone, and all of them are marked still.
    late = _named(gone, stores)
    _bring_back(held | late, stores, done)
    forgotten = [(items[file], count) for file, count in gone.items() if file not in late]
    stores.ledger.erased([Erased(i, stores.urls.unchecked_key_of(i.file), count) for i, count in forgotten])
    done.spared += len(held | late)
    done.files += sum(bool(count) for _, count in forgotten)
    done.objects += sum(gone.values())


def _named(files: Collection[SourceFile], stores: Stores) -> set[SourceFile]:
    return referred_to(files, stores) | _named_in_documents(files, stores)


def _erase_group(
    dropped: Sequence[Dropped], named: set[SourceFile], stores: Stores, done: Erasure
) -> tuple[set[SourceFile], dict[SourceFile, int]]:
    """Those to which somebody refers, and how many objects were removed of each other one."""
    begun = set(stores.ledger.begin_erasing([item.file for item in dropped]))
    held = begun & (named | still_held(begun, [id_ for item in dropped for id_ in item.profiles], stores))
    # Asked while the ranges are held: whoever takes the mark away does so only where none of them is.
    to_go = set(stores.ledger.still_erasing(sorted(begun - held)))
    items = {item.file: item for item in dropped if item.file in to_go}

    async def remove() -> dict[SourceFile, int | Refused | None]:
        async with stores.open_byte_stores() as (source, target):

            async def one(file: SourceFile) -> int | None:
                return await _remove(items[file], stores, source, target)

            return await ask_one_by_one(items, one, at_once=_AT_ONCE)

    answers = stores.run(remove()) if items else {}
    gone = {file: answer for file, answer in answers.items() if isinstance(answer, int)}
    stores.ledger.spare(sorted(answers.keys() - gone.keys()))
    done.unproven += [str(file) for file, answer in answers.items() if answer is None]
    done.refused += [f"{file}: {answer.why}" for file, answer in answers.items() if isinstance(answer, Refused)]
    return held, gone


async def _remove(item: Dropped, stores: Stores, source: SourceStore, target: TargetStore) -> int | None:
    try:
        key = stores.urls.key_of(item.file)
    except Permanent:  # too long for S3, so that nothing is there
        return 0
    if item.etag is not None:
        return await target.erase(key, item.etag, item.versions)
    # Of a copy that was found to be another one since, versions of ours may lie below it.
    below = await target.erase(key, "", item.versions) if item.versions else 0
    unsure = await _erase_unsure(item, key, source, target)
    return None if unsure is None else below + unsure


async def _erase_unsure(item: Dropped, key: str, source: SourceStore, target: TargetStore) -> int | None:
    """A run was cut off at this file: what is under its key is ours if it is younger than our wish, and has its bytes.

    Returns:
        How many objects were removed; `None` where there is one of which nobody can say whose it is.
    """
    there = await target.describe(key, read=True)
    if there is None or there.made_at is None or there.made_at < item.noted_at.replace(microsecond=0):
        return 0  # nothing, or somebody else's from before
    if there.md5 is None or there.md5 != await _md5_at_source(item.file, source, there.size):
        return None
    return await target.erase(key, there.etag, [there.version] if there.version else [])


async def _md5_at_source(file: SourceFile, source: SourceStore, size: int) -> bytes | None:
    async def admit(_: int) -> None:
        """One file at a time is small enough."""

    try:
        blob = await source.read(file, whole_up_to=PART_BYTES, admit=admit)
    except Permanent:
        return None
    if blob.size != size:
        return None
    return hashlib.md5(blob.body, usedforsecurity=False).digest() if blob.body is not None else blob.md5


def _bring_back(files: Collection[SourceFile], stores: Stores, done: Erasure) -> None:
    """Have copies that somebody refers to relied on again; one that is gone is made anew."""
    known = stores.ledger.find(sorted(files)) if files else {}
    # Of a file that was never copied, as far as anybody knows, nothing was there to be referred to.
    wanted = {file: WantedFile(file, proven=state.evidence) for file, state in known.items() if state.evidence}

    async def copy() -> dict[SourceFile, CopyResult]:
        async with stores.open_byte_stores() as (source, target):
            copier = Copier(source, target, stores.urls)
            return await ask_each(wanted, lambda file: copier.copy(wanted[file]), at_once=_AT_ONCE)

    results = stores.run(copy()) if wanted else {}
    stores.ledger.brought_back(list(results.values()))
    stores.ledger.spare(sorted(set(files) - results.keys()))
    done.lost += [
        f"{file}: {result.message}"
        for file, result in results.items()
        if result.renewed is False and not result.outcome.verified and result.outcome is not Outcome.TARGET_CONFLICT
    ]


def referred_to(files: Collection[SourceFile], stores: Stores) -> set[SourceFile]:
    """Those of the files that any row refers to, or the document of such a row; searches all tables."""
    if not files:
        return set()
    names, held = names_of(files, stores), set[SourceFile]()
    needles = sorted({needle(file) for file in files})
    for start in range(0, len(needles), _NEEDLES):
        for batch in stores.profiles.holding(needles[start : start + _NEEDLES]):
            held |= _held_by(batch, names, stores)
        for texts in stores.profiles.unowned(needles[start : start + _NEEDLES]):
            held |= named(texts, names, stores.urls)
    return held


def _named_in_documents(files: Collection[SourceFile], stores: Stores) -> set[SourceFile]:
    """Those of the files that a document names which is not understood; no search of tables comes by there."""
    names, held = names_of(files, stores), set[SourceFile]()
    for bounds in stores.ledger.not_understood() if files else ():
        for batch in stores.profiles.read(bounds):
            held |= _held_by(batch, names, stores)
    return held


def still_held(files: Collection[SourceFile], profile_ids: Sequence[ProfileId], stores: Stores) -> set[SourceFile]:
    """Those of the files that these profiles, who once needed them, refer to, in row or document."""
    names, held = names_of(files, stores), set[SourceFile]()
    for ids in batches(sorted(set(profile_ids), key=str)):
        rows = {profile.profile_id: profile for profile in stores.profiles.find(ids)}
        held |= _held_by([rows.get(id_) or _gone(id_) for id_ in ids], names, stores)
    return held


def _held_by(profiles: Sequence[Profile], names: Names, stores: Stores) -> set[SourceFile]:
    held = set[SourceFile]()
    copies = stores.documents.read([profile.profile_id for profile in profiles])
    for profile in profiles:
        texts = [*profile.strings, *copies.get(profile.profile_id, ())]
        # A deleted profile may come back; what it refers to in the source was never copied for it.
        held |= (named_in_target if profile.deleted else named)(texts, names, stores.urls)
    return held


def _gone(id_: ProfileId) -> Profile:
    """A profile whose row was removed; its document may still be there."""
    return Profile(id_, deleted=True, flagged=False, strings=())


def needle(file: SourceFile) -> str:
    """A part of every spelling of the file's URL, the longest: what needs no escape in a URL.

    Where an app escapes one of these characters all the same, the database looks for that beside it (`seeing.HIDDEN`).
    """
    return max(_UNRESERVED.findall(file.blob), key=len, default="")
