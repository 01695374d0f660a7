"""Keeps pages of the UI true: whoever looks at one must not read an old number as if it were new."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from migration_pipeline.adapters.ledger.overview import DeadLetter, LetterClass
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.defs import cutover, letters, pages, status_page
from migration_pipeline.defs.report import migration_report
from migration_pipeline.defs.resources import Migration
from migration_pipeline.standing import Shown

_SECONDS = 60
_REPORT_EVERY = timedelta(hours=1)
"""The report draws plots: while ranges are at work, a run an hour; a last one when all have ended."""
_LETTERS = 1000

Events = list[Any]
"""Of Dagster's asset events."""


@dg.sensor(
    minimum_interval_seconds=_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    target=[migration_report],
    description=(
        "Looks at the ledger each minute. What has changed is observed: migration_status, dead_letters and cutover, "
        "each with its check. Runs migration_report once an hour while something changes, and when all has ended."
    ),
)
def fresh_pages(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SensorResult | dg.SkipReason:
    """Look once."""
    try:
        shown = migration.standing()
        with migration.ledger() as ledger:
            waiting = ledger.overview.dead_letters(waived=False, limit=_LETTERS)
    except MigrationError as error:
        return dg.SkipReason(str(error))
    seen: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    now = _digests(shown, waiting)
    events: Events = []
    if shown.standing.workers or now["status"] != seen.get("status"):
        events += _status(shown)
    if now["letters"] != seen.get("letters"):
        events += _letters(shown.standing.letters, waiting, planned=bool(shown.standing.status.ranges))
    if now["cutover"] != seen.get("cutover"):
        events += _cutover(shown)
    reported = seen.get("reported")
    requests = []
    begun = shown.standing.status.ranges > shown.standing.status.not_begun
    if begun and now["status"] != seen.get("report") and (shown.ended or _is_old(reported, shown.standing.at)):
        requests = [dg.RunRequest(run_key=f"{now['status']} {shown.standing.at:%Y-%m-%dT%H:%M}")]
        now |= {"report": now["status"], "reported": shown.standing.at.isoformat()}
    else:
        now |= {"report": seen.get("report"), "reported": reported}
    return dg.SensorResult(
        asset_events=events,
        run_requests=requests,
        cursor=json.dumps(now),
        skip_reason=None if events or requests else "Nothing has changed.",
    )


def _is_old(reported: str | None, now: datetime) -> bool:
    return reported is None or now - datetime.fromisoformat(reported) >= _REPORT_EVERY


def _digests(shown: Shown, waiting: Sequence[DeadLetter]) -> dict[str, Any]:
    """Of what the pages show, but for rates and times."""
    state = shown.standing.status.as_json()
    classes = [[item.outcome, item.waiting, item.waived] for item in shown.standing.letters]
    return {
        "status": _digest([state, shown.paused, shown.standing.broke_off, classes]),
        "letters": _digest([classes, [[str(item.file), item.message, item.attempts] for item in waiting]]),
        "cutover": _digest([shown.cutover.phase, [list(hold) for hold in shown.cutover.holds]]),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _status(shown: Shown) -> Events:
    found = status_page.waits(shown)
    return [
        dg.AssetObservation("migration_status", metadata=status_page.page(shown)),
        _check("migration_status", status_page.NOTHING_WAITS, not found, {"summary": status_page.said(found)}),
    ]


def _letters(classes: Sequence[LetterClass], waiting: Sequence[DeadLetter], *, planned: bool) -> Events:
    metadata = letters.page(classes, waiting)
    passed, summary = letters.judged(classes, planned=planned)
    return [
        dg.AssetMaterialization("dead_letters", metadata=metadata),
        _check("dead_letters", status_page.NOTHING_WAITS, passed, {"summary": summary}),
    ]


def _cutover(shown: Shown) -> Events:
    stand = shown.cutover
    return [
        dg.AssetMaterialization("cutover", metadata=cutover.page(stand)),
        _check("cutover", cutover.CHECK, not stand.holds, {"holds": len(stand.holds)}),
    ]


def _check(asset: str, name: str, passed: bool, metadata: pages.Metadata) -> dg.AssetCheckEvaluation:  # noqa: FBT001 - the check's own word
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )
