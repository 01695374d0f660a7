"""What operators said and did, as events of one asset, wherever it was done."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from migration_pipeline.adapters.ledger.overview import Act
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import HOUSEKEEPING
from migration_pipeline.defs.resources import Migration

_A_TICK = 50
_SENSOR_SECONDS = 30

operator_log = dg.AssetSpec(
    "operator_log",
    group_name=HOUSEKEEPING,
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "control"},
    description=(
        "What operators and the breaker did: pauses, limits, dead letters waived or tried again, rollbacks, removals, "
        "the cut-over. An event for each act, wherever it was done."
    ),
)


@dg.sensor(
    minimum_interval_seconds=_SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the asset `operator_log` what operators did, from a terminal too.",
)
def operator_acts(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SensorResult | dg.SkipReason:
    """An event for each act since the last tick."""
    try:
        with migration.ledger() as ledger:
            new = ledger.overview.acts_after(int(context.cursor or 0), limit=_A_TICK)
            paused = ledger.control.said().paused_why is not None
    except MigrationError as error:
        return dg.SkipReason(str(error))
    if not new:
        return dg.SkipReason("No operator did anything new.")
    return dg.SensorResult(asset_events=_events(new, paused=paused), cursor=str(new[-1].act_id))


def _events(acts: Sequence[Act], *, paused: bool) -> list[Any]:
    return [
        dg.AssetMaterialization(
            "operator_log",
            description=f"{act.what} by {act.who}",
            metadata={
                "what": act.what,
                "who": act.who,
                "why": act.why,
                "at": dg.MetadataValue.timestamp(act.at.timestamp()),
                "paused_now": int(paused),
                **pages.table("details", ["", ""], [[name, str(value)] for name, value in act.details.items()]),
            },
        )
        for act in acts
    ]
