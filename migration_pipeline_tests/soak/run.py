"""`make soak SCHEDULES=n SEED=s`: so many schedules, and what came of them in one line."""

import argparse
import os
import sys
import time

from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.soak.schedules import Told, open_world, run_schedule

_TELL_EVERY = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    told, began = Told(), time.monotonic()
    with Sandbox() as sandbox:
        os.environ.update(sandbox.environment)
        with open_world(sandbox) as world:
            for seed in range(options.seed, options.seed + options.schedules):
                before = len(told.broken)
                run_schedule(world, seed, told)
                if told.schedules % _TELL_EVERY == 0:
                    sys.stderr.write(f"{told.line()}, {time.monotonic() - began:.0f} s\n")
                for broken in told.broken[before:]:
                    sys.stderr.write(f"seed {seed}: promise {broken.promise}: {broken.what}\n")
    sys.stderr.write(f"{told.crashes} crashes, {told.waited} waits, {time.monotonic() - began:.0f} s\n")
    sys.stdout.write(told.line() + "\n")
    sys.exit(bool(told.broken or told.lost))


if __name__ == "__main__":
    main()
