"""Backfills that Dagster gave up: its daemon met an error that it holds for lasting, and canceled what was queued.

A machine on its knees is enough for that. What such a backfill left is asked for once more, and only once: the sensor
`requested_ranges` runs it, outside of any backfill.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

# Dagster filters backfills by status only with this; reading all of them at each look would cost too much.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

from migration_pipeline.defs.migrated import SPECS

if TYPE_CHECKING:
    from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger

_A_DAY = timedelta(days=1)
_AT_MOST = 20
_REMEMBERED, _KEPT = "backfills given up", 100
"""What the ledger keeps their ids under, and how many."""


def ask_again(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, ledger: "PostgresLedger"
) -> Sequence[str]:
    """Ask for runs of what is left of such backfills of the last day; return the ranges asked for.

    Backfills that people cancel are another thing. Ranges that ran in it and are red run once more, too.
    """
    lately = BulkActionsFilter(statuses=[BulkActionStatus.FAILED], created_after=datetime.now(UTC) - _A_DAY)
    given_up = instance.get_backfills(lately, limit=_AT_MOST)
    seen = ledger.remembered(_REMEMBERED) or [] if given_up else []
    asked: list[str] = []
    for backfill in given_up:
        if backfill.backfill_id in seen:
            continue
        left = sorted(set(_partitions(backfill, repository)) - ledger.done())
        ledger.request(left, f"Dagster gave up the backfill {backfill.backfill_id}")
        seen = [*seen, backfill.backfill_id][-_KEPT:]
        # Crash window: asked for and not remembered, it is asked for again, and a range has one request at a time.
        ledger.remember(_REMEMBERED, seen)
        asked += left
    return asked


def _partitions(backfill: PartitionBackfill, repository: dg.RepositoryDefinition) -> Sequence[str]:
    """Of our ranges, those that it was to run."""
    if SPECS[-1].key not in (backfill.asset_selection or ()):
        return ()
    if not backfill.is_asset_backfill:  # launched from the page of the job
        return backfill.partition_names or ()
    target = backfill.get_asset_backfill_data(repository.asset_graph).get_target_partitions_subset(SPECS[-1].key)
    return list(target.get_partition_keys())
