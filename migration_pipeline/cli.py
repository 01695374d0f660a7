"""The command line: reads arguments, calls what does the work, prints what came of it.

Exit codes: 0 for success only; 1 where something is left or unwell; 2 where settings, arguments or a whole store are
refused and nothing was done.
"""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, ParamSpec

import click

from migration_pipeline.core.errors import Fatal, MigrationError
from migration_pipeline.core.model import REMEDIES, Outcome

P = ParamSpec("P")
LEFT, REFUSED = 1, 2

_as_json = click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")


def _honest(command: Callable[P, None]) -> Callable[P, None]:
    """Turn our errors into one clear message and the right exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Fatal as error:
            _say_refusal(error)
            sys.exit(REFUSED)
        except MigrationError as error:
            click.secho(f"{error}", fg="red", err=True)
            sys.exit(LEFT)

    return run


def _say_refusal(error: Fatal) -> None:
    click.secho(f"{error.setting}: {error.message}", fg="red", bold=True, err=True)
    if error.remedy:
        click.echo(error.remedy, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="migration-pipeline")
def main() -> None:
    """Move an app's user files from Azure Blob Storage to AWS S3, and every reference to them.

    Settings come from migration.toml (or MIGRATION_CONFIG) and the environment. `migration-pipeline doctor` says
    whether they are right.
    """
    # A SIGTERM leaves by the same door as Ctrl-C, and what a command started is ended.
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the form of signal handlers
    raise KeyboardInterrupt


@main.command()
@click.option("--profiles", default=200, show_default=True, help="Profiles of the demo's app.")
@click.option("--workers", default=2, show_default=True, help="Runs at the same time.")
@click.option("--keep", is_flag=True, help="Leave servers and Dagster UI running until Ctrl-C.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the sandbox's files here.")
@_honest
def demo(profiles: int, workers: int, keep: bool, folder: Path | None) -> None:  # noqa: FBT001 - click's form
    """Migrate a made-up app on real servers of this machine, and prove the result."""
    from migration_pipeline.commands.demo import run_demo  # noqa: PLC0415 - commands load what they need

    if not run_demo(profiles=profiles, workers=workers, keep=keep, folder=folder, say=click.echo):
        sys.exit(LEFT)


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the sandbox's files here.")
@click.option("--profiles", default=0, show_default=True, help="Fill it with an app of so many profiles.")
@_honest
def sandbox(folder: Path | None, profiles: int) -> None:
    """Run Postgres, Azurite, SeaweedFS and Firebase on this machine until Ctrl-C, and print what to export."""
    from migration_pipeline.commands.demo import run_sandbox  # noqa: PLC0415 - as above

    run_sandbox(folder=folder, profiles=profiles, say=click.echo)


@main.command()
@_as_json
@_honest
def doctor(json_: bool) -> None:  # noqa: FBT001 - click's form
    """Look at every setting and store; write a probe object to the target and remove it again."""
    from migration_pipeline.commands.doctor import Health, examine  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    findings = list(examine(load()))
    if json_:
        _print_json([finding._asdict() for finding in findings])
    else:
        _print_table(["", "what", "found", "remedy"], [[f.health, f.what, f.said, f.remedy] for f in findings])
    if any(finding.health is Health.FAILURE for finding in findings):
        sys.exit(REFUSED)


@main.command()
@click.option("--apply", "apply_", is_flag=True, help="Keep the plan: ranges in the ledger, partitions in Dagster.")
@_as_json
@_honest
def plan(apply_: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show the ranges that profiles without one are cut into; with --apply, keep them."""
    from migration_pipeline import planning  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    planned = planning.plan(settings)
    if apply_:
        from migration_pipeline.commands.dagster_instance import instance  # noqa: PLC0415 - as above
        from migration_pipeline.defs.ranges import register  # noqa: PLC0415 - as above

        with instance() as opened:
            planning.keep(planned, settings)
            register(opened, planned.keys)
    if json_:
        _print_json({
            "ranges": len(planned.ranges), "new": [item.key for item in planned.new], "profiles": planned.profiles,
            "profiles_per_range": planned.profiles_a_range, "applied": apply_,
        })  # fmt: skip
        return
    click.echo(f"{planned.profiles} profiles in {len(planned.ranges)} ranges of about {planned.profiles_a_range}.")
    click.echo(f"By a sample, a profile holds {planned.references:.1f} references to the source.")
    if planned.new:
        click.echo(f"New ranges: {len(planned.new)}, from {planned.new[0].key} to {planned.new[-1].key}.")
    if planned.new and not apply_:
        click.echo("Nothing was kept. `migration-pipeline plan --apply` keeps these ranges.")


