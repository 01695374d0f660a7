"""Who refers to blobs at the source still: rows, a deleted profile's too, and documents."""

import re
from collections.abc import Collection, Iterable, Iterator

from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import ProfileId, ProfileRange, SourceFile
from migration_pipeline.core.rewrite import batches
from migration_pipeline.core.urls import UrlKind, UrlRules

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def named_in_rows(files: Collection[SourceFile], stores: Stores) -> set[SourceFile]:
    """Those of the files that any row refers to at the source, a deleted profile's too, for it may come back."""
    found = set[SourceFile]()
    if not files:
        return found
    for batch in stores.profiles.holding(stores.urls.source_hosts, any_case=True):
        alive = [profile.profile_id for profile in batch if not profile.deleted]
        copies = stores.documents.read(alive) if alive else {}
        for strings in (*(profile.strings for profile in batch), *copies.values()):
            found.update(file for file in _at_source(strings, stores.urls) if file in files)
    return found


def referred_in_range(
    files: Collection[SourceFile], bounds: ProfileRange, stores: Stores, others: Iterable[ProfileId]
) -> set[SourceFile]:
    """Those of the files that the range's rows and documents refer to at the source now, or documents of others do.

    Args:
        files: to look for.
        bounds: the range, held.
        stores: to look in.
        others: profiles that need them, or once did: without a row by now, or in other ranges.
    """
    found, further = set[SourceFile](), set(others)
    for batch in stores.profiles.read(bounds):
        ids = [profile.profile_id for profile in batch]
        further.difference_update(ids)
        for strings in (*(profile.strings for profile in batch), *stores.documents.read(ids).values()):
            found.update(_at_source(strings, stores.urls))
    for some in batches(sorted(further, key=str)):
        for strings in stores.documents.read(some).values():
            found.update(_at_source(strings, stores.urls))
    return found & set(files)


def _at_source(strings: Iterable[str], urls: UrlRules) -> Iterator[SourceFile]:
    for text in strings:
        reference = urls.classify(text)
        if reference is not None and reference.kind is UrlKind.UNPARSABLE:
            # Never moved, for nobody can say which blob is meant. What a lenient client might make of it stays.
            reference = urls.classify(_CONTROL.sub("", _BARE_PERCENT.sub("%25", reference.shown)))
        if reference is not None and reference.kind is UrlKind.SOURCE and reference.file is not None:
            yield reference.file
