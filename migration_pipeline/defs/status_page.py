"""How far, how fast, how long, and paused or not: what `migration-pipeline status` says, as an asset to look at."""

import dagster as dg

from migration_pipeline.core.alert_words import amount, count
from migration_pipeline.core.text import span
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import MIGRATE
from migration_pipeline.defs.resources import Migration
from migration_pipeline.standing import Shown

_BAR = 30  # characters
NOTHING_WAITS = "nothing_waits"

migration_status = dg.AssetSpec(
    "migration_status",
    group_name=MIGRATE,
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "report"},
    description=(
        "How far the migration is, how fast, how long it will take, whether it is paused, and what to do next. The "
        "sensor fresh_pages looks each minute, and observes it whenever something has changed: what stands here is "
        "true, and `as_of` says when it was looked at last and had changed."
    ),
)


@dg.asset_check(
    asset=dg.AssetKey("migration_status"),
    name=NOTHING_WAITS,
    description="Does nothing wait for somebody: no pause, no profile, no range that broke off?",
)
def nothing_waits(migration: Migration) -> dg.AssetCheckResult:
    """Look once."""
    shown = migration.standing()
    found = waits(shown)
    return dg.AssetCheckResult(passed=not found, severity=dg.AssetCheckSeverity.WARN, metadata={"summary": said(found)})


def waits(shown: Shown) -> list[str]:
    """What waits for somebody."""
    now, state = shown.standing, shown.standing.status
    parts = (
        (not state.ranges, "nothing is planned yet"),
        (shown.said.paused_why is not None, f"{shown.paused}"),
        (state.waiting, f"{count(state.waiting, 'profile')} not migrated"),
        (now.letters_waiting, count(now.letters_waiting, "dead letter")),
        (now.broke_off, f"{count(now.broke_off, 'range')} broke off"),
        (state.rolled_back, f"{count(state.rolled_back, 'range')} rolled back"),
    )
    return [text for holds, text in parts if holds]


def said(found: list[str]) -> str:
    """For the summary of a check."""
    return f"{', '.join(found)}." if found else "Nothing waits."


def page(shown: Shown) -> pages.Metadata:
    """Everything at a glance, the bar first."""
    now, state = shown.standing, shown.standing.status
    done = state.migrated + state.nothing_to_move
    share = min(1.0, done / state.profiles) if state.profiles else 0.0
    left = now.seconds_left if now.workers else None
    return {
        "progress": f"{bar(share)} {int(share * 1000) / 10} %: {done:,} of {count(state.profiles, 'profile')}",
        "now": _now(shown),
        "next": next_step(shown),
        "time_left": f"about {span(left)}" if left is not None else "unknown" if now.workers else "nothing is at work",
        **({"files_per_second": round(now.rate.files, 1)} if now.rate.files else {}),
        **({"megabytes_per_second": round(now.rate.bytes / 1e6, 1)} if now.rate.bytes else {}),
        "ranges_done": state.done,
        "ranges": state.ranges,
        "ranges_with_profiles_left": state.incomplete,
        "ranges_rolled_back": state.rolled_back,
        "profiles_migrated": state.migrated,
        "profiles_with_nothing_to_move": state.nothing_to_move,
        "profiles_waiting": state.waiting,
        "dead_letters_waiting": now.letters_waiting,
        "dead_letters_waived": now.letters_waived,
        "files_in_s3": state.copied,
        "copied": amount(state.bytes),
        "as_of": dg.MetadataValue.timestamp(now.at.timestamp()),
    }


def bar(share: float) -> str:
    """Whole only when everything is done."""
    full = int(_BAR * share)
    return "█" * full + "░" * (_BAR - full)


def _now(shown: Shown) -> str:
    now = shown.standing
    if shown.paused:
        return shown.paused
    if now.workers:
        return f"at work: {count(now.workers, 'worker')}"
    return "at rest"


def next_step(shown: Shown) -> str:
    """What an operator does now, by clicks."""
    now, state = shown.standing, shown.standing.status
    steps = (
        (not state.ranges, "Plan: Jobs > plan > Materialize."),
        (shown.said.paused_why is not None, "Resume, once the reason is gone: Jobs > resume > Launchpad."),
        (shown.paused is not None, "Nothing: runs go on by themselves."),
        (now.workers, "Nothing: it is at work."),
        (now.broke_off, "Open the newest run of each range that broke off: its message says why."),
        (state.not_begun, "Migrate: Jobs > migrate > Materialize all > Missing > Launch backfill."),
        (state.waiting, "Open dead_letters: retry or waive each class there."),
        (state.rolled_back, "Nothing: what was rolled back stays so until its partition is launched alone."),
        (True, "Audit: Jobs > audit > Materialize > All > Launch backfill. Then open cutover."),
    )
    return next(text for holds, text in steps if holds)
