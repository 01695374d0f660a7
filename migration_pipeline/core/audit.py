"""Looking at everything again, with nothing but the stores' own word: each reference ends in one finding."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from migration_pipeline.core.each import Refused, ask_one_by_one, make_sure
from migration_pipeline.core.findings import ACCEPTED, Facts, Finding, classify
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import KnownFile, Profile, ProfileId, SourceFile
from migration_pipeline.core.ports import ObjectFacts, RangeLedger
from migration_pipeline.core.reading import references
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules

_AT_ONCE = 32
_MAX_EXAMPLES = 20

WAIVED = "waived"
"""What audits call those waiting references whose file an operator waived."""

K = TypeVar("K")
T = TypeVar("T")
Known = Mapping[SourceFile, KnownFile]


class Example(NamedTuple):
    """One reference of a finding; an orphan copy is nobody's."""

    profile_id: ProfileId | None
    shown: str


@dataclass(slots=True)
class Audited:
    """What an audit of a range found.

    Attributes:
        findings: references by finding; orphan copies are files.
        waived: those of them to files that an operator let profiles go on without.
        examples: of each finding but sound ones, the first few.
    """

    key: str
    profiles: int = 0
    findings: Counter[Finding] = field(default_factory=Counter)
    waived: Counter[Finding] = field(default_factory=Counter)
    examples: dict[Finding, list[Example]] = field(default_factory=dict)

    @property
    def severity(self) -> int:
        """The worst of all findings."""
        return max((finding.severity for finding, count in self.findings.items() if count), default=0)

    def to_keep(self) -> dict[str, int]:
        """For the ledger: references by finding, and how many of some are known and let be."""
        return {
            **{finding.value: self.findings[finding] for finding in Finding},
            ACCEPTED: self.waived[Finding.DANGLING],
            WAIVED: self.waived[Finding.WAITING],
        }

    def add(self, finding: Finding, example: Example) -> None:
        """Count one."""
        self.findings[finding] += 1
        examples = self.examples.setdefault(finding, [])
        if finding is not Finding.SOUND and len(examples) < _MAX_EXAMPLES:
            examples.append(example)


class _Item(NamedTuple):
    """A reference, and where it stands."""

    profile_id: ProfileId
    flagged: bool
    only_in_firebase: bool
    reference: Reference


def audit_range(range_key: str, stores: Stores, *, read: bool = False) -> Audited:
    """Look at every reference of a range's profiles; nothing is written to any store but the ledger, which keeps it.

    Args:
        range_key: a planned range.
        stores: everything to talk to.
        read: read every object and digest it; else the store's word is taken.

    Raises:
        RangeBusy: a run is at work there: what it has half done would look wrong.
        Fatal: the range is unknown, or a whole store refuses us.
    """
    with stores.ledger.hold(range_key, run=False) as (bounds, ledger):
        began = stores.ledger.now()
        audited, known, held = Audited(range_key), ledger.known(), set[str]()
        for batch in stores.profiles.read(bounds):
            items = list(_items(batch, stores))
            held.update(_key(item.reference, stores.urls) for item in items)
            deleted = {profile.profile_id for profile in batch if profile.deleted}
            audited.profiles += len(batch) - len(deleted)
            _judge([item for item in items if item.profile_id not in deleted], known, stores, audited, read=read)
        _look_for_orphans(known, held, ledger, stores, audited)
        ledger.audited(began, audited.to_keep())
    return audited


def _items(profiles: Sequence[Profile], stores: Stores) -> Iterator[_Item]:
    urls, copies = stores.urls, stores.documents.read([profile.profile_id for profile in profiles])
    for profile in profiles:
        here = list(references(profile.strings, urls))
        there = list(references(copies.get(profile.profile_id, ()), urls))
        keys = {_key(ref, urls) for ref in here}
        for ref in here:
            yield _Item(profile.profile_id, profile.flagged, only_in_firebase=False, reference=ref)
        for ref in there:
            yield _Item(profile.profile_id, profile.flagged, _key(ref, urls) not in keys, ref)


def _key(reference: Reference, urls: UrlRules) -> str:
    """The key that the reference's file has, or would have, in S3."""
    return urls.unchecked_key_of(reference.file) if reference.file is not None else reference.key or ""


