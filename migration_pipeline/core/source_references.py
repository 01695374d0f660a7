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
    """Those of the files that any row refers to at the source.

    A deleted profile's too, for it may come back, and rows' whose profile is gone.
    """
    found = set[SourceFile]()
    if not files:
        return found
    for batch in stores.profiles.holding(stores.urls.source_hosts, any_case=True):
        alive = [profile.profile_id for profile in batch if not profile.deleted]
        copies = stores.documents.read(alive) if alive else {}
        for strings in (*(profile.strings for profile in batch), *copies.values()):
            found.update(file for file in _at_source(strings, stores.urls) if file in files)
    for strings in stores.profiles.unowned(stores.urls.source_hosts, any_case=True):
        found.update(file for file in _at_source(strings, stores.urls) if file in files)
    return found


def referred_in_range(bounds: ProfileRange, stores: Stores) -> set[SourceFile]:
    """Files that the range's rows, and their documents, refer to at the source now."""
    found = set[SourceFile]()
    for batch in stores.profiles.read(bounds):
        copies = stores.documents.read([profile.profile_id for profile in batch])
        for strings in (*(profile.strings for profile in batch), *copies.values()):
            found.update(_at_source(strings, stores.urls))
    return found


def referred_by(profile_ids: Iterable[ProfileId], stores: Stores) -> set[SourceFile]:
    """Files that these profiles refer to at the source now, in rows or documents; also those whose row is gone."""
    found = set[SourceFile]()
    for ids in batches(sorted(profile_ids, key=str)):
        rows, copies = stores.profiles.find(ids), stores.documents.read(ids)
        for strings in (*(profile.strings for profile in rows), *copies.values()):
            found.update(_at_source(strings, stores.urls))
    return found


def _at_source(strings: Iterable[str], urls: UrlRules) -> Iterator[SourceFile]:
    for text in strings:
        reference = urls.classify(text)
        if reference is not None and reference.kind is UrlKind.UNPARSABLE:
            # Never moved, for nobody can say which blob is meant. What a lenient client might make of it stays.
            reference = urls.classify(_CONTROL.sub("", _BARE_PERCENT.sub("%25", reference.shown)))
        if reference is not None and reference.kind is UrlKind.SOURCE and reference.file is not None:
            yield reference.file
