"""The commands that runs at work obey: pause, resume, limits; and the record of what operators did."""

import getpass
import socket
from contextlib import closing
from typing import Any

import click

from migration_pipeline.cli.show import as_json, honest, moment, planned_ledger, print_json, print_table, visible
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal


def operator() -> str:
    """Who is at the keyboard, for the record."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


by = click.option("--by", default=operator, show_default="you", help="Who does it, for the record.")


@click.command()
@click.option("--why", required=True, help="For everybody who wonders why nothing moves.")
@by
@as_json
@honest
def pause(why: str, by: str, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Have all runs finish the files in flight, and wait. They keep their ranges, and nothing is lost."""
    with closing(planned_ledger()) as ledger:
        done, said = ledger.control.pause(by=by, why=why), ledger.control.said()
    if json_:
        print_json({"paused": True, "why": said.paused_why, "by": said.paused_by, "since": said.paused_at})
    elif done:
        click.echo("Paused: runs at work wait within five seconds. `migration-pipeline resume` has them go on.")
    else:
        since = f" since {moment(said.paused_at)}" if said.paused_at else ""
        click.echo(visible(f"It is paused already, by {said.paused_by}{since}: {said.paused_why}"))


@click.command()
@click.option("--why", default="", help="For the record.")
@by
@as_json
@honest
def resume(why: str, by: str, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Have all runs go on. The breaker counts failures anew."""
    with closing(planned_ledger()) as ledger:
        done = ledger.control.resume(by=by, why=why)
    if json_:
        print_json({"paused": False, "was_paused": done})
    else:
        click.echo("Runs go on within five seconds." if done else "It was not paused.")


@click.command()
@click.option("--in-flight", type=click.IntRange(1, 1024), help="Files at the same time in each run.")
@click.option("--requests-per-second", type=click.FloatRange(0), help="To each store, by all runs; 0 for no bound.")
@click.option("--bytes-per-second", type=click.FloatRange(0), help="From the source, by all runs; 0 for no bound.")
@click.option("--reset", is_flag=True, help="Take all back: what the settings say holds again.")
@click.option("--why", default="", help="For the record.")
@by
@as_json
@honest
def limits(
    in_flight: int | None,
    requests_per_second: float | None,
    bytes_per_second: float | None,
    reset: bool,  # noqa: FBT001 - click's form
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Show how hard runs copy, or have those at work copy harder or less hard from now on."""
    from migration_pipeline.core.control import Limits  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    given = Limits(in_flight, requests_per_second, bytes_per_second)
    if reset and given != Limits():
        raise Fatal("takes all limits back.", setting="--reset", remedy="Give it alone.")
    settings = load()
    with closing(planned_ledger()) as ledger:
        if reset or given != Limits():
            ledger.control.limit(given, by=by, why=why)
        said = ledger.control.said().limits
    copy = settings.copy_
    holds = said.over(Limits(copy.in_flight, copy.requests_per_second, copy.bytes_per_second))
    if json_:
        print_json(holds._asdict())
        return
    rows = [
        [
            name.replace("_", " "),
            f"{value:,g}" if value else "no bound",
            "an operator" if own is not None else "settings",
        ]
        for name, value, own in zip(Limits._fields, holds, said, strict=True)
    ]
    print_table(["limit", "", "said by"], rows)


@click.command()
@click.option("--limit", default=50, show_default=True, help="Acts at most.")
@as_json
@honest
def acts(limit: int, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show what operators, and the breaker, did: who, when, what and why."""
    with closing(planned_ledger()) as ledger:
        found = ledger.overview.acts(limit=limit)
    if json_:
        print_json([act._asdict() for act in found])
        return
    rows = [[moment(act.at), act.who, act.what, act.why, _details(dict(act.details))] for act in found]
    print_table(["when", "who", "what", "why", ""], rows)


def _details(details: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in details.items() if value not in (None, ""))


@click.command()
@click.argument("number", type=click.IntRange(1, 100))
@click.option("--why", default="", help="For the record.")
@by
@honest
def workers(number: int, why: str, by: str) -> None:
    """Have NUMBER ranges worked on at the same time, until control.workers is put in force by the next `migrate`."""
    from migration_pipeline.commands.dagster_instance import instance  # noqa: PLC0415 - as above
    from migration_pipeline.defs.ranges import set_workers  # noqa: PLC0415 - as above

    with closing(planned_ledger()) as ledger, instance() as opened:
        set_workers(opened, number)
        ledger.control.note("workers", by=by, why=why, details={"workers": number})
    click.echo(f"{count(number, 'range')} at the same time from now on. Where more are at work, they end first.")
