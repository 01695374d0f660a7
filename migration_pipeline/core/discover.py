"""Which files a range's profiles need, read from both sites."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from migration_pipeline.core.control import Wait, go_on
from migration_pipeline.core.model import Profile, ProfileId, ProfileRange, Wish
from migration_pipeline.core.ports import DocumentStore, ProfileStore, RangeLedger
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules

_T = TypeVar("_T")

MAX_EXAMPLES = 20
"""Examples kept of each oddity: enough to recognise a pattern, little enough for a page."""


@dataclass(slots=True)
class Discovered:
    """What discovery found in a range.

    Attributes:
        profiles: read, deleted ones included.
        references: URLs of the source, in both sites.
        files: different files these name.
        drifted: profiles of which Firebase names a file that the database does not. The other direction is how most
            apps are meant to be: tables whose URLs are in no document.
    """

    profiles: int = 0
    deleted: int = 0
    with_files: int = 0
    files: int = 0
    references: int = 0
    foreign: int = 0
    unparsable: int = 0
    drifted: int = 0
    foreign_examples: list[str] = field(default_factory=list)
    unparsable_examples: list[str] = field(default_factory=list)
    drifted_examples: list[ProfileId] = field(default_factory=list)


def discover(
    bounds: ProfileRange,
    *,
    profiles: ProfileStore,
    documents: DocumentStore,
    ledger: RangeLedger,
    urls: UrlRules,
    wait: Wait = go_on,
) -> Discovered:
    """Read both sites of a range and note the wanted files in the ledger; `wait` is called after each batch."""
    found = Discovered()
    found.files = ledger.want(_wanted(profiles.read(bounds), documents, urls, found, wait))
    return found


def _wanted(
    batches: Iterable[Sequence[Profile]], documents: DocumentStore, urls: UrlRules, found: Discovered, wait: Wait
) -> Iterator[Wish]:
    for batch in batches:
        alive = [profile for profile in batch if not profile.deleted]
        found.profiles += len(batch)
        found.deleted += len(batch) - len(alive)
        copies = documents.read([profile.profile_id for profile in alive])
        for profile in alive:
            wishes = _wishes_of(profile, copies.get(profile.profile_id), urls, found)
            found.with_files += bool(wishes)
            yield from wishes
        wait()  # here, so that no batch is looked at that was read before a pause


def _wishes_of(profile: Profile, copies: Sequence[str] | None, urls: UrlRules, found: Discovered) -> list[Wish]:
    here = _classified(profile.profile_id, profile.strings, urls, found)
    there = _classified(profile.profile_id, copies or (), urls, found)
    if _names(there, urls) - _names(here, urls):
        found.drifted += 1
        _keep(found.drifted_examples, profile.profile_id)
    # The database's spelling counts where both sites name a file: clients of Firebase get the app's from there.
    refs = {ref.file: ref for ref in (*there, *here)}
    with_query = {ref.file for ref in (*there, *here) if ref.had_query}
    return [
        Wish(profile.profile_id, file, ref.shown, file in with_query) for file, ref in refs.items() if file is not None
    ]


def _classified(profile_id: ProfileId, strings: Sequence[str], urls: UrlRules, found: Discovered) -> list[Reference]:
    ours = []
    for text in strings:
        match urls.classify(text):
            case None:
                continue
            case Reference(kind=UrlKind.FOREIGN) as ref:
                found.foreign += 1
                _keep(found.foreign_examples, f"{profile_id}: {ref.shown}")
            case Reference(kind=UrlKind.UNPARSABLE) as ref:
                found.unparsable += 1
                _keep(found.unparsable_examples, f"{profile_id}: {ref.shown} {ref.reason}")
            case ref:
                found.references += ref.kind is UrlKind.SOURCE
                ours.append(ref)
    return ours


def _names(references: Sequence[Reference], urls: UrlRules) -> set[str]:
    """Keys, so that a file counts as the same whether its URL has moved yet or not."""
    return {urls.unchecked_key_of(ref.file) if ref.file else ref.key or "" for ref in references}


def _keep(examples: list[_T], example: _T) -> None:
    if len(examples) < MAX_EXAMPLES:
        examples.append(example)
