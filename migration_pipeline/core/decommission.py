"""Removing blobs from the source that nobody needs there any more: the one thing here that cannot be undone.

A blob goes only if its copy in S3 was read, and found to hold the bytes that were proven, a moment before; the blob is
still the version that was copied; no row and no document refers to it at the source; and every range that ever needed
it was audited since its newest run, and found sound. What is about to go is noted first, so that a run cut off anywhere
is closed by the next, which looks at the source again.

A reference that an old client writes back between that look and the removal leads nowhere until the next sweep, which
re-points it: the copy is in S3, and the ledger knows.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from migration_pipeline.core.control import Say
from migration_pipeline.core.each import ask_each
from migration_pipeline.core.errors import Fatal, Permanent, RangeBusy
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import Outcome, ProfileRange, SourceFile
from migration_pipeline.core.pace import Pace
from migration_pipeline.core.ports import RangeLedger, TargetStore
from migration_pipeline.core.removal_ports import (
    Begun,
    Candidate,
    How,
    OpenRemoval,
    Proven,
    RemovalLedger,
    SourceRemoval,
)
from migration_pipeline.core.removal_report import Decommissioned, Stay
from migration_pipeline.core.source_references import named_by, named_in_documents, named_in_range, named_in_rows

_AT_ONCE = 16
_FILES_A_SEARCH = 10_000
"""Files that one search of all tables is made for."""
_BATCH, _BATCH_SECONDS = 100, 2.0
"""Blobs proven together: no more than can be removed before the proof is old."""

Holds = Sequence[str]
_Judged = dict[SourceFile, Candidate]


@dataclass(frozen=True, slots=True)
class Rules:
    """How blobs are removed: see `settings.Decommission`."""

    how: How = How.DELETE
    max_delete: int = 10_000
    per_second: float = 50.0
    require_soft_delete: bool = True


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing talks to beside the stores: its part of the ledger, and the source with the right to remove."""

    ledger: RemovalLedger
    open: OpenRemoval


def decommission(  # noqa: PLR0913 - all but three by name
    range_keys: Sequence[str],
    stores: Stores,
    removal: Removal,
    rules: Rules,
    *,
    holds: Holds,
    apply: bool,
    who: str = "",
    why: str = "",
    say: Say = lambda _: None,
) -> Decommissioned:
    """Remove blobs of these ranges from the source, or say which would be.

    Args:
        range_keys: planned ranges.
        stores: everything that a range's migration talks to.
        removal: what removing needs beside.
        rules: how, how many, how fast.
        holds: what else keeps blobs from being removed now, in words.
        apply: remove them; else nothing is written, and copies are not read but described by S3.
        who: does it, for the record.
        why: for the record.
        say: told of each range as it ends.

    Raises:
        Fatal: something holds, the account does not keep deleted blobs, somebody else is at it, or a whole store
            refuses us.
        Transient: a store did not answer, however often it was asked; what was begun is closed by the next run.
    """
    run = _Run(stores, removal, rules, Decommissioned(rules.how, applied=apply), who)
    if not apply:
        run.done.refusals += [*holds, *_refusals(run)]
        _each_range(range_keys, run, say)
        return run.done
    if holds:
        raise Fatal(
            f"nothing may be removed from the source: {'; '.join(holds)}.",
            setting="decommission",
            remedy="docs/decommission.md says what has to be done before.",
        )
    with removal.ledger.alone():
        for refusal in _refusals(run):
            raise Fatal(refusal, setting="decommission.require_soft_delete", remedy=_TURN_ON)
        details = {"how": rules.how.value, "ranges": len(range_keys), "max_delete": rules.max_delete}
        removal.ledger.note(who=who, why=why, details=details)
        _close_what_was_begun(run)
        _each_range(range_keys, run, say)
    return run.done


def close_what_was_begun(stores: Stores, removal: Removal) -> Decommissioned:
    """Find out how removals ended that a run was cut off at: what is still in the source was never removed.

    Where somebody removes blobs at this moment, or rolls ranges back, it is left to the next.

    Raises:
        Fatal: the source refuses us.
        Transient: the source did not answer, however often it was asked.
    """
    run = _Run(stores, removal, Rules(), Decommissioned(How.DELETE, applied=False), "")
    with ExitStack() as stack:
        try:
            stack.enter_context(removal.ledger.alone())
        except Fatal:
            return run.done
        _close_what_was_begun(run)
    return run.done


