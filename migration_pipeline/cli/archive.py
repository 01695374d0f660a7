"""The command that takes rows nobody needs any more out of the ledger."""

from pathlib import Path

import click

from migration_pipeline.cli.control import by
from migration_pipeline.cli.show import as_json, honest, print_json, print_table
from migration_pipeline.core.alert_words import count

_SHOWN = 20


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("migration-archive"),
    show_default=True,
    help="Folder for the Parquet files; made where it is not there.",
)
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, nothing is written.")
@click.option("--why", default="", help="For the record.")
@by
@as_json
@honest
def archive(folder: Path, apply_: bool, why: str, by: str, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Export the ledger's rows of finished ranges as Parquet files, and drop them."""
    from migration_pipeline.report.archive import archive as work  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    def say(text: str) -> None:
        if not json_:
            click.echo(text)

    done = work(load(), folder, apply=apply_, who=by, why=why, say=say)
    if json_:
        print_json(done.as_json())
        return
    if done.left:
        print_table(["range stays", "why"], [[key, text] for key, text in list(done.left.items())[:_SHOWN]])
        if len(done.left) > _SHOWN:
            click.echo(f"and {len(done.left) - _SHOWN:,} more.")
    if done.with_these:
        click.echo(f"{done.with_these:,} finished ranges stay with these: 256 neighbours are archived together.")
    if done.files:
        rows = [[kept.name, f"{kept.rows:,}", f"{kept.bytes:,}", kept.sha256] for kept in done.files]
        print_table(["file", "rows", "bytes", "SHA-256"], rows)
    amount = f"{count(done.rows, 'row')} of {count(done.ranges, 'range')}"
    if done.applied:
        click.echo(f"{amount} archived in {folder.absolute()}; {count(done.dropped, 'file')} left the ledger.")
    else:
        click.echo(f"{amount} would be archived and dropped. Nothing was written: add --apply.")
