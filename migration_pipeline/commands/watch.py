"""Progress of a migration, on a terminal or in a log."""

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from migration_pipeline.commands import migrate
from migration_pipeline.commands.live_line import LINE_EVERY
from migration_pipeline.core.alert_words import count


def watch(states: Iterator[migrate.Progress], *, terminal: bool, tell: Callable[[str], None]) -> migrate.Progress:
    """Show each state, and return the last one."""
    return _draw(states) if terminal else _write(states, tell)


def _draw(states: Iterator[migrate.Progress]) -> migrate.Progress:
    columns = (
        TextColumn("{task.percentage:>3.0f}%"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    last = None
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting")
        for last in states:
            bar.update(task, completed=_profiles(last), total=last.status.profiles, description=summary(last))
    return _ended(last)


def _write(states: Iterator[migrate.Progress], tell: Callable[[str], None]) -> migrate.Progress:
    last, told = None, -LINE_EVERY
    for last in states:
        if last.seconds - told >= LINE_EVERY:
            tell(summary(last))
            told = last.seconds
    tell(summary(_ended(last)))
    return _ended(last)


def summary(state: migrate.Progress) -> str:
    """One line: profiles, files, bytes, rate, runs, what waits, and the time left at this rate."""
    done, rate = _profiles(state), state.copied_now / state.seconds if state.seconds else 0.0
    parts = [
        f"{done:,} of {count(state.status.profiles, 'profile')}",
        f"{count(state.copied_now, 'file')}, {state.bytes_now / 1e6:,.0f} MB, {rate:,.0f} files/s",
        f"{count(state.runs.running, 'run')} at work, {state.runs.queued} queued",
    ]
    if state.status.waiting:
        parts.append(f"{count(state.status.waiting, 'profile')} waiting")
    left = _seconds_left(state, done)
    if left is not None:
        parts.append(f"about {left // 60:.0f} min {left % 60:.0f} s left")
    return " · ".join(parts)


def _profiles(state: migrate.Progress) -> int:
    return state.status.migrated + state.status.nothing_to_move + state.status.waiting


def _seconds_left(state: migrate.Progress, done: int) -> float | None:
    if state.runs.settled or not done or state.status.profiles <= done:
        return None
    return state.seconds * (state.status.profiles - done) / done


def _ended(last: migrate.Progress | None) -> migrate.Progress:
    if last is None:
        raise ValueError("a migration says at least once how it stands")
    return last
