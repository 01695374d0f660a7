"""Counting what all profiles and documents refer to, before anything is copied: nothing is held, nothing written there.

What a batch of profiles refers to is kept in the ledger with how far the count is, so that it can be cut off anywhere.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import sqrt
from typing import Any, NamedTuple, Self

from migration_pipeline.core.errors import Permanent
from migration_pipeline.core.model import Profile, ProfileId, SourceFile
from migration_pipeline.core.reading import ASKING, each, example, odd
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules

_EXAMPLES = 5


class Referred(NamedTuple):
    """A profile refers to a file.

    Attributes:
        alive: the profile is not deleted. One that is may come back, so its files are nobody's orphans; until then
            nothing of it is moved.
        to_move: a reference names the source, and not its copy in S3 already.
        too_long: the file's key is longer than S3 takes.
    """

    file: SourceFile
    profile_id: ProfileId
    alive: bool
    to_move: bool
    too_long: bool


@dataclass(slots=True)
class Totals:
    """What a count found so far, deleted profiles aside where nothing else is said.

    Attributes:
        profiles: looked at, deleted ones included.
        deleted: of them.
        rows: profiles whose rows hold a reference to the source.
        documents: profiles whose document holds one.
        with_files: profiles of which either does.
        references: by kind, at both sites, each place counted.
        files: of the source that each profile needs, added up; a file that several profiles share counts for each.
        squares: of these numbers, added up.
        examples: of references that somebody should look at, by kind, without query strings.
    """

    profiles: int = 0
    deleted: int = 0
    rows: int = 0
    documents: int = 0
    with_files: int = 0
    references: Counter[str] = field(default_factory=Counter)
    files: int = 0
    squares: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """As `plain` gave them."""
        return cls(**{**values, "references": Counter(values.get("references", {}))})

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"references": dict(self.references)}

    @property
    def files_per_profile(self) -> float:
        """Files that a profile needs, on average."""
        return self.files / self.profiles if self.profiles else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of that."""
        if not self.profiles:
            return 0.0
        return sqrt(max(0.0, self.squares / self.profiles - self.files_per_profile**2))


class Counted(NamedTuple):
    """What some consecutive profiles refer to.

    Attributes:
        files: that each of the profiles needs from the source, in the order of `ids`.
    """

    referred: Sequence[Referred]
    ids: Sequence[ProfileId]
    files: Sequence[int]


def count(
    profiles: Sequence[Profile], copies: Mapping[ProfileId, Sequence[Text]], urls: UrlRules, totals: Totals
) -> Counted:
    """Count a batch of profiles and their documents, and add it to the totals."""
    referred: list[Referred] = []
    ids, files = [], []
    for profile in profiles:
        here = _looked_at(profile, profile.strings, urls, totals)
        there = _looked_at(profile, copies.get(profile.profile_id, ()), urls, totals)
        for file in here.keys() | there.keys():
            to_move = here.get(file, False) or there.get(file, False)
            referred.append(Referred(file, profile.profile_id, not profile.deleted, to_move, _too_long(file, urls)))
        wanted = 0 if profile.deleted else sum(here.get(file, False) or there.get(file, False) for file in here | there)
        totals.profiles += 1
        totals.deleted += profile.deleted
        totals.rows += not profile.deleted and any(here.values())
        totals.documents += not profile.deleted and any(there.values())
        totals.with_files += wanted > 0
        totals.files += wanted
        totals.squares += wanted**2
        ids.append(profile.profile_id)
        files.append(wanted)
    return Counted(referred, ids, files)


NOBODY = "nobody"
"""Stands for the profile of rows whose profile is gone."""


def count_unowned(rows: Iterable[Sequence[Text]], urls: UrlRules) -> Iterator[Referred]:
    """What rows refer to whose profile is gone: nothing of it is moved, and none of it is nobody's."""
    unknown = Profile(NOBODY, deleted=True, flagged=False, strings=())
    for strings in rows:
        for file in _looked_at(unknown, strings, urls, Totals()):
            yield Referred(file, NOBODY, alive=True, to_move=False, too_long=_too_long(file, urls))


def _looked_at(profile: Profile, strings: Iterable[Text], urls: UrlRules, totals: Totals) -> dict[SourceFile, bool]:
    """The files that these refer to, each with whether a reference names the source."""
    found: dict[SourceFile, bool] = {}
    for text, reference in each(strings, urls):
        if not profile.deleted:
            totals.references[reference.kind.value] += 1
            totals.references[ASKING] += reference.asks
            _keep_example(totals, profile.profile_id, text, reference)
        if reference.file is not None:
            found[reference.file] = True
        elif reference.kind is UrlKind.TARGET and reference.key is not None:
            file = urls.file_of(reference.key)
            if file is not None:
                found.setdefault(file, False)
    return found


def _keep_example(totals: Totals, profile_id: ProfileId, text: Text, reference: Reference) -> None:
    kind = odd(reference)
    if kind is not None:
        examples, shown = totals.examples.setdefault(kind, []), f"{profile_id}: {example(text, reference)}"
        if len(examples) < _EXAMPLES and shown not in examples:
            examples.append(shown)


def _too_long(file: SourceFile, urls: UrlRules) -> bool:
    try:
        urls.key_of(file)
    except Permanent:
        return True
    return False
