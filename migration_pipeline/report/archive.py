"""Archiving: what the ledger knows of finished ranges written as Parquet, read back, and only then dropped."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migration_pipeline.adapters.ledger.archive import ACT, ArchiveRow, Group
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.control import Say
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.removal_ports import How
from migration_pipeline.report.folder import Folder, Kept, held
from migration_pipeline.report.parquet import moments, write_batches
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger


@dataclass(slots=True)
class Archived:
    """What was archived, or would be.

    Attributes:
        applied: rows were dropped.
        files: written.
        ranges: whose rows went, or would.
        rows: of these, a row a profile and file.
        dropped: files that no other range needs.
        left: ranges whose rows are needed still, and why.
        with_these: ranges that are finished, and stay until the others of their group are.
    """

    applied: bool
    files: list[Kept] = field(default_factory=list)
    ranges: int = 0
    rows: int = 0
    dropped: int = 0
    left: dict[str, str] = field(default_factory=dict)
    with_these: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "applied": self.applied,
            "files": [kept._asdict() for kept in self.files],
            "ranges": self.ranges,
            "rows": self.rows,
            "files_dropped": self.dropped,
            "left": self.left,
            "finished_but_left": self.with_these,
        }


def archive(
    settings: Settings,
    folder: Path,
    *,
    apply: bool,
    who: str = "",
    why: str = "",
    say: Say = lambda _: None,
) -> Archived:
    """Export rows of finished ranges and drop them from the ledger, a group of ranges at a time.

    Args:
        settings: the migration.
        folder: where the Parquet files are kept; made where it is not there.
        apply: do it; else nothing is written anywhere.
        who: does it, for the record.
        why: for the record.
        say: told of each group as it ends.

    Raises:
        Fatal: the folder cannot be written, what was written cannot be read back, or blobs are being removed from the
            source at this moment. What was dropped before stays archived.
    """
    done, how = Archived(apply), How(settings.decommission.how)
    with closing(open_ledger(settings, create=apply)) as ledger:
        found = ledger.archive.groups(how)
        ready = [group for group in found if not group.why_not]
        for group in found:
            _leave(group, done)
        if not apply:
            for group in ready:
                done.ranges, done.rows = done.ranges + len(group.ranges), done.rows + group.rows
            return done
        if ready:
            with ledger.removal.alone(), held(folder.absolute()) as place:
                for group in ready:
                    _archive(group, ledger, place, done, how=how, who=who, why=why)
                    say(f"{count(done.ranges, 'range')} archived, the last {group.ranges[-1]}")
    return done


def _leave(group: Group, done: Archived) -> None:
    done.left |= group.why_not
    if group.why_not:
        done.with_these += len(group.ranges) - len(group.why_not)


def _archive(
    group: Group, ledger: PostgresLedger, place: Folder, done: Archived, *, how: How, who: str, why: str
) -> None:
    # Crash window: once the file is in place, and until the transaction ends, there are both; the next run writes
    # another file. Never is there neither.
    with ledger.transaction():
        now = ledger.archive.take(group.number, how)
        if now is None or now.why_not:  # a run came by since it was looked at first
            _leave(now or group, done)
            return
        kept = _write(now, ledger, place)
        place.put_in_place(f"{kept.name}.sha256")
        dropped = ledger.archive.drop(now.number, f"{kept.name} sha256:{kept.sha256}")
        details = {"ranges": len(now.ranges), "rows": kept.rows, "file": kept.name, "sha256": kept.sha256}
        ledger.control.note(ACT, by=who, why=why, details=details)
    done.files.append(kept)
    done.ranges, done.rows = done.ranges + len(now.ranges), done.rows + kept.rows
    done.dropped += dropped


def _write(group: Group, ledger: PostgresLedger, place: Folder) -> Kept:
    import pyarrow as pa  # noqa: PLC0415 - a third of a second that no other command need spend
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    schema = pa.schema([
        ("range_key", pa.string()), ("profile_id", pa.string()), ("container", pa.string()), ("blob", pa.string()),
        ("spelling", pa.string()), ("had_query", pa.bool_()), ("outcome", pa.string()), ("size_bytes", pa.int64()),
        ("md5", pa.string()), ("etag", pa.string()), ("source_etag", pa.string()), ("attempts", pa.int32()),
        ("ended_at", moments()), ("made_by_migration", pa.bool_()), ("versions", pa.list_(pa.string())),
        ("waived_at", moments()), ("waived_by", pa.string()), ("waived_why", pa.string()), ("removed_at", moments()),
        ("removed_how", pa.string()),
    ])  # fmt: skip

    def columns(batch: Sequence[ArchiveRow]) -> list[Sequence[Any]]:
        found: list[Sequence[Any]] = list(zip(*batch, strict=True))
        at = ArchiveRow._fields.index("md5")
        found[at] = [md5.hex() if md5 is not None else None for md5 in found[at]]
        return found

    # The moment keeps rows apart that came to a group after it was archived once.
    name = f"group_{group.number:04}_{ledger.now():%Y%m%dT%H%M%S%fZ}.parquet"
    path = place.begin(name)
    rows = write_batches(path, schema, ledger.archive.rows(group.number), columns)
    written = sum(len(batch) for batch in pq.ParquetFile(path).iter_batches())  # read, column by column, to its end
    if not rows == written == group.rows:
        raise Fatal(
            f"{name} holds {count(written, 'row')} of {group.rows}; nothing was dropped.",
            setting="folder",
            remedy="Look at the disk, and archive again.",
        )
    return place.ended(name, "rows of finished ranges", rows)
