"""The command line: reads arguments, calls what does the work, prints what came of it.

Exit codes: 0 for success only; 1 where something is left or unwell; 2 where settings, arguments or a whole store are
refused and nothing was done; 3 where an audit found what a user would see.
"""

import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from migration_pipeline.cli_alerts import alerts
from migration_pipeline.cli_show import (
    LEFT,
    REFUSED,
    as_json,
    honest,
    print_json,
    print_status,
    print_table,
    say_refusal,
    short,
)
from migration_pipeline.cli_upkeep import audit, erase, rollback, sweep
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import REMEDIES, Outcome


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
@honest
def demo(profiles: int, workers: int, keep: bool, folder: Path | None) -> None:  # noqa: FBT001 - click's form
    """Migrate a made-up app on real servers of this machine, and prove the result."""
    from migration_pipeline.commands.demo import run_demo  # noqa: PLC0415 - commands load what they need

    if not run_demo(profiles=profiles, workers=workers, keep=keep, folder=folder, say=click.echo):
        sys.exit(LEFT)


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the sandbox's files here.")
@click.option("--profiles", default=0, show_default=True, help="Fill it with an app of so many profiles.")
@honest
def sandbox(folder: Path | None, profiles: int) -> None:
    """Run Postgres, Azurite, SeaweedFS and Firebase on this machine until Ctrl-C, and print what to export."""
    from migration_pipeline.commands.demo import run_sandbox  # noqa: PLC0415 - as above

    run_sandbox(folder=folder, profiles=profiles, say=click.echo)


@main.command()
@as_json
@honest
def doctor(json_: bool) -> None:  # noqa: FBT001 - click's form
    """Look at every setting and store; write a probe object to the target and remove it again."""
    from migration_pipeline.commands.doctor import Health, examine  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    findings = list(examine(load()))
    if json_:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(["", "what", "found", "remedy"], [[f.health, f.what, f.said, f.remedy] for f in findings])
    if any(finding.health is Health.FAILURE for finding in findings):
        sys.exit(REFUSED)


@main.command()
@click.option("--apply", "apply_", is_flag=True, help="Keep the plan: ranges in the ledger, partitions in Dagster.")
@as_json
@honest
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
    rows, documents = planned.writes(planned.sampled.rows), planned.writes(planned.sampled.documents)
    if json_:
        print_json({
            "ranges": len(planned.ranges), "new": [item.key for item in planned.new], "profiles": planned.profiles,
            "profiles_per_range": planned.profiles_a_range, "applied": apply_,
            "rows_to_write": rows, "documents_to_write": documents,
        })  # fmt: skip
        return
    click.echo(f"{planned.profiles} profiles in {len(planned.ranges)} ranges of about {planned.profiles_a_range}.")
    click.echo(f"By a sample, a profile holds {planned.sampled.per_profile:.1f} references to the source.")
    click.echo(f"To be written: some {rows} profiles in the database, each once more for its flag.")
    if documents:
        pace = settings.firebase.writes_per_second
        click.echo(
            f"Some {documents} documents in Firebase, each of which may run a function of the app: {pace:g} a second "
            f"(firebase.writes_per_second) take {documents / pace / 60:.0f} minutes."
        )
    if planned.new:
        click.echo(f"New ranges: {len(planned.new)}, from {planned.new[0].key} to {planned.new[-1].key}.")
    if planned.new and not apply_:
        click.echo("Nothing was kept. `migration-pipeline plan --apply` keeps these ranges.")


@main.command()
@click.argument("ranges", nargs=-1)
@click.option("--all", "also_done", is_flag=True, help="Go over ranges that are done, too.")
@as_json
@honest
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
            say_refusal(Fatal(finding.said, setting=finding.what, remedy=finding.remedy))
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
        print_json(last.status.as_json() | {"copied_now": last.copied_now})
    else:
        print_status(last.status)
    if not last.status.complete:
        sys.exit(LEFT)


@main.command()
@as_json
@honest
def status(json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show how far the migration is."""
    from migration_pipeline.commands import status as reading  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above
    from migration_pipeline.stores import open_ledger  # noqa: PLC0415 - as above

    with closing(open_ledger(load())) as ledger:
        state = reading.status(ledger)
    print_json(state.as_json()) if json_ else print_status(state)


@main.group("dead-letters")
def dead_letters() -> None:
    """Files that could not be copied and wait for somebody."""


@dead_letters.command("list")
@click.option("--class", "outcome", type=click.Choice([o.value for o in Outcome if not o.verified]), help="Only these.")
@click.option("--limit", default=100, show_default=True, help="Rows at most.")
@as_json
@honest
def list_dead_letters(outcome: str | None, limit: int, json_: bool) -> None:  # noqa: FBT001 - click's form
    """List them, with what to do about each class."""
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above
    from migration_pipeline.stores import open_ledger  # noqa: PLC0415 - as above

    with closing(open_ledger(load())) as ledger:
        letters = ledger.overview.dead_letters(outcome=Outcome(outcome) if outcome else None, limit=limit)
    if json_:
        print_json([item._asdict() | {"file": str(item.file)} for item in letters])
        return
    rows = [[i.outcome, short(str(i.file)), i.profile_id, i.range_key, str(i.attempts), i.message] for i in letters]
    print_table(["class", "file", "profile", "range", "tries", "message"], rows)
    for name in sorted({item.outcome for item in letters}):
        click.echo(f"{name}: {REMEDIES[name]}")


def _tell(*, json_: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=json_)


for _command in (alerts, sweep, erase, audit, rollback):
    main.add_command(_command)

if __name__ == "__main__":
    main()
