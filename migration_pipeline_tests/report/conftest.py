"""A ledger with everything in it that the report tells, names of bad will among them."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from migration_pipeline.adapters.ledger import exports as ledger_exports
from migration_pipeline.adapters.ledger.control import Selection
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.report.writing import write
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, settings_toml
from migration_pipeline.settings import Settings, load

RANGES = [ProfileRange(f"{n:010}", n + 1, n * 10 or None, n * 10 + 10, 10) for n in range(3)]
HOSTILE = (
    "<script>document.title='taken'</script>.jpg",
    '"onload="alert(1)".jpg',
    "</td></table><img src=http://192.0.2.1/x onerror=alert(1)>",
    "photo\u202egnp.exe",
    "bell\x07\x1b[31mred\nline",
    "{{ 7 * 7 }}{% include 'page.css' %}",
    "عربي-שלום.jpg",
)
WHO, WHY = "<b>ops</b> \u202eevil", 'gone\' onmouseover="alert(1)" <!--'
STAGES = {"discover": 1.0, "transfer": 8.0, "rewrite_database": 0.5, "rewrite_firebase": 0.25, "confirm": 0.25}


@dataclass(frozen=True)
class Told:
    """A migration, and the settings that lead to it."""

    settings: Settings
    ledger: PostgresLedger


@pytest.fixture
def empty(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return _described(sandbox, tmp_path, monkeypatch)


@pytest.fixture
def told(empty: Settings) -> Iterator[Told]:
    with closing(_ledger(empty)) as ledger:
        yield _filled(empty, ledger)


@pytest.fixture(scope="module")
def written(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A report that tests look at, and change nothing of; its settings are those of the environment."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_exports, "BATCH", 4)
        settings = _described(sandbox, folder, patch)
        with closing(_ledger(settings)) as ledger:
            _filled(settings, ledger)
            remove_from_source(ledger, "1.jpg")
        write(settings, folder / "out")
        yield folder / "out"


def _described(sandbox: Sandbox, folder: Path, patch: pytest.MonkeyPatch) -> Settings:
    config = folder / "migration.toml"
    config.write_text(settings_toml(AppStores.on(sandbox), AppSize()), encoding="utf-8")
    patch.setenv("MIGRATION_CONFIG", str(config))
    patch.setenv("DATABASE_URL", sandbox.create_database(f"r{uuid4().hex[:12]}"))
    patch.setenv("MIGRATION_ALERTS__UI_URL", "https://ann:hunter2@ui.example.com/?token=t0ps3cret")
    patch.setenv("ALERT_URLS", "json://user:s3kr1t@127.0.0.1/")
    return load()


def _ledger(settings: Settings) -> PostgresLedger:
    return PostgresLedger(settings.secrets.ledger_url.get_secret_value(), "migration")


def _filled(settings: Settings, ledger: PostgresLedger) -> Told:
    """Three ranges: one done, one with dead letters of bad names, one to come."""
    ledger.add_ranges(RANGES)
    with ledger.hold(RANGES[0].key) as (_, held):
        held.want([_wish(n, f"{n}.jpg") for n in range(1, 9)])
        held.record([copied(f"{n}.jpg", 3000 * n) for n in range(1, 9)])
        held.finish(counters(migrated=8, untouched=2, copied=8))
    with ledger.hold(RANGES[1].key) as (_, held):
        held.want([_wish(11 + n, name) for n, name in enumerate(HOSTILE)])
        failed = [
            CopyResult(SourceFile("photos", name), Outcome.SOURCE_MISSING, message=f"no {name}") for name in HOSTILE
        ]
        held.record(failed)
        report = counters(migrated=0, untouched=3, copied=0, waiting=len(HOSTILE))
        held.finish(report | {"waiting_for": {"source_missing": len(HOSTILE)}})
    for name in HOSTILE[:2]:
        ledger.control.waive(Selection(file=SourceFile("photos", name)), by=WHO, why=WHY)
    ledger.phases.enter(Phase.UPLOADS_SWITCHED, present=Phase.PREPARE, by=WHO, why=WHY, switched_at=ledger.now())
    return Told(settings, ledger)


def remove_from_source(ledger: PostgresLedger, blob: str) -> None:
    ledger.query(
        "INSERT INTO {s}.removed (file_id, range_id, container, blob, key, size_bytes, md5, source_etag, target_etag,"
        " who, how, ended_at) SELECT file_id, 1, container, blob, blob, size_bytes, md5, source_etag, etag, 'ops',"
        " 'delete', now() FROM {s}.files WHERE file_id = %s",
        [SourceFile("photos", blob).file_id],
    )


def counters(*, migrated: int, untouched: int, copied: int, waiting: int = 0) -> dict[str, object]:
    counts = {"profiles": 10, "files": copied + waiting, "migrated": migrated, "untouched": untouched}
    asked = {"source_reads": copied + 1, "source_bytes": 5000 * copied, "target_writes": copied, "source_throttles": 2}
    stages = {"seconds": STAGES, "cpu_seconds": STAGES, "paused_seconds": 1.5}
    return {**counts, "waiting": waiting, "copied": copied, "retries": 3, **asked, **stages}


def copied(name: str, size: int) -> CopyResult:
    return CopyResult(
        SourceFile("photos", name), Outcome.COPIED, size, name.encode().ljust(16, b"m"), "etag", source_etag='"0x1"'
    )


def _wish(n: int, name: str) -> Wish:
    return Wish(n, SourceFile("photos", name), f"https://a.example.com/photos/{n}.jpg", had_query=False)