_TURN_ON = (
    "Turn on soft delete for blobs in the account (az storage account blob-service-properties update "
    "--enable-delete-retention true --delete-retention-days 14), or set this to false."
)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run, and what it has done so far."""

    stores: Stores
    removal: Removal
    rules: Rules
    done: Decommissioned
    who: str

    @property
    def room(self) -> int:
        """Blobs that may still go."""
        return self.rules.max_delete - self.done.files


def _refusals(run: _Run) -> list[str]:
    if run.rules.how is not How.DELETE or not run.rules.require_soft_delete:
        return []

    async def ask() -> int | None:
        async with run.removal.open() as source:
            return (await ask_each([None], lambda _: source.kept_days(), at_once=1))[None]

    try:
        days = run.stores.run(ask())
    except Fatal as error:
        if run.done.applied:
            raise
        return [str(error)]
    return [] if days else ["the account does not keep deleted blobs: a mistake could not be taken back."]


def _close_what_was_begun(run: _Run) -> None:
    """Of what a run was cut off at: what is gone from the source has ended, what is there was never begun."""
    for key, group in groupby(run.removal.ledger.begun(), key=lambda item: item.range_key):
        try:
            # Held, so that whoever begun it and was only away finds the range lost, and removes nothing any more.
            with run.stores.ledger.hold(key, run=False):
                _close(list(group), run)
        except RangeBusy:
            run.done.left[key] = _BUSY


def _close(begun: Sequence[Begun], run: _Run) -> None:
    async def look() -> dict[Begun, bool]:
        async with run.removal.open() as source:
            return await ask_each(begun, partial(_is_gone, source=source), at_once=_AT_ONCE)

    gone = run.stores.run(look())
    run.removal.ledger.end([item.file for item, ended in gone.items() if ended])
    run.removal.ledger.withdraw([item.file for item, ended in gone.items() if not ended])
    run.done.closed += sum(gone.values())
    run.done.withdrawn += len(gone) - sum(gone.values())


async def _is_gone(item: Begun, *, source: SourceRemoval) -> bool:
    now = await source.look(item.file)
    return now is None or (item.how is How.ARCHIVE and now.archived and now.etag == item.source_etag)


def _each_range(range_keys: Sequence[str], run: _Run, say: Say) -> None:
    for group in _groups(range_keys, run):
        # All tables are searched once for all of them. What is written after that is looked for again, in the range's
        # own profiles, while the range is held.
        files = {file for judged in group.values() for file in judged}
        named = named_in_rows(files, run.stores) | named_in_documents(files, run.stores)
        for key, judged in group.items():
            if judged and run.room <= 0:
                run.done.capped = True
                return
            try:
                with run.stores.ledger.hold(key, run=False) as (bounds, ledger):
                    _one_range(bounds, ledger, judged, named, run)
            except RangeBusy:
                run.done.left[key] = _BUSY
            else:
                say(run.done.said_of(key))


def _groups(range_keys: Sequence[str], run: _Run) -> Iterator[dict[str, _Judged]]:
    """Ranges with the files of them that may go as far as the ledger knows; as many as one search is made for."""
    group: dict[str, _Judged] = {}
    for key in range_keys:
        why_not = _why_not([key], run).get(key)
        if why_not is not None:
            run.done.left[key] = why_not
            continue
        group[key] = _judged(key, run)
        if sum(map(len, group.values())) >= _FILES_A_SEARCH:
            yield group
            group = {}
    if group:
        yield group


_BUSY = "somebody works on it"


def _why_not(range_keys: Collection[str], run: _Run) -> dict[str, str]:
    """Those of the ranges whose files must not go, and why."""
    states = run.removal.ledger.states(range_keys)
    found = {key: states[key].why_not() if key in states else "it is not planned" for key in range_keys}
    return {key: why for key, why in found.items() if why is not None}


def _judged(range_key: str, run: _Run) -> _Judged:
    candidates = run.removal.ledger.candidates(range_key, run.rules.how)
    unfit = _why_not({key for item in candidates for key in item.ranges}, run)
    judged: _Judged = {}
    for item in candidates:
        stay = _stay(item, unfit)
        if stay is None:
            judged[item.file] = item
        else:
            run.done.stays(item.file, *stay)
    return judged


def _stay(item: Candidate, unfit: dict[str, str]) -> tuple[Stay, str] | None:
    """Why a file stays, as far as the ledger knows."""
    known, evidence = item.known, item.known.evidence
    if item.erasing:
        return Stay.ERASING, ""
    if known.waived:
        return Stay.WAIVED, ""
    if not known.verified or known.outdated:
        return Stay.NOT_COPIED, known.outcome.value if known.outcome else ""
    if evidence is None or evidence.md5 is None or evidence.source_etag is None:
        return Stay.NO_EVIDENCE, ""
    for key in item.ranges:
        if key in unfit:
            return Stay.NEEDED_ELSEWHERE, f"{key}: {unfit[key]}"
    return None


def _one_range(
    bounds: ProfileRange, ledger: RangeLedger, judged: _Judged, named: Collection[SourceFile], run: _Run
) -> None:
    why_not = _why_not([bounds.key], run).get(bounds.key)
    if why_not is not None:  # a run came by since it was looked at first
        run.done.left[bounds.key] = why_not
        return
    referred = judged.keys() & (named_in_range(judged.keys(), bounds, run.stores) | set(named))
    for file in sorted(referred):
        run.done.stays(file, Stay.REFERRED_TO)
    files = sorted(judged.keys() - referred)
    run.done.begin_range(bounds.key)

    async def remove() -> None:
        pace = Pace(_AT_ONCE, requests_per_second=run.rules.per_second)
        async with run.stores.open_byte_stores() as (_, target), run.removal.open() as source:
            work = _Work(bounds.key, ledger, judged, source, target, pace, run)
            while files:
                if run.room <= 0:
                    run.done.capped = True
                    return
                size = min(_BATCH, run.room, max(1, int(run.rules.per_second * _BATCH_SECONDS)))
                batch, files[:] = files[:size], files[size:]
                await work.batch(batch)

    if files:
        run.stores.run(remove())


class _Work:
    """Removing files of one range, in its event loop."""

    def __init__(
        self,
        range_key: str,
        ledger: RangeLedger,
        judged: _Judged,
        source: SourceRemoval,
        target: TargetStore,
        pace: Pace,
        run: _Run,
    ) -> None:
        self._key, self._fence, self._judged, self._run = range_key, ledger.fence, judged, run
        self._source, self._target, self._pace = source, target, pace

    async def batch(self, files: Sequence[SourceFile]) -> None:
        """Prove these, note which are about to go, remove them, note which are gone."""
        ledger, done = self._run.removal.ledger, self._run.done
        found = await ask_each(files, self._prove, at_once=_AT_ONCE)
        # Once more, and of all profiles that ever needed them, wherever: a large range takes a while.
        needed = await asyncio.to_thread(lambda: named_by(files, ledger.wanters(files), self._run.stores))
        proven: dict[SourceFile, Proven] = {}
        for file, item in found.items():
            if file in needed:
                done.stays(file, Stay.REFERRED_TO)
            elif isinstance(item, Proven):
                proven[file] = item
            else:
                done.stays(file, *item)
        if not done.applied:
            done.removed(self._key, proven.values())
            return
        # Crash window: from here to the end, the ledger says that these are begun, and the next run looks at each.
        begun = await asyncio.to_thread(
            ledger.begin, list(proven.values()), self._run.rules.how, who=self._run.who, fence=self._fence
        )
        unsettled = await asyncio.to_thread(self._unsettled, begun)
        ended = await ask_each(sorted(begun - unsettled), partial(self._remove, proven=proven), at_once=_AT_ONCE)
        gone = [proven[file] for file, stay in ended.items() if stay is None]
        await asyncio.to_thread(ledger.end, [item.file for item in gone])
        await asyncio.to_thread(ledger.withdraw, sorted(begun - {item.file for item in gone}))
        done.removed(self._key, gone)
        for file in sorted(proven.keys() - begun):
            done.stays(file, Stay.CHANGED_MEANWHILE)
        for file in sorted(unsettled):
            done.stays(file, Stay.NEEDED_ELSEWHERE)
        for file, stay in ended.items():
            if stay is not None:
                done.stays(file, *stay)

    async def _prove(self, file: SourceFile) -> Proven | tuple[Stay, str]:
        """Whether the blob is what was copied, and the copy holds its bytes."""
        evidence = self._judged[file].known.evidence
        assert evidence is not None  # noqa: S101 - `_stay` left those out
        assert evidence.md5 is not None  # noqa: S101 - as above
        try:
            blob = await self._source.look(file)
            key = self._run.stores.urls.key_of(file)
            copy = await self._target.describe(key, read=self._run.done.applied)
        except Permanent as error:
            return Stay.REFUSED, str(error)
        if blob is None:
            return Stay.GONE, ""
        if blob.etag != evidence.source_etag or blob.size != evidence.size or blob.md5 not in (None, evidence.md5):
            return Stay.CHANGED_AT_SOURCE, ""
        if copy is None:
            return Stay.COPY_MISSING, ""
        # Only a dry run takes S3's word, and S3 does not have one for every object.
        digests = (evidence.md5,) if self._run.done.applied else (evidence.md5, None)
        if copy.size != evidence.size or copy.md5 not in digests:
            return Stay.COPY_DIFFERS, ""
        return Proven(file, key, evidence.size, evidence.md5, evidence.source_etag, copy.etag)

    def _unsettled(self, files: Collection[SourceFile]) -> set[SourceFile]:
        """Those that another range needs in which somebody is at work, or was since it was audited.

        Asked after their removal was noted: whoever takes such a range later finds the note.
        """
        ledger = self._run.removal.ledger
        needed = {file: set(keys) - {self._key} for file, keys in ledger.needed_by(files).items()}
        others = sorted({key for keys in needed.values() for key in keys})
        unfit = ledger.held(others) | _why_not(others, self._run).keys() if others else set()
        return {file for file, keys in needed.items() if keys & unfit}

    async def _remove(self, file: SourceFile, *, proven: dict[SourceFile, Proven]) -> tuple[Stay, str] | None:
        """Why it stays after all; `None` where it is gone."""
        async with self._pace.request():
            # Whoever was away so long that somebody else took the range removes nothing.
            await asyncio.to_thread(self._fence.check)
            try:
                await self._source.remove(file, proven[file].source_etag)
            except Permanent as error:
                changed = error.outcome is Outcome.SOURCE_CHANGED
                return (Stay.CHANGED_AT_SOURCE, "") if changed else (Stay.REFUSED, str(error))
        return None
