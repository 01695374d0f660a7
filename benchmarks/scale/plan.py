"""The part `plan`: how long it takes to cut millions of profiles into ranges, and in how much memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.scale import profiles
from benchmarks.scale.results import Figures, load_average, say, spent
from migration_pipeline.planning import plan
from migration_pipeline.settings import CONFIG_VARIABLE, load

SIZES = (1_000_000, 10_000_000)


def measure(sizes: Sequence[int], rounds: int) -> Figures:
    """Each table made, and planned by processes of their own; what is said of a size is the fastest round's."""
    return {"plans": [_measured(size, rounds) for size in sizes]}


def _measured(size: int, rounds: int) -> Figures:
    with profiles.postgres() as server:
        url, began = server.url("app"), time.monotonic()
        made = profiles.fill(url, size)
        made["made_in_seconds"] = round(time.monotonic() - began)
        busy = load_average()
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "migration.toml")
            config.write_text(profiles.settings_of(url, profiles_per_range=1000), encoding="utf-8")
            found = [planned_in_a_process(url, config) for _ in range(rounds)]
    best = min(found, key=lambda one: one["seconds"])
    say(f"planned {size:,} profiles in {best['seconds']} s, {best['peak_megabytes']} MB")
    rest = {"seconds_of_all_rounds": [one["seconds"] for one in found], "machine_was_busy_with": busy}
    return {**made, **best, **rest}


def planned_in_a_process(url: str, config: Path) -> Figures:
    """What a process says of the plan that it made."""
    environment = {**os.environ, CONFIG_VARIABLE: str(config), "DATABASE_URL": url, "AZURE_STORAGE_KEY": "bm9uZQ=="}
    command = [sys.executable, "-m", "benchmarks.scale", "plan", "--within"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this very package
    found: Figures = json.loads(done.stdout)
    return found


def within() -> None:
    """Plan, in this process, and print what that took."""
    settings = load()
    before = spent()
    began = time.monotonic()
    planned = plan(settings)
    seconds = time.monotonic() - began
    held = [item.profiles for item in planned.ranges[:-1]] or [item.profiles for item in planned.ranges]
    figures = {
        "planned_profiles": planned.profiles,
        "ranges": len(planned.ranges),
        "profiles_a_range": {"mean": round(fmean(held)), "least": min(held), "most": max(held)},
        "seconds": round(seconds, 1),
        "megabytes_before": before["peak_megabytes"],
        **spent(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
