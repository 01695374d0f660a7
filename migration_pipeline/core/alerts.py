"""Which of the things that are true now somebody has to be told, given what was told before.

What was told is plain JSON, kept in the ledger between two looks. Each kind has one judge: a pure function of the
situation and of what it kept, which gives an alert or none, and what is to be kept now. ::

    not told   true now                told, and kept until it is over
    told       the same, or better     silence
    told       worse                   told again
    told       over                    forgotten: told anew, should it return
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from migration_pipeline.core import run_alerts
from migration_pipeline.core.alert_words import Alert, Kind, Severity, amount, count, listed, shown, thousands
from migration_pipeline.core.model import REMEDIES, Outcome
from migration_pipeline.core.situation import SAS_SOON, Ranges, Situation
from migration_pipeline.core.text import shortened

Told = Mapping[str, Any]
"""By kind, what its judge kept."""
Judged = run_alerts.Judged

_WORSE = 2
"""Twice as many is worse; one more is not."""
_LEDGER_GONE = timedelta(minutes=3)
"""A Postgres that is started again is back by then."""
_LATE_QUIET = timedelta(hours=6)
_SAS_TOLD = (SAS_SOON, timedelta(days=1), timedelta(0))
_DISK_OVER = 1.2  # times the limit: room that comes and goes around the limit is not told each time
_DISK_CRITICAL = 4


def decide(situation: Situation, told: Told) -> tuple[list[Alert], dict[str, Any]]:
    """What to tell now, and what to keep for the next time."""
    judged = {kind: judge(situation, told.get(kind)) for kind, judge in JUDGES.items()}
    alerts = [alert for alert, _ in judged.values() if alert is not None]
    return alerts, {kind.value: kept for kind, (_, kept) in judged.items() if kept is not None}


def ledger_gone(now: datetime, since: datetime, error: str) -> Alert | None:
    """For whoever cannot read what was told; whether this one was, the caller keeps."""
    if now - since < _LEDGER_GONE:
        return None
    return Alert(
        Kind.LEDGER,
        Severity.CRITICAL,
        "The ledger, the migration's own tables in Postgres, cannot be read",
        where=shown(error),
        since=since,
        how_bad="Runs fail, and no other alert can be told. Users notice nothing of that by itself.",
        what_to_do="Look at LEDGER_URL, or DATABASE_URL, and its server; `migration-pipeline doctor` asks it.",
        link="",
        at=now,
    )


def settings_refused(now: datetime, since: datetime, error: str) -> Alert | None:
    """The same for whoever meets a setting that is refused. It does not pass by itself, but somebody may be at it."""
    if now - since < _LEDGER_GONE:
        return None
    return Alert(
        Kind.SETTINGS,
        Severity.CRITICAL,
        "A setting is refused",
        where=shown(error),
        since=since,
        how_bad="Runs fail, and no other alert can be told. Users notice nothing of that by itself.",
        what_to_do="Mend it as the message says; `migration-pipeline doctor` looks at every setting.",
        link="",
        at=now,
    )


def trial_alert(now: datetime, ui_url: str | None) -> Alert:
    """For whoever wants to see that alerts arrive."""
    return Alert(
        Kind.TEST,
        Severity.INFO,
        "This is a test",
        where="nowhere",
        since=now,
        how_bad="Not at all.",
        what_to_do="Nothing: alerts arrive here.",
        link=ui_url or "",
        at=now,
    )


def _dead_letters(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """A class is worse when it is new or twice as large as when it was told, and over when none waits."""
    waiting = {name.value: letters.waiting for name, letters in now.letters.items() if letters.waiting}
    if not waiting:
        return None, None
    since = kept["since"] if kept else now.now.isoformat()
    told = {
        name: min(number, waiting[name]) for name, number in (kept or {"told": {}})["told"].items() if name in waiting
    }
    worse = [Outcome(name) for name, number in waiting.items() if number >= max(1, _WORSE * told.get(name, 0))]
    told |= {name.value: waiting[name.value] for name in worse}
    return _dead_letters_alert(now, worse, since) if worse else None, {"since": since, "told": told}


def _dead_letters_alert(now: Situation, worse: Sequence[Outcome], since: str) -> Alert:
    total = sum(letters.waiting for letters in now.letters.values())
    classes = ", ".join(f"{thousands(now.letters[name].waiting)} `{name}`" for name in worse)
    risen = "" if total == sum(now.letters[name].waiting for name in worse) else "; risen"
    examples = [f"{outcome}: {shortened(name)}" for outcome in worse for name in now.letters[outcome].examples]
    return now.alert(
        Kind.DEAD_LETTERS,
        Severity.WARNING,
        f"{count(total, 'file')} cannot be copied{risen}: {classes}",
        where=listed(examples),
        since=datetime.fromisoformat(since),
        how_bad="Profiles that need these files keep their old URLs, which lead where they led before. All other "
        "profiles go on.",
        what_to_do=" ".join(f"`{name}`: {REMEDIES[name]}" for name in worse)
        + " The link leads to all of them. Waive what nobody can restore: those profiles then finish without the file.",
        path="assets/dead_letters",
    )


def _breaker(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Each trip is told once."""
    if now.pause is None or now.pause.by != "breaker":
        return None, None
    trip = now.pause.at.isoformat() if now.pause.at else ""
    alert = now.alert(
        Kind.BREAKER,
        Severity.CRITICAL,
        "The migration paused itself, for too many files fail",
        where="all runs; a safety stop, the breaker, did it (control.breaker_share)",
        since=now.pause.at,
        how_bad=f"Nothing moves any more: {shown(now.pause.why)}. Users notice nothing.",
        what_to_do="Open the link: which files failed newly, and why? `migration-pipeline doctor` says whether Azure "
        "and S3 answer. Once they do, resume: Jobs > `resume`, or `migration-pipeline resume`.",
        path="assets/dead_letters",
    )
    return alert if kept != trip else None, trip


