"""The ledger's inventory: what the source held when it was listed last."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.model import SourceFile


class Listing(NamedTuple):
    """A complete listing of the source.

    Attributes:
        began_at: what was written later may be missing in it. Of a report: when Azure began to make it.
        ended_at: when it was complete here.
        source: `listing`, or the files of a report.
        containers: that it covers.
        blobs: in these.
        bytes: of these.
    """

    listing_id: int
    began_at: datetime
    ended_at: datetime
    source: str
    containers: Sequence[str]
    blobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Newer:
    """Blobs that were written after some moment.

    Attributes:
        count: how many.
        newest_at: of the last of them; `None` where there is none.
        examples: the newest ones, with the time of each.
    """

    count: int
    newest_at: datetime | None
    examples: Sequence[tuple[SourceFile, datetime]]


class LedgerInventory:
    """Answers what the source holds, by the newest complete listing of each container."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def newest_listing(self, containers: Collection[str] = ()) -> Listing | None:
        """The complete listing that began last, of those that cover all these containers; `None` where there is none.

        By when it began and not when it ended: a report that was read today tells of the day it was made.
        """
        rows = self._query(
            "SELECT listing_id, began_at, ended_at, source, containers, blobs, bytes FROM {s}.listings"
            " WHERE ended_at IS NOT NULL AND containers @> %s::text[] ORDER BY began_at DESC, listing_id DESC LIMIT 1",
            [list(containers)],
        )
        return Listing(*rows[0]) if rows else None

    def newer_than(self, moment: datetime, limit: int = 20) -> Newer:
        """Blobs that were written after a moment, by the newest listing of each container."""
        counted = self._query("SELECT count(*), max(written_at) FROM {s}.inventory WHERE written_at > %s", [moment])
        ((count, newest_at),) = counted or [(0, None)]
        rows = self._query(
            "SELECT container, blob, written_at FROM {s}.inventory WHERE written_at > %s"
            " ORDER BY written_at DESC, file_id LIMIT %s",
            [moment, limit],
        )
        return Newer(count, newest_at, [(SourceFile(container, blob), at) for container, blob, at in rows])
