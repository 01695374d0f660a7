"""Who refers to blobs at the source still: rows, a deleted profile's too, and documents.

By what their texts name, understood or not, and not only by what a run would re-point.
"""

from collections.abc import Collection, Iterable

from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import ProfileId, ProfileRange, SourceFile
from migration_pipeline.core.reading import named_at_source
from migration_pipeline.core.rewrite import batches
from migration_pipeline.core.seeing import Names


def names_of(files: Collection[SourceFile], stores: Stores) -> Names:
    """Finds which of these files a text may name."""
    return Names(files, stores.urls.unchecked_key_of)


def named_in_rows(files: Collection[SourceFile], stores: Stores) -> set[SourceFile]:
    """Those of the files that any row names at the source.

    A deleted profile's too, for it may come back, and rows' whose profile is gone.
    """
    found = set[SourceFile]()
    if not files:
        return found
    names = names_of(files, stores)
    for batch in stores.profiles.holding(stores.urls.source_hosts, any_case=True):
        alive = [profile.profile_id for profile in batch if not profile.deleted]
        copies = stores.documents.read(alive) if alive else {}
        for texts in (*(profile.strings for profile in batch), *copies.values()):
            found |= named_at_source(texts, names, stores.urls)
    for texts in stores.profiles.unowned(stores.urls.source_hosts, any_case=True):
        found |= named_at_source(texts, names, stores.urls)
    return found


def named_in_documents(files: Collection[SourceFile], stores: Stores) -> set[SourceFile]:
    """Those that the profiles name whose range holds values that are not understood.

    A document's profile may have no row that names anything, and no need of the file that the ledger knows of.
    """
    found = set[SourceFile]()
    for bounds in stores.ledger.not_understood() if files else ():
        found |= named_in_range(files, bounds, stores)
    return found


def named_in_range(files: Collection[SourceFile], bounds: ProfileRange, stores: Stores) -> set[SourceFile]:
    """Those of the files that the range's rows, and their documents, name at the source now."""
    found, names = set[SourceFile](), names_of(files, stores)
    for batch in stores.profiles.read(bounds):
        copies = stores.documents.read([profile.profile_id for profile in batch])
        for texts in (*(profile.strings for profile in batch), *copies.values()):
            found |= named_at_source(texts, names, stores.urls)
    return found


def named_by(files: Collection[SourceFile], profile_ids: Iterable[ProfileId], stores: Stores) -> set[SourceFile]:
    """Those that these profiles name at the source now, in rows or documents; also those whose row is gone."""
    found, names = set[SourceFile](), names_of(files, stores)
    for ids in batches(sorted(profile_ids, key=str)):
        rows, copies = stores.profiles.find(ids), stores.documents.read(ids)
        for texts in (*(profile.strings for profile in rows), *copies.values()):
            found |= named_at_source(texts, names, stores.urls)
    return found
