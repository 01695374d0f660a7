"""Which files a range's profiles need, read from both sites."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from migration_pipeline.core.control import Wait, go_on
from migration_pipeline.core.model import Places, Profile, ProfileId, ProfileRange, SourceFile, WantedFile, Wish
from migration_pipeline.core.ports import DocumentStore, ProfileStore, RangeLedger
from migration_pipeline.core.reading import Found, example, odd, read, spelled
from migration_pipeline.core.texts import Text
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
        asking: of the references, those with a query string or a fragment that may mean something.
        foreign: URLs of other hosts.
        other_container: URLs of the source's account whose container does not move.
        unparsable: URLs that name no blob for sure.
        embedded: values that name the source and are not understood.
        examples: of all these but plain references, by kind, without query strings.
        drifted: profiles of which Firebase names a file that the database does not. The other direction is how most
            apps are meant to be: tables whose URLs are in no document.
        aged: of the files, those to be looked at in S3 again before they are relied on.
    """

    profiles: int = 0
    deleted: int = 0
    with_files: int = 0
    files: int = 0
    references: int = 0
    asking: int = 0
    foreign: int = 0
    other_container: int = 0
    unparsable: int = 0
    embedded: int = 0
    drifted: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    drifted_examples: list[ProfileId] = field(default_factory=list)
    aged: Sequence[WantedFile] = ()

    def count(self, profile_id: ProfileId, text: Text, reference: Reference) -> None:
        """One reference more."""
        self.asking += reference.asks
        match reference.kind:
            case UrlKind.SOURCE:
                self.references += 1
            case UrlKind.FOREIGN:
                self.foreign += 1
            case UrlKind.OTHER_CONTAINER:
                self.other_container += 1
            case UrlKind.UNPARSABLE:
                self.unparsable += 1
            case UrlKind.EMBEDDED:
                self.embedded += 1
            case UrlKind.TARGET:
                pass
        kind = odd(reference)
        if kind is not None:
            _keep(self.examples.setdefault(kind, []), f"{profile_id}: {example(text, reference)}")


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
    needed = ledger.want(_wanted(profiles.read(bounds), documents, urls, found, wait))
    found.files, found.aged = needed.files, needed.aged
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


def _wishes_of(profile: Profile, copies: Sequence[Text] | None, urls: UrlRules, found: Discovered) -> list[Wish]:
    needs = Needs()
    # The database's spelling counts where both sites name a file: clients of Firebase get the app's from there.
    here = _looked_at(profile.profile_id, profile.strings, urls, found, needs)
    there = _looked_at(profile.profile_id, copies or (), urls, found, needs)
    if _names(there, urls) - _names(here, urls):
        found.drifted += 1
        _keep(found.drifted_examples, profile.profile_id)
    return needs.wishes(profile.profile_id)


def _looked_at(
    profile_id: ProfileId, texts: Iterable[Text], urls: UrlRules, seen: Discovered, needs: "Needs"
) -> list[Reference]:
    ours = []
    for text in texts:
        for found in read(text, urls):
            reference = found.reference
            seen.count(profile_id, text, reference)
            if reference.kind in (UrlKind.SOURCE, UrlKind.TARGET):
                ours.append(reference)
            if reference.file is not None:
                needs.add(reference.file, found, text)
    return ours


class Needs:
    """The files that a profile needs, and how it spells them."""

    def __init__(self) -> None:
        self._first: dict[SourceFile, str] = {}
        self._had_sas: set[SourceFile] = set()
        self._places: dict[SourceFile, dict[str, list[str]]] = {}

    def add(self, file: SourceFile, found: Found, text: Text) -> None:
        """Note one reference."""
        self._first.setdefault(file, found.reference.shown)
        if found.reference.had_query:
            self._had_sas.add(file)
        places = self._places.setdefault(file, {})
        # What is not re-pointed will not come back either.
        if not (found.reference.waits or found.reference.stays):
            places.setdefault(text.place, []).append(spelled(found, text))

    def wishes(self, profile_id: ProfileId) -> list[Wish]:
        """What is to be noted of them."""
        return [
            Wish(profile_id, file, shown, file in self._had_sas, self._unlike(file, shown))
            for file, shown in self._first.items()
        ]

    def _unlike(self, file: SourceFile, shown: str) -> Places:
        """Every spelling, where one is not the first: else that says it all.

        What is not ASCII may be escaped in JSON, or not, and is kept as it was, too.
        """
        places = self._places[file]
        if shown.isascii() and all(spelling == shown for spellings in places.values() for spelling in spellings):
            return ()
        return [(place, tuple(spellings)) for place, spellings in places.items()]


def _names(references: Sequence[Reference], urls: UrlRules) -> set[str]:
    """Keys, so that a file counts as the same whether its URL has moved yet or not."""
    return {urls.unchecked_key_of(ref.file) if ref.file else ref.key or "" for ref in references}


def _keep(examples: list[_T], example: _T) -> None:
    if len(examples) < MAX_EXAMPLES:
        examples.append(example)
