"""Which runs and backfills somebody has to be told of; `alerts` tells what a judge is."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from migration_pipeline.core.alert_words import Alert, Kind, Severity, count, listed, shown
from migration_pipeline.core.situation import About, Failure, Situation

Judged = tuple[Alert | None, Any]

_WORSE = 2
_NEWEST_RUNS = 1000
_RUNS_QUIET = timedelta(hours=1)
_SAME_RANGE = timedelta(days=1)
"""A range that fails again for the same reason is no news for so long, whichever backfill meets it."""
_OVERLAP = timedelta(minutes=2)
"""Runs are looked for so far back again: their writers' clocks differ, and whether one is tried again is said late."""

_HOW_BAD: Mapping[About, str] = {
    About.MIGRATION: "Profiles that are left keep their old, working URLs. The others of these ranges are migrated, "
    "and other ranges go on.",
    About.ROLLBACK: "These ranges are rolled back in part: references that went back lead to the source, the others "
    "still lead to S3. The files are in both, so users notice nothing.",
    About.AUDIT: "An audit found something, or could not look. What it found was so before: the audit changes nothing.",
    About.OTHER: "No range failed; whatever these jobs look after waits.",
}
_WHAT_TO_DO: Mapping[About, str] = {
    About.MIGRATION: "Open the link: the run's error says whose profiles are left, and what to do for each reason. "
    "Then Jobs > `migrate` > Materialize all > Failed.",
    About.ROLLBACK: "Open the link: the run's error says which profiles, and why. Nothing migrates these ranges again "
    "by itself.",
    About.AUDIT: "Open the link: the run's error names the findings; docs/live-traffic.md says what each means.",
    About.OTHER: "Open the link and read the run's error. Correct what it says, and launch the job again.",
}


def runs_after(told: Mapping[str, Any], now: datetime) -> datetime:
    """Failed runs written after this moment belong into the next situation; at first, those of the last hour."""
    kept = told.get(Kind.FAILED_RUNS)
    return datetime.fromisoformat(kept["newest"]) - _OVERLAP if kept else now - _RUNS_QUIET


def failed_runs(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Grouped by backfill or job. Over, for a group, once none failed for an hour."""
    seen: list[str] = kept["seen"] if kept else []
    new = [run for run in now.failures if run.run_id[:8] not in seen]
    if not kept and not new:
        return None, None
    groups = {
        name: group
        for name, group in (kept["groups"] if kept else {}).items()
        if now.now - datetime.fromisoformat(group["last"]) < _RUNS_QUIET
    }
    known = {
        key: told
        for key, told in (kept.get("ranges", {}) if kept else {}).items()
        if now.now - datetime.fromisoformat(told["at"]) < _SAME_RANGE
    }
    news = [run for run in new if not _is_known(run, known)]
    for run in news:
        group = groups.setdefault(run.group, {"runs": 0, "told": 0, "since": run.at.isoformat(), "path": run.path})
        group["runs"] += 1
        group["last"] = run.at.isoformat()
        if run.range_key is not None:
            known[_name(run)] = {"why": run.why, "at": run.at.isoformat()}
    worse = {name: group for name, group in groups.items() if group["runs"] >= max(1, _WORSE * group["told"])}
    alert = _failed_runs_alert(now, worse, news) if worse else None
    for group in worse.values():
        group["told"] = group["runs"]
    times = [run.at.isoformat() for run in new] + ([kept["newest"]] if kept else [])
    ids = [*seen, *(run.run_id[:8] for run in new)]
    newest = max(datetime.fromisoformat(text) for text in times).isoformat()
    ranges = dict(sorted(known.items(), key=lambda item: item[1]["at"])[-_NEWEST_RUNS:])
    return alert, {"newest": newest, "seen": ids[-_NEWEST_RUNS:], "groups": groups, "ranges": ranges}


def _name(run: Failure) -> str:
    return f"{run.about} {run.range_key}"


def _is_known(run: Failure, known: Mapping[str, Any]) -> bool:
    told = known.get(_name(run)) if run.range_key is not None else None
    return told is not None and told["why"] == run.why


def _failed_runs_alert(now: Situation, worse: Mapping[str, Any], new: Sequence[Failure]) -> Alert:
    runs = sum(group["runs"] for group in worse.values())
    theirs = [run for run in new if run.group in worse]
    keys = [run.range_key for run in theirs if run.range_key is not None]
    why = next((run.why for run in theirs if run.why), "")
    about = theirs[0].about if theirs and len({run.about for run in theirs}) == 1 else About.OTHER
    first = next(iter(worse.values()))
    lead = ": " if runs == 1 else ", for example: "
    return now.alert(
        Kind.FAILED_RUNS,
        Severity.WARNING,
        f"{count(runs, 'run')} failed" + (f"{lead}{shown(why)}" if why else ""),
        where=", ".join(shown(name) for name in worse)
        + (f"; {'range' if len(keys) == 1 else 'ranges'} {listed(keys)}" if keys else ""),
        since=min(datetime.fromisoformat(group["since"]) for group in worse.values()),
        how_bad=_HOW_BAD[about],
        what_to_do=_WHAT_TO_DO[about],
        path=first["path"],
    )


def dead_backfill(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Each is told once; those of more than a day ago are forgotten."""
    dead = {backfill.id: backfill for backfill in now.dead_backfills}
    new = [dead[id_] for id_ in dead if id_ not in (kept or ())]
    if not new:
        return None, list(dead) or None
    first, several = new[0], len(new) > 1
    again = any(backfill.migrates for backfill in new)
    alert = now.alert(
        Kind.DEAD_BACKFILL,
        Severity.WARNING,
        f"Dagster gave up {count(len(new), 'backfill')}",
        where=", ".join(f"backfill {shown(backfill.id)}: {shown(backfill.error)}" for backfill in new),
        since=first.since,
        how_bad=f"Ranges that had not run in {'them' if several else 'it'} are not done. Runs at work went on to their "
        "end. Users notice nothing.",
        what_to_do=(
            "Wait five minutes: the sensor `watchdog` has what is left run once more. If nothing runs then, launch a "
            "new backfill: Jobs > `migrate` > Materialize all > Failed and missing."
            if again
            else "Launch it again: nothing does that by itself."
        ),
        path=f"runs/b/{first.id}",
    )
    return alert, list(dead)


def stalled(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Time in which the migration is to stand still does not count. Over as soon as anything moves."""
    if now.pause is not None:
        return None, {"awake": now.now.isoformat()}
    awake = {"awake": kept["awake"]} if kept and "awake" in kept else {}
    if now.backfill is None:
        return None, awake or None
    times = [now.moved_at, now.backfill.since, *map(datetime.fromisoformat, awake.values())]
    moved = max(at for at in times if at is not None).astimezone(UTC)
    if now.now - moved < now.thresholds.stalled:
        return None, awake or None
    if kept and kept.get("told") == moved.isoformat():
        return None, kept
    alert = now.alert(
        Kind.STALLED,
        Severity.CRITICAL,
        f"The migration has stood still for {(now.now - moved).total_seconds() / 60:.0f} minutes",
        where=f"backfill {shown(now.backfill.id)}",
        since=moved,
        how_bad="A backfill is at work, and no file and no range has ended. Users notice nothing.",
        what_to_do="Open the link: are its runs queued, at work, or gone? `migration-pipeline doctor` says whether the "
        "stores answer. If all do, cancel the backfill and launch it again: what is copied stays copied.",
        path=f"runs/b/{now.backfill.id}",
    )
    return alert, awake | {"told": moved.isoformat()}
