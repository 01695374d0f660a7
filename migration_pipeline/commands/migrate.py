"""`migrate`: runs on the user's own Dagster instance, watched until the last one has ended."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.commands import launches
from migration_pipeline.commands.dagster_instance import daemon, daemon_alive, forget_daemon, instance
from migration_pipeline.commands.launches import Launch, LaunchState
from migration_pipeline.commands.status import Status, is_done, status
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal
from migration_pipeline.defs.ranges import set_workers
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger

_POLL_SECONDS, _SELDOM_SECONDS = 1.0, 10.0
_AT_REST = 19  # times as long as a look took: at thousands of ranges, watching would take a tenth of a processor
_CANCEL_SECONDS = 90.0  # a daemon looks at backfills every 30 s


class Progress(NamedTuple):
    """How a migration under way stands."""

    status: Status
    runs: LaunchState
    copied_now: int
    bytes_now: int
    seconds: float


class Chosen(NamedTuple):
    """The ranges that a migration is asked to go over, and how many are planned in all."""

    keys: list[str]
    planned: int


def choose(
    settings: Settings,
    named: Sequence[str],
    *,
    also_done: bool,
    first: int | None = None,
    sample: int | None = None,
) -> Chosen:
    """The named ranges, or every one with something left; of these, perhaps only some to begin with.

    Args:
        settings: the migration.
        named: keys of ranges.
        also_done: those too that are done.
        first: so many of them, in order.
        sample: so many of them, spread evenly.

    Raises:
        Fatal: nothing is planned, a name is unknown, or it is not clear which ranges are meant.
    """
    if (bool(named), first is not None, sample is not None).count(True) > 1:
        raise Fatal(
            "names of ranges, --first and --sample exclude each other.",
            setting="RANGE",
            remedy="Name ranges, or give one of the two.",
        )
    with closing(open_ledger(settings)) as ledger:
        states = ledger.overview.states()
    if not states:
        raise Fatal("no range is planned.", setting="plan", remedy="Run `migration-pipeline plan --apply` first.")
    unknown = sorted(set(named) - {state.key for state in states})
    if unknown:
        raise Fatal(
            f"no such range: {', '.join(unknown)}.",
            setting="RANGE",
            remedy="`migration-pipeline status --json` lists what is left.",
        )
    # What was rolled back stays so until somebody names it.
    keys = [s.key for s in states if (s.key in named if named else also_done or not (is_done(s) or s.rolled_back))]
    return Chosen(_some(keys, first, sample), len(states))


def _some(keys: Sequence[str], first: int | None, sample: int | None) -> list[str]:
    """The first ones, or ones from the middle of as many stretches of equal length; all where there are no more."""
    some = first or sample or len(keys)
    if sample is None or some >= len(keys):
        return list(keys[:some])
    return [keys[(2 * place + 1) * len(keys) // (2 * some)] for place in range(some)]


def migrate(
    settings: Settings, keys: Sequence[str], tell: Callable[[str], None], *, named: bool = False
) -> Generator[Progress, None, None]:
    """Launch runs of the ranges and yield the progress, every second or few, until the last one has ended.

    A launch of ours that is active already is watched first; then those of the ranges are launched that it did not run.
    Left early, by Ctrl-C or by closing the generator, the launch is cancelled where nobody but us would go on with it.

    Args:
        settings: the migration.
        keys: partitions to run.
        tell: gets a line about each launch, and about a daemon started for its time.
        named: somebody named these very ranges.

    Raises:
        Fatal: no Dagster instance, or it refuses the launch.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(instance())
        ledger = stack.enter_context(closing(open_ledger(settings)))
        watched = _Watched(opened, ledger, keys, _Daemon(stack, opened, tell), tell)
        left = list(keys)
        while (active := launches.active(opened)) is not None:
            tell(f"{active} is active already: watching it first")
            yield from watched.until_settled(active)
            ran = launches.partitions(opened, active)
            left = [key for key in left if key not in ran]
        if left:
            watched.daemon.ensure()  # while Dagster takes the launch
            yield from watched.until_settled(_launch(opened, left, settings.control.workers, tell, named=named))


def _launch(
    opened: dg.DagsterInstance, keys: Sequence[str], workers: int, tell: Callable[[str], None], *, named: bool
) -> Launch:
    set_workers(opened, workers)
    launched = launches.launch(launches.location_of(opened), keys, at_once=workers, named=named)
    tell(f"{launched}: {count(len(keys), 'range')}, up to {workers} at the same time (control.workers)")
    return launched


class _Daemon:
    """Dagster's daemon: the user's, or one of our own until the end, started once none is alive."""

    def __init__(self, stack: ExitStack, opened: dg.DagsterInstance, tell: Callable[[str], None]) -> None:
        self._stack, self._opened, self._tell = stack, opened, tell
        self.own = False

    def ensure(self) -> None:
        """Start one if the user's has ended, or never ran."""
        if not self.own and not daemon_alive(self._opened):
            self.own = True
            self._start()

    def _start(self) -> None:
        # One file, begun anew each time: it tells of the last migration, and never fills the disk.
        home = Path(self._opened.root_directory)
        log = home / "daemon-of-migrate.log"  # not in logs/: Dagster empties that
        log.write_bytes(b"")
        self._tell(f"no Dagster daemon is running: starting one until the last run ends (log: {log})")
        self._stack.callback(forget_daemon, self._opened)
        location = launches.location_of(self._opened)
        self._stack.enter_context(daemon(log, launches.workspace(location, home)))


class _Watched:
    """Looks at a launch and at the ledger until the launch has settled."""

    def __init__(
        self,
        opened: dg.DagsterInstance,
        ledger: PostgresLedger,
        keys: Sequence[str],
        daemon_: _Daemon,
        tell: Callable[[str], None],
    ) -> None:
        self._opened, self._ledger, self._keys, self.daemon, self._tell = opened, ledger, set(keys), daemon_, tell
        self._before, self._began = status(ledger, self._keys), time.monotonic()

    def until_settled(self, launched: Launch) -> Generator[Progress, None, None]:
        """Yield the progress; the user's daemon may end a settled backfill later, ours has to end it first."""
        try:
            while True:
                # Asked each time: the daemon that was alive a moment ago may have ended since.
                self.daemon.ensure()
                looked = time.monotonic()
                runs, now = launches.state(self._opened, launched), status(self._ledger, self._keys)
                copied, size = now.copied - self._before.copied, now.bytes - self._before.bytes
                yield Progress(now, runs, copied, size, time.monotonic() - self._began)
                if runs.ended or (runs.settled and not self.daemon.own):
                    return
                pause = _AT_REST * (time.monotonic() - looked)
                time.sleep(min(_SELDOM_SECONDS, max(_POLL_SECONDS, pause)))
        except (KeyboardInterrupt, GeneratorExit):
            self._leave(launched)
            raise

    def _leave(self, launched: Launch) -> None:
        if not self.daemon.own:
            self._tell(f"{launched} goes on under your Dagster daemon; the UI can cancel it")
            return
        launches.cancel(self._opened, launched)
        with suppress(OSError):  # the terminal may be gone
            self._tell(f"cancelling {launched}; what is copied stays copied, and the next `migrate` does what is left")
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not launches.state(self._opened, launched).ended and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
