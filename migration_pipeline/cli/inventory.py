"""The command `inventory`: what the source holds, beside what the app refers to."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migration_pipeline.cli.show import LEFT, as_json, honest, moment, print_json, print_table, short
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal

if TYPE_CHECKING:
    from migration_pipeline.core.inventory import Found
    from migration_pipeline.core.transfer import Transferred

_SHOWN = 10
_LINE_EVERY = 10.0  # seconds, where there is no terminal to draw on
_WORDS = {
    "missing": "referred to, and not in the source",
    "archived": "referred to, and archived",
    "too_long": "referred to, and too long for a key",
    "orphan": "nobody refers to it",
}


@click.command()
@click.option(
    "--report",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read Azure's blob inventory report instead of listing: its manifest, or each of its files.",
)
@click.option("--made-at", help="When Azure began that report, as 2026-01-31T08:00:00Z, where nothing else says so.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help='Where inventory.orphans = "list" writes its file.',
)
@click.option("--apply", "apply_", is_flag=True, help='Copy the orphans, where inventory.orphans = "copy".')
@as_json
@honest
def inventory(report: tuple[Path, ...], made_at: str | None, folder: Path, apply_: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """List what the source holds, count what everybody refers to, and compare.

    Nothing is written but into the ledger; with inventory.orphans = "list" a file, with "copy" and --apply copies.
    """
    from migration_pipeline import inventory as taking  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings, copied, written = load(), None, None
    with _progress() as say:
        found = taking.take_stock(settings, say, report=report, made_at=_moment(made_at))
        if settings.inventory.orphans == "copy" and apply_:
            copied = taking.copy_orphans(settings, say)
    if settings.inventory.orphans == "list":
        written = taking.list_orphans(settings, folder)
    if json_:
        print_json(_plain(found, copied, written.path if written else None))
    else:
        _show(found)
        if written:
            click.echo(f"{count(written.orphans, 'orphan')} written to {written.path}.")
        if copied is not None:
            click.echo(f"{count(copied.copied, 'orphan')} copied, {copied.failed:,} failed.")
        elif settings.inventory.orphans == "copy" and found.orphans:
            click.echo(f"No orphan was copied: --apply copies them under {settings.inventory.orphan_prefix!r}.")
    if found.missing or found.archived_needed or found.too_long or (copied is not None and copied.failed):
        sys.exit(LEFT)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Fatal(f"{text!r} is no time.", setting="--made-at", remedy="Write 2026-01-31T08:00:00Z.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line that changes, on a terminal; in a log, a line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - commands load what they need

        with Console(stderr=True).status("beginning") as status:
            yield status.update
        return
    told = time.monotonic()

    def tell(text: str) -> None:
        nonlocal told
        if time.monotonic() - told >= _LINE_EVERY:
            click.echo(text, err=True)
            told = time.monotonic()

    yield tell


def _show(found: "Found") -> None:
    rows = [
        [item.container, item.tier or "none", item.size_class, f"{item.blobs:,}", f"{item.bytes / 1e6:,.1f}"]
        for item in found.held
    ]
    print_table(["container", "tier", "size", "blobs", "MB"], rows)
    print_table(
        ["", "blobs", "MB"],
        [
            ["in the source", f"{found.blobs:,}", f"{found.size / 1e6:,.1f}"],
            ["archived", f"{found.archived:,}", f"{found.archived_bytes / 1e6:,.1f}"],
            ["nobody refers to them", f"{found.orphans:,}", f"{found.orphan_bytes / 1e6:,.1f}"],
            ["too young to say so", f"{found.young:,}", ""],
            ["only deleted profiles refer to them", f"{found.only_deleted:,}", ""],
            ["files to move", f"{found.files:,}", f"{found.bytes / 1e6:,.1f}"],
            ["  not in the source", f"{found.missing:,}", ""],
            ["  archived", f"{found.archived_needed:,}", ""],
            ["  too long for a key", f"{found.too_long:,}", ""],
        ],
    )
    examples = [
        [_WORDS[what], short(str(item.file)), item.profile_id or ""]
        for what, items in found.examples.items()
        for item in items[:_SHOWN]
    ]
    if examples:
        print_table(["examples", "file", "profile"], examples)
    click.echo(f"Listed as of {moment(found.listed_at)}, counted from {moment(found.counted_at)} on.")


def _plain(found: "Found", copied: "Transferred | None", path: Path | None) -> dict[str, Any]:
    numbers = {name: value for name, value in found.plain().items() if isinstance(value, int | str)}
    return {
        **numbers,
        "blobs": found.blobs,
        "size": found.size,
        "held": [item._asdict() for item in found.held],
        "examples": {
            what: [{"file": str(item.file), "profile": item.profile_id} for item in items]
            for what, items in found.examples.items()
        },
        "orphans_file": None if path is None else str(path),
        "orphans_copied": None if copied is None else copied.copied,
        "orphans_failed": None if copied is None else copied.failed,
    }
