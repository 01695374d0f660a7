"""Re-pointing references: URLs alone, in the value as it is at that moment."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from migration_pipeline.core.control import Wait, go_on
from migration_pipeline.core.model import KnownFile, ProfileId, Rewritten, SourceFile
from migration_pipeline.core.ports import Fence, RangeLedger
from migration_pipeline.core.reading import moved_to, read
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import UrlRules
from migration_pipeline.core.values import Edit, Replace, ReplaceFor

BATCH = 200
"""Profiles of one short transaction, or of one read of documents."""


class Rewritable(Protocol):
    """The part of either site that rewriting needs."""

    def rewrite(self, profile_ids: Sequence[ProfileId], replace: ReplaceFor, fence: Fence) -> Rewritten:
        """Replace single strings of these profiles' values."""


def moved(known: Mapping[SourceFile, KnownFile], urls: UrlRules) -> Replace:
    """The one function that decides what becomes of references: the new URLs of verified files, else no change.

    A reference is re-pointed only where the ledger holds proof that its file is in S3, and somebody has looked at the
    copy since the range's run began: it may have been removed, replaced or archived since it was made.
    """
    verified = {file for file, state in known.items() if state.verified and not state.aged}

    def edits(text: Text) -> list[Edit]:
        at_source = (found for found in read(text, urls) if found.reference.file in verified)
        return [edit for found in at_source if (edit := moved_to(found, text, urls)) is not None]

    return lambda texts: [edits(text) for text in texts]


def rewrite(site: Rewritable, *, ledger: RangeLedger, urls: UrlRules, wait: Wait = go_on) -> Rewritten:
    """Re-point the references that one site holds to the range's verified files; `wait` is called before each batch."""
    replace, total = moved(ledger.known(), urls), Rewritten()
    for ids in batches(ledger.profiles_with_files()):
        wait()
        total = total.plus(site.rewrite(ids, lambda _: replace, ledger.fence))
    return total


def batches(ids: Sequence[ProfileId]) -> Iterator[Sequence[ProfileId]]:
    """The ids, a batch at a time."""
    rest = iter(ids)
    while batch := list(islice(rest, BATCH)):
        yield batch
