"""The commands for dead letters: files that could not be copied and wait for somebody."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import click

from migration_pipeline.cli.control import by as by_whom
from migration_pipeline.cli.show import LEFT, as_json, honest, moment, planned_ledger, print_json, print_table, short
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import REMEDIES, WAIVED, Outcome, SourceFile
from migration_pipeline.core.text import inert

_CLASSES = [outcome.value for outcome in Outcome if not outcome.verified]
_PAGE = 20_000  # letters in memory at a time
_COLUMNS = ["class", "file", "profile", "range", "tries", "last_tried_at", "message", "waived_by", "waived_why"]


class _Choice(NamedTuple):
    """Dead letters: of one class, range or file where these are given, else all."""

    outcome: Outcome | None
    range_key: str | None
    file: SourceFile | None


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose dead letters, as one argument."""

    @click.option("--class", "outcome", type=click.Choice(_CLASSES), help="Only this class.")
    @click.option("--range", "range_key", help="Only those that profiles of this range need.")
    @click.option("--file", "file", metavar="CONTAINER/BLOB", help="Only this file.")
    @wraps(command)
    def run(*, outcome: str | None, range_key: str | None, file: str | None, **others: Any) -> None:  # noqa: ANN401 - click's
        choice = _Choice(Outcome(outcome) if outcome else None, range_key, _file(file) if file is not None else None)
        command(choice=choice, **others)

    return run


@click.group("dead-letters")
def dead_letters() -> None:
    """Files that could not be copied and wait for somebody."""


