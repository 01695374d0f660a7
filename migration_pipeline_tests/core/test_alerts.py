"""Each kind of alert by its truth table: not told, the same, worse, over, and back again."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from migration_pipeline.core.alert_words import Alert, Kind, Severity, shown
from migration_pipeline.core.alerts import JUDGES, decide, ledger_gone
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.outbox import MOST, deliver, put
from migration_pipeline.core.run_alerts import runs_after
from migration_pipeline.core.situation import (
    About,
    Backfill,
    Day,
    DeadBackfill,
    Disk,
    Failure,
    Late,
    Letters,
    Pause,
    Ranges,
    Situation,
    Thresholds,
    Uploads,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GIGABYTE = 10**9
THRESHOLDS = Thresholds(timedelta(minutes=15), 5 * GIGABYTE, "08:00")
MISSING, CHANGED = Outcome.SOURCE_MISSING, Outcome.SOURCE_CHANGED


class Watch:
    """Looks again and again, as the sensor does; what is kept goes through JSON, as it does in the ledger."""

    def __init__(self, **told: Any) -> None:
        self.told: dict[str, Any] = told
        self.minutes = 0.0

    def look(self, *, after: float = 1, **true: Any) -> list[Alert]:
        """What is told so many minutes later."""
        self.minutes += after
        situation = Situation(now=self.now, thresholds=THRESHOLDS, **true)
        alerts, told = decide(situation, self.told)
        self.told = json.loads(json.dumps(told))
        return alerts

    @property
    def now(self) -> datetime:
        return NOON + timedelta(minutes=self.minutes)

    def kinds(self, **true: Any) -> list[str]:
        return [alert.kind.value for alert in self.look(**true)]


def failure(number: int, group: str = "backfill a", *, at: datetime = NOON) -> Failure:
    return Failure(f"{number:08}-run", group, "runs/b/a", f"range-{number}", at)


def letters(**waiting: int) -> Mapping[str, Any]:
    return {"letters": {Outcome(name): Letters(number, ["photos/a.jpg"]) for name, number in waiting.items()}}


def test_nothing_is_told_of_nothing() -> None:
    watch = Watch()
    assert watch.look() == []
    assert set(watch.told) == {"daily_summary"}


def test_every_kind_but_those_sent_without_a_look_has_a_judge() -> None:
    assert set(JUDGES) == set(Kind) - {Kind.LEDGER, Kind.SETTINGS, Kind.TEST}


def test_failed_runs_are_told_once_for_a_group_and_again_when_twice_as_many() -> None:
    watch = Watch()
    runs = [failure(n) for n in range(8)]
    (alert,) = watch.look(failures=runs[:3])
    assert (alert.kind, alert.what) == (Kind.FAILED_RUNS, "3 runs failed")
    assert "backfill a" in alert.where
    assert "range-2" in alert.where
    # The same runs are read again, and one more is not worse.
    assert watch.look(failures=runs[:3]) == []
    assert watch.look(failures=runs[:5]) == []
    (alert,) = watch.look(failures=runs[:6])
    assert alert.what == "6 runs failed"
    (alert,) = watch.look(failures=[*runs[:6], failure(100, "job sweep")])
    assert (alert.what, alert.where) == ("1 run failed", "`job sweep`; range `range-100`")


def test_failed_runs_are_told_anew_after_an_hour_without() -> None:
    watch = Watch()
    assert watch.look(failures=[failure(n) for n in range(4)])
    assert watch.look(failures=[failure(5, at=NOON + timedelta(minutes=30))], after=30) == []
    assert watch.look(after=45) == []
    (alert,) = watch.look(failures=[failure(6, at=NOON + timedelta(minutes=95))], after=20)
    assert alert.what == "1 run failed"


def test_a_failed_run_says_why_in_its_first_line_and_what_it_means() -> None:
    why = "4 of 15 profiles are not migrated: 3 source_missing, 1 digest_mismatch."
    failed = failure(1)._replace(about=About.MIGRATION, why=why)
    (alert,) = Watch().look(failures=[failed])
    assert alert.title == f"[warning] Migration: 1 run failed: {why}"
    assert "old, working URLs" in alert.how_bad
    (alert,) = Watch().look(failures=[failed, failure(2)._replace(about=About.MIGRATION, why="another reason")])
    assert alert.title == f"[warning] Migration: 2 runs failed, for example: {why}"


def test_a_rollback_that_failed_is_not_said_to_keep_old_urls() -> None:
    (alert,) = Watch().look(
        failures=[failure(1)._replace(about=About.ROLLBACK, why="1 profile of 3 could not go back")]
    )
    assert "still lead to S3" in alert.how_bad
    assert "old, working" not in alert.body
    assert "Materialize all" not in alert.what_to_do


def test_the_same_range_is_told_once_whichever_backfill_meets_it_until_its_reason_changes() -> None:
    watch = Watch()
    first = failure(1)._replace(why="1 source_missing")
    assert len(watch.look(failures=[first])) == 1
    again = first._replace(run_id="00000002-run", group="backfill b")
    assert watch.look(failures=[again], after=90) == []
    other = again._replace(run_id="00000003-run", why="1 digest_mismatch")
    (alert,) = watch.look(failures=[other])
    assert "digest_mismatch" in alert.what
    much_later = first._replace(run_id="00000004-run", at=NOON + timedelta(days=2))
    assert len(watch.look(failures=[much_later], after=2 * 24 * 60)) == 1


def test_failed_runs_are_looked_for_from_the_newest_on_and_a_little_before() -> None:
    assert runs_after({}, NOON) == NOON - timedelta(hours=1)
    watch = Watch()
    watch.look(failures=[failure(1, at=NOON - timedelta(minutes=9)), failure(2, at=NOON - timedelta(minutes=30))])
    watch.look(after=600)
    assert runs_after(watch.told, watch.now) == NOON - timedelta(minutes=11)


def test_the_end_of_a_sas_is_told_a_week_and_a_day_before_and_when_it_is_over() -> None:
    watch, ends, told = Watch(), NOON + timedelta(days=10), []
    for days in (1, 1, 2, 2, 2.5, 1, 0.6, 1):
        told += watch.look(after=days * 24 * 60, sas_ends=ends)
    assert [(alert.severity, alert.what) for alert in told] == [
        (Severity.WARNING, "The SAS of the source ends in 144 hours"),
        (Severity.CRITICAL, "The SAS of the source ends in 12 hours"),
        (Severity.CRITICAL, "The SAS of the source has ended"),
    ]
    # Another one that ends later is silence, and is told in its own time.
    assert watch.look(sas_ends=ends + timedelta(days=30)) == []
    assert watch.kinds(after=25 * 24 * 60, sas_ends=ends + timedelta(days=30)) == ["sas_ends"]
    assert watch.look(sas_ends=None) == []


def test_a_backfill_that_dagster_gave_up_is_told_once_and_the_next_one_too() -> None:
    watch = Watch()
    first = DeadBackfill("abcdefgh", NOON, "CheckError: <no> run", migrates=True)
    (alert,) = watch.look(dead_backfills=[first])
    assert (alert.kind, alert.what) == (Kind.DEAD_BACKFILL, "Dagster gave up 1 backfill")
    assert alert.where == "backfill `abcdefgh`: `CheckError: %3Cno%3E run`"
    assert alert.link == ""
    assert "watchdog" in alert.what_to_do
    assert watch.look(dead_backfills=[first]) == []
    second = first._replace(id="rollback", migrates=False)
    (alert,) = watch.look(dead_backfills=[first, second], ui_url="https://ui")
    assert alert.link == "https://ui/runs/b/rollback"
    assert "abcdefgh" not in alert.body
    assert "nothing does that by itself" in alert.what_to_do
    assert watch.look(dead_backfills=[second]) == []
    assert watch.look() == []
    assert len(watch.look(dead_backfills=[second])) == 1


def test_dead_letters_are_told_by_class_and_again_when_a_class_is_new_or_twice_as_large() -> None:
    watch = Watch()
    (alert,) = watch.look(**letters(source_missing=3))
    assert alert.what == "3 files cannot be copied: 3 `source_missing`"
    assert alert.severity is Severity.WARNING
    assert "Restore the blob" in alert.what_to_do
    assert "`source_missing: photos/a.jpg`" in alert.where
    assert watch.look(**letters(source_missing=5)) == []
    assert watch.kinds(**letters(source_missing=6)) == ["dead_letters"]
    assert watch.look(**letters(source_missing=11)) == []
    (alert,) = watch.look(**letters(source_missing=11, source_changed=1))
    assert alert.what == "12 files cannot be copied; risen: 1 `source_changed`"
    assert alert.since == NOON + timedelta(minutes=1)


def test_an_error_that_nobody_foresaw_is_told_at_once_and_says_whose_fault_it_is() -> None:
    (alert,) = Watch().look(**letters(unforeseen=1))
    assert (alert.kind, alert.what) == (Kind.DEAD_LETTERS, "1 file cannot be copied: 1 `unforeseen`")
    assert "A fault of this program: report the message" in alert.what_to_do


def test_dead_letters_that_go_and_come_back_are_told_anew() -> None:
    watch = Watch()
    assert watch.look(**letters(source_missing=100))
    # Waived and mended ones do not wait.
    assert watch.look(**letters(source_missing=4)) == []
    assert watch.look(**letters(source_missing=8))
    assert watch.look(**letters(source_missing=0)) == []
    assert "dead_letters" not in watch.told
    assert watch.look(**letters(source_missing=1))


def test_each_trip_of_the_breaker_is_told_once_and_an_operators_pause_is_not() -> None:
    watch = Watch()
    first, second = (Pause("612 of 1,000 files failed", "breaker", NOON + timedelta(hours=n)) for n in (0, 1))
    (alert,) = watch.look(pause=first)
    assert (alert.kind, alert.severity, alert.since) == (Kind.BREAKER, Severity.CRITICAL, NOON)
    assert "612 of 1,000 files failed" in alert.how_bad
    assert watch.look(pause=first) == []
    assert watch.kinds(pause=second) == ["breaker"]
    assert watch.look() == []
    assert watch.kinds(pause=second) == ["breaker"]
    assert watch.look(pause=Pause("lunch", "ana", NOON)) == []
    assert watch.look(pause=Pause("outside the hours of control.windows")) == []


def test_a_backfill_is_stalled_when_nothing_moved_for_long_enough() -> None:
    watch = Watch()
    begun: dict[str, Any] = {"backfill": Backfill("abc", NOON)}
    assert watch.look(after=14, **begun) == []
    (alert,) = watch.look(**begun)
    assert (alert.kind, alert.severity, alert.since) == (Kind.STALLED, Severity.CRITICAL, NOON)
    assert alert.what == "The migration has stood still for 15 minutes"
    assert watch.look(after=60, **begun) == []
    moved = begun | {"moved_at": watch.now}
    assert watch.look(after=14, **moved) == []
    assert watch.kinds(after=2, **moved) == ["stalled"]
    assert watch.look() == []
    assert watch.told.keys() == {"daily_summary"}


def test_what_stands_still_on_purpose_is_not_stalled_and_has_time_to_go_on() -> None:
    watch = Watch()
    begun: dict[str, Any] = {"backfill": Backfill("abc", NOON)}
    assert watch.look(after=120, pause=Pause("lunch", "ana"), **begun) == []
    assert watch.look(after=14, **begun) == []
    assert watch.kinds(after=1, **begun) == ["stalled"]
    assert watch.look(**begun) == []
    assert watch.look(pause=Pause("lunch", "ana"), **begun) == []
    assert watch.kinds(after=15, **begun) == ["stalled"]
    assert watch.look(after=600) == []


def test_late_references_are_told_again_when_twice_as_many_or_after_hours_without() -> None:
    watch = Watch()
    (alert,) = watch.look(late=Late(2, NOON))
    assert (alert.kind, alert.severity) == (Kind.LATE_REFERENCES, Severity.INFO)
    assert alert.what == "Something came late in 2 ranges"
    assert watch.look(late=Late(3, NOON)) == []
    # A run mends them within minutes; the next sweep finds others.
    assert watch.look() == []
    assert watch.look(late=Late(1, NOON)) == []
    assert watch.kinds(late=Late(4, NOON)) == ["late_references"]
    assert watch.look(after=300) == []
    assert watch.look(after=61) == []
    assert watch.kinds(late=Late(1, NOON)) == ["late_references"]


def disk(gigabytes: float, where: str = "DAGSTER_HOME /d") -> dict[str, Any]:
    return {"disks": [Disk(where, int(gigabytes * GIGABYTE))]}


def test_a_disk_is_told_again_when_half_of_what_was_left_is_gone() -> None:
    watch = Watch()
    assert watch.look(**disk(5.1)) == []
    (alert,) = watch.look(**disk(4))
    assert (alert.kind, alert.severity, alert.what) == (Kind.DISK, Severity.WARNING, "4.0 GB of disk are left")
    assert watch.look(**disk(2.1)) == []
    assert watch.kinds(**disk(2)) == ["disk"]
    (alert,) = watch.look(**disk(0.9))
    assert alert.severity is Severity.CRITICAL
    # Around the limit is not over it.
    assert watch.look(**disk(5.5)) == []
    assert watch.look(**disk(4.5)) == []
    assert watch.look(**disk(6.1)) == []
    assert watch.kinds(**disk(4.5)) == ["disk"]


def test_each_disk_is_told() -> None:
    watch = Watch()
    assert watch.kinds(**disk(4)) == ["disk"]
    (alert,) = watch.look(disks=[*disk(4)["disks"], *disk(3, "compute logs /c")["disks"]])
    assert alert.where == "`compute logs /c` (3.0 GB free)"


def test_the_summary_comes_once_a_day_while_a_migration_is_under_way() -> None:
    watch = Watch()
    going: dict[str, Any] = {"ranges": Ranges(planned=10, begun=4, done=3, waiting=2), "day": Day(9, 1, 10**9)}
    assert watch.look(**going) == []  # it is past eight, and nobody was watching then
    assert watch.look(after=19 * 60, **going) == []
    (alert,) = watch.look(after=60, **going)
    assert (alert.kind, alert.what) == (Kind.DAILY_SUMMARY, "3 of 10 ranges are done")
    assert "9 files, 1.0 GB; failed: 1. Waiting: 0 dead letters, 2 profiles." in alert.how_bad
    assert watch.look(after=60, **going) == []
    assert watch.kinds(after=23 * 60, **going) == ["daily_summary"]
    assert watch.look(after=24 * 60) == []  # nothing begun
    assert watch.kinds(after=24 * 60, ranges=Ranges(planned=3, begun=3, done=3)) == ["finished"]


def test_the_day_is_that_of_the_time_zone() -> None:
    going = Ranges(planned=10, begun=4)
    kept = {"daily_summary": "2026-02-28"}
    for zone, told in (("UTC", []), ("Asia/Kolkata", [Kind.DAILY_SUMMARY])):
        now = datetime(2026, 3, 1, 3, tzinfo=UTC).astimezone(ZoneInfo(zone))
        alerts, _ = decide(Situation(now=now, thresholds=THRESHOLDS, ranges=going), kept)
        assert [alert.kind for alert in alerts] == told


def test_the_end_is_told_once_and_again_after_more_was_planned_or_some_went_back() -> None:
    watch = Watch()

    def ranges(planned: int, done: int, rolled_back: int = 0) -> dict[str, Any]:
        return {"ranges": Ranges(planned=planned, begun=done, done=done, rolled_back=rolled_back)}

    assert watch.look(**ranges(2, 1)) == []
    (alert,) = watch.look(**ranges(2, 2))
    assert (alert.kind, alert.severity) == (Kind.FINISHED, Severity.INFO)
    assert watch.look(**ranges(2, 2)) == []
    assert watch.look(**ranges(2, 1)) == []  # something came late,
    assert watch.look(**ranges(2, 2)) == []  # and was moved
    assert watch.look(**ranges(3, 2)) == []
    assert watch.kinds(**ranges(3, 3)) == ["finished"]
    assert watch.look(**ranges(3, 2, rolled_back=1)) == []
    assert watch.kinds(**ranges(3, 3)) == ["finished"]


def test_a_ledger_that_is_away_for_a_moment_is_not_told() -> None:
    assert ledger_gone(NOON + timedelta(minutes=2), NOON, "LEDGER_URL: cannot connect") is None
    alert = ledger_gone(NOON + timedelta(minutes=3), NOON, "LEDGER_URL: cannot connect")
    assert alert is not None
    assert (alert.kind, alert.since, alert.at) == (Kind.LEDGER, NOON, NOON + timedelta(minutes=3))


def test_an_alert_says_everything_and_is_the_same_after_it_waited() -> None:
    watch = Watch()
    (alert,) = watch.look(ui_url="https://dagster.example.com", **letters(source_missing=1))
    assert alert.title == ("[warning] Migration: 1 file cannot be copied: 1 source_missing")
    names = [line.split(":")[0] for line in alert.body.splitlines()]
    assert names == ["What", "Where", "Since", "How bad", "What to do", "Link", "As of"]
    assert "Link: https://dagster.example.com/assets/dead_letters" in alert.body
    assert Alert.from_json(json.loads(json.dumps(alert.as_json()))) == alert
    (alert,) = Watch().look(**letters(source_missing=1))
    assert "Link" not in alert.body


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("photos/a_b-1 (2).jpg", "`photos/a_b-1 (2).jpg`"),
        ("фото.jpg", "`фото.jpg`"),
        ("<!channel> @here", "`%3C%21channel%3E %40here`"),
        ("`*[x](http://e)\n", "`%60%2A%5Bx%5D(http%3A//e)%0A`"),
        ("\u202egpj.exe", "`%E2%80%AEgpj.exe`"),
        ("\udc80", "`%3F`"),
    ],
)
def test_names_that_users_made_up_cannot_act(name: str, seen: str) -> None:
    assert shown(name) == seen
    assert len(shown(name * 200)) == 122


class Place:
    """A channel that takes so many alerts and then refuses."""

    def __init__(self, key: str, takes: int) -> None:
        self.key, self.name, self.trouble = key, f"json ({key})", "answered 503"
        self.takes, self.got = takes, [""][:0]

    def send(self, alert: Alert) -> bool:
        if len(self.got) >= self.takes:
            return False
        self.got.append(alert.what)
        return True


def test_what_a_channel_refuses_waits_for_it_alone() -> None:
    (one,) = Watch().look(**letters(source_missing=1))
    two = one._replace(what="two")
    good, bad, gone = Place("a", 9), Place("b", 1), {"c": [one.as_json()]}
    waiting, kept = put(gone, [one, two], [good, bad]), []
    said = deliver(waiting, [good, bad], lambda: kept.append(json.dumps(waiting)), seconds=60)
    assert said == ["json (a): 2 sent", "json (b): 1 sent, 1 wait, for it answered 503"]
    assert len(kept) == 3
    assert json.loads(kept[-1]) == {"a": [], "b": [two.as_json()]}
    bad.takes = 9
    assert deliver(put(waiting, [], [good, bad]), [good, bad], lambda: None, seconds=60) == ["json (b): 1 sent"]
    assert (good.got, bad.got) == ([one.what, "two"], [one.what, "two"])


def test_a_channel_that_is_away_for_long_keeps_the_newest() -> None:
    (one,) = Watch().look(**letters(source_missing=1))
    waiting = put({}, [one._replace(what=str(n)) for n in range(MOST + 5)], [Place("a", 0)])
    assert [item["what"] for item in waiting["a"]] == [str(n) for n in range(5, MOST + 5)]


def test_a_slow_channel_leaves_others_their_time() -> None:
    (one,) = Watch().look(**letters(source_missing=1))
    slow, fast = Place("a", 9), Place("b", 9)
    clock = iter(range(0, 1000, 20))
    said = deliver(
        put({}, [one] * 3, [slow, fast]), [slow, fast], lambda: None, seconds=60, clock=lambda: float(next(clock))
    )
    assert said == ["json (a): 1 sent, 2 wait", "json (b): 1 sent, 2 wait"]


def test_uploads_to_the_source_are_told_first_and_again_when_twice_as_many_or_overdue() -> None:
    watch = Watch()
    until = NOON + timedelta(hours=24)

    def landed(blobs: int, hours: float) -> dict[str, Any]:
        return {"uploads": Uploads(blobs, NOON, until, NOON + timedelta(hours=hours), ["photos/new <b>.jpg"])}

    assert watch.look() == []
    (alert,) = watch.look(**landed(3, 1))
    assert (alert.kind, alert.severity, alert.since) == (Kind.SOURCE_UPLOADS, Severity.INFO, NOON)
    assert alert.what == "3 blobs landed in the source after uploads were switched"
    assert "good until 2026-03-02 12:00 UTC" in alert.how_bad
    assert "`photos/new %3Cb%3E.jpg`" in alert.where
    assert watch.look(**landed(5, 2)) == []
    assert watch.kinds(**landed(6, 2)) == ["source_uploads"]
    # One more, that no URL can have been good for.
    (alert,) = watch.look(**landed(7, 25))
    assert alert.severity is Severity.WARNING
    assert "somebody still issues them" in alert.how_bad
    assert watch.look(**landed(8, 26)) == []
    assert watch.look() == []
    assert watch.kinds(**landed(1, 25)) == ["source_uploads"]
