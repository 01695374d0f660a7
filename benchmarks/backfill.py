"""`make bench-backfill RANGES=n`: so many small ranges queued in one backfill, run by two workers to the end."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from migration_pipeline.commands.dagster_instance import instance
from migration_pipeline.commands.demo import prepare
from migration_pipeline.defs.ranges import register
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, create_app
from migration_pipeline.settings import load

_WORKERS = 2


def main() -> None:
    """Make an app with one profile a range, migrate it through Dagster, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranges", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = AppSize(profiles=options.ranges, photos_per_profile=1, scale=0.01, bad_files=False)
    with Sandbox() as servers:
        create_app(AppStores.on(servers), size, print)
        os.environ.update(prepare(servers, size, workers=_WORKERS))
        os.environ["MIGRATION_PLAN__PROFILES_PER_RANGE"] = "1"
        settings = load()
        planned = plan(settings)
        with instance() as opened:
            keep(planned, settings)
            register(opened, planned.keys)
        began = time.monotonic()
        command = [sys.executable, "-m", "migration_pipeline.cli", "migrate", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own command
        seconds = time.monotonic() - began
    said, usage = json.loads(done.stdout), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "ranges": len(planned.keys),
        "ranges_done": said["ranges"]["done"],
        "exit_code": done.returncode,
        "workers": _WORKERS,
        "seconds": round(seconds),
        "ranges_per_minute": round(60 * said["ranges"]["done"] / seconds, 1),
        "files": said["copied_now"],
        # Of the daemon, its code servers and the servers of the sandbox as well.
        "cpu_seconds_of_all_processes": round(usage.ru_utime + usage.ru_stime),
    }
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
