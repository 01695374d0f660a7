"""Azure's blob inventory report as a listing: CSV or Parquet, one file or many, read in batches of rows.

Azure names a blob `container/name`, leaves the quotes of ETags off, and gives times as text (CSV) or as milliseconds
(Parquet); which columns there are is up to the rule that made the report.
"""

import base64
import binascii
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migration_pipeline.adapters.azure.inventory_rows import Rows
from migration_pipeline.adapters.azure.listing import DIRECTORY, NO_NAME, SIGNED
from migration_pipeline.adapters.azure.report_files import ReportFile, opened
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.queries import signed

if TYPE_CHECKING:
    import pyarrow as pa

SETTING = "--report"
SNAPSHOT, OLD_VERSION, DELETED, ELSEWHERE = "snapshots", "old versions", "deleted", "other containers"
"""Why a row is skipped."""
_MADE_AT = re.compile(r"(\d{4})/(\d\d)/(\d\d)/(\d\d)-(\d\d)-(\d\d)(?:/|$)")
"""The folder that Azure puts a report into: when it began (Microsoft, "Azure Storage blob inventory")."""
_PARTIAL = ("creationTime", "lastModified")


@dataclass(frozen=True, slots=True)
class Report:
    """A report that can be read.

    Attributes:
        files: in order.
        began_at: when Azure began to make it.
        containers: that it covers; `None` where nothing says so, and it is taken to cover all.
    """

    files: Sequence[ReportFile]
    began_at: datetime
    containers: Sequence[str] | None

    @property
    def name(self) -> str:
        """Tells it from other reports: names, sizes and times of writing."""
        text = json.dumps([[str(file.path), *file.stamp] for file in self.files])
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return (
            f"report {self.files[0].path.name}"
            + (f" and {len(self.files) - 1} more" * (len(self.files) > 1))
            + f" ({digest})"
        )

    def batches(
        self, containers: Sequence[str], progress: Mapping[str, Any], skipped: Mapping[str, int]
    ) -> Iterator[Rows]:
        """The report's blobs in these containers, from where an earlier reading was cut off.

        Raises:
            Fatal: a file is broken; naming it, and where.
        """
        done, counted = dict(progress), Counter(skipped)
        for number, file in enumerate(self.files):
            rows = done.get(str(number), 0)
            for batch in file.batches(after=rows):
                text, blobs, size = _converted(batch, file, rows, frozenset(containers), counted)
                rows += batch.num_rows
                done = {**done, str(number): rows}
                yield Rows(text, blobs, size, done, dict(counted))


def read_report(paths: Sequence[Path], began_at: datetime | None) -> Report:
    """Open a report: its files, or its manifest, which names them.

    Args:
        paths: of the files, or of the manifest alone.
        began_at: when Azure began to make it, where neither manifest nor folder says so.

    Raises:
        Fatal: a file is missing, broken or no report, or nobody says when it was made.
    """
    manifest = _manifest(paths[0]) if len(paths) == 1 and paths[0].suffix == ".json" else None
    said = manifest or _Manifest(paths, _by_folder(paths), None)
    moment = began_at or said.began_at
    if moment is None:
        raise Fatal(
            "nothing says when it was made.",
            setting=SETTING,
            remedy="Give the manifest, keep Azure's folders (2026/01/31/08-00-00), or say it by --made-at.",
        )
    resolved = [path.resolve() for path in said.paths]
    if len(set(resolved)) < len(resolved):
        raise Fatal("names a file twice.", setting=SETTING, remedy="Name each once.")
    return Report([opened(path) for path in resolved], moment, said.containers)


@dataclass(frozen=True, slots=True)
class _Manifest:
    paths: Sequence[Path]
    began_at: datetime | None
    containers: Sequence[str] | None


def _by_folder(paths: Sequence[Path]) -> datetime | None:
    found = {match.groups() for path in paths if (match := _MADE_AT.search(path.resolve().as_posix()))}
    return datetime(*map(int, found.pop()), tzinfo=UTC) if len(found) == 1 else None  # type: ignore[arg-type, misc] # six numbers


