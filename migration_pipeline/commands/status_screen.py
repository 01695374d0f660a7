"""`status` on a terminal: one screen that says how far, how fast, what failed, why, and what next."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from migration_pipeline.core.confirm import REASONS
from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.errors import Transient, Unreachable
from migration_pipeline.core.situation import SAS_SOON
from migration_pipeline.standing import Shown

REFRESH_SECONDS = 2.0
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_AT_REST = 4  # times as long as a look took
_STILL_SECONDS = 120.0  # without progress, and at work: worth a word
_STAGES = ("discover", "transfer", "rewrite_database", "rewrite_firebase", "confirm")


def show(shown: Shown) -> None:
    """Print it once."""
    _console().print(screen(shown))


def watch(look: Callable[[], Shown]) -> None:
    """Draw it again every two seconds, until everything has ended or Ctrl-C.

    A ledger that does not answer for a while, for it is started anew, is asked again.

    Raises:
        Unreachable: nobody answered the first time.
    """
    console = _console()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for shown, trouble in _looks(look):
            parts = [screen(shown)] if shown else []
            if trouble:
                parts.append(Text(f"The ledger does not answer, asking again: {trouble}", style="yellow"))
            live.update(Group(*parts), refresh=True)
            if shown and shown.ended and not trouble:
                return


def _looks(look: Callable[[], Shown]) -> Iterator[tuple[Shown | None, str]]:
    """What is seen, or was last, and why not."""
    last, pause = None, 0.0
    while True:
        time.sleep(pause)
        began = time.monotonic()
        try:
            last = look()
        except (Transient, Unreachable) as error:
            if last is None and isinstance(error, Unreachable):
                raise  # never seen there: a wrong address, as likely as not
            yield last, str(error)
        else:
            yield last, ""
        # A large ledger that takes long to read is read less often: others need its server, too.
        pause = max(REFRESH_SECONDS, _AT_REST * (time.monotonic() - began))


def screen(shown: Shown) -> RenderableType:
    """The whole of it."""
    if not shown.standing.status.ranges:
        return Text("Nothing is planned yet. Next: migration-pipeline plan, which shows ranges and keeps nothing.")
    return Group(
        _bar(shown),
        Text(),
        _facts(shown),
        *_letters(shown),
        *_for_no_file(shown),
        *_acts(shown),
        Text(),
        Text.assemble(("Next: ", "bold"), next_step(shown)),
    )


def next_step(shown: Shown) -> str:
    """What an operator does now, in one sentence with a command in it."""
    now, state = shown.standing, shown.standing.status
    look = " What waits can be looked at now: migration-pipeline dead-letters list" if now.letters_waiting else ""
    steps = (
        (shown.said.paused_why is not None, "migration-pipeline resume, once the reason is gone."),
        (shown.paused is not None, "nothing; runs go on by themselves."),
        (now.workers, f"nothing, it is at work.{look}"),
        (
            state.working,
            (
                "look at the newest run of each range that broke off, in the UI: where it was refused, its message "
                "names the setting; where it was killed, the Dagster daemon runs the range again, if it runs itself."
            ),
        ),
        (state.not_begun and _moved_lately(shown), "nothing, the next ranges begin by themselves."),
        (state.not_begun, "migration-pipeline migrate, or a backfill in the UI."),
        (state.waiting and not now.letters_waiting, _remedy(state.waiting_for)),
        (state.waiting, "migration-pipeline dead-letters list; retry or waive each class, and migrate again."),
        (
            state.rolled_back,
            (
                "nothing; what was rolled back stays so until you name it: migration-pipeline migrate RANGE"
                + _left_of_rollback(state.rolled_back_left)
            ),
        ),
        (
            shown.cutover.phase is Phase.PREPARE,
            "migration-pipeline audit, which looks at every reference again; then migration-pipeline cutover show.",
        ),
        (shown.cutover.phase.next is None, "nothing: the source is given up."),
        (shown.cutover.holds, "migration-pipeline cutover show, which says what holds the next phase."),
        (True, f"migration-pipeline cutover enter {shown.cutover.phase.next}"),
    )
    return next(text for holds, text in steps if holds)


def _left_of_rollback(left: int) -> str:
    if not left:
        return ""
    return f" ({left:,} {'profile' if left == 1 else 'profiles'} could not go back: migration-pipeline acts)"


def _moved_lately(shown: Shown) -> bool:
    now = shown.standing
    return now.last_progress is not None and (now.at - now.last_progress).total_seconds() < _MINUTE


def _bar(shown: Shown) -> RenderableType:
    """Profiles: green done, red waiting, the rest to come."""
    state = shown.standing.status
    done, of = state.migrated + state.nothing_to_move, max(1, state.profiles)
    # Users leave and join: ranges may hold more or fewer profiles than were planned.
    share = min(1.0, done / of)
    label = f" {_floor_percent(share)}  {done:,} of {state.profiles:,} profiles"
    width = max(10, _console().width - len(label))
    green = round(width * share)
    red = min(width - green, max(1, round(width * state.waiting / of))) if state.waiting else 0
    return Text.assemble(
        ("━" * green, "green"), ("━" * red, "red"), ("━" * (width - green - red), "bright_black"), (label, "bold")
    )


def _facts(shown: Shown) -> RenderableType:
    now, state = shown.standing, shown.standing.status
    rows: list[tuple[str, Text]] = [
        ("now", _now(shown)),
        (
            "ranges",
            _counts(
                (state.done, "done", ""), (now.workers, "at work", ""), (now.broke_off, "broke off", "yellow"),
                (state.not_begun, "to come", ""), (state.incomplete, "with profiles left", "red"),
                (state.rolled_back, "rolled back", "yellow"),
            ),
        ),
        (
            "profiles",
            _counts(
                (state.migrated, "migrated", ""), (state.nothing_to_move, "with nothing to move", ""),
                (state.waiting, "waiting", "red"),
            ),
        ),
        ("files", Text(f"{state.copied:,} copied, {size(state.bytes)}")),
        ("seconds", Text(_stages(shown))),
        ("cut-over", _cutover(shown)),
        ("SAS", _sas(shown)),
    ]  # fmt: skip
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    for name, text in rows:
        if text.plain:
            table.add_row(name, text)
    return table


def _now(shown: Shown) -> Text:
    now = shown.standing
    if shown.paused:
        since = f", for {span((now.at - shown.said.paused_at).total_seconds())}" if shown.said.paused_at else ""
        return Text(f"{printable(shown.paused)}{since}", style="yellow")
    parts = [f"{now.workers} {'worker' if now.workers == 1 else 'workers'}"]
    if now.rate.files or now.rate.failed:
        parts.append(f"{now.rate.files:,.0f} files/s" if now.rate.files >= 10 else f"{now.rate.files:.1f} files/s")  # noqa: PLR2004 - one digit more where it tells
        parts.append(f"{size(now.rate.bytes)}/s")
    if now.rate.failed:
        parts.append(f"{60 * now.rate.failed:,.0f} failed a minute")
    if now.workers and now.seconds_left is not None:
        parts.append(f"about {span(now.seconds_left)} left")
    still = (now.at - now.last_progress).total_seconds() if now.last_progress else 0.0
    if now.workers and still > _STILL_SECONDS:
        parts.append(f"no file ended for {span(still)}")
    return Text(" · ".join(parts))


def _cutover(shown: Shown) -> Text:
    """Nothing for whoever has not begun it."""
    stand = shown.cutover
    if stand.phase is Phase.PREPARE:
        return Text()
    since = f"{stand.phase}, for {span((shown.standing.at - stand.facts.entered[stand.phase]).total_seconds())}"
    if stand.phase.next is None:
        return Text(since)
    if not stand.holds:
        return Text(f"{since} · nothing holds {stand.phase.next}", style="green")
    more = f" and {len(stand.holds) - 1} more" if len(stand.holds) > 1 else ""
    return Text(f"{since} · {stand.phase.next} is held: {printable(stand.holds[0].what)}{more}")


def _sas(shown: Shown) -> Text:
    """Nothing as long as there is time."""
    if shown.sas_ends is None or shown.sas_ends - shown.standing.at > SAS_SOON:
        return Text()
    left = (shown.sas_ends - shown.standing.at).total_seconds()
    when = f"ends in {span(left)}" if left > 0 else f"ended {span(-left)} ago"
    return Text(f"that of the source {when}: make another (AZURE_STORAGE_SAS_TOKEN)", style="red")


def _letters(shown: Shown) -> list[RenderableType]:
    if not shown.standing.letters:
        return []
    table = Table("dead letters", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("waiting", "waived", "newest"):
        table.add_column(head, justify="right")
    for item in shown.standing.letters:
        newest = ago(item.newest, shown.standing.at) if item.newest else ""
        table.add_row(item.outcome.value, f"{item.waiting:,}", f"{item.waived:,}", newest)
    return [Text(), table]


def _for_no_file(shown: Shown) -> list[RenderableType]:
    """Profiles that wait because of what a value holds, with examples."""
    state = shown.standing.status
    reasons = [f"{count:,} profiles wait: {why}" for why, count in state.waiting_for.most_common() if why in REASONS]
    if not reasons:
        return []
    examples = [f"  {kind}: {text}" for kind, texts in state.examples.items() for text in texts]
    lines = [Text(printable(line)) for line in (*reasons, *examples)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return [Text(), *lines]


def _remedy(waiting_for: Mapping[str, int]) -> str:
    """Of what most profiles wait for."""
    return next(
        (REASONS[why] for why in sorted(waiting_for, key=lambda why: -waiting_for[why]) if why in REASONS),
        "migration-pipeline migrate: what waits may be done now.",
    )


def _acts(shown: Shown) -> list[RenderableType]:
    if not shown.acts:
        return []
    rows = [[printable(text) for text in (ago(act.at, shown.standing.at), act.who, act.what)] for act in shown.acts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # No table: it would take the room for a long reason from the other columns.
    lines = [
        Text("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + f"  {printable(act.why)}")
        for row, act in zip(rows, shown.acts, strict=True)
    ]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return [Text(), Text("what operators did", style="bold"), *lines]


def _stages(shown: Shown) -> str:
    """Wall time by stage: what the time goes into."""
    seconds = shown.standing.status.seconds
    total = sum(seconds.values())
    names = [name for name in _STAGES if seconds[name]] if total else []
    return " · ".join(f"{name} {100 * seconds[name] / total:.0f} %" for name in names)


def _counts(*counts: tuple[int, str, str]) -> Text:
    """What there is any of."""
    parts = [(f"{count:,} {name}", style) for count, name, style in counts if count]
    return Text(" · ").join(Text(text, style=style) for text, style in parts)


def _floor_percent(share: float) -> str:
    """Never 100 % before everything is done."""
    return f"{int(share * 1000) / 10:5.1f} %"


def size(octets: float) -> str:
    """Bytes in a unit that reads well."""
    for unit in ("B", "KB", "MB", "GB"):
        if octets < 1000:  # noqa: PLR2004 - decimal units
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:,.1f} TB"


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def ago(then: datetime, now: datetime) -> str:
    """How long ago."""
    return f"{span(max(0.0, (now - then).total_seconds()))} ago"


def printable(text: str) -> str:
    """Reasons are typed by people: no control character of theirs reaches the terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _console() -> Console:
    console = Console()
    # In a pipe there is no window to fit into: cells would be cut for nothing.
    return console if console.is_terminal else Console(width=120)