def _late_references(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Runs mend it by themselves, so it is over only when none came for some hours."""
    if now.late is None:
        quiet = kept is None or now.now - datetime.fromisoformat(kept["last"]) >= _LATE_QUIET
        return None, None if quiet else kept
    told = kept["told"] if kept else 0
    worse = now.late.ranges >= max(1, _WORSE * told)
    alert = now.alert(
        Kind.LATE_REFERENCES,
        Severity.INFO,
        f"Something came late in {count(now.late.ranges, 'range')}",
        where="profiles that were migrated and refer to the source again, or whose files the source has newer bytes of",
        since=now.late.since,
        how_bad="The old URLs work. A client still writes them, or an upload to the source landed.",
        what_to_do="Nothing at first: the sensor `requested_ranges` runs these ranges again. If it goes on, find the "
        "client, and keep the source until it stops.",
        path="assets/late_references",
    )
    return alert if worse else None, {"told": now.late.ranges if worse else told, "last": now.now.isoformat()}


def _source_uploads(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Told when the first lands, and when twice as many have. Over when a listing finds none, as after a new switch."""
    if now.uploads is None:
        return None, None
    found, told = now.uploads, kept["told"] if kept else 0
    overdue = found.newest_at > found.until
    # That somebody writes whose URL must have expired is news, however few they are.
    worse = found.blobs >= max(1, _WORSE * told) or (overdue and not kept["overdue"])
    if not worse:
        return None, kept
    alert = now.alert(
        Kind.SOURCE_UPLOADS,
        Severity.WARNING if overdue else Severity.INFO,
        f"{count(found.blobs, 'blob')} landed in the source after uploads were switched",
        where=listed([shortened(name) for name in found.examples]),
        since=found.switched_at,
        how_bad=f"The newest is of {found.newest_at:%Y-%m-%d %H:%M %Z}, and "
        + (
            "no upload URL of the old store can have been good then: somebody still issues them, or writes otherwise."
            if overdue
            else f"upload URLs of the old store are good until {found.until:%Y-%m-%d %H:%M %Z}."
        ),
        what_to_do=(
            "Find who writes there, and switch them; then sweep. The gate to `sweep_clean` is held meanwhile."
            if overdue
            else "Nothing yet: what profiles refer to is found by the sweep, and moved."
        ),
        path="assets/cutover",
    )
    return alert, {"told": found.blobs, "overdue": overdue}


def _sas_ends(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Told a week before, a day before, and once it is over; anew for another SAS."""
    if now.sas_ends is None:
        return None, None
    left = now.sas_ends - now.now
    stage = sum(left <= limit for limit in _SAS_TOLD)
    if not stage:
        return None, None
    ends = now.sas_ends.astimezone(UTC).isoformat()
    if kept and kept["ends"] == ends and stage <= kept["stage"]:
        return None, kept
    over = left <= timedelta(0)
    hours = f"{max(1.0, left.total_seconds() / 3600):.0f}"
    alert = now.alert(
        Kind.SAS_ENDS,
        Severity.WARNING if stage == 1 else Severity.CRITICAL,
        "The SAS of the source has ended" if over else f"The SAS of the source ends in {hours} hours",
        where=f"AZURE_STORAGE_SAS_TOKEN, good until {now.sas_ends:%Y-%m-%d %H:%M %Z}",
        how_bad="Nothing can be read from the source then: every run stops and names the setting.",
        what_to_do="Make another SAS, set AZURE_STORAGE_SAS_TOKEN to it, and restart what runs.",
    )
    return alert, {"ends": ends, "stage": stage}


def _disk(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Worse when half of what was free is gone; over when there is clearly more room than the limit."""
    limit = now.thresholds.free_disk
    crowded = [disk.where for disk in now.disks if disk.free < _DISK_OVER * limit]
    told = {where: free for where, free in (kept or {}).items() if where in crowded}
    low = [disk for disk in now.disks if disk.free < limit]
    worse = [disk for disk in low if disk.where not in told or disk.free * _WORSE <= told[disk.where]]
    if not worse:
        return None, told or None
    least = min(disk.free for disk in worse)
    alert = now.alert(
        Kind.DISK,
        Severity.CRITICAL if least * _DISK_CRITICAL < limit else Severity.WARNING,
        f"{amount(least)} of disk are left",
        where=", ".join(f"{shown(disk.where)} ({amount(disk.free)} free)" for disk in worse),
        how_bad="With a full disk runs fail, and Dagster may stop.",
        what_to_do="Remove old compute logs, or give the file system more room.",
    )
    return alert, told | {disk.where: disk.free for disk in worse}


def _daily_summary(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Once a day, from the first `daily_at` on that passes while a migration is under way."""
    today = now.now.date()
    due = today if f"{now.now:%H:%M}" >= now.thresholds.daily_at else today - timedelta(days=1)
    if kept is None or kept == due.isoformat() or not now.ranges.begun or now.ranges.finished:
        return None, due.isoformat()
    letters = count(sum(item.waiting for item in now.letters.values()), "dead letter")
    alert = now.alert(
        Kind.DAILY_SUMMARY,
        Severity.INFO,
        f"{thousands(now.ranges.done)} of {count(now.ranges.planned, 'range')} are done",
        where=_so_far(now.ranges),
        since=now.now - timedelta(days=1),
        how_bad=f"In 24 hours {count(now.day.files, 'file')}, {amount(now.day.bytes)}; failed: "
        f"{thousands(now.day.failed)}. Waiting: {letters}, {count(now.ranges.waiting, 'profile')}.",
        what_to_do=f"It is paused: {shown(now.pause.why)}." if now.pause else "Nothing, if that is as it should be.",
        path="assets/migration_report",
    )
    return alert, due.isoformat()


def _finished(now: Situation, kept: Any) -> Judged:  # noqa: ANN401 - JSON
    """Once; again after further ranges were planned, or some went back. What comes late does not count."""
    if now.ranges.rolled_back:
        return None, None
    if not now.ranges.finished or (kept is not None and now.ranges.planned <= kept):
        return None, kept
    alert = now.alert(
        Kind.FINISHED,
        Severity.INFO,
        "All ranges are done",
        where=_so_far(now.ranges),
        how_bad="Every profile is migrated, waived dead letters aside.",
        what_to_do="Keep the sweep at work until no old client is left, then `migration-pipeline audit`. "
        "Only then give up the source.",
        path="assets/migration_report",
    )
    return alert, now.ranges.planned


def _so_far(ranges: Ranges) -> str:
    return (
        f"{count(ranges.planned, 'range')}, {count(ranges.profiles, 'profile')}, {thousands(ranges.migrated)} of them "
        f"migrated, {count(ranges.copied, 'file')} copied, {amount(ranges.bytes)}"
    )


JUDGES: Mapping[Kind, Callable[[Situation, Any], Judged]] = {
    Kind.FAILED_RUNS: run_alerts.failed_runs,
    Kind.DEAD_BACKFILL: run_alerts.dead_backfill,
    Kind.DEAD_LETTERS: _dead_letters,
    Kind.BREAKER: _breaker,
    Kind.STALLED: run_alerts.stalled,
    Kind.LATE_REFERENCES: _late_references,
    Kind.SOURCE_UPLOADS: _source_uploads,
    Kind.SAS_ENDS: _sas_ends,
    Kind.DISK: _disk,
    Kind.DAILY_SUMMARY: _daily_summary,
    Kind.FINISHED: _finished,
}