def _judge(items: Sequence[_Item], known: Known, stores: Stores, audited: Audited, *, read: bool) -> None:
    findings = _findings(items, known, stores, read=read)
    # The app goes on meanwhile: what nobody refers to any more by now was no finding.
    gone = _gone([item for item, finding in findings if finding.severity], stores)
    for item, finding in findings:
        if not (finding.severity and (item.profile_id, item.reference) in gone):
            audited.add(finding, Example(item.profile_id, item.reference.shown))
            state = known.get(item.reference.file) if item.reference.file is not None else None
            audited.waived[finding] += state is not None and state.waived


def _findings(items: Sequence[_Item], known: Known, stores: Stores, *, read: bool) -> list[tuple[_Item, Finding]]:
    urls = stores.urls
    keys = {
        _key(item.reference, urls) for item in items if item.reference.kind is UrlKind.TARGET or item.reference.stays
    }
    copied = {key: file for key in keys if (file := urls.file_of(key)) is not None and file in known}
    files = {item.reference.file for item in items if item.reference.file is not None} | set(copied.values())

    async def ask() -> tuple[dict[str, ObjectFacts | None], dict[SourceFile, str | None]]:
        async with stores.open_byte_stores() as (source, target):
            await make_sure(source, target)
            objects = await ask_one_by_one(keys, lambda key: target.describe(key, read=read), at_once=_AT_ONCE)
            return _there(objects), _there(await ask_one_by_one(files, source.etag, at_once=_AT_ONCE))

    objects, blobs = stores.run(ask()) if keys or files else ({}, {})

    def facts(item: _Item) -> Facts:
        reference = item.reference
        file = reference.file or copied.get(reference.key or "")
        state = known.get(file) if file is not None else None
        evidence = state.evidence if state is not None else None
        version = evidence.source_etag if evidence is not None else None
        blob = blobs.get(file) if file is not None else None
        return Facts(
            reference.kind,
            holds=reference.holds,
            stays=reference.stays,
            flagged=item.flagged,
            only_in_firebase=item.only_in_firebase,
            waived=state is not None and state.waived,
            in_source=blob is not None,
            source_changed=None not in (version, blob) and version != blob,
            found=objects.get(_key(reference, urls)),
            evidence=evidence,
        )

    return [(item, classify(facts(item))) for item in items]


def _there(answers: Mapping[K, T | Refused | None]) -> dict[K, T | None]:
    """What a store refuses to speak of, it gives to nobody."""
    return {name: None if isinstance(answer, Refused) else answer for name, answer in answers.items()}


def _gone(items: Sequence[_Item], stores: Stores) -> set[tuple[ProfileId, Reference]]:
    ids = sorted({item.profile_id for item in items}, key=str)
    again = [profile for profile in stores.profiles.find(ids) if not profile.deleted] if ids else []
    now = {(item.profile_id, item.reference) for item in _items(again, stores)}
    return {(item.profile_id, item.reference) for item in items} - now


def _look_for_orphans(known: Known, held: set[str], ledger: RangeLedger, stores: Stores, audited: Audited) -> None:
    """Copies that no profile refers to, and that are still there, whether or not a run noted that it made them."""
    verified = {file for file, state in known.items() if state.verified} | ledger.archived()
    unheld = {file for file in verified if stores.urls.unchecked_key_of(file) not in held}
    unheld -= ledger.held_elsewhere(unheld)
    unsure = ledger.unsure()
    keys = {stores.urls.unchecked_key_of(file): file for file in unheld | unsure.keys()}

    async def ask() -> dict[str, ObjectFacts | None]:
        async with stores.open_byte_stores() as (_, target):
            return _there(await ask_one_by_one(keys, target.describe, at_once=_AT_ONCE))

    for key, found in stores.run(ask()).items() if keys else ():
        # What was there before the file was wanted is somebody else's.
        since = unsure.get(keys[key])
        if found is not None and (since is None or (found.made_at or since) >= since.replace(microsecond=0)):
            audited.add(Finding.ORPHAN_COPY, Example(None, str(keys[key])))
