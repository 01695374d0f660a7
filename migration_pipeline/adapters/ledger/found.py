"""What the ledger finds in the inventory beside the count: one look at both, in Postgres, whatever their size."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from migration_pipeline.adapters.ledger.overview import Query
from migration_pipeline.core.inventory import ARCHIVE, LARGEST, SIZE_CLASSES, Example, Found, Held
from migration_pipeline.core.large_file import PART_BYTES, part_bytes
from migration_pipeline.core.model import SourceFile

_EXAMPLES = 50
_SIZE_CLASS = (
    "CASE "
    + " ".join(f"WHEN size_bytes <= {most} THEN '{name}'" for most, name in SIZE_CLASSES)
    + f" ELSE '{LARGEST}' END"
)
_ORPHAN = "NOT EXISTS (SELECT FROM {s}.referenced r WHERE r.file_id = i.file_id)"
_TO_MOVE = "r.to_move AND r.container = ANY(%(containers)s)"
_MISSING = f"{_TO_MOVE} AND i.file_id IS NULL AND NOT r.too_long"
_ARCHIVED = f"{_TO_MOVE} AND i.tier = '{ARCHIVE}' AND NOT r.too_long"
_COPYABLE = f"{_TO_MOVE} AND i.tier IS DISTINCT FROM '{ARCHIVE}' AND i.file_id IS NOT NULL AND NOT r.too_long"


_KEPT = "what the source holds"  # what the ledger keeps it under


class Kept(NamedTuple):
    """What was found last, and of what.

    Attributes:
        settings: digest of those that say what a reference is.
    """

    found: Found
    listing_id: int
    count_id: int
    settings: str


class LedgerFound:
    """Compares, and keeps what came of it."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def keep(self, kept: Kept) -> None:
        """Keep what was found."""
        self._query(
            "INSERT INTO {s}.state VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [_KEPT, Jsonb({**kept._asdict(), "found": kept.found.plain()})],
        )

    def kept(self) -> Kept | None:
        """What was found last."""
        rows = self._query("SELECT value FROM {s}.state WHERE name = %s", [_KEPT])
        return Kept(**{**rows[0][0], "found": Found.of(rows[0][0]["found"])}) if rows else None

    def worked_on_since(self, moment: datetime) -> bool:
        """Whether a run began in any range, so that what was found is of before."""
        return bool(self._query("SELECT true FROM {s}.ranges WHERE started_at >= %s LIMIT 1", [moment]))

    def missing(self, containers: Sequence[str], *, after: str | None, limit: int) -> Sequence[tuple[str, SourceFile]]:
        """Files to move that the inventory has not, in the order of their ids; each with its id."""
        rows = self._query(
            "SELECT r.file_id::text, r.container, r.blob FROM {s}.referenced r LEFT JOIN {s}.inventory i"  # noqa: S608 - of constants
            f" USING (file_id) WHERE {_MISSING} AND (%(after)s::uuid IS NULL OR r.file_id > %(after)s::uuid)"
            " ORDER BY r.file_id LIMIT %(limit)s",
            {"containers": list(containers), "after": after, "limit": limit},
        )
        return [(file_id, SourceFile(container, blob)) for file_id, container, blob in rows]

    def orphans(
        self, containers: Sequence[str], *, before: datetime, after: str | None = None, limit: int
    ) -> Sequence[tuple[str, SourceFile, int, str | None, datetime, bytes | None]]:
        """Blobs that nobody refers to, written before a moment, in the order of their ids.

        Each as id, file, size, tier, time of writing and MD5.
        """
        rows = self._query(
            "SELECT i.file_id::text, container, blob, size_bytes, tier, written_at, md5 FROM {s}.inventory i"  # noqa: S608 - of constants
            f" WHERE {_ORPHAN} AND container = ANY(%(containers)s) AND written_at < %(before)s"
            " AND (%(after)s::uuid IS NULL OR i.file_id > %(after)s::uuid) ORDER BY i.file_id LIMIT %(limit)s",
            {"containers": list(containers), "before": before, "after": after, "limit": limit},
        )
        return [(file_id, SourceFile(container, blob), *others) for file_id, container, blob, *others in rows]

    def look(
        self, containers: Sequence[str], *, listed_at: datetime, counted_at: datetime, before: datetime, came_late: int
    ) -> Found:
        """Everything that is to be told.

        Args:
            containers: that move.
            listed_at: when the listing began.
            counted_at: when the count did.
            before: a blob must have been written before it, to be an orphan.
            came_late: files that the source was asked for one by one.
        """
        values = {"containers": list(containers), "before": before}
        held = self._query(
            f"SELECT container, coalesce(tier, ''), {_SIZE_CLASS} AS class, count(*), sum(size_bytes)"  # noqa: S608 - of constants
            " FROM {s}.inventory WHERE container = ANY(%(containers)s) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            values,
        )
        ((files, too_long, missing, archived_needed, size),) = self._query(
            f"SELECT count(*), count(*) FILTER (WHERE r.too_long), count(*) FILTER (WHERE {_MISSING}),"  # noqa: S608 - of constants
            f" count(*) FILTER (WHERE {_ARCHIVED}), coalesce(sum(i.size_bytes) FILTER (WHERE {_COPYABLE}), 0)"
            f" FROM {{s}}.referenced r LEFT JOIN {{s}}.inventory i USING (file_id) WHERE {_TO_MOVE}",
            values,
        )
        ((orphans, orphan_bytes, young),) = self._query(
            "SELECT count(*) FILTER (WHERE old), coalesce(sum(size_bytes) FILTER (WHERE old), 0),"  # noqa: S608 - of constants
            " count(*) FILTER (WHERE NOT old) FROM (SELECT size_bytes, written_at < %(before)s AS old"
            f" FROM {{s}}.inventory i WHERE {_ORPHAN} AND container = ANY(%(containers)s)) AS unwanted",
            values,
        )
        ((only_deleted,),) = self._query(
            "SELECT count(*) FROM {s}.referenced r JOIN {s}.inventory i USING (file_id)"
            " WHERE NOT r.alive AND r.container = ANY(%(containers)s)",
            values,
        )
        large, parts = self._in_parts(values)
        return Found(
            listed_at,
            counted_at,
            [Held(container, tier, kind, blobs, int(total)) for container, tier, kind, blobs, total in held],
            files=files,
            bytes=int(size),
            missing=missing,
            archived_needed=archived_needed,
            too_long=too_long,
            archived=sum(row[3] for row in held if row[1] == ARCHIVE),
            archived_bytes=sum(int(row[4]) for row in held if row[1] == ARCHIVE),
            orphans=orphans,
            orphan_bytes=int(orphan_bytes),
            young=young,
            only_deleted=only_deleted,
            came_late=came_late,
            large=large,
            parts=parts,
            examples=self._examples(values),
        )

    def _in_parts(self, values: dict[str, Any]) -> tuple[int, int]:
        """Files that are uploaded in parts, and the parts of them all."""
        large = parts = 0
        for size, files in self._sizes(values):
            large += files
            parts += files * -(-size // part_bytes(size))
        return large, parts

    def _sizes(self, values: dict[str, Any]) -> Iterator[tuple[int, int]]:
        last, most = PART_BYTES, 10_000
        while rows := self._query(
            "SELECT i.size_bytes, count(*) FROM {s}.referenced r JOIN {s}.inventory i USING (file_id)"  # noqa: S608 - of constants
            f" WHERE {_COPYABLE} AND i.size_bytes > %(last)s GROUP BY 1 ORDER BY 1 LIMIT %(most)s",
            {**values, "last": last, "most": most},
        ):
            yield from rows
            last = rows[-1][0]

    def _examples(self, values: dict[str, Any]) -> dict[str, Sequence[Example]]:
        referenced = (
            "SELECT r.container, r.blob, a_profile FROM {s}.referenced r LEFT JOIN {s}.inventory i USING (file_id)"
            " WHERE "
        )
        texts = {
            "missing": referenced + _MISSING,
            "archived": referenced + _ARCHIVED,
            "too_long": f"{referenced}{_TO_MOVE} AND r.too_long",
            "orphan": "SELECT container, blob, NULL::text FROM {s}.inventory i WHERE container = ANY(%(containers)s)"  # noqa: S608 - of constants
            f" AND written_at < %(before)s AND {_ORPHAN}",
        }
        found = {name: self._query(f"{text} LIMIT {_EXAMPLES}", values) for name, text in texts.items()}
        return {
            name: [Example(SourceFile(container, blob), profile) for container, blob, profile in rows]
            for name, rows in found.items()
            if rows
        }
