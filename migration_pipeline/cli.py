"""The command line: reads arguments, calls what does the work, prints what came of it.

Exit codes: 0 for success only; 1 where something is left or unwell; 2 where settings, arguments or a whole store are
refused and nothing was done; 3 where an audit found what a user would see.
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
_SHOWN = 50

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
    rows, documents = planned.writes(planned.sampled.rows), planned.writes(planned.sampled.documents)
    if json_:
        _print_json({
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


@main.command()
@click.option("--full", is_flag=True, help="All flagged profiles, and all copied files against the source.")
@_as_json
@_honest
def sweep(full: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Find what came late: clear flags that are not true any more, and ask for runs of those ranges."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    swept = upkeep.sweep(load(), full=full)
    if json_:
        _print_json({
            "profiles": swept.looked_at, "late": swept.late, "files": swept.files, "newer": swept.outdated,
            "ranges": sorted(swept.ranges), "busy": swept.busy,
        })  # fmt: skip
    else:
        click.echo(f"{swept.looked_at} flagged profiles looked at, {swept.late} hold a reference to the source again.")
        if full:
            click.echo(f"{swept.files} copied files compared, the source has newer bytes of {swept.outdated}.")
        if swept.busy:
            click.echo(f"{len(swept.busy)} ranges are being worked on; their files were passed over.")
        if swept.ranges:
            click.echo(f"To run again: migration-pipeline migrate {' '.join(sorted(swept.ranges))}")
    if swept.ranges or swept.busy:
        sys.exit(LEFT)


@main.command()
@click.option("--apply", "apply_", is_flag=True, help="Remove them; without it, they are only listed.")
@_as_json
@_honest
def erase(apply_: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Remove copies of ours from S3 that nobody refers to any more, in all versions."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    if not apply_:
        dropped = upkeep.to_erase(settings)
        if json_:
            _print_json([{"file": str(item.file), "profiles": list(item.profiles)} for item in dropped])
            return
        rows = [[_short(str(item.file)), ", ".join(map(str, item.profiles))] for item in dropped]
        _print_table(["file", "once needed by"], rows)
        click.echo(f"{len(dropped)} copies. Nothing was removed: `migration-pipeline erase --apply` does that.")
        return
    done = upkeep.erase_dropped(settings)
    if json_:
        _print_json({
            "files": done.files, "objects": done.objects, "spared": done.spared, "unproven": done.unproven,
            "busy": done.busy,
        })  # fmt: skip
    else:
        click.echo(f"{done.files} copies removed ({done.objects} objects or versions); the ledger keeps the record.")
        click.echo(f"{done.spared} spared: somebody refers to them after all.")
        for name in done.unproven:
            click.echo(f"left, for nobody can say whose it is: {_short(name)}")
    if done.unproven or done.busy:
        sys.exit(LEFT)


@main.command()
@click.argument("ranges", nargs=-1)
@click.option("--read", is_flag=True, help="Read every object and digest it; else S3's word is taken.")
@_as_json
@_honest
def audit(ranges: tuple[str, ...], read: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Look at every reference of the named RANGES, or of all, again; exit with the worst finding's severity."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - as above
    from migration_pipeline.commands.migrate import choose  # noqa: PLC0415 - as above
    from migration_pipeline.core.findings import Finding  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    found = [upkeep.audit(settings, key, read=read) for key in choose(settings, ranges, also_done=True).keys]
    totals = {finding: sum(item.findings[finding] for item in found) for finding in Finding}
    if json_:
        _print_json({
            "findings": totals,
            "examples": [
                {"range": item.key, "finding": finding, **example._asdict()}
                for item in found for finding, examples in item.examples.items() for example in examples
            ],
        })  # fmt: skip
    else:
        _print_table(["finding", "references"], [[name, str(count)] for name, count in totals.items() if count])
        rows = [
            [finding, "" if example.profile_id is None else str(example.profile_id), _short(example.shown), item.key]
            for item in found
            for finding, examples in item.examples.items()
            for example in examples
            if finding.severity
        ]
        if rows:
            worst_first = sorted(rows, key=lambda row: -Finding(row[0]).severity)
            _print_table(["finding", "profile", "reference", "range"], worst_first[:_SHOWN])
    sys.exit(max((item.severity for item in found), default=0))


@main.command()
@click.argument("ranges", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every planned range.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, nothing is written.")
@click.option("--without-queries", is_flag=True, help="Also URLs that had a query string, which is not kept.")
@_as_json
@_honest
def rollback(ranges: tuple[str, ...], all_: bool, apply_: bool, without_queries: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Point references of the named RANGES, or of --all, at the source again."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - as above
    from migration_pipeline.commands.migrate import choose  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    if not ranges and not all_:
        raise Fatal("names no range.", setting="RANGES", remedy="Name ranges, or give --all.")
    settings = load()
    keys = choose(settings, ranges, also_done=True).keys
    if not apply_:
        click.echo(f"References of {len(keys)} ranges would point at the source again, where it still has the file")
        click.echo("unchanged; flags would be cleared. Copies stay in S3. Nothing was written: add --apply.")
        return
    done = [upkeep.roll_back(settings, key, without_queries=without_queries) for key in keys]
    left = [(item.key, waiting) for item in done for waiting in item.left]
    if json_:
        _print_json({
            "ranges": len(done), "urls_in_database": sum(i.database.urls for i in done),
            "urls_in_firebase": sum(i.firebase.urls for i in done), "stayed_in_s3": sum(i.stayed for i in done),
            "left": [{"range": key, **w._asdict(), "file": str(w.file)} for key, w in left],
        })  # fmt: skip
    else:
        urls = sum(item.database.urls for item in done), sum(item.firebase.urls for item in done)
        click.echo(f"{urls[0]} URLs in the database and {urls[1]} in Firebase point at the source again.")
        click.echo(f"{sum(item.stayed for item in done)} references stay: the app uploaded those files to S3 itself.")
        if left:
            rows = [[str(w.profile_id), w.reason, _short(str(w.file)), key] for key, w in left[:_SHOWN]]
            _print_table(["profile", "why it is left", "file", "range"], rows)
    if left:
        sys.exit(LEFT)


def _print_status(state: Any) -> None:  # noqa: ANN401 - commands.status.Status, imported late
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
    (console if console.is_terminal else Console(width=240)).print(table)


def _tell(*, json_: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=json_)


def _short(name: str, most: int = 60) -> str:
    visible = name if name.isprintable() else name.encode("unicode_escape").decode()
    return visible if len(visible) <= most else visible[: most // 2] + "…" + visible[-most // 2 :]


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
