"""`make soak-kill KILLS=n` and `make workload EDITS=n`: users who act all the time, while workers migrate.

The first kills a worker at random moments; the second measures what the app's own transactions cost meanwhile.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.sweep import Swept, sweep_files, sweep_profiles
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.soak.oracle import Broken, when_all_is_done
from migration_pipeline_tests.soak.schedules import LIMITS, World, open_world
from migration_pipeline_tests.soak.simulated_app import App, connect

THREADS = 6
APPS = 60  # of three users each
PER_RANGE = 6
IN_FLIGHT = 8
READ_TWICE = 2 * IN_FLIGHT
"""Files of one crash, at most: those under way, and as many whose ends are not noted yet."""


@dataclass(slots=True)
class Told:
    """What came of it.

    Attributes:
        edits: of rows and documents.
        transactions: of the app, with the row locked.
        failed: those that an error ended.
        compared: files read twice, for a worker was killed between copying and noting.
        seconds: of each transaction.
    """

    edits: int = 0
    failed: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    files: int = 0
    compared: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(item.promise == 3 for item in self.broken)


class LiveApps:
    """Users of many profiles, who act so often in all."""

    def __init__(self, world: World, seed: int, size: int = APPS) -> None:
        self.world, self._rng = world, random.Random(seed)
        url = world.servers.database_url
        self._databases = [connect(url, lock_timeout="30s") for _ in range(THREADS)]
        self.failed: list[str] = []
        self._over = threading.Event()
        self.apps = [self._made(n, n) for n in range(size)]
        world.ledger.add_ranges([range_of(n) for n in range(size // PER_RANGE)])

    def _made(self, number: int, place: int) -> App:
        """An app with this number, at this place among those that are."""
        rng = random.Random(self._rng.random())
        app = App(self.world.servers, first_id(number), rng, self._databases[place % THREADS], deletes=0.1)
        app.create()
        return app

    @contextmanager
    def acting(self, per_second: float) -> Iterator[None]:
        """Users act for as long as the block runs."""
        self._over.clear()
        threads = [threading.Thread(target=self._act, args=(n, THREADS / per_second)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _act(self, number: int, every: float) -> None:
        rng = random.Random(number)
        due = time.monotonic() + rng.random() * every
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + every, time.monotonic() - 1)
            try:
                self._one_acts(rng.randrange(number, len(self.apps), THREADS))
            except Exception as error:  # noqa: BLE001 - whatever an app would see
                self.failed.append(f"{type(error).__name__}: {error}")

    def _one_acts(self, place: int) -> None:
        self.apps[place].act()

    @property
    def everybody(self) -> Sequence[App]:
        """All apps that ever were."""
        return self.apps

    @property
    def edits(self) -> int:
        return sum(app.edits for app in self.everybody)

    def seconds(self) -> list[float]:
        """Of all transactions since the last time that this was asked."""
        taken = [value for app in self.apps for value in app.seconds]
        for app in self.apps:
            app.seconds.clear()
        return taken

    def come_to_rest(self) -> Iterator[Broken]:
        """Clients finish what they began; what came late is swept and migrated; then everything is judged."""
        for app in self.apps:
            app.settle()
        stores, keys = self.world.stores, [item.key for item in self.world.ledger.ranges()]
        for _ in range(2):
            for key in keys:
                migrate_range(key, stores, LIMITS)
            users = [user.id_ for app in self.everybody for user in app.users]
            sweep_profiles([stores.profiles.find(users)], stores)
            sweep_files(keys, stores, Swept())
        for key in {request.range_key for request in self.world.ledger.requested()}:
            migrate_range(key, stores, LIMITS)
        for app in self.everybody:
            for user in app.users:
                user.late = False
            yield from when_all_is_done(app)
            app.hang_up()

    def close(self) -> None:
        for app in self.everybody:
            app.close()


def first_id(number: int) -> int:
    """Of an app's three users."""
    return 10 * (number + 1)


def range_of(number: int) -> ProfileRange:
    """The range with this number, from 0 on: of so many apps."""
    last = first_id((number + 1) * PER_RANGE - 1) + 2
    after = first_id(number * PER_RANGE - 1) + 2 if number else None
    return ProfileRange(f"{number + 1:04}", number + 1, after, last, 3 * PER_RANGE)


def kill(world: World, *, kills: int, seed: int = 1) -> Told:
    """Kill a worker so many times while users act."""
    rng, live = random.Random(seed), LiveApps(world, seed)
    with live.acting(per_second=30):
        for _ in range(kills):
            worker = start_worker(world)
            # It takes about a second until it works; longer waits than that meet it in the middle of something.
            time.sleep(rng.uniform(0.8, 3.0))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    return judged(live)


def workload(world: World, *, edits: int, seed: int = 1) -> tuple[Told, Sequence[float], Sequence[float]]:
    """The app's transactions, first alone, then beside a worker; half of the edits each."""
    live = LiveApps(world, seed)
    with live.acting(per_second=50):
        _until(live, edits // 2)
        alone = live.seconds()
        worker = start_worker(world)
        try:
            _until(live, edits)
        finally:
            worker.terminate()
            worker.wait()
        beside = live.seconds()
    return judged(live), alone, beside


def _until(live: LiveApps, edits: int) -> None:
    seen, since = live.edits, time.monotonic()
    while live.edits < edits:
        time.sleep(0.05)
        if live.edits > seen:
            seen, since = live.edits, time.monotonic()
        elif time.monotonic() > since + 60:
            raise TimeoutError(f"users stand still after {seen} edits: {live.failed[-3:]}")


def judged(live: LiveApps) -> Told:
    told = Told(live.edits, live.failed)
    told.broken = list(live.come_to_rest())
    outcomes = {outcome: count for outcome, count, *_ in live.world.ledger.tallies.outcomes()}
    told.files, told.compared = sum(outcomes.values()), outcomes.get("already_there", 0)
    live.close()
    return told


def start_worker(world: World) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "migration_pipeline_tests.soak.worker"],
        env={**os.environ, **world.environment, "MIGRATION_COPY__IN_FLIGHT": str(IN_FLIGHT)},
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kill", "workload"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--edits", type=int, default=20_000)
    options = parser.parse_args()
    bound = options.kills * READ_TWICE
    with Sandbox() as sandbox:
        os.environ.update(sandbox.environment)
        with open_world(sandbox) as world:
            if options.what == "kill":
                told = kill(world, kills=options.kills)
                said = f"kills {options.kills}, files {told.files}, read twice {told.compared} (at most {bound}), "
            else:
                told, alone, beside = workload(world, edits=options.edits)
                said = f"alone {_figures(alone)}; beside a worker {_figures(beside)}; "
    for item in told.broken:
        sys.stderr.write(f"promise {item.promise}: {item.what}\n")
    for failure in told.failed[:10]:
        sys.stderr.write(f"{failure}\n")
    told_line = f"promises broken {len(told.broken)}, edits {told.edits}, failed {len(told.failed)}, lost {told.lost}"
    sys.stdout.write(said + told_line + "\n")
    too_often = options.what == "kill" and told.compared > bound
    sys.exit(bool(told.broken or told.failed or too_often))


def _figures(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    figures = {"p50": cuts[49], "p99": cuts[98], "longest": max(seconds)}
    return f"{len(seconds)} transactions, " + ", ".join(f"{name} {1000 * v:.1f} ms" for name, v in figures.items())


if __name__ == "__main__":
    main()
