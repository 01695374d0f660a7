"""The report's plots: figures in, SVG out, for light pages and for dark ones.

Text stays text (the browser's own font), so a plot is some kilobytes, can be searched, and reads well at any size.
Figures are drawn without pyplot, whose state is global: runs and tests may draw at the same time.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from migration_pipeline.core.alert_words import count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Theme(NamedTuple):
    """Colours of a page.

    Attributes:
        width: of a picture, in inches; 7.2 at 72 points fit the UI's dialog without scrolling sideways.
        paper: `None` draws no background: the page's own shows.
        good, second, third: for what succeeded, in different units.
    """

    paper: str | None
    ink: str
    muted: str
    grid: str
    good: str
    second: str
    third: str
    bad: str
    waived: str
    width: float = 7.2


LIGHT = Theme(
    "#ffffff", "#1f2933", "#66727f", "#e3e8ed", "#2a78c8", "#e08a1e", "#3f9c6b", "#c8382e", "#9aa5b1"
)  # fmt: skip
DARK = Theme(None, "#e6edf3", "#9aa7b4", "#2f3842", "#5aa2ea", "#e8a04a", "#5cba88", "#ec6a5f", "#717d89")  # fmt: skip


def _style(theme: Theme) -> "dict[Any, object]":
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "migration_report",  # the same figures give the same file
        "font.family": "sans-serif",
        "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
        "font.size": 10,
        "figure.facecolor": theme.paper or "none",
        "axes.facecolor": theme.paper or "none",
        "savefig.facecolor": theme.paper or "none",
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


_HEIGHT = 3.0  # inches
_STAGES = ("discover", "transfer", "rewrite_database", "rewrite_firebase", "confirm")
NOTHING = "Nothing yet"


def progress(rows: "pd.DataFrame", theme: Theme = LIGHT) -> str:
    """Files and bytes in S3 over time, and profiles where they are given, as SVG.

    Args:
        rows: indexed by time; columns `files` and `bytes`, and perhaps `profiles`, each of its stretch of time.
        theme: of the page.
    """
    divisor, unit = _unit(float(rows["bytes"].sum()))

    def draw(*panes: "Axes") -> None:
        ends = rows.index + (rows.index[1] - rows.index[0])
        curves = [
            ("files", theme.good, rows["files"].cumsum()),
            (unit, theme.second, rows["bytes"].cumsum() / divisor),
        ]
        if "profiles" in rows:
            curves.insert(0, ("profiles", theme.third, rows["profiles"].cumsum()))
        for axes, (name, colour, values) in zip(panes, curves, strict=True):
            axes.fill_between(ends, values, color=colour, alpha=0.15, linewidth=0)
            axes.plot(ends, values, color=colour, linewidth=2)
            axes.set_ylabel(name)
            axes.set_ylim(bottom=0)
            _thousands(axes, whole=name != unit)
            _times(axes)
        size = rows["bytes"].sum() / divisor
        digits = 0 if size >= 10 else 1  # noqa: PLR2004 - one digit more where it tells
        panes[0].set_title(f"In S3: {count(int(rows['files'].sum()), 'file')}, {size:,.{digits}f} {unit}")
        for axes in panes[:-1]:
            axes.tick_params(labelbottom=False)
            axes.set_xlabel("")
            axes.xaxis.get_offset_text().set_visible(False)

    panels, height = (3, 5.7) if "profiles" in rows else (2, _HEIGHT)
    return _svg(draw, theme, empty=rows.empty, title="In S3", panels=panels, height=height)


def rate(rows: "pd.DataFrame", theme: Theme = LIGHT) -> str:
    """Files a second over time, verified above and failed below the line, as SVG.

    Args:
        rows: indexed by time; columns `files_per_second` and `failed_per_second`.
        theme: of the page.
    """

    def draw(axes: "Axes") -> None:
        peak = rows["files_per_second"].max()
        axes.set_title(f"Files a second: {peak:,.0f} at best")
        ends = rows.index + (rows.index[1] - rows.index[0])
        axes.fill_between(ends, rows["files_per_second"], step="pre", color=theme.good, linewidth=0, label="verified")
        if rows["failed_per_second"].any():
            axes.fill_between(
                ends, -rows["failed_per_second"], step="pre", color=theme.bad, linewidth=0, label="failed (below 0)"
            )
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2, fontsize=9, borderaxespad=0.2)
        axes.axhline(0, color=theme.muted, linewidth=0.8)
        axes.set_ylabel("files/s")
        axes.margins(y=0.15)
        _thousands(axes)
        _times(axes)

    return _svg(draw, theme, empty=rows.empty, title="Files a second")


def outcomes(counts: Sequence[tuple[str, int]], theme: Theme = LIGHT) -> str:
    """Files by outcome as bars, as SVG.

    Counts range from one to hundreds of millions: the axis is logarithmic, and says so; each bar says its number.

    Args:
        counts: outcome and files, the most frequent first.
        theme: of the page.
    """

    def draw(axes: "Axes") -> None:
        names, files = [name for name, _ in counts], [number for _, number in counts]
        axes.set_title(f"Files by outcome: {sum(files):,}")
        known = {"copied": theme.good, "already_there": theme.good, "not tried": theme.waived}
        colours = [known.get(name, theme.bad) for name in names]
        # A bar of one file would have no length on a logarithmic axis that begins at 1.
        # So each begins at a half, and ends where its number stands on the scale.
        bars = axes.barh(names, [number - 0.5 for number in files], color=colours, height=0.65, left=0.5)
        axes.bar_label(bars, labels=[f"{number:,}" for number in files], fontsize=9, padding=4)
        axes.set_xscale("log")
        axes.set_xlim(0.5, 4 * max(files))
        _bare(axes, theme)
        _tens(axes, max(files), theme)

    return _svg(draw, theme, empty=not counts, title="Files by outcome", height=1.4 + 0.32 * max(3, len(counts)))


def sizes(counts: Sequence[tuple[int, int, int]], theme: Theme = LIGHT) -> str:
    """Copied files by size as SVG.

    Args:
        counts: a power of two of bytes, files of at least that and less than twice that, and their bytes.
        theme: of the page.
    """

    def draw(axes: "Axes") -> None:
        files = {power: number for power, number, _ in counts}
        first, last = min(files), max(files)
        powers = [2**n for n in range(first.bit_length() - 1, last.bit_length())]
        octets = sum(size for *_, size in counts)
        axes.set_title(f"Files by size: {octets / max(1, sum(files.values())) / 1e3:,.0f} KB on average")
        axes.bar(range(len(powers)), [files.get(power, 0) for power in powers], color=theme.good, width=0.85)
        every = max(1, -(-len(powers) // 8))
        axes.set_xticks(range(0, len(powers), every), [_binary(power) for power in powers[::every]])
        axes.set_xlabel("at least so large, and less than twice that")
        axes.set_ylabel("files")
        _thousands(axes, whole=True)

    return _svg(draw, theme, empty=not counts, title="Files by size")


def stages(seconds: Mapping[str, float], theme: Theme = LIGHT) -> str:
    """Where the time went, as bars of hours, minutes or seconds and of their share, as SVG.

    Args:
        seconds: by stage.
        theme: of the page.
    """

    def draw(axes: "Axes") -> None:
        total, ordered = sum(seconds.values()), {stage: seconds.get(stage, 0.0) for stage in _STAGES}
        axes.set_title(f"Time by stage: {_duration(total)} in all runs together")
        names = [name.replace("_", " ") for name in ordered]
        bars = axes.barh(names, list(ordered.values()), color=theme.good, height=0.65)
        shares = [f"{value / total:.0%} · {_duration(value)}" for value in ordered.values()]
        axes.bar_label(bars, labels=shares, fontsize=9, padding=4)
        axes.set_xlim(0, 1.35 * max(seconds.values()))
        _bare(axes, theme)

    return _svg(draw, theme, empty=not sum(seconds.values()), title="Time by stage", height=2.5)


def as_image(svg: str, alternative: str) -> str:
    """Markdown that shows it; the picture is within the text."""
    return f"![{alternative}]({as_address(svg)})"


def as_address(svg: str) -> str:
    """A URL that holds the picture itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _svg(
    draw: "Callable[..., None]", theme: Theme, *, empty: bool, title: str, panels: int = 1, height: float = _HEIGHT
) -> str:
    import matplotlib as mpl  # noqa: PLC0415 - half a second that runs over ranges need not spend
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with mpl.rc_context(_style(theme)):
        figure = Figure(figsize=(theme.width, height), layout="constrained")
        panes = figure.subplots(1 if empty else panels, squeeze=False)[:, 0]
        for axes in panes:
            axes.grid(axis="y", color=theme.grid, linewidth=0.8)
            axes.set_axisbelow(True)
        if empty:
            _say_nothing(panes[0], title, theme)
        else:
            draw(*panes)
        return _written(figure)


