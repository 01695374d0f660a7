"""The figures of all parts, each under its own name, so that parts may be measured one by one."""

import json
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.copy_engine import machine

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
Figures = dict[str, Any]


class Spent(NamedTuple):
    """Of a process that ended: CPU seconds, and the most memory that it had, in megabytes."""

    cpu_seconds: float
    peak_megabytes: float


def read(path: Path = RESULTS) -> Figures:
    """What was measured so far."""
    found: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def keep(part: str, figures: Mapping[str, Any], path: Path = RESULTS) -> Figures:
    """Put a part's figures in the place of those that it had; those of other parts stay. Returns all."""
    kept = read(path) | {part: {"machine": machine(), "measured_at": _now()} | dict(figures)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, default=str) + "\n", encoding="utf-8")
    return kept


def say(text: str) -> None:
    """Tell how far it is; the figures go to standard output, this to where errors go."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


def peak_megabytes() -> float:
    """The most memory that this process had."""
    # Not ru_maxrss where there is this: in Linux, that begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        if found is not None:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spent() -> Figures:
    """What this process took so far."""
    return {"cpu_seconds": round(time.process_time(), 2), "peak_megabytes": round(peak_megabytes(), 1)}


def timed(work: Callable[[], Any], times: int) -> Figures:
    """How long something takes: the median of several times, the shortest and the longest, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - began))
    return summary(took)


def summary(milliseconds: list[float]) -> Figures:
    """Several times as one figure and its bounds."""
    return {
        "median_ms": round(statistics.median(milliseconds), 2),
        "least_ms": round(min(milliseconds), 2),
        "most_ms": round(max(milliseconds), 2),
        "times": len(milliseconds),
    }


def load_average() -> float:
    """How busy the machine is with everything: figures taken beside other work say so."""
    return round(os.getloadavg()[0], 1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
