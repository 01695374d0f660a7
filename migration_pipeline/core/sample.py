"""What a sample of profiles, and of their files, says of all."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from migration_pipeline.core.errors import MigrationError, Permanent, Transient, worst
from migration_pipeline.core.model import Outcome, ProfileId, SourceFile
from migration_pipeline.core.plan_ports import ProfileIndex, SourceSizes
from migration_pipeline.core.ports import DocumentStore
from migration_pipeline.core.reading import ASKING, each, example, odd
from migration_pipeline.core.texts import WHOLE, Text
from migration_pipeline.core.urls import Reference, UrlRules

PROFILES = 500
"""Profiles read to learn what one holds."""
NAMES = 100
"""Values of these that may be names of blobs, and that the source is asked about."""
FILES = 200
"""Files of these that the source is asked about."""
_EXAMPLES = 5
_LONGEST_NAME = 1024  # characters: Microsoft Learn, "Naming and referencing containers, blobs, and metadata"
_AT_ONCE = 16


@dataclass(slots=True)
class Sampled:
    """What a sample of profiles says of all.

    Attributes:
        profiles: looked at, deleted ones included.
        deleted: of them.
        rows: of them, profiles whose rows hold a reference to the source.
        documents: of them, profiles whose document holds one.
        with_files: of them, profiles of which either does.
        references: by kind, at both sites, each place counted.
        files: of the source that each profile needs; a file that several profiles share counts for each.
        bytes: of each profile's own columns, as `Block.bytes` counts them.
        different_files: those that the profiles name, in no particular order.
        examples: of references that somebody should look at, by kind, without query strings.
        names: values that are no URLs, and may be names of blobs; each with the place that holds it.
    """

    profiles: int = 0
    deleted: int = 0
    rows: int = 0
    documents: int = 0
    with_files: int = 0
    references: Counter[str] = field(default_factory=Counter)
    files: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    different_files: list[SourceFile] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)
    names: list[tuple[str, str]] = field(default_factory=list)

    @property
    def files_per_profile(self) -> float:
        """Files that a profile needs, on average."""
        return fmean(self.files) if self.files else 0.0


def sample(index: ProfileIndex, documents: DocumentStore, urls: UrlRules, limit: int = PROFILES) -> Sampled:
    """Look at some profiles spread over the table."""
    profiles, found = index.sample(limit), Sampled()
    alive = [profile.profile_id for profile in profiles if not profile.deleted]
    copies = documents.read(alive)
    weights = index.weigh([profile.profile_id for profile in profiles])
    different: dict[SourceFile, None] = {}
    for profile in profiles:
        found.profiles += 1
        found.deleted += profile.deleted
        here = [] if profile.deleted else _classified(profile.profile_id, profile.strings, urls, found)
        there = _classified(profile.profile_id, copies.get(profile.profile_id, ()), urls, found)
        files = dict.fromkeys(ref.file for ref in (*here, *there) if ref.file is not None)
        texts = () if profile.deleted else (*profile.strings, *copies.get(profile.profile_id, ()))
        found.names += [(text.place, text.text) for text in texts if _may_be_name(text)]
        found.rows += any(ref.file for ref in here)
        found.documents += any(ref.file for ref in there)
        found.with_files += bool(files)
        found.files.append(len(files))
        found.bytes.append(weights.get(profile.profile_id, 0))
        different |= files
    found.different_files = list(different)
    return found


def _classified(profile_id: ProfileId, strings: Iterable[Text], urls: UrlRules, found: Sampled) -> list[Reference]:
    references = []
    for text, reference in each(strings, urls):
        references.append(reference)
        found.references[reference.kind] += 1
        found.references[ASKING] += reference.asks
        kind = odd(reference)
        if kind is not None:
            examples, shown = found.examples.setdefault(kind, []), f"{profile_id}: {example(text, reference)}"
            if len(examples) < _EXAMPLES and shown not in examples:
                examples.append(shown)
    return references


def _may_be_name(text: Text) -> bool:
    name = text.text
    plain = not text.is_key and text.form == WHOLE and "//" not in name
    return plain and len(name) <= _LONGEST_NAME and not any(map(str.isspace, name)) and name.strip("./") != ""


@dataclass(slots=True)
class SampledFiles:
    """What the source said of some files.

    Attributes:
        sizes: bytes, of those that can be copied.
        failed: the others, by the outcome that they would end with.
        unanswered: files of which the source said nothing.
        examples: of those that cannot be copied.
        names: values that were taken for names of blobs, and asked about.
        named: of these, those that are; by the place that holds them.
    """

    sizes: list[int] = field(default_factory=list)
    failed: Counter[Outcome] = field(default_factory=Counter)
    unanswered: int = 0
    examples: dict[Outcome, list[SourceFile]] = field(default_factory=dict)
    names: int = 0
    named: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """Files of which something is known."""
        return len(self.sizes) + sum(self.failed.values())


async def sample_files(
    source: SourceSizes, files: Sequence[SourceFile], urls: UrlRules, limit: int = FILES
) -> SampledFiles:
    """Ask the source about some of the files; nothing is read.

    Raises:
        Fatal: the source refuses us altogether.
    """
    # Seeded, so that planning twice without a change says the same.
    chosen = random.Random(limit).sample(files, min(limit, len(files)))  # noqa: S311 - not cryptography
    gate, found = asyncio.Semaphore(_AT_ONCE), SampledFiles()

    async def ask(file: SourceFile) -> None:
        async with gate:
            try:
                urls.key_of(file)
                found.sizes.append(await source.size(file))
            except Permanent as error:
                found.failed[error.outcome] += 1
                examples = found.examples.setdefault(error.outcome, [])
                if len(examples) < _EXAMPLES:
                    examples.append(file)
            except Transient:
                found.unanswered += 1

    try:
        async with asyncio.TaskGroup() as group:
            for file in chosen:
                group.create_task(ask(file))
    except* MigrationError as errors:
        raise worst(errors) from None
    return found


async def sample_names(
    source: SourceSizes, names: Sequence[tuple[str, str]], containers: Sequence[str], found: SampledFiles
) -> None:
    """Ask the source whether some values that are no URLs are names of blobs, with a container before them or without.

    Raises:
        Fatal: the source refuses us altogether.
    """
    different = sorted(set(names))
    chosen = random.Random(NAMES).sample(different, min(NAMES, len(different)))  # noqa: S311 - not cryptography
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(place: str, name: str) -> None:
        async with gate:
            there = await _is_there(source, name.lstrip("/"), containers)
            found.named[place] += there

    try:
        async with asyncio.TaskGroup() as group:
            for place, name in chosen:
                group.create_task(ask(place, name))
    except* MigrationError as errors:
        raise worst(errors) from None
    found.names, found.named = len(chosen), +found.named


async def _is_there(source: SourceSizes, name: str, containers: Sequence[str]) -> bool:
    first, _, rest = name.partition("/")
    files = [SourceFile(first, rest)] if rest and first in containers else []
    for file in (*files, *(SourceFile(container, name) for container in containers)):
        try:
            await source.size(file)
        except Permanent as error:
            if error.outcome is Outcome.SOURCE_ARCHIVED:
                return True
        except Transient:
            return False
        else:
            return True
    return False
