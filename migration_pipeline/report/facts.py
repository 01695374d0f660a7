"""Everything that the report tells, gathered from the ledger as of one moment."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from migration_pipeline.adapters.ledger.archive import Archive
from migration_pipeline.adapters.ledger.exports import AcceptedRow, Entered, LetterRow, Totals
from migration_pipeline.adapters.ledger.inventory import Listing
from migration_pipeline.adapters.ledger.overview import Act, RangeState
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.status import Standing, standing
from migration_pipeline.core.estimate import Prices
from migration_pipeline.core.inventory import Found
from migration_pipeline.core.removal_ports import RemovedTotals
from migration_pipeline.core.spent import Expected
from migration_pipeline.cutover import Stand, stand_of
from migration_pipeline.report.course import Course, course
from migration_pipeline.report.tally import Tally
from migration_pipeline.report.words import NONE
from migration_pipeline.settings import Settings
from migration_pipeline.stores import charged

_ACTS = 100
_PACKAGES = (
    "migration-pipeline", "dagster", "azure-storage-blob", "pyreqwest", "boto3", "psycopg",
    "google-cloud-firestore", "firebase-admin", "pandas", "pyarrow", "matplotlib",
)  # fmt: skip


class Setting(NamedTuple):
    """A setting as it was when the report was made.

    Attributes:
        given: by the file or the environment, and not the default.
    """

    name: str
    value: str
    given: bool


class Letters(NamedTuple):
    """The first dead letters: those that wait, those that somebody waived, and those that are none any more.

    Attributes:
        accepted: copied as they are, for an operator said that their stored Content-MD5 is wrong.
        accepted_files: how many these are.
    """

    waiting: Sequence[LetterRow]
    waived: Sequence[LetterRow]
    accepted: Sequence[AcceptedRow] = ()
    accepted_files: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to tell.

    Attributes:
        source, target: both stores, in words.
        tally: of every file.
        entered: phases of the cut-over, on the way there and back.
        found: the newest inventory beside the references, of `listing`, where there is one.
        archives: what rows were exported to and dropped before; `tally` lacks them.
        acts: of operators, the newest first; `totals.acts` says how many there are.
        expected: when the ranges were planned, where that was kept.
        prices: by the settings as they are now.
    """

    source: str
    target: str
    standing: Standing
    states: Sequence[RangeState]
    course: Course
    totals: Totals
    tally: Tally
    letters: Letters
    entered: Sequence[Entered]
    stand: Stand
    listing: Listing | None
    found: Found | None
    removed: RemovedTotals
    archives: Sequence[Archive]
    acts: Sequence[Act]
    expected: Expected | None
    prices: Prices
    settings: Sequence[Setting]
    versions: Mapping[str, str]

    @property
    def at(self) -> datetime:
        """Of the snapshot, by the ledger's clock."""
        return self.standing.at

    @property
    def period(self) -> tuple[datetime | None, datetime | None]:
        """From when the first run began to when the last ended, or a file did."""
        rows = self.course.rows
        began = [at for at in (self.totals.began_at, rows[0].at if rows else None) if at is not None]
        ended = [at for at in (self.totals.ended_at, rows[-1].at if rows else None) if at is not None]
        return min(began, default=None), max(ended, default=None)


def gather(settings: Settings, ledger: PostgresLedger, tally: Tally, letters: Letters) -> Facts:
    """Read the rest; what it costs grows with the number of ranges, and not of files."""
    overview, exports = ledger.overview, ledger.exports
    kept = ledger.found.kept()
    containers = ", ".join(settings.source.containers)
    return Facts(
        source=f"{without_secrets(settings.source.account_url)} ({containers})",
        target=f"s3://{settings.target.bucket}/{settings.target.prefix} in {settings.target.region}",
        standing=standing(overview, ledger.now()),
        states=overview.states(),
        course=course(overview),
        totals=exports.totals(),
        tally=tally,
        letters=letters,
        entered=exports.phases(),
        stand=stand_of(settings, ledger),
        listing=ledger.inventory.newest_listing(settings.source.containers),
        found=kept.found if kept is not None else None,
        removed=ledger.removal.totals(),
        archives=ledger.archive.archives(),
        acts=overview.acts(limit=_ACTS),
        expected=ledger.expected(),
        prices=charged(settings),
        settings=shown_settings(settings),
        versions={
            "Python": platform.python_version(),
            "Postgres of the ledger": exports.server(),
            **{name: version(name) for name in _PACKAGES},
        },
    )


def shown_settings(settings: Settings) -> list[Setting]:
    """All settings but the secrets, of which it is only told whether they are set."""
    values = _flat(settings.model_dump(mode="json", by_alias=True, exclude={"secrets"}))
    given = _flat(settings.model_dump(mode="json", by_alias=True, exclude={"secrets"}, exclude_defaults=True))
    shown = [Setting(name, _plain(value), name in given) for name, value in values.items()]
    secrets = settings.secrets
    for name, held in (
        ("DATABASE_URL", secrets.database_url),
        ("LEDGER_URL", secrets.ledger_url),
        ("AZURE_STORAGE_KEY", secrets.azure_key),
        ("AZURE_STORAGE_SAS_TOKEN", secrets.azure_sas),
        ("ALERT_URLS", secrets.alert_urls),
    ):
        shown.append(Setting(name, "set, and not shown" if held else "not set", bool(held)))
    return shown


def without_secrets(text: str) -> str:
    """A URL without query string, fragment and user, where the text is one: these may hold a key."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) and value else {before + name: value}
    return found


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items()) or NONE
    return NONE if value is None else without_secrets(str(value))
