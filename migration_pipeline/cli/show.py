"""What all commands share: exit codes, refusals in words, tables and JSON."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec

import click

from migration_pipeline.core import text as texts
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal, MigrationError

P = ParamSpec("P")
LEFT, REFUSED = 1, 2
visible, short = texts.visible, texts.shortened
"""No control character of a user's text reaches the terminal."""

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")


def honest(command: Callable[P, None]) -> Callable[P, None]:
    """Turn our errors into one clear message and the right exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Fatal as error:
            say_refusal(error)
            sys.exit(REFUSED)
        except MigrationError as error:
            click.secho(f"{error}", fg="red", err=True)
            sys.exit(LEFT)

    return run


def planned_ledger() -> Any:  # noqa: ANN401 - adapters.ledger.postgres_ledger.PostgresLedger, imported late
    """The ledger, to be closed.

    Raises:
        Fatal: nothing is planned yet.
    """
    from migration_pipeline.settings import load  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.stores import open_ledger  # noqa: PLC0415 - as above

    ledger = open_ledger(load())
    if not ledger.ranges():
        ledger.close()
        raise Fatal("no range is planned.", setting="plan", remedy="Run `migration-pipeline plan --apply` first.")
    return ledger


def say_refusal(error: Fatal) -> None:
    """Which setting, why, and what would be right."""
    click.secho(f"{error.setting}: {error.message}", fg="red", bold=True, err=True)
    if error.remedy:
        click.echo(error.remedy, err=True)


def print_status(state: Any) -> None:  # noqa: ANN401 - commands.status.Status, imported late
    """How far the migration is."""
    rows = [
        [
            "ranges",
            f"{state.done} of {state.ranges} done, {state.incomplete} with profiles left, {state.working} working"
            + (f", {state.rolled_back} rolled back" if state.rolled_back else ""),
        ],
        [
            "profiles",
            f"{state.migrated} migrated, {state.nothing_to_move} with nothing to move, {state.waiting} waiting",
        ],
        ["files", f"{state.copied} copied, {state.bytes / 1e6:,.1f} MB"],
        *([f"waiting for {reason}", count(n, "profile")] for reason, n in state.waiting_for.most_common()),
    ]
    print_table(["", ""], rows)


def print_table(head: list[str], rows: list[list[str]], *, piped: int = 240) -> None:
    """Columns of plain text, as wide as the terminal; in a pipe, which has no window to fit into, `piped` at most."""
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(*head, box=None, show_header=any(head), pad_edge=False)
    colours = {"ok": "green", "warning": "yellow", "failure": "bold red"}
    for row in rows:
        # As plain text: names come from users. rich would read square brackets as markup, a terminal obey escapes.
        table.add_row(*(Text(visible(cell), style=colours.get(cell, "")) for cell in row))
    console = Console()
    (console if console.is_terminal else Console(width=piped)).print(table)


def moment(at: datetime) -> str:
    """A time for people, to the second; in UTC, and saying so."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def print_json(value: object) -> None:
    """For scripts."""
    click.echo(json.dumps(value, indent=2, default=str))
