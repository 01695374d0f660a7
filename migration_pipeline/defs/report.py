"""The whole migration at a glance, from the ledger."""

from typing import TYPE_CHECKING

import dagster as dg

from migration_pipeline.core.model import REMEDIES
from migration_pipeline.defs import pages
from migration_pipeline.defs.ranges import GROUP
from migration_pipeline.defs.resources import Migration

if TYPE_CHECKING:
    import pandas as pd

    from migration_pipeline.adapters.postgres_ledger import PostgresLedger

_LETTERS = 1000


@dg.asset(
    group_name=GROUP,
    deps=["migrated_profiles"],
    kinds={"pandas"},
    tags={"stage": "report"},
    description="How far the migration is: files by outcome, profiles, bytes and rates over all ranges.",
)
def migration_report(migration: Migration) -> dg.MaterializeResult[None]:
    """Sum up the ledger."""
    with migration.ledger() as ledger:
        outcomes, ranges = outcomes_table(ledger), ranges_table(ledger)
    seconds = float(ranges["transfer_seconds"].sum())
    return dg.MaterializeResult(
        metadata={
            "ranges": len(ranges),
            "ranges_done": int(ranges["done"].sum()),
            "profiles_migrated": int(ranges["migrated"].sum()),
            "profiles_waiting": int(ranges["waiting"].sum()),
            "files_copied": int(ranges["copied"].sum()),
            "megabytes": round(float(ranges["bytes"].sum()) / 1e6, 1),
            "files_per_second_of_a_worker": round(float(ranges["copied"].sum()) / seconds, 1) if seconds else 0.0,
            "outcomes": dg.MetadataValue.md(as_markdown(outcomes)),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=["file_copies"],
    kinds={"postgres"},
    tags={"stage": "report"},
    description="Files that could not be copied and wait for somebody, by class, with what to do about each.",
)
def dead_letters(migration: Migration) -> dg.MaterializeResult[None]:
    """List what waits."""
    with migration.ledger() as ledger:
        letters = ledger.overview.dead_letters(limit=_LETTERS)
    rows = [[item.outcome, str(item.file), item.profile_id, item.range_key, item.message] for item in letters]
    classes = sorted({item.outcome for item in letters})
    return dg.MaterializeResult(
        metadata={
            "dead_letters": len(letters),
            **pages.table("letters", ["class", "file", "profile", "range", "message"], rows),
            **pages.table("remedies", ["class", "what to do"], [[name, REMEDIES[name]] for name in classes]),
        }
    )


def outcomes_table(ledger: "PostgresLedger") -> "pd.DataFrame":
    """Files by outcome."""
    import pandas as pd  # noqa: PLC0415 - 0.4 s that runs over ranges need not spend

    table = pd.DataFrame(ledger.overview.outcomes(), columns=["outcome", "files", "bytes", "tries"])
    table["megabytes"] = (table.pop("bytes").astype(float) / 1e6).round(1)
    table["tries"] = table["tries"].astype(float).round(2)
    return table[["outcome", "files", "megabytes", "tries"]]


def ranges_table(ledger: "PostgresLedger") -> "pd.DataFrame":
    """A row for each range, from the counters of its newest run."""
    import pandas as pd  # noqa: PLC0415 - as above

    def row(report: dict[str, object] | None) -> dict[str, object]:
        counters = report or {}
        waiting, seconds = counters.get("waiting"), counters.get("seconds", {})
        return {
            "done": waiting == 0,
            "migrated": counters.get("migrated", 0),
            "waiting": waiting or 0,
            "transfer_seconds": seconds.get("transfer", 0.0) if isinstance(seconds, dict) else 0.0,
        }

    columns = ["range", "profiles", "copied", "bytes", "done", "migrated", "waiting", "transfer_seconds"]
    return pd.DataFrame(
        [
            {"range": s.key, "profiles": s.profiles, "copied": s.copied, "bytes": s.bytes}
            | row(dict(s.report) if s.report else None)
            for s in ledger.overview.states()
        ],
        columns=columns,
    )


def as_markdown(table: "pd.DataFrame") -> str:
    """A Markdown table."""
    head = [str(column) for column in table.columns]
    rows = [[str(cell) for cell in row] for row in table.itertuples(index=False)]
    return pages.markdown(head, rows)
