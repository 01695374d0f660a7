"""The command line: reads arguments, calls what does the work, prints what came of it.

Exit codes: 0 for success only; 1 where something is left or unwell; 2 where settings, arguments or a whole store are
refused and nothing was done; 3 where an audit found what a user would see.
"""

import signal
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from migration_pipeline.cli.alerts import alerts
from migration_pipeline.cli.archive import archive
from migration_pipeline.cli.control import acts, limits, operator, pause, resume, workers
from migration_pipeline.cli.cutover import cutover
from migration_pipeline.cli.decommission import decommission
from migration_pipeline.cli.doctor import doctor
from migration_pipeline.cli.inventory import inventory
from migration_pipeline.cli.letters import dead_letters
from migration_pipeline.cli.plan import plan
from migration_pipeline.cli.report import report
from migration_pipeline.cli.show import (
    LEFT,
    REFUSED,
    as_json,
    honest,
    print_json,
    print_status,
    say_refusal,
)
from migration_pipeline.cli.upkeep import audit, erase, rollback, sweep
from migration_pipeline.core.alert_words import count, counted
from migration_pipeline.core.errors import Fatal, SettingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="migration-pipeline")
def main() -> None:
    """Move an app's user files from Azure Blob Storage to AWS S3, and every reference to them.

    Settings come from migration.toml (or MIGRATION_CONFIG) and the environment. `migration-pipeline doctor` says
    whether they are right.
    """
    # A SIGTERM, or the end of the terminal, leaves by the same door as Ctrl-C, and what a command started is ended.
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, _leave)


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
@click.argument("ranges", nargs=-1)
@click.option("--all", "also_done", is_flag=True, help="Go over ranges that are done, too.")
@click.option("--first", type=click.IntRange(min=1), help="Only so many: the first with something left.")
@click.option("--sample", type=click.IntRange(min=1), help="Only so many, spread evenly over those left.")
@as_json
@honest
def migrate(
    ranges: tuple[str, ...],
    also_done: bool,  # noqa: FBT001 - click's form
    first: int | None,
    sample: int | None,
    json_: bool,  # noqa: FBT001 - click's form
) -> None:
    """Migrate the named RANGES, or all with something left, through Dagster, and wait for the end."""
    from migration_pipeline.commands import migrate as migrating  # noqa: PLC0415 - as above
    from migration_pipeline.commands.doctor import Health, examine  # noqa: PLC0415 - as above
    from migration_pipeline.commands.watch import watch  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above
    from migration_pipeline.stores import open_ledger  # noqa: PLC0415 - as above

    settings = load()
    failures = [finding for finding in examine(settings) if finding.health is Health.FAILURE]
    if failures:
        for finding in failures:
            say_refusal(Fatal(finding.said, setting=finding.what, remedy=finding.remedy))
        sys.exit(REFUSED)
    chosen = migrating.choose(settings, ranges, also_done=also_done, first=first, sample=sample)
    tell = _tell(json_=json_)
    with closing(open_ledger(settings)) as ledger:
        if ranges:
            for key in ledger.name_again(chosen.keys, by=operator()):
                tell(f"range {key} was rolled back: it is migrated again, for you named it")
        elif stay := ledger.rolled_back(chosen.keys):
            tell(f"{counted(len(stay), 'range', 'stays', 'stay')} rolled back: name a range to migrate it again")
            chosen = chosen._replace(keys=[key for key in chosen.keys if key not in stay])
    if not chosen.keys:
        tell(f"Nothing is left to migrate in {count(chosen.planned, 'range')}.")
        return
    # Closed here and now, also by Ctrl-C: it cancels what nobody else would go on with.
    with closing(migrating.migrate(settings, chosen.keys, tell, named=bool(ranges))) as states:
        last = watch(states, terminal=sys.stderr.isatty(), tell=tell)
    if json_:
        print_json(last.status.as_json() | {"copied_now": last.copied_now})
    else:
        print_status(last.status)
    if not last.status.complete:
        sys.exit(LEFT)


@main.command()
@click.option("--watch", "watch_", is_flag=True, help="Show it anew every two seconds, until all ended or Ctrl-C.")
@as_json
@honest
def status(watch_: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Show how far the migration is, how fast, what failed, whether it is paused, and what to do next."""
    from migration_pipeline.commands import status_screen  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above
    from migration_pipeline.standing import Shown, keep_metrics, look  # noqa: PLC0415 - as above

    if watch_ and json_:
        raise click.UsageError("--watch is for a terminal; ask for --json as often as you like.")
    settings, warned = load(), set[str]()

    def look_and_keep() -> Shown:
        shown = look(settings)
        try:
            keep_metrics(settings, shown)
        except SettingsError as error:
            # Whoever asks how it stands is told so, whatever becomes of the metrics; and of these once.
            if str(error) not in warned:
                click.secho(f"No metrics are kept. {error}", fg="yellow", err=True)
            warned.add(str(error))
        return shown

    if watch_:
        with suppress(KeyboardInterrupt):
            status_screen.watch(look_and_keep)
    elif json_:
        print_json(look_and_keep().as_json())
    else:
        status_screen.show(look_and_keep())


def _tell(*, json_: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=json_)


for _command in (
    doctor, alerts, pause, resume, limits, workers, acts, dead_letters, inventory, plan, cutover, sweep, erase, audit,
    rollback, decommission, report, archive,
):  # fmt: skip
    main.add_command(_command)
