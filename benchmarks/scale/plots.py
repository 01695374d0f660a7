"""The figures as pictures: docs/images/scale_*.svg."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.scale.results import IMAGES, Figures
from migration_pipeline.report.plots import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (LIGHT.good, LIGHT.second, LIGHT.third, LIGHT.bad, LIGHT.waived, LIGHT.ink)
_STYLE: dict[Any, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scale",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LIGHT.grid,
    "axes.labelcolor": LIGHT.muted,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
}
_NAMES = {"servers": "copied between servers", "memory": "byte stores in memory"}
_READS = ("want", "unfinished", "known", "spellings", "note_held", "record_200")
_QUESTIONS = ("states", "standing", "letter_classes", "dead_letters_1000", "outcomes", "sizes")
Line = tuple[str, Sequence[float], Sequence[float]]


def draw(figures: Figures, folder: Path = IMAGES) -> list[Path]:
    """Draw what was measured; returns the files."""
    drawn = {name: picture(figures[part]) for name, (part, picture) in _PICTURES.items() if part in figures}
    for name, svg in drawn.items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return sorted(folder / f"{name}.svg" for name in drawn)


def _cost(figures: Mapping[str, Any]) -> str:
    lines = _by_stores(figures, lambda row: float(row["cpu_ms_per_file"]))
    return _lines("CPU of the worker for a file, by the files of its range", "milliseconds", lines)


def _memory(figures: Mapping[str, Any]) -> str:
    lines = _by_stores(figures, lambda row: row["peak_megabytes"] - row["megabytes_of_made_up_stores"])
    return _lines("The worker's memory at its peak, by the files of its range", "megabytes", lines)


def _by_stores(figures: Mapping[str, Any], value: Callable[[Mapping[str, Any]], float]) -> list[Line]:
    lines: list[Line] = []
    for kind, name in _NAMES.items():
        rows = [row for row in figures["rows"] if row["stores"] == kind]
        lines.append((name, [float(row["files"]) for row in rows], [value(row) for row in rows]))
    return lines


def _ledger(figures: Mapping[str, Any]) -> str:
    stages = figures["stages"]
    sizes = [float(stage["files"]) for stage in stages]
    return _lines(
        "Statements of one range, by the files of the whole ledger",
        "milliseconds, median",
        [(name, sizes, [stage["first_run_of_a_range"][name]["median_ms"] for stage in stages]) for name in _READS],
    )


def _overview(figures: Mapping[str, Any]) -> str:
    stages = figures["stages"]
    sizes = [float(stage["files"]) for stage in stages]
    return _lines(
        "Questions about all ranges, by the files of the whole ledger",
        "milliseconds, median",
        [(name, sizes, [stage["overview"][name]["median_ms"] for stage in stages]) for name in _QUESTIONS],
        logarithmic=True,
    )


def _pages(figures: Mapping[str, Any]) -> str:
    sizes = figures["sizes"]
    names = list(sizes[0]["pages"])

    def paint(axes: "Axes") -> None:
        width = 0.8 / len(sizes)
        for place, size in enumerate(sizes):
            seconds = [size["pages"][name]["median_ms"] / 1000 for name in names]
            at = [number + place * width for number in range(len(names))]
            bars = axes.bar(at, seconds, width, color=_COLOURS[place], label=f"{size['partitions']:,} partitions")
            axes.bar_label(bars, labels=[f"{value:.1f}" for value in seconds], fontsize=9, padding=2)
        axes.set_xticks(
            [number + 0.4 - width / 2 for number in range(len(names))], [n.replace("_", " ") for n in names]
        )
        axes.set_ylabel("seconds, median")
        axes.margins(y=0.15)
        axes.legend(frameon=False)

    return _picture("Pages of the Dagster UI, until their content is there", paint)


def _lines(title: str, unit: str, lines: Sequence[Line], *, logarithmic: bool = False) -> str:
    def paint(axes: "Axes") -> None:
        for (name, x, y), colour in zip(lines, _COLOURS, strict=False):
            axes.plot(x, y, marker="o", color=colour, linewidth=2, label=name.replace("_", " "))
        axes.set_xscale("log")
        axes.set_xlabel("files")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        else:
            axes.set_ylim(0, 1.15 * max(max(y, default=0) for _, _, y in lines))
        axes.legend(frameon=False, ncols=2, fontsize=9)

    return _picture(title, paint)


def _picture(title: str, paint: Callable[["Axes"], None]) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(LIGHT.width, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        axes.grid(axis="y", color=LIGHT.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        paint(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


_PICTURES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "scale_files": ("files", _cost),
    "scale_memory": ("files", _memory),
    "scale_pages": ("partitions", _pages),
    "scale_ledger": ("ledger", _ledger),
    "scale_overview": ("ledger", _overview),
}
