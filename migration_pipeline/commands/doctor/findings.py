"""What `doctor` says: one line for each thing it looked at."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from migration_pipeline.core.errors import Fatal, MigrationError


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
    DATABASE_TABLES = "database: tables"
    DATABASE_RIGHTS = "database: rights"
    DATABASE_FLAG = "database: flag"
    DATABASE_INDEXES = "database: indexes"
    DATABASE_TRIGGERS = "database: triggers"
    DATABASE_SWEEPS = "database: sweeps"
    LEDGER = "ledger"
    LEDGER_RIGHTS = "ledger: rights"
    SOURCE = "source"
    SOURCE_SIGN_IN = "source: sign-in"
    TARGET = "target"
    TARGET_CREATES = "target: creates only"
    TARGET_DIGESTS = "target: digests"
    TARGET_PARTS = "target: uploads in parts"
    TARGET_STORED = "target: stored as asked"
    TARGET_PUBLIC = "target: public URL"
    TARGET_REGION = "target: region"
    TARGET_VERSIONING = "target: versioning"
    TARGET_ENCRYPTION = "target: encryption"
    TARGET_LOCK = "target: object lock"
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


class WritePath(StrEnum):
    """What a line of `doctor --write-path` is about; docs/doctor.md has a row for each."""

    KEYS = "uploads: names"
    CORS = "uploads: from a browser"
    FOREIGN = "uploads: from other sites"
    PUT = "uploads: by PUT"
    FORM = "uploads: by a form"
    UNSIGNED = "uploads: without a URL"
    READ = "uploads: read"
    PROBES = "uploads: probe objects"
    REGION = "bucket: region"
    PUBLIC_ACCESS = "bucket: block public access"
    POLICY = "bucket: policy"
    ENCRYPTION = "bucket: encryption"
    VERSIONING = "bucket: versioning"
    LIFECYCLE = "bucket: lifecycle"
    OWNERSHIP = "bucket: object ownership"
    NETWORK = "network: the way to S3"
    KEPT = "kept for the cut-over"


class Finding(NamedTuple):
    """One line of the examination.

    Attributes:
        what: one of `What` or `WritePath`; where a whole store refused, with the setting to look at.
    """

    what: str
    health: Health
    said: str
    remedy: str = ""


Findings = Iterator[Finding]


def ok(what: What | WritePath, said: str) -> Finding:
    """All is well."""
    return Finding(what, Health.OK, said)


def warning(what: What | WritePath, said: str, remedy: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(what, Health.WARNING, said, remedy)


def failure(what: What | WritePath, said: str, remedy: str) -> Finding:
    """A migration would not work."""
    return Finding(what, Health.FAILURE, said, remedy)


def refusal(name: str, error: MigrationError) -> Finding:
    """A whole store refused, or did not answer."""
    if isinstance(error, Fatal):
        return Finding(f"{name}: {error.setting}", Health.FAILURE, error.message, error.remedy)
    return Finding(name, Health.FAILURE, str(error), "Try again; if it stays, look at that store.")
