"""Rows of the inventory on their way into Postgres: as CSV, which COPY takes as it comes."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from migration_pipeline.core.inventory import Listed

COLUMNS = ("file_id", "container", "blob", "size_bytes", "md5", "etag", "tier", "written_at", "listing_id")


class Rows(NamedTuple):
    """Some blobs, ready to be kept, with where to go on after them.

    Attributes:
        text: CSV, without the last column, which the ledger adds.
        progress: of the listing, once these are kept.
        skipped: rows that are no blob of now, by reason.
    """

    text: bytes
    blobs: int
    bytes: int
    progress: Mapping[str, Any]
    skipped: Mapping[str, int]


def as_csv(blobs: Sequence[Listed]) -> bytes:
    """The blobs as CSV. Empty cells are NULL: no blob has an empty name."""
    out = io.StringIO(newline="")
    # With the line ends that it has by default: so cells that hold either half of them are quoted.
    writer = csv.writer(out)
    for blob in blobs:
        writer.writerow(
            (
                blob.file.file_id,
                blob.file.container,
                blob.file.blob,
                blob.size,
                "" if blob.md5 is None else f"\\x{blob.md5.hex()}",
                blob.etag or "",
                blob.tier or "",
                blob.written_at.isoformat(),
            )
        )
    return out.getvalue().encode()
