"""The whole migration at a glance, from the ledger: how far, how fast, what failed, what next."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from migration_pipeline.adapters.ledger.overview import RangeState
from migration_pipeline.adapters.ledger.status import Status, summed
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import VERIFY
from migration_pipeline.defs.resources import Migration
from migration_pipeline.report import plots
from migration_pipeline.report.course import course, over_time
from migration_pipeline.report.writing import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger


_CHECK = "every_profile_is_migrated"


class ReportConfig(dg.Config):
    """What is written beside the metadata."""

    folder: str = Field(
        default="", description="Where to write the page and the Parquet files, on the machine that runs this."
    )


@dg.asset(
    group_name=VERIFY,
    deps=["migrated_profiles"],
    kinds={"pandas", "matplotlib"},
    owners=pages.OWNERS,
    tags={"stage": "report"},
    description=(
        "How far the migration is: profiles, files and bytes over all ranges, and plots of progress, rate, outcomes "
        "and sizes, on one page behind [Show Markdown]. Materialize it whenever you like: it reads the ledger alone. "
        "With a folder in its config, it writes the report at the end there: one HTML page and Parquet files. The "
        "sensor fresh_pages runs it once an hour while something changes, and when all has ended."
    ),
    check_specs=[
        dg.AssetCheckSpec(_CHECK, asset="migration_report", description="Is every profile migrated that is planned?")
    ],
)
def migration_report(
    config: ReportConfig, migration: Migration
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Sum up the ledger."""
    with migration.ledger() as ledger:
        metadata, state = report(ledger), summed(ledger.overview.states())
    if config.folder:
        metadata |= _written(migration.write_report(Path(config.folder)))
    yield dg.MaterializeResult(metadata=metadata)
    yield dg.AssetCheckResult(
        check_name=_CHECK,
        passed=state.complete,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"profiles_waiting": state.waiting, "ranges_not_done": len(state.left)},
    )


def _written(kept: Report) -> pages.Metadata:
    rows = [[item.name, item.what, f"{item.rows:,}", item.sha256] for item in kept.files]
    return {
        "verdict": kept.verdict.said,
        "page": dg.MetadataValue.path(str(kept.page)),
        "folder": dg.MetadataValue.path(str(kept.folder)),
        **pages.table("files", ["file", "holds", "rows", "SHA-256"], rows),
    }


def report(ledger: "PostgresLedger") -> pages.Metadata:
    """Pictures and tables on one page, then numbers, which plot over materializations."""
    states = ledger.overview.states()
    page = [*_pictures(ledger), as_markdown(outcomes_table(ledger)), *_left(states)]
    return {"report": dg.MetadataValue.md("\n\n".join(page)), **_numbers(ledger, summed(states), states)}


def _numbers(ledger: "PostgresLedger", total: Status, states: "Sequence[RangeState]") -> pages.Metadata:
    letters = ledger.overview.letter_classes()
    seconds = total.seconds["transfer"]
    # Files of the newest runs, as the seconds are; `total.copied` has those of all runs.
    copied = sum(int((state.report or {}).get("copied", 0)) for state in states)
    return {
        "ranges": total.ranges,
        "ranges_done": total.done,
        "ranges_at_work": total.working,
        "ranges_with_profiles_left": total.incomplete,
        "profiles_migrated": total.migrated,
        "profiles_with_nothing_to_move": total.nothing_to_move,
        "profiles_waiting": total.waiting,
        "files_copied": total.copied,
        "megabytes": round(total.bytes / 1e6, 1),
        "files_per_second_of_a_worker": round(copied / seconds, 1) if seconds else 0.0,
        "cpu_seconds_of_the_newest_runs": round(sum(total.cpu_seconds.values()), 1),
        "dead_letters_waiting": sum(item.waiting for item in letters),
        "dead_letters_waived": sum(item.waived for item in letters),
    }


def _pictures(ledger: "PostgresLedger") -> list[str]:
    happened = course(ledger.overview)
    rows = over_time(happened.rows, happened.seconds)
    return [
        plots.as_image(plots.progress(rows), "Files and megabytes in S3 over time"),
        plots.as_image(plots.rate(rows), "Files a second over time"),
        plots.as_image(plots.sizes(ledger.tallies.sizes()), "Files by size"),
        plots.as_image(plots.outcomes([(name, n) for name, n, *_ in ledger.tallies.outcomes()]), "Files by outcome"),
    ]


def _left(states: "Sequence[RangeState]") -> list[str]:
    """Ranges with profiles that wait for somebody, those with most first."""

    def why(state: RangeState) -> str:
        reasons = sorted((state.report or {}).get("waiting_for", {}).items(), key=lambda item: -item[1])
        return ", ".join(f"{count:,} {reason}" for reason, count in reasons)

    waiting = [(int((state.report or {}).get("waiting", 0)), state) for state in states]
    left = sorted(((count, state) for count, state in waiting if count), key=lambda item: -item[0])
    rows = [[state.key, str(count), why(state)] for count, state in left]
    return ["**Ranges with profiles left**", pages.capped(["range", "profiles waiting", "why"], rows)] if rows else []


def outcomes_table(ledger: "PostgresLedger") -> "pd.DataFrame":
    """Files by outcome."""
    import pandas as pd  # noqa: PLC0415 - as above

    table = pd.DataFrame(ledger.tallies.outcomes(), columns=["outcome", "files", "bytes", "tries"])
    table["megabytes"] = (table.pop("bytes").astype(float) / 1e6).round(1)
    table["tries"] = table["tries"].astype(float).round(2)
    return table[["outcome", "files", "megabytes", "tries"]]


def as_markdown(table: "pd.DataFrame") -> str:
    """A Markdown table."""
    head = [str(column) for column in table.columns]
    rows = [
        [f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row]
        for row in table.itertuples(index=False)
    ]
    return pages.markdown(head, rows)
