"""Tells people what needs them: a sensor that looks, decides and sends."""

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from migration_pipeline.adapters.alert_channels import Channel, channels
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.alerts import decide, ledger_gone, settings_refused
from migration_pipeline.core.errors import MigrationError, SettingsError
from migration_pipeline.core.outbox import deliver, put
from migration_pipeline.defs.situation import look
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_ledger

STATE = "alerts"
"""Where the ledger keeps what was told, and what waits for a channel."""
_SEND_SECONDS = 25.0  # of the minute that Dagster gives a tick


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells ALERT_URLS of failed runs, dead backfills, dead letters, a tripped breaker, a stalled backfill, late "
        "references and full disks: once, and again when it gets worse. And a summary each day, and the end: "
        "docs/alerts.md."
    ),
)
def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look once. It never asks for a run, so its reason to skip says what it did."""
    try:
        settings = load()
        to = channels([url.get_secret_value() for url in settings.secrets.alert_urls])
        if not to:
            return dg.SkipReason("Nobody is told: set ALERT_URLS to apprise URLs; docs/alerts.md has examples.")
    except MigrationError as error:
        return dg.SkipReason(f"Nobody can be told: {error}")
    try:
        with closing(open_ledger(settings)) as ledger:
            said = _tell(settings, ledger, context, to)
    except MigrationError as error:
        return dg.SkipReason(_tell_without_ledger(context, error, to))
    context.update_cursor("")
    return dg.SkipReason(said)


def _tell(
    settings: Settings, ledger: PostgresLedger, context: dg.SensorEvaluationContext, to: Sequence[Channel]
) -> str:
    kept: dict[str, Any] = ledger.remembered(STATE) or {}
    origin = context.code_location_origin
    location = origin.location_name if origin is not None else None
    situation = look(settings, ledger, context.instance, kept.get("told", {}), location)
    if not situation.ranges.planned:
        return "Nothing is planned yet."
    new, told = decide(situation, kept.get("told", {}))
    waiting = put(kept.get("waiting", {}), new, to)

    def keep() -> None:
        ledger.remember(STATE, {"told": told, "waiting": waiting})

    # Kept before anything is sent: what was decided is told, whatever ends this process now.
    keep()
    said = deliver(waiting, to, keep, seconds=_SEND_SECONDS)
    return "; ".join([*(alert.title for alert in new), *said]) or "Nothing new."


def _tell_without_ledger(context: dg.SensorEvaluationContext, error: MigrationError, to: Sequence[Channel]) -> str:
    """What was told is in the ledger, so this one thing is kept in the sensor's cursor."""
    now = datetime.now(UTC)
    # They would mend the wrong thing who are told that the ledger is away where a setting is refused.
    judge = settings_refused if isinstance(error, SettingsError) else ledger_gone
    kept: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    if kept.get("what") != judge.__name__:
        kept = {"what": judge.__name__, "since": now.isoformat(), "told": []}
    alert = judge(now, datetime.fromisoformat(kept["since"]), str(error))
    left = [channel for channel in to if alert is not None and channel.key not in kept["told"]]
    taken = [channel for channel in left if alert is not None and channel.send(alert)]
    kept["told"] += [channel.key for channel in taken]
    context.update_cursor(json.dumps(kept))
    return f"Only of this can anybody be told: {error}" + "".join(f"; {channel.name}: 1 sent" for channel in taken)
