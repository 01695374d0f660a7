"""Keeps the figures for Prometheus up to date, where a file for them is set."""

import dagster as dg

from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs.resources import Migration


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Writes the file that metrics.textfile names, for Prometheus's node exporter, once a minute. Does nothing "
        "where none is set."
    ),
)
def metrics(migration: Migration) -> dg.SkipReason:
    """Write them; whatever stands in the way is said, and tried again in a minute."""
    try:
        path = migration.write_metrics()
    except MigrationError as error:
        return dg.SkipReason(f"Nothing was written: {error}")
    return dg.SkipReason(f"Written to {path}." if path else "Nothing to do: metrics.textfile is not set.")
