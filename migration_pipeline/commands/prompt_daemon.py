"""Dagster's daemon with a short tick for backfills: the one that our commands start for their own time.

Dagster 1.13 has no setting for that tick, which is 30 s. Somebody who waits for a migration of a minute would wait for
two ticks more: one that launches its runs, and one that sees that they have ended.
"""

import signal

from dagster._daemon import controller
from dagster._daemon.cli import main

TICK_SECONDS = 2


def shorten_ticks() -> None:
    """Have backfills looked at every `TICK_SECONDS`, in this process."""
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = TICK_SECONDS


if __name__ == "__main__":
    # Under `nohup migration-pipeline migrate &` it is ignored, and Dagster would then ignore SIGTERM too; the command
    # ends its daemon by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shorten_ticks()
    main()
