"""Ranges for profiles that came after the plan, by themselves."""

import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg

from migration_pipeline.core.alert_words import counted
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs.ranges import profile_ranges_partitions
from migration_pipeline.defs.resources import Migration

INTERVAL = timedelta(minutes=10)
_AT_MOST = 200  # ranges planned by one tick


@dg.sensor(
    minimum_interval_seconds=int(INTERVAL.total_seconds()),
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Plans ranges for profiles beyond the last planned one. Turn it on once the ranges are planned, while new "
        "profiles can still hold files of the source; off when all uploads go to the target. It starts no run."
    ),
)
def new_ranges(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SensorResult | dg.SkipReason:
    """Plan what makes a whole range, or a good part of one where nobody came lately."""
    try:
        return _plan(context, migration)
    except MigrationError as error:
        return dg.SkipReason(f"No range can be planned now: {error}")


def _plan(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SensorResult | dg.SkipReason:
    newest, seen = migration.newest_profile(), _Seen.read(context.cursor)
    now = datetime.now(UTC)
    same = seen is not None and seen.newest == str(newest)
    since = seen.since if seen is not None and same else now
    keys, left = migration.plan_more(quiet=now - since >= INTERVAL, at_most=_AT_MOST)
    if not keys:
        return dg.SkipReason("No range is planned yet: materialize profile_ranges first.")
    known = set(context.instance.get_dynamic_partitions(str(profile_ranges_partitions.name)))
    # All that are missing: a tick may have ended between the ledger and here.
    missing = [key for key in keys if key not in known]
    cursor = _Seen(str(newest), since).written()
    if not missing:
        few = f"{counted(left, 'profile', 'is', 'are')} too few for a range"
        return dg.SensorResult(skip_reason=f"{few}." if left else "Every profile has a range.", cursor=cursor)
    return dg.SensorResult(
        dynamic_partitions_requests=[profile_ranges_partitions.build_add_request(missing)], cursor=cursor
    )


class _Seen(NamedTuple):
    """The newest profile, and since when it is."""

    newest: str
    since: datetime

    @classmethod
    def read(cls, cursor: str | None) -> "_Seen | None":
        if not cursor:
            return None
        newest, since = json.loads(cursor)
        return cls(newest, datetime.fromisoformat(since))

    def written(self) -> str:
        return json.dumps([self.newest, self.since.isoformat()])
