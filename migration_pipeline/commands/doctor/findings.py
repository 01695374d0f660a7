"""What `doctor` says: one line for each thing it looked at."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class Health(StrEnum):
    """How a line of the examination ended."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class What(StrEnum):
    """What a line is about; docs/doctor.md has a row for each."""

    SETTINGS = "settings"
    HOURS = "control.windows"
    PAUSE = "control.pause_while"
    ALERTS = "ALERT_URLS"
    SOURCE_CLOCK = "clock: source"
    TARGET_CLOCK = "clock: target"
    DATABASE = "database"
    DATABASE_RIGHTS = "database: rights"
    DATABASE_FLAG = "database: flag"
    DATABASE_INDEXES = "database: indexes"
    DATABASE_TRIGGERS = "database: triggers"
    DATABASE_HIDDEN = "database: hidden rows"
    LEDGER = "ledger"
    LEDGER_RIGHTS = "ledger: rights"
    SOURCE = "source"
    TARGET = "target"
    TARGET_STORED = "target: stored as asked"
    TARGET_PUBLIC = "target: public URL"
    TARGET_REGION = "target: region"
    TARGET_VERSIONING = "target: versioning"
    TARGET_ENCRYPTION = "target: encryption"
    TARGET_UPLOADS = "target: abandoned uploads"
    FIREBASE = "firebase"
    FIREBASE_RIGHTS = "firebase: rights"
    DAGSTER = "dagster"
    DAGSTER_WORKERS = "dagster: workers"
    DAGSTER_MONITORING = "dagster: run monitoring"
    DAGSTER_RETRIES = "dagster: run retries"
    DAGSTER_DAEMON = "dagster: daemon"
    DAGSTER_SENSORS = "dagster: sensors"
    DAGSTER_LOGS = "dagster: compute logs"
    DISK = "free disk"


class Finding(NamedTuple):
    """One line of the examination.

    Attributes:
        what: one of `What`; where a whole store refused, with the setting to look at.
    """

    what: str
    health: Health
    said: str
    remedy: str = ""


Findings = Iterator[Finding]


def ok(what: What, said: str) -> Finding:
    """All is well."""
    return Finding(what, Health.OK, said)


def warning(what: What, said: str, remedy: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(what, Health.WARNING, said, remedy)


def failure(what: What, said: str, remedy: str) -> Finding:
    """A migration would not work."""
    return Finding(what, Health.FAILURE, said, remedy)