def _say_nothing(axes: "Axes", title: str, theme: Theme) -> None:
    axes.set_title(title)
    axes.text(0.5, 0.5, NOTHING, ha="center", va="center", color=theme.muted, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _bare(axes: "Axes", theme: Theme) -> None:
    """Bars that say their own numbers need no axis; the first is on top."""
    axes.invert_yaxis()
    axes.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)


def _tens(axes: "Axes", most: int, theme: Theme) -> None:
    """A logarithmic axis that nobody takes for another: a line and a number at each power of ten."""
    powers = [10**power for power in range(len(str(most)))]
    every = -(-len(powers) // 6)
    axes.set_xticks(powers[::every], [f"{power:,}" for power in powers[::every]])
    axes.tick_params(axis="x", which="major", labelbottom=True)
    axes.grid(axis="x", which="major", color=theme.grid, linewidth=0.8)
    axes.set_xlabel("files, on a logarithmic scale")


def _written(figure: "Figure") -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _thousands(axes: "Axes", *, whole: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2, integer=whole))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.10g}"))


def _times(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as above

    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call] # matplotlib's dates are not annotated
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call] # as above
    axes.set_xlabel("UTC")
    axes.margins(x=0)


def _binary(octets: int) -> str:
    """A power of two of bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if octets < 1024:  # noqa: PLR2004 - binary units, as the bars are
            return f"{octets} {unit}"
        octets //= 1024
    return f"{octets} TB"


def _unit(octets: float) -> tuple[float, str]:
    """What so many bytes are best told in."""
    for divisor, unit in ((1e12, "TB"), (1e9, "GB")):
        if octets >= 10 * divisor:
            return divisor, unit
    return 1e6, "MB"


def _duration(seconds: float) -> str:
    for divisor, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * divisor:
            return f"{seconds / divisor:,.1f} {unit}"
    return f"{seconds:,.1f} s"
