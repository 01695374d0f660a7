"""One of several workers: does what Dagster's runs do, one after the other, until its time is over.

Each thing opens its stores anew and closes them, as a run does: what is not given back, adds up. It prints what it did.
"""

import json
import random
import sys
import time
from collections import Counter
from contextlib import closing

from migration_pipeline import upkeep
from migration_pipeline.core.errors import MigrationError, RangeBusy
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.core.sweep import Swept, sweep_files
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import copy_limits, open_ledger, open_stores

NEWEST = 16
"""Ranges that there are still users in, more or less; older ones are worked on where something is left."""


class Worker:
    """Does one thing after the other."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self.did: Counter[str] = Counter()
        self.failed: list[str] = []
        self._settings, self._rng = settings, rng

    def work(self, seconds: float) -> None:
        """Whatever is drawn, for so long."""
        things = {self._migrate: 30, self._sweep: 3, self._newer_bytes: 3, self._erase: 1, self._audit: 1}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            (thing,) = self._rng.choices(list(things), list(things.values()))
            try:
                thing()
            except RangeBusy:
                self.did["busy"] += 1
            except MigrationError as error:
                self.failed.append(f"{thing.__name__}: {type(error).__name__}: {error}")

    def _migrate(self) -> None:
        """As a backfill and the sensor of asked-for ranges choose them, and as somebody who goes over all again."""
        with open_stores(self._settings) as stores:
            done, ranges = stores.ledger.done(), [item.key for item in stores.ledger.ranges()]
            key = self._rng.choice([key for key in ranges if key not in done] or ranges[-NEWEST:])
            report = migrate_range(key, stores, copy_limits(self._settings))
        self.did.update(runs=1, copied=report.transferred.copied, retries=report.transferred.retries)

    def _sweep(self) -> None:
        self.did.update(sweeps=1, late=upkeep.sweep(self._settings).late)

    def _newer_bytes(self) -> None:
        """As a full sweep looks for them, but in one range: all would be more each minute."""
        swept = Swept()
        with open_stores(self._settings) as stores:
            sweep_files([self._one_of_the_newest()], stores, swept)
        self.did.update(sweeps_of_files=1, outdated=swept.outdated)

    def _erase(self) -> None:
        self.did.update(erasings=1, erased=upkeep.erase_dropped(self._settings).files)

    def _audit(self) -> None:
        upkeep.audit(self._settings, self._one_of_the_newest(), read=self._rng.random() < 0.5)
        self.did.update(audits=1)

    def _one_of_the_newest(self) -> str:
        with closing(open_ledger(self._settings)) as ledger:
            return self._rng.choice(ledger.ranges()[-NEWEST:]).key


def main(number: int, seconds: float) -> None:
    worker = Worker(load(), random.Random(number))
    worker.work(seconds)
    sys.stdout.write(json.dumps({"did": worker.did, "failed": worker.failed}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
