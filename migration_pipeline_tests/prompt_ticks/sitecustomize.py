"""On PYTHONPATH, shortens the backfill tick of every Dagster daemon that is started, the one of `dagster dev` too."""

import sys

if "dagster._daemon" in sys.orig_argv:
    from migration_pipeline.commands.prompt_daemon import shorten_ticks

    shorten_ticks()
