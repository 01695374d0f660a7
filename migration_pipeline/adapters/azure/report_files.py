"""One file of an inventory report, CSV or Parquet, as batches of rows with the columns that matter."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from migration_pipeline.core.errors import Fatal

if TYPE_CHECKING:
    import pyarrow as pa

SETTING = "--report"
_BATCH_ROWS = 20_000
_CSV_BLOCK = 4 * 1024 * 1024
_NEEDED = ("name", "content-length", "last-modified")
_USED = (
    *_NEEDED,
    "content-md5",
    "etag",
    "accesstier",
    "snapshot",
    "versionid",
    "iscurrentversion",
    "deleted",
    "hdi_isfolder",
)
_SCHEMA_REMEDY = (
    "Add these to the schema fields of the rule: Name, Content-Length, Last-Modified, and better also Etag, Content-MD5"
    " and AccessTier."
)


class Columns(NamedTuple):
    """Columns of a batch, under one name and type each, whatever the report has.

    Attributes:
        flags: for each reason to skip a row, whether that is one.
    """

    name: "pa.Array[Any]"
    size: "pa.Array[Any]"
    written_at: "pa.Array[Any]"
    md5: "pa.Array[Any]"
    etag: "pa.Array[Any]"
    tier: "pa.Array[Any]"
    flags: Mapping[str, Sequence[bool]]


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A file of a report.

    Attributes:
        stamp: its size and the time of its last writing.
        names: the columns that are used, as the file spells each.
    """

    path: Path
    stamp: tuple[int, int]
    names: Mapping[str, str]

    def batches(self, *, after: int) -> Iterator["pa.RecordBatch"]:
        """Rows beyond so many, in batches.

        Raises:
            Fatal: the file is broken; naming it, and the row group or the record.
        """
        yield from self._parquet(after) if self.path.suffix.lower() == ".parquet" else self._csv(after)

    def _parquet(self, after: int) -> Iterator["pa.RecordBatch"]:
        import pyarrow as pa  # noqa: PLC0415 - 0.2 s that other commands need not spend
        from pyarrow import parquet  # noqa: PLC0415 - as above

        with parquet.ParquetFile(self.path, memory_map=False, pre_buffer=False, buffer_size=1024 * 1024) as file:
            left = after
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if left >= rows:
                    left -= rows
                    continue
                try:
                    for batch in file.iter_batches(
                        _BATCH_ROWS, row_groups=[group], columns=list(self.names.values()), use_threads=False
                    ):
                        if left < batch.num_rows:
                            yield batch.slice(left)
                        left = max(0, left - batch.num_rows)
                except (pa.ArrowException, OSError) as error:
                    raise self._broken(f"row group {group}", error) from None

    def _csv(self, after: int) -> Iterator["pa.RecordBatch"]:
        import pyarrow as pa  # noqa: PLC0415 - as above

        left, rows = after, 0
        try:
            with csv_reader(self.path, list(self.names.values())) as reader:
                for whole in reader:
                    rows += whole.num_rows
                    # A block makes a batch of as many rows as it has; the ledger is written in smaller ones.
                    for start in range(0, whole.num_rows, _BATCH_ROWS):
                        batch = whole.slice(start, _BATCH_ROWS)
                        if left < batch.num_rows:
                            yield batch.slice(left)
                        left = max(0, left - batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(f"after record {rows}", error) from None

    def columns(self, batch: "pa.RecordBatch", before: int) -> Columns:
        """The batch's columns under our names; `before` are the rows of the file before it."""
        import pyarrow as pa  # noqa: PLC0415 - as above

        def column(name: str) -> "pa.Array[Any]":
            spelled = self.names.get(name)
            return pa.nulls(batch.num_rows, pa.string()) if spelled is None else batch.column(spelled)

        flags = {
            "directories": self._true(column("hdi_isfolder")),
            "deleted": self._true(column("deleted")),
            "snapshots": [bool(value) for value in column("snapshot").to_pylist()],
            "old versions": self._false(column("iscurrentversion")),
        }
        return Columns(
            column("name"),
            self._numbers(column("content-length"), before),
            self._times(column("last-modified"), before),
            column("content-md5"),
            column("etag"),
            column("accesstier"),
            {why: values for why, values in flags.items() if any(values)},
        )

    @staticmethod
    def _true(column: "pa.Array[Any]") -> list[bool]:
        return [str(value).lower() == "true" for value in column.to_pylist()]

    @staticmethod
    def _false(column: "pa.Array[Any]") -> list[bool]:
        return [str(value).lower() == "false" for value in column.to_pylist()]

    def _numbers(self, column: "pa.Array[Any]", before: int) -> "pa.Array[Any]":
        import pyarrow as pa  # noqa: PLC0415 - as above

        try:
            return _said(column).cast(pa.int64())  # directories have none
        except pa.ArrowException:
            return self._each(column, int, pa.int64(), "Content-Length", before)

    def _times(self, column: "pa.Array[Any]", before: int) -> "pa.Array[Any]":
        import pyarrow as pa  # noqa: PLC0415 - as above

        kind = pa.timestamp("us", "UTC")
        if pa.types.is_integer(column.type):  # milliseconds
            return column.cast(pa.int64()).cast(pa.timestamp("ms", "UTC")).cast(kind)
        if pa.types.is_timestamp(column.type):
            return column.cast(pa.timestamp("ns", column.type.tz)).cast(kind, safe=False)
        try:
            # Azure writes seven digits of a second.
            return _said(column).cast(pa.timestamp("ns", "UTC")).cast(kind, safe=False)
        except pa.ArrowException:
            return self._each(column, _moment, kind, "Last-Modified", before)

    def _each(self, column: "pa.Array[Any]", read: Any, kind: Any, name: str, before: int) -> "pa.Array[Any]":  # noqa: ANN401 - pyarrow is imported late
        import pyarrow as pa  # noqa: PLC0415 - as above

        values = []
        for index, value in enumerate(column.to_pylist()):
            try:
                values.append(read(value) if value else None)
            except (ValueError, TypeError):
                raise self._at(before + index, f"has a {name} that is none") from None
        return pa.array(values, kind)

    def check_whole(self, sizes: "pa.Array[Any]", times: "pa.Array[Any]", places: Sequence[int], before: int) -> None:
        """Every blob needs a size and a time.

        Raises:
            Fatal: naming the record.
        """
        for name, values in (("Content-Length", sizes), ("Last-Modified", times)):
            if values.null_count:
                index = places[values.is_null().to_pylist().index(True)]
                raise self._at(before + index, f"has no {name}")

    def _at(self, row: int, why: str) -> Fatal:
        return Fatal(f"{self.path}: record {row + 1} {why}.", setting=SETTING, remedy=_NOTHING_LOST)

    def _broken(self, where: str, error: Exception) -> Fatal:
        # The driver's first line; it names no secret, for a report holds none.
        said = str(error).strip().splitlines()[0][:200]
        return Fatal(f"{self.path} is broken, {where}: {said}", setting=SETTING, remedy=_NOTHING_LOST)


def _said(column: "pa.Array[Any]") -> "pa.Array[Any]":
    """A column of text with nothing instead of empty cells."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import compute  # noqa: PLC0415 - as above

    if not pa.types.is_string(column.type):
        return column
    return compute.if_else(compute.equal(column, ""), pa.scalar(None, pa.string()), column)


def _moment(text: str) -> datetime:
    """A time as ISO 8601 or as HTTP has it."""
    at = datetime.fromisoformat(text) if text[:1].isdecimal() else parsedate_to_datetime(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


_NOTHING_LOST = "The inventory is as it was. Fetch the report again."


def csv_reader(path: Path, columns: Sequence[str] | None) -> Any:  # noqa: ANN401 - pyarrow is imported late
    """Reads a CSV file block by block, every cell as text."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import csv  # noqa: PLC0415 - as above

    return csv.open_csv(
        path,
        csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(
            include_columns=columns,
            column_types={name: pa.string() for name in columns or ()},
            strings_can_be_null=False,
        ),
    )


def opened(path: Path) -> ReportFile:
    """Look at a file's columns.

    Raises:
        Fatal: it is missing, broken or cut off, or lacks a column that is needed.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import parquet  # noqa: PLC0415 - as above

    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            spelled = parquet.read_schema(path).names
        elif kind == ".csv":
            _check_end(path)
            with csv_reader(path, None) as reader:
                spelled = reader.schema.names
        else:
            raise Fatal(f"{path} is neither .csv nor .parquet.", setting=SETTING, remedy="Name files of a report.")
    except (pa.ArrowException, OSError) as error:
        said = str(error).strip().splitlines()[0][:200]
        raise Fatal(f"{path} cannot be read: {said}", setting=SETTING, remedy=_NOTHING_LOST) from None
    names = {name.lower(): name for name in spelled if name.lower() in _USED}
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise Fatal(f"{path} has no column {', '.join(missing)}.", setting=SETTING, remedy=_SCHEMA_REMEDY)
    if "versionid" in names and "iscurrentversion" not in names:
        raise Fatal(f"{path} has VersionId and no IsCurrentVersion.", setting=SETTING, remedy="Add it to the rule.")
    stat = path.stat()
    return ReportFile(path, (stat.st_size, stat.st_mtime_ns), names)


def _check_end(path: Path) -> None:
    with path.open("rb") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            if file.read(1) in (b"\n", b"\r"):
                return
    raise Fatal(f"{path} is cut off: its last record has no end.", setting=SETTING, remedy=_NOTHING_LOST)