@main.command()
@click.argument("ranges", nargs=-1)
@click.option("--all", "also_done", is_flag=True, help="Go over ranges that are done, too.")
@_as_json
@_honest
def migrate(ranges: tuple[str, ...], also_done: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Migrate the named RANGES, or all with something left, through Dagster, and wait for the end."""
    from migration_pipeline.commands import migrate as migrating  # noqa: PLC0415 - as above
    from migration_pipeline.commands.doctor import Health, examine  # noqa: PLC0415 - as above
    from migration_pipeline.commands.watch import watch  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    failures = [finding for finding in examine(settings) if finding.health is Health.FAILURE]
    if failures:
        for finding in failures:
            _say_refusal(Fatal(finding.said, setting=finding.what, remedy=finding.remedy))
        sys.exit(REFUSED)
    chosen = migrating.choose(settings, ranges, also_done=also_done)
    tell = _tell(json_=json_)
    if not chosen.keys:
        tell(f"nothing is left: all {chosen.planned} ranges are done.")
        return
    # Closed here and now, also by Ctrl-C: it cancels what nobody else would go on with.
    with closing(migrating.migrate(settings, chosen.keys, tell)) as states:
        last = watch(states, terminal=sys.stderr.isatty(), tell=tell)
    if json_:
        _print_json(last.status.as_json() | {"copied_now": last.copied_now})
    else:
        _print_status(last.status)
    if not last.status.complete:
        sys.exit(LEFT)


@main.command()
@_as_json
@_honest
def status(json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show how far the migration is."""
    from migration_pipeline.commands import status as reading  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above
    from migration_pipeline.stores import open_ledger  # noqa: PLC0415 - as above

    with closing(open_ledger(load())) as ledger:
        state = reading.status(ledger)
    _print_json(state.as_json()) if json_ else _print_status(state)


@main.group("dead-letters")
def dead_letters() -> None:
    """Files that could not be copied and wait for somebody."""


@dead_letters.command("list")
@click.option("--class", "outcome", type=click.Choice([o.value for o in Outcome if not o.verified]), help="Only these.")
@click.option("--limit", default=100, show_default=True, help="Rows at most.")
@_as_json
@_honest
def list_dead_letters(outcome: str | None, limit: int, json_: bool) -> None:  # noqa: FBT001 - click's form
    """List them, with what to do about each class."""
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above
    from migration_pipeline.stores import open_ledger  # noqa: PLC0415 - as above

    with closing(open_ledger(load())) as ledger:
        letters = ledger.dead_letters(outcome=Outcome(outcome) if outcome else None, limit=limit)
    if json_:
        _print_json([item._asdict() | {"file": str(item.file)} for item in letters])
        return
    rows = [[i.outcome, _short(str(i.file)), i.profile_id, i.range_key, str(i.attempts), i.message] for i in letters]
    _print_table(["class", "file", "profile", "range", "tries", "message"], rows)
    for name in sorted({item.outcome for item in letters}):
        click.echo(f"{name}: {REMEDIES[name]}")


def _print_status(state: Any) -> None:  # noqa: ANN401 - commands.status.Status, imported late
    rows = [
        [
            "ranges",
            f"{state.done} of {state.ranges} done, {state.incomplete} with profiles left, {state.working} working",
        ],
        [
            "profiles",
            f"{state.migrated} migrated, {state.nothing_to_move} with nothing to move, {state.waiting} waiting",
        ],
        ["files", f"{state.copied} copied, {state.bytes / 1e6:,.1f} MB"],
        *([f"waiting for {reason}", f"{n} profiles"] for reason, n in state.waiting_for.most_common()),
    ]
    _print_table(["", ""], rows)


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(*head, box=None, show_header=any(head), pad_edge=False)
    colours = {"ok": "green", "warning": "yellow", "failure": "bold red"}
    for row in rows:
        # As plain text: names come from users, and rich would read square brackets as markup.
        table.add_row(*(Text(cell, style=colours.get(cell, "")) for cell in row))
    console = Console()
    # In a pipe there is no window to fit into: cells would be cut for nothing.
    console.print(table, width=None if console.is_terminal else 240)


def _tell(*, json_: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=json_)


def _short(name: str, most: int = 60) -> str:
    visible = name if name.isprintable() else name.encode("unicode_escape").decode()
    return visible if len(visible) <= most else visible[: most // 2] + "…" + visible[-most // 2 :]


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
