"""`make bench-pipeline`: what everything around the copy engine costs, in one range run as Dagster runs it.

The CPU seconds of a whole run (Dagster, discovery, ledger, database, Firebase, confirmation) over those of its copies.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from migration_pipeline.commands.demo import prepare
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, create_app
from migration_pipeline.settings import load

# A run worker: the same op, executor and instance as in a backfill.
_RUN = """
import sys, dagster as dg
from migration_pipeline.definitions import defs
from migration_pipeline.defs.migrated import migrated_range
from migration_pipeline.defs.ranges import register
with dg.DagsterInstance.get() as instance:
    register(instance, [sys.argv[1]])
    done = dg.materialize([migrated_range], instance=instance, partition_key=sys.argv[1], resources=defs.resources)
sys.exit(not done.success)
"""

# The same range without Dagster.
_PLAIN = """
import sys
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_stores
settings = load()
with open_stores(settings) as stores:
    migrate_range(sys.argv[1], stores, copy_limits(settings))
"""
_AGAIN = 3  # runs of the finished range, of which the cheapest counts


def _cpu(code: str, key: str) -> tuple[float, int]:
    """CPU seconds and peak kilobytes of one process."""
    process = subprocess.Popen([sys.executable, "-c", code, key])  # noqa: S603 - our own interpreter
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit("the run failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def main() -> None:
    """Make an app, migrate it in one range, and print where the CPU went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=10, help="of each profile, with six files each")
    parser.add_argument("--scale", type=float, default=0.2, help="of the files' sizes: they are kept in memory")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = AppSize(profiles=options.profiles, photos_per_profile=options.photos, scale=options.scale, bad_files=False)
    with Sandbox() as servers:
        app = create_app(AppStores.on(servers), size, print)
        os.environ.update(prepare(servers, size, workers=1))
        os.environ["MIGRATION_PLAN__PROFILES_PER_RANGE"] = str(10 * options.profiles)
        os.environ["MIGRATION_PLAN__FILES_PER_RANGE"] = "100000000"
        settings = load()
        planned = plan(settings)
        keep(planned, settings)
        began = time.monotonic()
        cpu, peak = _cpu(_RUN, planned.keys[0])
        took = time.monotonic() - began
        report = _report(settings.secrets.ledger_url.get_secret_value())
        # Dagster costs the same whatever a range holds, so a run that finds nothing left shows it best.
        with_dagster = min(_cpu(_RUN, planned.keys[0])[0] for _ in range(_AGAIN))
        plain = min(_cpu(_PLAIN, planned.keys[0])[0] for _ in range(_AGAIN))
    result = {
        "app": asdict(app.counts),
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_rss_mb": round(peak / 1000, 1),
        "copies": report["copied"],
        "stages_seconds": report["seconds"],
        "stages_cpu_seconds": report["cpu_seconds"],
        "nothing_left_cpu_seconds": {"with_dagster": round(with_dagster, 2), "without": round(plain, 2)},
        "dagster_percent_of_cpu": round(100 * (with_dagster - plain) / cpu, 1),
        "cpu_over_copy_engine": round(cpu / report["cpu_seconds"]["transfer"], 2),
    }
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def _report(url: str) -> dict[str, dict[str, float]]:
    import psycopg  # noqa: PLC0415 - after the servers' start

    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT report FROM migration.ranges").fetchone()
    assert row is not None  # noqa: S101 - the run succeeded
    report: dict[str, dict[str, float]] = row[0]
    return report


if __name__ == "__main__":
    main()
