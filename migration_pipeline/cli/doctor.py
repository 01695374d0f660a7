"""The command that looks at settings, stores and rights, and at the way that uploads will take."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from migration_pipeline.cli.control import by
from migration_pipeline.cli.show import REFUSED, as_json, honest, print_json, print_table, visible

_PIPED = 100  # columns in a pipe or a file, where somebody reads it later; no cell holds a command to copy


@click.command()
@click.option("--write-path", is_flag=True, help="Look at uploads to the target instead, as a browser makes them.")
@click.option("--origin", "origins", multiple=True, help="With --write-path: a page's origin; else uploads.origins.")
@click.option("--fix", is_flag=True, help="With --write-path: show the rules that the bucket lacks.")
@click.option("--apply", "apply_", is_flag=True, help="With --fix: write them, too.")
@by
@as_json
@honest
def doctor(
    write_path: bool,  # noqa: FBT001 - click's form
    origins: tuple[str, ...],
    fix: bool,  # noqa: FBT001 - as above
    apply_: bool,  # noqa: FBT001 - as above
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Look at every setting and store; write probe objects to the target and remove them again."""
    if not write_path and (origins or fix):
        raise click.UsageError("--origin and --fix go with --write-path.")
    if apply_ and not fix:
        raise click.UsageError("--apply goes with --fix.")
    if write_path:
        _look_at_write_path([origin.rstrip("/") for origin in origins], fix=fix, apply=apply_, by=by, json_=json_)
        return
    from migration_pipeline.commands.doctor import Health, examine  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    findings = list(examine(load()))
    if json_:
        print_json([finding._asdict() for finding in findings])
    else:
        _show(findings)
    if any(finding.health is Health.FAILURE for finding in findings):
        sys.exit(REFUSED)


def _look_at_write_path(origins: Sequence[str], *, fix: bool, apply: bool, by: str, json_: bool) -> None:
    from migration_pipeline.commands.doctor import mending  # noqa: PLC0415 - as above
    from migration_pipeline.commands.doctor.write_path import examine_write_path  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    examined = examine_write_path(settings, origins)
    changes = examined.changes if fix else ()
    if apply and changes:
        if not json_:
            _show_changes(changes)
        mending.apply(settings, changes, by)
        examined = examine_write_path(settings, origins)
    if json_:
        findings = [finding._asdict() for finding in examined.findings]
        told = {"findings": findings, "changes": [change.as_json() for change in changes], "applied": apply}
        print_json(told if fix else findings)
    else:
        _show(examined.findings)
        if fix and not apply:
            _show_changes(changes)
            click.echo("Nothing was written: --apply does.")
    if examined.failed:
        sys.exit(REFUSED)


def _show(findings: Sequence[Any]) -> None:
    """The table, and remedies below it: they hold commands to copy, which a table would break."""
    print_table(["", "what", "found"], [[f.health, f.what, f.said] for f in findings], piped=_PIPED)
    for finding in findings:
        if finding.remedy:
            click.echo(f"\n{finding.what}: {visible(finding.said)}\n  {visible(finding.remedy)}")


def _show_changes(changes: Sequence[Any]) -> None:
    click.echo("" if changes else "\nThere is nothing that --fix could mend.")
    for change in changes:
        click.echo("\n".join(visible(line) for line in change.diff().splitlines()))
    click.echo()
