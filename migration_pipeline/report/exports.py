"""The ledger as Parquet files, each written in batches: memory does not grow with the number of files."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from migration_pipeline.adapters.ledger.exports import FileRow, LedgerExports, LetterRow
from migration_pipeline.adapters.ledger.overview import RangeState
from migration_pipeline.report.course import Course
from migration_pipeline.report.folder import Folder
from migration_pipeline.report.parquet import moments, write_batches
from migration_pipeline.report.tally import Tally

if TYPE_CHECKING:
    import pandas as pd

MOST_LETTERS = 50
"""On the page; all are in the Parquet files."""
"""Dead letters that the page shows; the files have them all."""


def write_files(exports: LedgerExports, folder: Folder) -> Tally:
    """Every file with its evidence, and what is counted on the way."""
    import pyarrow as pa  # noqa: PLC0415 - a third of a second that no other command need spend

    schema = pa.schema([
        ("container", pa.string()), ("blob", pa.string()), ("outcome", pa.string()), ("size_bytes", pa.int64()),
        ("md5", pa.string()), ("etag", pa.string()), ("source_etag", pa.string()), ("attempts", pa.int32()),
        ("ended_at", moments()), ("made_by_migration", pa.bool_()), ("waived", pa.bool_()),
        ("removed_at", moments()), ("removed_how", pa.string()),
    ])  # fmt: skip
    tally = Tally()

    def columns(batch: Sequence[FileRow]) -> list[Sequence[Any]]:
        tally.add(batch)
        found: list[Sequence[Any]] = list(zip(*batch, strict=True))
        place = FileRow._fields.index("md5")
        found[place] = [md5.hex() if md5 is not None else None for md5 in found[place]]
        return found

    name = "files.parquet"
    rows = write_batches(folder.begin(name), schema, exports.files(), columns)
    folder.ended(name, "every file, with the evidence that its copy is equal", rows)
    return tally


def write_letters(exports: LedgerExports, folder: Folder, *, waived: bool) -> list[LetterRow]:
    """Dead letters that wait, or that were waived; return the first of them."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    schema = pa.schema([
        ("container", pa.string()), ("blob", pa.string()), ("outcome", pa.string()), ("message", pa.string()),
        ("attempts", pa.int32()), ("ended_at", moments()), ("ranges", pa.list_(pa.string())),
        ("profiles", pa.int64()), ("a_profile", pa.string()), ("waived_at", moments()), ("waived_by", pa.string()),
        ("waived_why", pa.string()),
    ])  # fmt: skip
    shown: list[LetterRow] = []

    def columns(batch: Sequence[LetterRow]) -> list[Sequence[Any]]:
        shown.extend(batch[: MOST_LETTERS - len(shown)])
        return list(zip(*batch, strict=True))

    name = "waivers.parquet" if waived else "dead_letters.parquet"
    what = "files that operators waived" if waived else "files that could not be copied, and wait"
    rows = write_batches(folder.begin(name), schema, exports.letters(waived=waived), columns)
    folder.ended(name, what, rows)
    return shown


def write_ranges(states: Sequence[RangeState], folder: Folder) -> None:
    """Every range with the counters of its newest run."""
    import pandas as pd  # noqa: PLC0415 - as above

    rows = [_flat(state) for state in states]
    table = pd.DataFrame(rows, columns=None if rows else list(RangeState._fields))
    _write(table, folder, "ranges.parquet", "every range, with the counters of its newest run")


def write_course(course: Course, tally: Tally, folder: Folder) -> None:
    """What happened when: by stretches, and by hour and outcome."""
    import pandas as pd  # noqa: PLC0415 - as above

    progress = pd.DataFrame(course.rows, columns=["at", "files", "failed", "bytes"])
    what = f"files proven and failed, and bytes copied, in stretches of {course.seconds} seconds"
    _write(progress, folder, "progress.parquet", what)
    rows = [
        (hour, outcome, count, tally.hour_bytes[hour, outcome])
        for (hour, outcome), count in sorted(tally.hours.items())
    ]
    outcomes = pd.DataFrame(rows, columns=["hour", "outcome", "files", "bytes"])
    _write(outcomes, folder, "outcomes.parquet", "files by outcome and hour of their last try")


def _flat(state: RangeState) -> dict[str, Any]:
    row = state._asdict()
    report: Mapping[str, Any] = row.pop("report") or {}
    for name, value in report.items():
        if name in ("seconds", "cpu_seconds"):
            row |= {f"{name}_{stage}": part for stage, part in value.items()}
        elif isinstance(value, dict):
            row[name] = json.dumps(value)
        else:
            # The state's `copied` and `bytes` are of all runs, the report's of the newest.
            row[f"{name}_newest" if name in row else name] = value
    return row


def _write(table: "pd.DataFrame", folder: Folder, name: str, what: str) -> None:
    table.to_parquet(folder.begin(name), engine="pyarrow", compression="zstd", index=False)
    folder.ended(name, what, len(table))
