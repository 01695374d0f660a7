"""The figures as tables: those of docs/scale.md, written into the page between marks."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale.results import Figures

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
_MARKED = re.compile(r"(<!-- scale: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NOT_YET = "Not measured yet: `make scale`.\n"
Row = Mapping[str, Any]


def write(figures: Figures, page: Path = PAGE) -> str:
    """Put every table into the page; returns what it says now."""

    def table(match: re.Match[str]) -> str:
        part = match[2]
        return match[1] + (_TABLES[part](figures[part]) if part in figures else _NOT_YET) + match[3]

    text = _MARKED.sub(table, page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")
    return text


def _plan(figures: Row) -> str:
    rows = [
        [
            _whole(row["profiles"]), f"{row['table_megabytes'] / 1000:.1f} GB", _whole(row["ranges"]),
            _whole(row["profiles_a_range"]["most"]), f"{row['seconds']:.0f} s",
            f"{row['peak_megabytes'] - row['megabytes_before']:.0f} MB",
        ]
        for row in figures["plans"]
    ]  # fmt: skip
    heads = ["profiles", "table", "ranges", "profiles a range, at most", "planned in", "memory of planning"]
    return _when(figures) + _table(heads, rows)


def _partitions(figures: Row) -> str:
    names = list(figures["sizes"][0]["pages"])
    rows = [
        [_whole(row["partitions"]), f"{row['registering_seconds']:.1f} s"]
        + [f"{row['pages'][name]['median_ms'] / 1000:.1f} s" for name in names]
        for row in figures["sizes"]
    ]
    backfill = figures["backfill"]
    pages = ", ".join(f"{name} {page['median_ms'] / 1000:.1f} s" for name, page in backfill["pages"].items())
    said = (
        f"{backfill['slices']} backfills of {_whole(backfill['partitions_of_a_slice'])} partitions were asked for in"
        f" {backfill['launching_all_slices_seconds']:.0f} s; the first run was queued after"
        f" {backfill['first_run_queued_after_seconds']:.0f} s, all runs of the first backfill after"
        f" {backfill['first_slice_queued_after_seconds']:.0f} s. Pages then: {pages}."
    )
    heads = ["partitions", "registered in", *(name.replace("_", " ") for name in names)]
    return _when(figures) + _table(heads, rows) + _picture("scale_pages", "Page times") + f"\n{said}\n"


def _ledger(figures: Row) -> str:
    stages: Sequence[Row] = figures["stages"]
    text = _when(figures)
    for title, part in (
        ("Of a range of 10,000 files that is run for the first time", "first_run_of_a_range"),
        ("Of a range that was finished long ago", "finished_range"),
        ("About all ranges", "overview"),
    ):
        names = list(stages[0][part])
        rows = [[f"`{name}`", *(_milliseconds(stage[part][name]["median_ms"]) for stage in stages)] for name in names]
        heads = [title, *(f"{_whole(stage['files'])} files" for stage in stages)]
        text += _table(heads, rows) + "\n"
    rows = [
        [
            _whole(row["files"]), _whole(row["ranges"]), f"{row['database_bytes'] / 1e9:.1f} GB",
            f"{row['database_bytes'] / row['files']:.0f}", _whole(row["tables_of_wanted"]),
        ]
        for row in stages
    ]  # fmt: skip
    text += _table(["files", "ranges", "database", "bytes a file", "tables of `wanted`"], rows)
    text += _picture("scale_ledger", "Statements of a range") + _picture("scale_overview", "Questions about all ranges")
    return text + (f"\nNot run: {figures['not_run']}.\n" if "not_run" in figures else "")


def _files(figures: Row) -> str:
    stages = list(figures["rows"][0]["cpu_ms_per_file_by_stage"])
    rows = [
        [
            row["stores"], _whole(row["files"]), f"{row['cpu_ms_per_file']:.2f}",
            *(f"{row['cpu_ms_per_file_by_stage'][stage]:.2f}" for stage in stages),
            f"{row['files_per_second']:.0f}", f"{row['peak_megabytes'] - row['megabytes_of_made_up_stores']:.0f}",
        ]
        for row in figures["rows"]
    ]  # fmt: skip
    heads = ["stores", "files of the range", "CPU ms a file", *(stage.replace("_", " ") for stage in stages)]
    pictures = _picture("scale_files", "CPU for a file") + _picture("scale_memory", "Memory")
    return _when(figures) + _table([*heads, "files/s", "peak MB"], rows) + pictures


def _workers(figures: Row) -> str:
    rows = [
        [
            f"{row['latency_ms']} ms", str(row["in_flight"]), str(row["workers"]), f"{row['files_per_second']:.0f}",
            f"{row['times_one_worker']:.2f}", f"{1000 * row['cpu_seconds_of_workers'] / row['files']:.2f}",
        ]
        for row in figures["rows"]
    ]  # fmt: skip
    limited = [
        [
            f"{row['limit_requests_per_second']:.0f}", str(row["workers"]), f"{row['files_per_second_kept']:.0f}",
            f"{row['files_per_second']:.0f}",
        ]
        for row in figures["limited"]
    ]  # fmt: skip
    heads = ["added latency", "in flight, each", "workers", "files/s", "times one worker", "CPU ms a file"]
    limits = ["limit, requests a second", "workers", "files/s while all copied", "files/s over all"]
    return _when(figures) + _table(heads, rows) + "\n" + _table(limits, limited)


def _when(figures: Row) -> str:
    machine = figures["machine"]
    return f"{figures['measured_at'][:10]}, {machine['cpus']} cores ({machine['cpu']}), Python {machine['python']}.\n\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def _picture(name: str, alternative: str) -> str:
    return f"\n![{alternative}](images/{name}.svg)\n"


def _whole(number: float) -> str:
    return f"{number:,.0f}"


def _milliseconds(value: float) -> str:
    return f"{value / 1000:,.1f} s" if value >= 1000 else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


_TABLES: Mapping[str, Callable[[Row], str]] = {
    "plan": _plan,
    "partitions": _partitions,
    "ledger": _ledger,
    "files": _files,
    "workers": _workers,
}
