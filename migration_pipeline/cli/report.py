"""The command that writes the report at the end."""

from pathlib import Path

import click

from migration_pipeline.cli.show import as_json, honest, print_json, print_table


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("migration-report"),
    show_default=True,
    help="Folder for the page and the Parquet files; made where it is not there.",
)
@as_json
@honest
def report(folder: Path, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Write what became of the migration: one HTML page that stands by itself, and the ledger as Parquet files."""
    from migration_pipeline.report.writing import write  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    written = write(load(), folder)
    if json_:
        print_json(written.as_json())
        return
    click.secho(written.verdict.said, fg="green" if written.verdict.done else "yellow")
    rows = [[kept.name, kept.what, f"{kept.rows:,}" if kept.rows else "", f"{kept.bytes:,}"] for kept in written.files]
    print_table(["file", "holds", "rows", "bytes"], rows)
    click.echo(f"In {written.folder}; open {written.page.name} in any browser.")
