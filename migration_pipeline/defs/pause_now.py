"""Pausing with two clicks, and without a run: turning a sensor on is the act."""

import json
from datetime import UTC, datetime

import dagster as dg

from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs.groups import BY
from migration_pipeline.defs.resources import Migration

SECONDS = 5
"""As often as Dagster's daemon looks at sensors."""
WHY = "the sensor pause_now was turned on in the UI"


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Turn it on to pause the migration within seconds: no run has to start for that. It pauses once each time it "
        "is turned on. The job `resume` has runs go on; turn this off then, so that it can be turned on again."
    ),
)
def pause_now(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SkipReason:
    """Pause, once each time it is turned on: another tick must not undo a `resume`."""
    turned_on = context.last_sensor_start_time or 0.0
    at = f"{datetime.fromtimestamp(turned_on, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if context.cursor and json.loads(context.cursor) >= turned_on:
        return dg.SkipReason(f"It paused when it was turned on at {at}. To pause again, turn it off and on.")
    try:
        with migration.ledger() as ledger:
            done = ledger.control.pause(by=BY, why=WHY)
    except MigrationError as error:
        # The cursor stays: the next tick tries again.
        return dg.SkipReason(f"Nothing is paused yet: {error}")
    context.update_cursor(json.dumps(turned_on))
    return dg.SkipReason("Paused: runs at work wait within five seconds." if done else "It was paused already.")
