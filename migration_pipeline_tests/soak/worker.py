"""A run worker without Dagster: migrates range after range, over and over, until it is ended."""

import itertools
import sys
from contextlib import suppress

from migration_pipeline.core.errors import RangeBusy
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_stores


def main(rounds: int | None) -> None:
    settings = load()
    with open_stores(settings) as stores:
        for _ in itertools.count() if rounds is None else range(rounds):
            for item in stores.ledger.ranges():
                # A worker that was killed a moment ago may hold it still, by a connection that is about to end.
                with suppress(RangeBusy):
                    migrate_range(item.key, stores, copy_limits(settings))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