def _manifest(path: Path) -> _Manifest:
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
        files = [(str(item["blob"]), int(item["size"])) for item in said["files"]]
        began = datetime.fromisoformat(said["inventoryStartTime"])
        definition = said.get("ruleDefinition") or {}
        filters = definition.get("filters") or {}
        status = str(said.get("status", "Succeeded"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _refused(path, f"is no manifest of a report ({type(error).__name__})") from None
    if status.lower() != "succeeded" or not files:
        raise _refused(path, f"tells of a report that ended as {status} with {len(files)} files")
    if str(definition.get("objectType", "blob")).lower() != "blob":
        raise _refused(path, "tells of a report of containers, and not of blobs")
    if any(filters.get(name) for name in _PARTIAL) or filters.get("excludePrefix"):
        raise _refused(path, "tells of a report that leaves blobs out, by time or by excludePrefix")
    paths = [path.parent / name.rpartition("/")[2] for name, _ in files]
    for file, (_, size) in zip(paths, files, strict=True):
        there = file.stat().st_size if file.exists() else None
        if there != size:
            found = "is missing" if there is None else f"has {there} bytes instead of {size}"
            raise _refused(file, f"{found}, by the manifest {path.name}")
    return _Manifest(paths, began if began.tzinfo else began.replace(tzinfo=UTC), _covered(path, filters))


def _covered(path: Path, filters: Mapping[str, Any]) -> Sequence[str] | None:
    prefixes = [str(prefix) for prefix in filters.get("prefixMatch") or () if prefix]
    partial = [prefix for prefix in prefixes if prefix.rstrip("/").count("/")]
    if partial:
        raise _refused(path, f"tells of a report of {partial[0]!r} alone, and not of a whole container")
    return [prefix.rstrip("/") for prefix in prefixes] or None


def _refused(path: Path, why: str) -> Fatal:
    return Fatal(f"{path} {why}.", setting=SETTING, remedy="Nothing was changed. Fetch the report again.")


def _converted(
    batch: "pa.RecordBatch", file: ReportFile, before: int, containers: frozenset[str], skipped: Counter[str]
) -> tuple[bytes, int, int]:
    """Rows of a report as CSV for the ledger; how many blobs these are, and of how many bytes."""
    import pyarrow as pa  # noqa: PLC0415 - 0.2 s that other commands need not spend
    from pyarrow import csv  # noqa: PLC0415 - as above

    columns = file.columns(batch, before)
    names = columns.name.to_pylist()
    keep, ids, of_containers, blobs = [], [], [], []
    reasons = _reasons(columns.flags)
    for index, name in enumerate(names):
        container, slash, blob = (name or "").partition("/")
        if container not in containers:
            skipped[ELSEWHERE] += 1
        elif (why := reasons[index] if reasons else None) is not None:
            skipped[why] += 1
        elif not slash or not blob or "\0" in blob:
            skipped[NO_NAME] += 1
        elif signed(blob):
            skipped[SIGNED] += 1
        else:
            keep.append(index)
            # As SourceFile.file_id has it: the report's name is container and blob already.
            ids.append(hashlib.sha256(name.encode()).hexdigest()[:32])
            of_containers.append(container)
            blobs.append(blob)
    if not keep:
        return b"", 0, 0
    chosen = pa.array(keep, pa.int64())
    sizes = columns.size.take(chosen)
    file.check_whole(sizes, columns.written_at.take(chosen), keep, before)
    table = pa.table(
        [
            pa.array(ids),
            pa.array(of_containers),
            pa.array(blobs),
            sizes,
            pa.array(list(map(_md5, columns.md5.take(chosen).to_pylist())), pa.string()),
            pa.array(
                [f'"{etag.strip(chr(34))}"' if etag else None for etag in columns.etag.take(chosen).to_pylist()],
                pa.string(),
            ),
            pa.array([tier or None for tier in columns.tier.take(chosen).to_pylist()], pa.string()),
            columns.written_at.take(chosen).cast(pa.string()),
        ],
        names=["file_id", "container", "blob", "size", "md5", "etag", "tier", "written_at"],
    )
    out = io.BytesIO()
    csv.write_csv(table, out, csv.WriteOptions(include_header=False))
    return out.getvalue(), len(keep), int(sizes.sum().as_py())


def _reasons(flags: Mapping[str, Sequence[bool]]) -> list[str | None] | None:
    """Why each row is skipped; `None` where no column says anything."""
    if not flags:
        return None
    ordered = [(DIRECTORY, flags.get(DIRECTORY)), (DELETED, flags.get(DELETED))]
    ordered += [(SNAPSHOT, flags.get(SNAPSHOT)), (OLD_VERSION, flags.get(OLD_VERSION))]
    said = [(why, values) for why, values in ordered if values is not None]
    if not any(any(values) for _, values in said):
        return None
    return [next((why for why, values in said if values[index]), None) for index in range(len(said[0][1]))]


def _md5(value: str | bytes | None) -> str | None:
    if not value:
        return None
    try:
        digest = value if isinstance(value, bytes) else base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"\\x{digest.hex()}" if len(digest) == 16 else None  # noqa: PLR2004 - an MD5's bytes
