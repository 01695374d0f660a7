"""The part `files`: what a file costs in a range of a thousand files, and in one of a million."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from benchmarks.scale.made_up_stores import MadeUpStores
from benchmarks.scale.results import Figures, load_average, peak_megabytes, say
from migration_pipeline.commands.demo import prepare
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, create_app
from migration_pipeline.sandbox.app_plan import plan_app
from migration_pipeline.sandbox.app_records import fill_database, fill_firestore
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_stores

Kind = Literal["servers", "memory"]
SIZES: dict[Kind, tuple[int, ...]] = {"servers": (1_000, 10_000, 30_000), "memory": (1_000, 10_000, 100_000, 1_000_000)}
STORES = {
    "servers": "Azurite and SeaweedFS, on the same two cores",
    "memory": (
        "the contract suites' own stores within the process, which pass the suite of the real adapters; the CPU time of"
        " making up bytes and digests of 20 KB is theirs, and that of HTTP is left out"
    ),
}
_PHOTOS = 10
_FILES_A_PROFILE = 53.5  # of so many photos: six files each, and a verification; some profiles are deleted
_SCALE = 0.15  # of the files' sizes: some 20 KB on average
_EMULATOR = {"_JAVA_OPTIONS": "-Xmx4g"}  # Firestore's keeps every document, of 53 files each, in memory


def measure(sizes: dict[Kind, Sequence[int]]) -> Figures:
    """One range of each size, by a process of its own; everything but the bytes is on real servers each time."""
    rows = [_measured(kind, files) for kind in get_args(Kind) for files in sizes[kind]]
    return {"stores": STORES, "rows": rows}


def _measured(kind: Kind, files: int) -> Figures:
    size = AppSize(
        profiles=max(10, round(files / _FILES_A_PROFILE)), photos_per_profile=_PHOTOS, scale=_SCALE, bad_files=False
    )
    os.environ.update(_EMULATOR)
    with Sandbox() as servers:
        stores = AppStores.on(servers)
        if kind == "servers":
            create_app(stores, size)
        else:
            drawn = plan_app(stores, size)
            fill_database(stores, size, drawn)
            fill_firestore(stores, drawn)
            del drawn
        os.environ.update(prepare(servers, size, workers=1))
        os.environ["MIGRATION_PLAN__PROFILES_PER_RANGE"] = str(10 * size.profiles)
        os.environ["MIGRATION_PLAN__FILES_PER_RANGE"] = "100000000"
        settings = load()
        planned = plan(settings)
        keep(planned, settings)
        busy = load_average()
        command = [sys.executable, "-m", "benchmarks.scale", "files", "--within", kind, planned.keys[0]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this very package
    found: Figures = {"stores": kind, "asked_for": files, "machine_was_busy_with": busy, **json.loads(done.stdout)}
    say(f"{kind}: {found['files']:,} files, {found['cpu_ms_per_file']} ms of CPU each, {found['peak_megabytes']} MB")
    return found


def within(kind: Kind, key: str) -> None:
    """Migrate the range, in this process, and print what that took."""
    settings = load()
    made_up, kept = MadeUpStores(), 0.0
    with open_stores(settings) as opened:
        stores = replace(opened, open_byte_stores=made_up.opened) if kind == "memory" else opened
        before, began, cpu = peak_megabytes(), time.monotonic(), time.process_time()
        report = migrate_range(key, stores, copy_limits(settings))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        kept = made_up.objects.megabytes()
    copied = sum(count for outcome, count in report.transferred.outcomes.items() if outcome.verified)
    figures = {
        "files": copied,
        "profiles": report.discovered.profiles,
        "complete": report.complete,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 2),
        "cpu_ms_per_file": round(1000 * cpu / max(1, copied), 3),
        "cpu_ms_per_file_by_stage": {
            stage: round(1000 * spent / max(1, copied), 3) for stage, spent in report.cpu_seconds.items()
        },
        "files_per_second": round(copied / seconds, 1),
        "megabytes_before": round(before, 1),
        "peak_megabytes": round(peak_megabytes(), 1),
        "megabytes_of_made_up_stores": round(kept, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
