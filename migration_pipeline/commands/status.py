"""How far chosen ranges are, for commands that watch them."""

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.status import Status, is_done, summed

__all__ = ["Status", "is_done", "status"]


def status(ledger: PostgresLedger, keys: set[str] | None = None) -> Status:
    """Sum up the ranges, or those with the given keys."""
    return summed([state for state in ledger.overview.states() if keys is None or state.key in keys])
