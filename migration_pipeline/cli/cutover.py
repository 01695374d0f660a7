"""The commands of the cut-over: how far it is, the next gate, and the way back."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from migration_pipeline.cli.control import by as by_whom
from migration_pipeline.cli.show import LEFT, as_json, honest, moment, print_json, print_table, visible
from migration_pipeline.core.alert_words import counted
from migration_pipeline.core.cutover import Hold, Phase, Written

_phase = click.argument("phase", type=click.Choice([phase.value for phase in Phase]))


@click.group()
def cutover() -> None:
    """From the first upload to S3 to the last blob of the source: phases, and the gates between them."""


@cutover.command()
@as_json
@honest
def show(json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show the phases, what holds the next gate, and what to do about it."""
    from migration_pipeline.cutover import stand  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    now = stand(load())
    if json_:
        print_json(now.as_json())
    else:
        rows = [
            ["▶" if phase is now.phase else "", phase, moment(at) if (at := now.facts.entered.get(phase)) else ""]
            for phase in Phase
        ]
        print_table(["", "phase", "entered"], rows)
        if now.facts.switched_at is not None:
            click.echo(f"\nUploads were switched at {moment(now.facts.switched_at)}.")
            click.echo(visible(_landed(now.uploads)))
        click.echo()
        _next(now.phase.next, now.holds)
    if now.holds:
        sys.exit(LEFT)


def _landed(written: Written) -> str:
    if written.newest_at is None:
        return "No blob was written to the source since, by its newest listing."
    names = ", ".join(written.examples)
    blobs = counted(written.blobs, "blob", "was", "were")
    return f"{blobs} written to the source since, the newest at {moment(written.newest_at)}: {names}"


def _next(following: Phase | None, holds: Sequence[Hold]) -> None:
    if following is None:
        click.echo("It is the last phase.")
    elif holds:
        print_table([f"{following} is held by", "what to do"], [list(hold) for hold in holds])
    else:
        click.echo(f"Nothing holds the next phase: migration-pipeline cutover enter {following}")


@cutover.command()
@_phase
@click.option("--at", type=click.DateTime(), help="For uploads_switched: when uploads were switched, in UTC; else now.")
@click.option("--why", default="", help="For the record.")
@by_whom
@honest
def enter(phase: str, at: datetime | None, why: str, by: str) -> None:
    """Enter PHASE, the next one, where nothing holds its gate."""
    from migration_pipeline import cutover as cutting_over  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    switched_at = at.replace(tzinfo=UTC) if at is not None else None
    cutting_over.enter(load(), Phase(phase), by=by, why=why, switched_at=switched_at)
    click.echo(f"The phase is {phase} now.")


@cutover.command()
@_phase
@click.option("--why", required=True, help="For everybody who wonders later.")
@by_whom
@honest
def back(phase: str, why: str, by: str) -> None:
    """Go back to PHASE, an earlier one: the gates after it have to be passed anew."""
    from migration_pipeline import cutover as cutting_over  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    cutting_over.go_back(load(), Phase(phase), by=by, why=why)
    click.echo(f"The phase is {phase} again.")
