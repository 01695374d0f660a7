"""What alerts are made of: everything about a migration that may be worth telling, as plain values of one moment."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from migration_pipeline.core.alert_words import Alert, Kind, Severity
from migration_pipeline.core.model import Outcome

SAS_SOON = timedelta(days=7)
"""So long before its end a SAS is told of, by `doctor`, `status` and alerts."""


class About(StrEnum):
    """What a run was to do."""

    MIGRATION = "migration"
    ROLLBACK = "rollback"
    AUDIT = "audit"
    OTHER = "other"


class Failure(NamedTuple):
    """A run that failed and will not be tried again.

    Attributes:
        group: that it is told with: `backfill abc`, or `job sweep`.
        path: of its group's page in the UI.
        at: when Dagster last wrote of it.
        why: the first line of its error; empty where that was not looked up.
    """

    run_id: str
    group: str
    path: str
    range_key: str | None
    at: datetime
    about: About = About.OTHER
    why: str = ""


class Ranges(NamedTuple):
    """How far the migration is."""

    planned: int = 0
    begun: int = 0
    done: int = 0
    rolled_back: int = 0
    profiles: int = 0
    migrated: int = 0
    waiting: int = 0
    copied: int = 0
    bytes: int = 0

    @property
    def finished(self) -> bool:
        """Whether every planned range is done."""
        return 0 < self.planned == self.done


class Letters(NamedTuple):
    """Dead letters of a class that nobody waived, and names of some."""

    waiting: int
    examples: Sequence[str] = ()


class Pause(NamedTuple):
    """Why the migration is to stand still."""

    why: str
    by: str = ""
    at: datetime | None = None


class Backfill(NamedTuple):
    """One at work, and since when."""

    id: str
    since: datetime


class DeadBackfill(NamedTuple):
    """One that Dagster gave up over an error of its own.

    Attributes:
        migrates: it was to migrate ranges, so that what is left of it is asked for again by itself.
    """

    id: str
    since: datetime
    error: str
    migrates: bool


class Late(NamedTuple):
    """Ranges that a sweep asks to run again, and since when the first."""

    ranges: int
    since: datetime


class Uploads(NamedTuple):
    """Blobs written to the source after uploads were switched, by its newest listing.

    Attributes:
        until: when the last upload URL of the old store expires, or has.
        newest_at: when the last of them was written.
    """

    blobs: int
    switched_at: datetime
    until: datetime
    newest_at: datetime
    examples: Sequence[str] = ()


class Disk(NamedTuple):
    """A file system, by what is on it, and its free bytes."""

    where: str
    free: int


class Day(NamedTuple):
    """What happened in the last 24 hours: files verified and failed, bytes copied."""

    files: int = 0
    failed: int = 0
    bytes: int = 0


class Thresholds(NamedTuple):
    """From the settings.

    Attributes:
        free_disk: bytes.
        daily_at: `HH:MM`.
    """

    stalled: timedelta
    free_disk: float
    daily_at: str


class Situation(NamedTuple):
    """What is true now.

    Attributes:
        now: in the operators' time zone.
        failures: runs written since `runs_after`.
        letters: by class.
        dead_backfills: of the last day.
        moved_at: when a file or a range last ended.
        sas_ends: when the first SAS ends that the operator made; `None` where there is none that does.
        ui_url: for links; none without.
    """

    now: datetime
    thresholds: Thresholds
    ranges: Ranges = Ranges()
    failures: Sequence[Failure] = ()
    letters: Mapping[Outcome, Letters] = {}
    pause: Pause | None = None
    backfill: Backfill | None = None
    dead_backfills: Sequence[DeadBackfill] = ()
    moved_at: datetime | None = None
    late: Late | None = None
    uploads: Uploads | None = None
    disks: Sequence[Disk] = ()
    sas_ends: datetime | None = None
    day: Day = Day()
    ui_url: str | None = None

    def alert(self, kind: Kind, severity: Severity, what: str, *, path: str = "", **fields: Any) -> Alert:  # noqa: ANN401 - texts, and a time
        """An alert of now."""
        link = f"{self.ui_url}/{path}" if self.ui_url and path else ""
        since = fields.pop("since", None) or self.now
        zone = self.now.tzinfo
        return Alert(kind, severity, what, since=since.astimezone(zone), at=self.now, link=link, **fields)
