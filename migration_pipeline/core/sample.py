"""What a sample of profiles, and of their files, says of all."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from migration_pipeline.core.errors import MigrationError, Permanent, Transient, worst
from migration_pipeline.core.model import Outcome, ProfileId, SourceFile
from migration_pipeline.core.plan_ports import ProfileIndex, SourceSizes
from migration_pipeline.core.ports import DocumentStore
from migration_pipeline.core.urls import Reference, UrlKind, UrlRules

PROFILES = 500
"""Profiles read to learn what one holds."""
FILES = 200
"""Files of these that the source is asked about."""
_EXAMPLES = 5
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
        examples: of foreign and of unparsable references, without query strings.
    """

    profiles: int = 0
    deleted: int = 0
    rows: int = 0
    documents: int = 0
    with_files: int = 0
    references: Counter[UrlKind] = field(default_factory=Counter)
    files: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    different_files: list[SourceFile] = field(default_factory=list)
    examples: dict[UrlKind, list[str]] = field(default_factory=dict)

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
        found.rows += any(ref.file for ref in here)
        found.documents += any(ref.file for ref in there)
        found.with_files += bool(files)
        found.files.append(len(files))
        found.bytes.append(weights.get(profile.profile_id, 0))
        different |= files
    found.different_files = list(different)
    return found


def _classified(profile_id: ProfileId, strings: Sequence[str], urls: UrlRules, found: Sampled) -> list[Reference]:
    references = [reference for text in strings if (reference := urls.classify(text)) is not None]
    for reference in references:
        found.references[reference.kind] += 1
        if reference.kind in (UrlKind.FOREIGN, UrlKind.UNPARSABLE):
            examples = found.examples.setdefault(reference.kind, [])
            example = f"{profile_id}: {reference.shown} {reference.reason}".rstrip()
            if len(examples) < _EXAMPLES and example not in examples:
                examples.append(example)
    return references


@dataclass(slots=True)
class SampledFiles:
    """What the source said of some files.

    Attributes:
        sizes: bytes, of those that can be copied.
        failed: the others, by the outcome that they would end with.
        unanswered: files of which the source said nothing.
        examples: of those that cannot be copied.
    """

    sizes: list[int] = field(default_factory=list)
    failed: Counter[Outcome] = field(default_factory=Counter)
    unanswered: int = 0
    examples: dict[Outcome, list[SourceFile]] = field(default_factory=dict)

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
