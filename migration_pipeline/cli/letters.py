"""The commands for dead letters: files that could not be copied and wait for somebody."""

import csv
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from migration_pipeline.cli.control import by as by_whom
from migration_pipeline.cli.show import LEFT, as_json, honest, moment, planned_ledger, print_json, print_table, short
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import REMEDIES, Outcome, SourceFile

_CLASSES = [outcome.value for outcome in Outcome if not outcome.verified]
_EXPORTED = 1_000_000
_COLUMNS = ["class", "file", "profile", "range", "tries", "last_tried_at", "message", "waived_by", "waived_why"]


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose dead letters."""
    for option in (
        click.option("--file", "file", metavar="CONTAINER/BLOB", help="Only this file."),
        click.option("--range", "range_key", help="Only those that profiles of this range need."),
        click.option("--class", "outcome", type=click.Choice(_CLASSES), help="Only this class."),
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """Files that could not be copied and wait for somebody."""


@dead_letters.command("list")
@_selecting
@click.option("--waived/--waiting", default=None, help="Only those that somebody waived, or only the others.")
@click.option("--limit", default=100, show_default=True, help="Rows at most.")
@as_json
@honest
def list_(
    outcome: str | None,
    range_key: str | None,
    file: str | None,
    waived: bool | None,  # noqa: FBT001 - click's form
    limit: int,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Count them by class with what to do about each, and list them."""
    with closing(planned_ledger()) as ledger:
        classes = ledger.overview.letter_classes()
        letters = ledger.overview.dead_letters(
            outcome=Outcome(outcome) if outcome else None,
            range_key=range_key,
            file=_file(file),
            waived=waived,
            limit=limit,
        )
    if json_:
        print_json([_as_json(item) for item in letters])
        return
    counts = [[i.outcome, str(i.waiting), str(i.waived), REMEDIES[i.outcome]] for i in classes]
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
        ["what to do", REMEDIES[first.outcome]],
    ]
    if first.waived:
        rows.append(["waived", f"by {first.waived.by} at {moment(first.waived.at)}: {first.waived.why}"])
    print_table(["", ""], rows)


@dead_letters.command()
@_selecting
@click.option("--all", "all_", is_flag=True, help="All of them.")
@click.option("--why", default="", help="What was mended, for the record.")
@by_whom
@as_json
@honest
def retry(
    outcome: str | None,
    range_key: str | None,
    file: str | None,
    all_: bool,  # noqa: FBT001 - click's form
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Have them tried again, and no other: the next run of their ranges copies these, and finishes their profiles."""
    _act("retry", outcome, range_key, file, all_=all_, why=why, by=by, json_=json_)


@dead_letters.command()
@_selecting
@click.option("--all", "all_", is_flag=True, help="All of them.")
@click.option("--why", required=True, help="Why nobody needs these files any more.")
@by_whom
@as_json
@honest
def waive(
    outcome: str | None,
    range_key: str | None,
    file: str | None,
    all_: bool,  # noqa: FBT001 - click's form
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Let their profiles finish without them: the references stay as they are, at the source."""
    _act("waive", outcome, range_key, file, all_=all_, why=why, by=by, json_=json_)


@dead_letters.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False, writable=True))
@_selecting
@honest
def export(path: Path, outcome: str | None, range_key: str | None, file: str | None) -> None:
    """Write them to a CSV file at PATH."""
    with closing(planned_ledger()) as ledger:
        letters = ledger.overview.dead_letters(
            outcome=Outcome(outcome) if outcome else None, range_key=range_key, file=_file(file), limit=_EXPORTED
        )
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(_COLUMNS)
        for i in letters:
            waiver = (i.waived.by, i.waived.why) if i.waived else ("", "")
            writer.writerow(
                _inert(cell)
                for cell in (
                    i.outcome, str(i.file), i.profile_id, i.range_key, i.attempts, i.ended_at, i.message, *waiver,
                )
            )  # fmt: skip
    click.echo(f"{len(letters)} dead letters written to {path}.")


def _inert(cell: object) -> object:
    """Names come from users, and spreadsheets run what begins like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _act(  # noqa: PLR0913 - an act has these parts
    what: str,
    outcome: str | None,
    range_key: str | None,
    file: str | None,
    *,
    all_: bool,
    why: str,
    by: str,
    json_: bool,
) -> None:
    from migration_pipeline.adapters.ledger_control import Selection  # noqa: PLC0415 - commands load what they need

    if not all_ and not (outcome or range_key or file):
        raise Fatal("names no dead letter.", setting="--class, --range, --file", remedy="Give one, or --all.")
    selection = Selection(Outcome(outcome) if outcome else None, range_key, _file(file))
    with closing(planned_ledger()) as ledger:
        act = ledger.control.retry if what == "retry" else ledger.control.waive
        chosen = act(selection, by=by, why=why)
    if json_:
        print_json({"files": chosen.files, "ranges": chosen.ranges})
    elif chosen.files:
        done = "will be tried again" if what == "retry" else "waived"
        click.echo(f"{chosen.files} dead letters {done}, needed by profiles of {len(chosen.ranges)} ranges.")
        click.echo("The sensor requested_ranges runs these. Without a daemon: " + _migrate(chosen.ranges))
    else:
        click.echo("No dead letter is so.")
    if not chosen.files:
        sys.exit(LEFT)


def _migrate(ranges: Sequence[str]) -> str:
    return "migration-pipeline migrate" + (f" {' '.join(ranges)}" if len(ranges) <= 5 else "")  # noqa: PLR2004 - a line


def _file(name: str | None) -> SourceFile | None:
    if name is None:
        return None
    container, slash, blob = name.partition("/")
    if not slash:
        raise Fatal(f"{short(name)} is not CONTAINER/BLOB.", setting="FILE", remedy="As `dead-letters list` shows it.")
    return SourceFile(container, blob)


def _state(letter: Any) -> str:  # noqa: ANN401 - adapters.ledger_overview.DeadLetter, imported late
    return f"waived by {letter.waived.by}" if letter.waived else ""


def _as_json(letter: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    return {
        **letter._asdict(),
        "file": str(letter.file),
        "remedy": REMEDIES[letter.outcome],
        "waived": letter.waived._asdict() if letter.waived else None,
    }
