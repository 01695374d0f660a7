"""The command that removes blobs from the source."""

import sys
from typing import Any

import click

from migration_pipeline.cli.control import by
from migration_pipeline.cli.show import LEFT, as_json, honest, print_json, print_table, short, visible
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal

_SHOWN = 50


@click.command()
@click.argument("ranges", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every planned range.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, nothing is written.")
@click.option("--why", default="", help="For the record.")
@by
@as_json
@honest
def decommission(ranges: tuple[str, ...], all_: bool, apply_: bool, why: str, by: str, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Remove blobs of the named RANGES, or of --all, from the source: those that are proven to be in S3."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.commands.migrate import choose  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    if not ranges and not all_:
        raise Fatal("names no range.", setting="RANGES", remedy="Name ranges, or give --all.")
    settings = load()
    keys = choose(settings, ranges, also_done=True).keys

    def say(text: str) -> None:
        if not json_:
            click.echo(text)

    done = upkeep.remove_from_source(settings, keys, apply=apply_, who=by, why=why, say=say)
    if json_:
        print_json(done.as_json())
    else:
        _show(done)
    if apply_ and not done.complete:
        sys.exit(LEFT)


def _show(done: Any) -> None:  # noqa: ANN401 - core.removal_report.Decommissioned, imported late
    past = "archived" if done.how == "archive" else "deleted"
    if done.left:
        rows = [[key, why] for key, why in list(done.left.items())[:_SHOWN]]
        print_table(["range passed over", "why"], rows)
    if done.reasons:
        stays = [
            [stay, str(count), short(done.examples[stay][0][0]), visible(done.examples[stay][0][1])]
            for stay, count in done.reasons.most_common()
        ]
        print_table(["stays", "blobs", "for example", ""], stays)
    if done.closed or done.withdrawn:
        click.echo(f"Of an earlier run that was cut off: {done.closed} were {past}, {done.withdrawn} were not.")
    if done.capped:
        click.echo("decommission.max_delete is reached: the next run goes on.")
    amount = f"{count(done.files, 'blob')}, {done.bytes / 1e6:,.1f} MB"
    if done.applied:
        click.echo(f"{amount} {past}; the ledger keeps the record.")
        return
    for refusal in done.refusals:
        click.secho(f"Not now: {refusal}", fg="yellow")
    click.echo(f"{amount} would be {past}. Nothing was written: add --apply.")
