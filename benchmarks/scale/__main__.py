"""`make scale`: every part, or `python -m benchmarks.scale PART` for one of them.

Figures go into benchmarks/results/scale.json, each part's under its own name, tables into docs/scale.md, and plots into
docs/images. Every part takes its sizes as options, so that all of it can be tried in minutes; with `--out FILE` figures
go there, and the pages stay as they are.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import files, ledger, partitions, plan, plots, tables, workers
from benchmarks.scale.ledger_fill import Shape
from benchmarks.scale.results import RESULTS, Figures, keep, read, say

_PARTS = ("plan", "partitions", "ledger", "files", "workers")


def main() -> None:
    """Measure what is named, keep the figures, and show them."""
    options = _parser().parse_args()
    if options.part == "all":
        sys.exit(_all())
    if options.part == "table":
        _show(read())
        return
    within: Callable[[Any], None] | None = options.within_process
    if within is not None and options.within:
        within(options.within)
        return
    say(f"{options.part} begins")
    figures: Figures = options.measure(options)
    kept = keep(options.part, figures, options.out)
    sys.stdout.write(json.dumps(figures, indent=1, default=str) + "\n")
    if options.out == RESULTS:
        _show(kept)


def _all() -> int:
    """Each part in a process of its own, for each has an environment of its own; how many failed."""
    command = [sys.executable, "-m", "benchmarks.scale"]
    ended = [subprocess.run([*command, part], stdout=subprocess.DEVNULL, check=False) for part in _PARTS]  # noqa: S603 - this very package
    failed = [part for part, done in zip(_PARTS, ended, strict=True) if done.returncode]
    say(f"failed: {', '.join(failed)}" if failed else "all parts are measured")
    return len(failed)


def _show(figures: Figures) -> None:
    tables.write(figures)
    plots.draw(figures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("all", help="every part, at its full size: hours")
    parts.add_parser("table", help="measure nothing; write the tables and plots of what was measured")
    _part(parts, "plan", lambda given: plan.measure(given.profiles, given.rounds), [
        ("--profiles", {"type": int, "nargs": "+", "default": plan.SIZES}),
        ("--rounds", {"type": int, "default": 3}),
        ("--within", {"action": "store_true", "help": argparse.SUPPRESS}),
    ], within=lambda _: plan.within())  # fmt: skip
    _part(parts, "partitions", lambda given: partitions.measure(given.partitions, given.slices, given.times), [
        ("--partitions", {"type": int, "nargs": "+", "default": partitions.SIZES}),
        ("--slices", {"type": int, "default": partitions.SLICES}),
        ("--times", {"type": int, "default": 5, "help": "that each page is looked at; the median counts"}),
    ])  # fmt: skip
    _part(parts, "ledger", _ledger, [
        ("--files", {"type": int, "nargs": "+", "default": ledger.SIZES}),
        ("--files-per-range", {"type": int, "default": ledger.SHAPE.files}),
        ("--profiles-per-range", {"type": int, "default": ledger.SHAPE.profiles}),
        ("--times", {"type": int, "default": 5, "help": "that each statement is timed; the median counts"}),
        ("--most-gigabytes", {"type": float, "default": 40.0, "help": "of the database; more is not made"}),
    ])  # fmt: skip
    _part(parts, "files", lambda given: files.measure({"servers": given.servers, "memory": given.memory}), [
        ("--servers", {"type": int, "nargs": "*", "default": files.SIZES["servers"], "help": "files of a range"}),
        ("--memory", {"type": int, "nargs": "*", "default": files.SIZES["memory"], "help": "files of a range"}),
        ("--within", {"nargs": 2, "help": argparse.SUPPRESS}),
    ], within=lambda given: files.within(*given))  # fmt: skip
    _part(parts, "workers", lambda given: workers.measure(given.workers, given.profiles, given.limit), [
        ("--workers", {"type": int, "nargs": "+", "default": workers.WORKERS}),
        ("--profiles", {"type": int, "default": 320, "help": "with five photos each"}),
        ("--limit", {"type": float, "default": 100.0, "help": "requests a second of each store"}),
        ("--within", {"help": argparse.SUPPRESS}),
    ], within=workers.within)  # fmt: skip
    return parser


def _ledger(given: argparse.Namespace) -> Figures:
    shape = Shape(given.files_per_range, given.profiles_per_range)
    return ledger.measure(given.files, shape, given.times, given.most_gigabytes)


def _part(
    parts: Any,  # noqa: ANN401 - argparse's own
    name: str,
    measure: Callable[[argparse.Namespace], Figures],
    options: Sequence[tuple[str, dict[str, Any]]],
    *,
    within: Callable[[Any], None] | None = None,
) -> None:
    """A part with its options; with `--within` it measures a process, which is that one."""
    parser = parts.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for flag, how in options:
        parser.add_argument(flag, **({"help": " "} | how))
    parser.add_argument("--out", type=Path, default=RESULTS, help=" ")
    parser.set_defaults(measure=measure, within_process=within)


if __name__ == "__main__":
    main()
