"""`make bench-control`: how soon two runs at work obey, and how closely limits are kept over a minute each."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.commands.demo import prepare
from migration_pipeline.core.control import Limits
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, create_app
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_ledger

_WORKERS = 2
_SETTLE = 6.0  # seconds that runs may take to obey
_QUIET = 3.0  # without a file that ends: the run waits

# Each works on its share of the ranges, as a run of each would.
_RUN = """
import sys
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_stores
settings = load()
with open_stores(settings) as stores:
    for item in stores.ledger.ranges()[int(sys.argv[1])::2]:
        migrate_range(item.key, stores, copy_limits(settings))
"""


@contextmanager
def _at_work(**environment: str) -> Iterator[None]:
    workers = [
        subprocess.Popen([sys.executable, "-c", _RUN, str(n)], env={**os.environ, **environment})  # noqa: S603 - our own interpreter
        for n in range(_WORKERS)
    ]
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


class Watched:
    """The files that have ended, by the ledger."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self._ledger = ledger

    def files(self) -> int:
        ((copied,),) = self._ledger.query("SELECT coalesce(sum(copied), 0) FROM {s}.ranges")
        return int(copied)

    def bytes(self) -> int:
        ((size,),) = self._ledger.query("SELECT coalesce(sum(bytes), 0) FROM {s}.ranges")
        return int(size)

    def still_after(self, began: float) -> float:
        """Seconds from `began` until the last file that ended before a quiet time."""
        last, at = self.files(), began
        while time.monotonic() < at + _QUIET:
            time.sleep(0.05)
            if (now := self.files()) != last:
                last, at = now, time.monotonic()
        return at - began

    def moving_after(self, began: float) -> float:
        """Seconds from `began` until a file ends."""
        before = self.files()
        while self.files() == before:
            time.sleep(0.05)
        return time.monotonic() - began


def _obeyed(watched: Watched, stop: Callable[[], Any], go_on: Callable[[], Any], times: int) -> dict[str, Any]:
    still, moving = [], []
    for _ in range(times):
        stop()
        still.append(watched.still_after(time.monotonic()))
        go_on()
        moving.append(watched.moving_after(time.monotonic()))
        time.sleep(1.0)
    return {
        "times": times,
        "still_after_seconds_median": round(statistics.median(still), 2),
        "still_after_seconds_longest": round(max(still), 2),
        "moving_after_seconds_median": round(statistics.median(moving), 2),
        "moving_after_seconds_longest": round(max(moving), 2),
    }


def _kept(count: Callable[[], int], wanted: float, seconds: float) -> dict[str, float]:
    time.sleep(_SETTLE)
    before, began = count(), time.monotonic()
    time.sleep(seconds)
    rate = (count() - before) / (time.monotonic() - began)
    return {"wanted": wanted, "measured": round(rate, 1), "off_percent": round(100 * (rate / wanted - 1), 1)}


def _measure(settings: Settings, times: int, seconds: float) -> dict[str, Any]:
    with closing(open_ledger(settings)) as ledger, closing(open_ledger(settings)) as desk:
        watched, control = Watched(ledger), desk.control
        slow = {"MIGRATION_COPY__REQUESTS_PER_SECOND": "60"}  # so that the files last
        query = {"MIGRATION_CONTROL__PAUSE_WHILE": "SELECT EXISTS (SELECT FROM busy)"}
        desk.query("CREATE TABLE IF NOT EXISTS busy (since timestamptz)")
        with _at_work(**slow, **query):
            watched.moving_after(time.monotonic())
            paused = _obeyed(
                watched, lambda: control.pause(by="bench", why="measured"), lambda: control.resume(by="bench"), times
            )
            app = _obeyed(
                watched,
                lambda: desk.query("INSERT INTO busy VALUES (now())"),
                lambda: desk.query("DELETE FROM busy"),
                times,
            )
            control.limit(Limits(requests_per_second=40.0), by="bench")
            requests = _kept(watched.files, 40.0, seconds)
            control.limit(Limits(requests_per_second=0.0, bytes_per_second=200_000.0), by="bench")
            volume = _kept(watched.bytes, 200_000.0, seconds)
            control.limit(Limits(), by="bench")
        closes = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        opened = closes - timedelta(minutes=2)
        window = {"MIGRATION_CONTROL__WINDOWS": json.dumps([f"{opened:%H:%M}-{closes:%H:%M}"])}
        with _at_work(**slow, **window):
            time.sleep(max(0.0, (closes - datetime.now(UTC)).total_seconds()))
            closed = round(watched.still_after(time.monotonic()), 2)
    return {
        "workers": _WORKERS,
        "pause": paused,
        "pause_while": app,
        "window_closes": {"still_after_seconds": closed},
        "requests_per_second": requests,
        "bytes_per_second": volume,
        "seconds_of_each_limit": seconds,
    }


def main() -> None:
    """Make an app, have two workers migrate it, and say things to them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = AppSize(profiles=400, photos_per_profile=8, scale=0.02, bad_files=False)
    with Sandbox() as servers:
        create_app(AppStores.on(servers), size, print)
        os.environ.update(prepare(servers, size, workers=_WORKERS))
        settings = load()
        keep(plan(settings), settings)
        result = _measure(settings, options.times, options.seconds)
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
