"""`migrate`: a backfill on the user's own Dagster instance, watched until it ends."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from migration_pipeline.commands.dagster_instance import (
    BackfillState,
    active_backfill,
    backfill_state,
    cancel_backfill,
    daemon,
    daemon_alive,
    forget_daemon,
    instance,
    launch_backfill,
)
from migration_pipeline.commands.status import Status, is_done, status
from migration_pipeline.core.errors import Fatal
from migration_pipeline.defs.ranges import set_workers
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger

_POLL_SECONDS, _SELDOM_SECONDS = 1.0, 10.0
_AT_REST = 19  # times as long as a look took: at thousands of ranges, watching would take a tenth of a processor
_CANCEL_SECONDS = 90.0  # the daemon looks at backfills every 30 s


class Progress(NamedTuple):
    """How a migration under way stands."""

    status: Status
    runs: BackfillState
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
    count = first or sample or len(keys)
    if sample is None or count >= len(keys):
        return list(keys[:count])
    return [keys[(2 * place + 1) * len(keys) // (2 * count)] for place in range(count)]


def migrate(settings: Settings, keys: Sequence[str], tell: Callable[[str], None]) -> Generator[Progress, None, None]:
    """Launch a backfill of the ranges and yield how it stands, every second or few, until it ended.

    A backfill of ours that is at work already is watched instead. Left early, by Ctrl-C or by closing the generator,
    the backfill is cancelled where nobody but us would go on with it.

    Args:
        settings: the migration.
        keys: partitions to run.
        tell: told of what is done beside: the backfill's id, a daemon started for its time.

    Raises:
        Fatal: no Dagster instance, or it refuses the backfill.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(instance())
        ledger = stack.enter_context(closing(open_ledger(settings)))
        before, began = status(ledger, set(keys)), time.monotonic()
        backfill_id = _backfill(opened, keys, settings.control.workers, tell)
        own_daemon = False
        try:
            while True:
                # Asked each time: the daemon that was alive a moment ago may have ended since.
                if not own_daemon and not daemon_alive(opened):
                    own_daemon = True
                    _start_daemon(stack, opened, tell)
                looked = time.monotonic()
                runs, now = backfill_state(opened, backfill_id), status(ledger, set(keys))
                copied, size = now.copied - before.copied, now.bytes - before.bytes
                yield Progress(now, runs, copied, size, time.monotonic() - began)
                if runs.ended:
                    return
                pause = _AT_REST * (time.monotonic() - looked)
                time.sleep(min(_SELDOM_SECONDS, max(_POLL_SECONDS, pause)))
        except (KeyboardInterrupt, GeneratorExit):
            _leave(opened, backfill_id, own_daemon=own_daemon, tell=tell)
            raise


def _backfill(opened: dg.DagsterInstance, keys: Sequence[str], workers: int, tell: Callable[[str], None]) -> str:
    """The id of the backfill that is at work already, else of a new one."""
    backfill_id = active_backfill(opened)
    if backfill_id is not None:
        tell(f"backfill {backfill_id} is at work already: watching that one")
        return backfill_id
    set_workers(opened, workers)
    backfill_id = launch_backfill(keys)
    tell(f"backfill {backfill_id}: {len(keys)} ranges, {workers} at the same time (control.workers)")
    return backfill_id


def _leave(opened: dg.DagsterInstance, backfill_id: str, *, own_daemon: bool, tell: Callable[[str], None]) -> None:
    if not own_daemon:
        tell(f"backfill {backfill_id} goes on under your Dagster daemon; the UI can cancel it")
        return
    tell(f"cancelling backfill {backfill_id}; what is copied stays copied, and the next `migrate` does what is left")
    cancel_backfill(opened, backfill_id)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while not backfill_state(opened, backfill_id).ended and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _start_daemon(stack: ExitStack, opened: dg.DagsterInstance, tell: Callable[[str], None]) -> None:
    # One file, begun anew each time: it tells of the last migration, and never fills the disk.
    log = Path(opened.root_directory, "daemon-of-migrate.log")  # not in logs/: Dagster empties that
    log.write_bytes(b"")
    tell(f"no Dagster daemon is running: starting one until the backfill ends (log: {log})")
    stack.callback(forget_daemon, opened)
    stack.enter_context(daemon(log))