@dead_letters.command("list")
@click.option("--waived/--waiting", default=None, help="Only those that somebody waived, or only the others.")
@click.option("--limit", default=100, show_default=True, help="Rows at most.")
@as_json
@honest
@_selecting
def list_(
    choice: _Choice,
    waived: bool | None,  # noqa: FBT001 - click's form
    limit: int,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Count them by class with what to do about each, and list them."""
    with closing(planned_ledger()) as ledger:
        _known(ledger, choice.range_key)
        classes = ledger.overview.letter_classes()
        letters = ledger.overview.dead_letters(**choice._asdict(), waived=waived, limit=limit)
    if json_:
        print_json([_as_json(item) for item in letters])
        return
    counts = [[i.outcome, str(i.waiting), str(i.waived), REMEDIES[i.outcome] if i.waiting else WAIVED] for i in classes]
    print_table(["class", "waiting", "waived", "what to do"], counts)
    rows = [
        [i.outcome, short(str(i.file)), i.profile_id, i.range_key, str(i.attempts), _state(i), short(i.message, 80)]
        for i in letters
    ]
    print_table(["class", "file", "profile", "range", "tries", "", "message"], rows)
    if len(letters) == limit:
        click.echo(f"The first {limit}; --limit shows more, `dead-letters export` writes all.")


@dead_letters.command()
@click.argument("file", metavar="CONTAINER/BLOB")
@as_json
@honest
def show(file: str, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show all that is known of one."""
    with closing(planned_ledger()) as ledger:
        letters = ledger.overview.dead_letters(file=_file(file))
    if not letters:
        raise Fatal(
            f"is no dead letter: {short(file)}.",
            setting="FILE",
            remedy="`migration-pipeline dead-letters list` lists them.",
        )
    first = letters[0]
    if json_:
        print_json(_as_json(first) | {"ranges": [item.range_key for item in letters]})
        return
    rows = [
        ["file", str(first.file)],
        ["class", first.outcome],
        ["message", first.message],
        ["tries", f"{first.attempts}, the last at {moment(first.ended_at)}" if first.ended_at else "0"],
        ["ranges", ", ".join(item.range_key for item in letters)],
        ["a profile", first.profile_id],
        ["what to do", WAIVED if first.waived else REMEDIES[first.outcome]],
    ]
    if first.waived:
        rows.append(["waived", f"by {first.waived.by} at {moment(first.waived.at)}: {first.waived.why}"])
    if first.accepted:
        rows.append(["accepted", f"by {first.accepted.by} at {moment(first.accepted.at)}: {first.accepted.why}"])
    print_table(["", ""], rows)


@dead_letters.command()
@click.option("--all", "all_", is_flag=True, help="All of them.")
@click.option("--waived", is_flag=True, help="Take back waivers: those that somebody waived, and no others.")
@click.option("--why", default="", help="What was mended, for the record.")
@by_whom
@as_json
@honest
@_selecting
def retry(
    choice: _Choice,
    all_: bool,  # noqa: FBT001 - click's form
    waived: bool,  # noqa: FBT001 - as above
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Have them tried again, and no other: the next run of their ranges copies these, and finishes their profiles."""
    with closing(planned_ledger()) as ledger:
        chosen = ledger.control.retry(_selection(ledger, choice, all_=all_), by=by, why=why, waived=waived)
    _say(chosen, "will be tried again", json_=json_)


@dead_letters.command()
@click.option("--all", "all_", is_flag=True, help="All of them.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, they are only counted.")
@click.option("--why", required=True, help="Why nobody needs these files any more.")
@by_whom
@as_json
@honest
@_selecting
def waive(
    choice: _Choice,
    all_: bool,  # noqa: FBT001 - click's form
    apply_: bool,  # noqa: FBT001 - as above
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Let their profiles finish without them: the references stay as they are, at the source."""
    with closing(planned_ledger()) as ledger:
        selection = _selection(ledger, choice, all_=all_)
        if not apply_:
            then = "Their references would stay at the source for good."
            _would("waived", ledger.overview.letter_classes(**selection._asdict()), then, json_=json_)
            return
        chosen = ledger.control.waive(selection, by=by, why=why)
    _say(chosen, "waived", json_=json_)


@dead_letters.command()
@click.option("--all", "all_", is_flag=True, help="All whose bytes are not those of their Content-MD5.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, they are only counted.")
@click.option("--why", required=True, help="How you know that the stored Content-MD5 is wrong, and not the bytes.")
@by_whom
@as_json
@honest
@_selecting
def accept(
    choice: _Choice,
    all_: bool,  # noqa: FBT001 - click's form
    apply_: bool,  # noqa: FBT001 - as above
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Have files of class digest_mismatch copied as they are: their stored Content-MD5 is wrong."""
    if choice.outcome not in (None, Outcome.DIGEST_MISMATCH):
        raise Fatal(
            f"nothing is to be accepted of {choice.outcome}.",
            setting="--class",
            remedy="Only digest_mismatch is about a blob's stored Content-MD5.",
        )
    with closing(planned_ledger()) as ledger:
        selection = _selection(ledger, choice, all_=all_)._replace(outcome=Outcome.DIGEST_MISMATCH)
        if not apply_:
            then = "They would be copied as they are, proven from our read to S3."
            _would("accepted", ledger.overview.letter_classes(**selection._asdict()), then, json_=json_)
            return
        chosen = ledger.control.accept(selection, by=by, why=why)
    _say(chosen, "accepted", json_=json_)


@dead_letters.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False, writable=True))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@honest
@_selecting
def export(path: Path, choice: _Choice, force: bool) -> None:  # noqa: FBT001 - click's form
    """Write them to a CSV file at PATH."""
    written = 0
    with closing(planned_ledger()) as ledger:
        _known(ledger, choice.range_key)
        with _new(path, force=force) as out:
            writer = csv.writer(out)
            writer.writerow(_COLUMNS)
            for letter in _every(ledger, choice):
                writer.writerow(_cells(letter))
                written += 1
    click.echo(f"{count(written, 'dead letter')} written to {path}.")


def _every(ledger: Any, choice: _Choice) -> Iterator[Any]:  # noqa: ANN401 - adapters.ledger.postgres_ledger, imported late
    """Dead letters however many there are, a page at a time."""
    last = None
    while page := ledger.overview.dead_letters(**choice._asdict(), limit=_PAGE, after=last):
        yield from page
        last = page[-1]


def _new(path: Path, *, force: bool) -> TextIO:
    """A file to write, where there is none or it may be replaced."""
    try:
        return path.open("w" if force else "x", newline="", encoding="utf-8")
    except FileExistsError:
        raise Fatal(f"{path} is there.", setting="PATH", remedy="Name another, or give --force.") from None
    except OSError as error:
        raise Fatal(f"{path}: {error.strerror}.", setting="PATH", remedy="Name another.") from None


def _cells(letter: Any) -> Iterator[object]:  # noqa: ANN401 - as above
    ended = letter.ended_at.astimezone(UTC).isoformat() if letter.ended_at else ""
    waiver = (letter.waived.by, letter.waived.why) if letter.waived else ("", "")
    of_file = letter.outcome, str(letter.file), letter.profile_id, letter.range_key, letter.attempts, ended
    return map(_inert, (*of_file, letter.message, *waiver))


def _inert(cell: object) -> object:
    """Names come from users, and spreadsheets run what begins like a formula."""
    return inert(cell) if isinstance(cell, str) else cell


def _selection(ledger: Any, choice: _Choice, *, all_: bool) -> Any:  # noqa: ANN401 - adapters.ledger.control.Selection
    from migration_pipeline.adapters.ledger.control import Selection  # noqa: PLC0415 - commands load what they need

    if not all_ and choice == (None, None, None):
        raise Fatal("names no dead letter.", setting="--class, --range, --file", remedy="Give one, or --all.")
    _known(ledger, choice.range_key)
    return Selection(*choice)


def _known(ledger: Any, range_key: str | None) -> None:  # noqa: ANN401 - as above
    """Refuse a range that is not planned: nothing found there would read like nothing left to do."""
    if range_key is not None and all(planned.key != range_key for planned in ledger.ranges()):
        raise Fatal(
            f"there is no range {short(range_key)}.",
            setting="--range",
            remedy="`migration-pipeline status --json` lists those with something left.",
        )


def _would(done: str, classes: Sequence[Any], then: str, *, json_: bool) -> None:
    waiting = {item.outcome: item.waiting for item in classes if item.waiting}
    files = sum(waiting.values())
    if json_:
        print_json({"applied": False, "files": files, "classes": waiting})
    elif files:
        print_table(["class", f"would be {done}"], [[name, str(number)] for name, number in waiting.items()])
        click.echo(f"{then} Nothing was changed: add --apply.")
    else:
        click.echo("No dead letters match.")
    if not files:
        sys.exit(LEFT)


def _say(chosen: Any, done: str, *, json_: bool) -> None:  # noqa: ANN401 - adapters.ledger.control.Chosen
    if json_:
        print_json({"files": chosen.files, "ranges": chosen.ranges})
    elif chosen.files:
        letters, ranges = count(chosen.files, "dead letter"), count(len(chosen.ranges), "range")
        click.echo(f"{letters} {done}, needed by profiles of {ranges}.")
        click.echo("The sensor requested_ranges runs these. Without a daemon: " + _migrate(chosen.ranges))
    else:
        click.echo("No dead letters match.")
    if not chosen.files:
        sys.exit(LEFT)


def _migrate(ranges: Sequence[str]) -> str:
    return "migration-pipeline migrate" + (f" {' '.join(ranges)}" if len(ranges) <= 5 else "")  # noqa: PLR2004 - a line


def _file(name: str) -> SourceFile:
    container, slash, blob = name.partition("/")
    if not slash:
        raise Fatal(f"{short(name)} is not CONTAINER/BLOB.", setting="FILE", remedy="As `dead-letters list` shows it.")
    return SourceFile(container, blob)


def _state(letter: Any) -> str:  # noqa: ANN401 - adapters.ledger.overview.DeadLetter, imported late
    if letter.waived:
        return f"waived by {letter.waived.by}"
    return f"accepted by {letter.accepted.by}" if letter.accepted else ""


def _as_json(letter: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    return {
        **letter._asdict(),
        "file": str(letter.file),
        "remedy": WAIVED if letter.waived else REMEDIES[letter.outcome],
        "waived": letter.waived._asdict() if letter.waived else None,
        "accepted": letter.accepted._asdict() if letter.accepted else None,
    }
