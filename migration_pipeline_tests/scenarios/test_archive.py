"""Archiving the ledger's rows of finished ranges: nothing goes that is needed, or that was not exported before."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from migration_pipeline.adapters.ledger import groups, tallies
from migration_pipeline.adapters.ledger.archive import LedgerArchive
from migration_pipeline.adapters.ledger.control import LedgerControl
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.erase import erase
from migration_pipeline.core.errors import Fatal, RangeLost
from migration_pipeline.core.findings import Finding
from migration_pipeline.core.model import SourceFile, Wish
from migration_pipeline.core.removal_ports import How
from migration_pipeline.core.rollback import roll_back_range
from migration_pipeline.core.sweep import sweep_profiles
from migration_pipeline.defs.archive import archived_ranges
from migration_pipeline.defs.resources import Migration
from migration_pipeline.report import archive as archiving
from migration_pipeline.report.archive import Archived, archive
from migration_pipeline.report.writing import write
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.scenarios.frozen import Frozen, MakeFrozen
from migration_pipeline_tests.scenarios.watched import Cut

KNOWN = """
    SELECT r.key, w.profile_id, f.blob, w.spelling, f.outcome, f.size_bytes, encode(f.md5, 'hex'), f.etag
    FROM migration.wanted w JOIN migration.files f USING (file_id) JOIN migration.ranges r USING (range_id)
"""
COLUMNS = ["range_key", "profile_id", "blob", "spelling", "outcome", "size_bytes", "md5", "etag"]


@pytest.fixture
def ended(make_frozen: MakeFrozen) -> Frozen:
    """An app whose blobs are gone from the source."""
    app = make_frozen()
    assert app.decommission().files == len(app.bodies) == 12
    return app


def _archive(app: Frozen, folder: Path, *, apply: bool = True) -> Archived:
    return archive(app.settings, folder, apply=apply, who="ann", why="it is over")


def _read(folder: Path) -> set[tuple[Any, ...]]:
    """The rows of all Parquet files."""
    tables = [pd.read_parquet(path)[COLUMNS] for path in sorted(folder.glob("*.parquet"))]
    return {tuple(row) for table in tables for row in table.itertuples(index=False)}


def _rows(app: Frozen) -> tuple[int, int]:
    ((wanted, files),) = app.ask(
        "SELECT (SELECT count(*) FROM migration.wanted), (SELECT count(*) FROM migration.files)"
    )
    return wanted, files


def test_before_the_blobs_are_gone_nothing_is_archived(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    app = make_frozen()
    app.decommission([app.keys[0]])
    done = _archive(app, tmp_path / "archive")
    assert done.left == {app.keys[1]: "6 blobs were not removed from the source"}
    assert (done.ranges, done.rows, done.with_these) == (0, 0, 1)
    assert not (tmp_path / "archive").exists()
    assert _rows(app) == (12, 12)


def test_what_was_known_is_in_the_files_and_goes_from_the_ledger(ended: Frozen, tmp_path: Path) -> None:
    known, folder = set(ended.ask(KNOWN)), tmp_path / "archive"
    with closing(open_ledger(ended.settings)) as ledger:
        outcomes, states = ledger.tallies.outcomes(), ledger.overview.states()
    would = _archive(ended, folder, apply=False)
    assert (would.ranges, would.rows, would.left, would.files) == (2, 12, {}, [])
    assert not folder.exists()
    assert set(ended.ask(KNOWN)) == known

    done = _archive(ended, folder)
    assert (done.ranges, done.rows, done.dropped, done.left) == (2, 12, 12, {})
    assert _read(folder) == known
    assert _rows(ended) == (0, 0)
    (kept,) = done.files
    sums = (folder / f"{kept.name}.sha256").read_text(encoding="utf-8")
    assert sums == f"{kept.sha256}  {kept.name}\n"
    assert ended.acts()[-1] == ("ann", "archive", "it is over")
    with closing(open_ledger(ended.settings)) as ledger:
        # How far the migration is does not change, and where the rows are is told.
        assert (ledger.tallies.outcomes(), ledger.overview.states()) == (outcomes, states)
        assert [item[:4] for item in ledger.archive.archives()] == [(kept.name, kept.sha256, 2, 12)]
    page = write(ended.settings, tmp_path / "report").page.read_text(encoding="utf-8")
    assert "Archived before" in page
    assert kept.sha256 in page
    again = _archive(ended, folder)
    assert (again.ranges, again.rows, again.files) == (0, 0, [])


def test_a_straggler_is_re_pointed_by_what_the_removal_recorded(ended: Frozen, tmp_path: Path) -> None:
    _archive(ended, tmp_path / "archive")
    ended.write(2, [ended.photo(2, 0), ended.photo(2, 1)])  # an old client's, in its row and its document
    assert len(ended.gone()) == 4
    swept = sweep_profiles([ended.stores.profiles.find([2])], ended.stores)
    ended.migrate(sorted(swept.ranges))
    assert ended.gone() == []
    assert {finding for audited in ended.audit() for finding, count in audited.findings.items() if count} == {"sound"}
    with closing(open_ledger(ended.settings)) as ledger:
        assert ledger.tallies.outcomes() == [("copied", 12, sum(map(len, ended.bodies.values())), 1.0)]
    # And its rows are archived once more, beside the first.
    assert _archive(ended, tmp_path / "archive").rows == 2
    assert len(list((tmp_path / "archive").glob("*.parquet"))) == 2
    assert _rows(ended) == (0, 0)
    with closing(open_ledger(ended.settings)) as ledger:
        assert [item.rows for item in ledger.archive.archives()] == [12, 2]


def test_an_archived_range_is_not_rolled_back(ended: Frozen, tmp_path: Path) -> None:
    _archive(ended, tmp_path / "archive")
    with pytest.raises(Fatal, match=r"cannot be rolled back.*removed from the source"):
        roll_back_range(ended.keys[0], ended.stores)
    assert ended.gone() == []


def test_cut_off_before_the_ledger_commits_it_keeps_everything(
    ended: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, folder = set(ended.ask(KNOWN)), tmp_path / "archive"

    def cut(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(LedgerControl, "note", cut)  # the last thing in the transaction
        with pytest.raises(Cut):
            _archive(ended, folder)
    assert set(ended.ask(KNOWN)) == known == _read(folder)
    assert _archive(ended, folder).rows == 12
    assert _read(folder) == known
    assert _rows(ended) == (0, 0)


def test_a_file_that_does_not_hold_every_row_drops_none(
    ended: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = archiving.write_batches

    def short(path: Path, schema: Any, batches: Any, columns: Callable[[Any], Any]) -> int:
        return write(path, schema, (batch[1:] for batch in batches), columns)

    monkeypatch.setattr(archiving, "write_batches", short)
    with pytest.raises(Fatal, match="holds 11 rows of 12; nothing was dropped"):
        _archive(ended, tmp_path / "archive")
    assert _rows(ended) == (12, 12)
    assert list((tmp_path / "archive").iterdir()) == []


def test_a_range_that_somebody_works_on_stays_with_its_group(ended: Frozen, tmp_path: Path) -> None:
    with closing(open_ledger(ended.settings)) as other, other.hold(ended.keys[0], run=False):
        done = _archive(ended, tmp_path / "archive")
    assert done.left == {ended.keys[0]: "somebody works on it"}
    assert _rows(ended) == (12, 12)


def test_a_run_that_was_away_too_long_writes_nothing_any_more(ended: Frozen, tmp_path: Path) -> None:
    with closing(open_ledger(ended.settings)) as other, other.hold(ended.keys[0], run=False) as (_, held):
        # Its lock went with the connection that had it, and it does not know.
        ended.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert _archive(ended, tmp_path / "archive").rows == 12
        with pytest.raises(RangeLost):
            held.want([])


def test_a_run_that_begins_meanwhile_waits_and_finds_the_range_archived(ended: Frozen) -> None:
    seen: list[int] = []

    def run() -> None:
        with closing(open_ledger(ended.settings)) as other, other.hold(ended.keys[0], run=False) as (_, held):
            seen.append(len(held.known()))

    with closing(open_ledger(ended.settings)) as ledger:
        with ledger.transaction():
            group = ledger.archive.take(0, How.DELETE)
            assert group is not None
            assert group.why_not == {}
            beside = Thread(target=run)
            beside.start()
            beside.join(0.5)
            assert seen == []  # its range's row is ours
            ledger.archive.drop(0, "somewhere")
        beside.join(30)
    assert seen == [0]


def test_copies_that_wait_to_be_erased_are_not_forgotten(ended: Frozen, tmp_path: Path) -> None:
    ended.execute("UPDATE profiles SET photos = '[]' WHERE id = 1")
    ended.write_document(1, [])
    ended.migrate([ended.keys[0]])
    ended.audit([ended.keys[0]])
    done = _archive(ended, tmp_path / "archive")
    assert done.left == {ended.keys[0]: "2 copies were not erased yet that no profile of it holds any more"}
    assert _rows(ended) == (12, 12)


def test_a_copy_that_another_range_holds_keeps_nobody(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    app = make_frozen()
    shared = app.photo(1)
    app.write(4, [app.photo(4, 0), app.photo(4, 1), shared])
    app.migrate([app.keys[1]])
    app.write(1, [])  # the first range's profile lets go of it
    app.write_document(1, [])
    app.migrate([app.keys[0]])
    with closing(open_ledger(app.settings)) as ledger:
        alone = [item for item in ledger.dropped(seconds=0) if item.file.blob != shared]
    assert [item.file.blob for item in alone] == [app.photo(1, 1)]
    assert erase(app.stores, seconds=0).files == 1
    app.audit()
    app.decommission()
    assert _archive(app, tmp_path / "archive").left == {}
    assert _rows(app) == (0, 0)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, make_frozen: MakeFrozen) -> Frozen:
    """An app whose blobs are gone from the source, with a group for each range."""
    monkeypatch.setattr(groups, "RANGES", 1)
    app = make_frozen()
    assert app.decommission().files == 12
    return app


def _want(app: Frozen, blob: str, outcome: list[str]) -> None:
    """The second range comes to need a file of the first one."""
    file = SourceFile(app.name, blob)
    with closing(open_ledger(app.settings)) as ledger, ledger.hold(app.keys[1]) as (_, held):
        held.want([Wish(4, file, app.url(blob), had_query=False)])
        outcome += [known.outcome or "not tried" for wanted, known in held.known().items() if wanted == file]


def _first_group(app: Frozen) -> int:
    ((range_id,),) = app.ask("SELECT range_id FROM migration.ranges WHERE key = %s", app.keys[0])
    return groups.group_of(range_id)


def test_a_file_that_is_needed_again_while_it_goes_is_known_to_be_copied(apart: Frozen) -> None:
    outcome: list[str] = []
    beside = Thread(target=_want, args=[apart, apart.photo(1), outcome])
    with closing(open_ledger(apart.settings)) as ledger, ledger.transaction():
        ledger.archive.drop(_first_group(apart), "somewhere")
        beside.start()
        beside.join(0.5)
        assert outcome == []  # it waits for what becomes of the row
    beside.join(30)
    assert outcome == ["copied"]


def test_a_file_that_goes_while_it_is_being_noted_is_noted_anew(apart: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome: list[str] = []
    noted, dropped, put_in = Event(), Event(), tallies.put_in

    def wait(*given: Any) -> None:
        noted.set()
        assert dropped.wait(30)
        put_in(*given)

    monkeypatch.setattr(tallies, "put_in", wait)
    beside = Thread(target=_want, args=[apart, apart.photo(1), outcome])
    with closing(open_ledger(apart.settings)) as ledger, ledger.transaction():
        beside.start()
        assert noted.wait(30)  # it found the file's row, and does not refer to it yet
        ledger.archive.drop(_first_group(apart), "somewhere")
        dropped.set()
        beside.join(0.5)
        assert outcome == []
    beside.join(30)
    assert outcome == ["copied"]


def test_a_file_that_another_range_needs_by_now_stays(apart: Frozen) -> None:
    outcome: list[str] = []
    query = PostgresLedger.query

    def late(ledger: PostgresLedger, text: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        if "TRUNCATE" in text:  # what may go was looked up before
            _want(apart, apart.photo(1), outcome)
        return query(ledger, text, parameters)

    with closing(open_ledger(apart.settings)) as ledger:
        ledger.archive = LedgerArchive(lambda *given: late(ledger, *given), ledger._stream, ledger.removal)  # noqa: SLF001 - to come between its statements
        with ledger.transaction():
            assert ledger.archive.drop(_first_group(apart), "somewhere") == 5
    assert outcome == ["copied"]
    assert _rows(apart) == (7, 7)


def test_the_asset_is_a_dry_run_unless_told_otherwise(
    ended: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ended.environment.items():
        monkeypatch.setenv(name, value)

    folder = str(tmp_path / "archive")

    def run(**config: Any) -> dict[str, Any]:
        made = dg.materialize(
            [archived_ranges],
            resources={"migration": Migration()},
            run_config={"ops": {"archived_ranges": {"config": {"folder": folder, "by": "ann", **config}}}},
        )
        (event,) = made.asset_materializations_for_node("archived_ranges")
        return {name: value.value for name, value in event.metadata.items()}

    dry = run()
    assert (dry["applied"], dry["ranges"], dry["rows"]) == (0, 2, 12)
    assert _rows(ended) == (12, 12)
    done = run(apply=True, by="ann")
    assert (done["applied"], done["rows"], done["files_dropped"]) == (1, 12, 12)
    assert _rows(ended) == (0, 0)


def test_the_command_says_what_would_go_and_does_it_when_told(ended: Frozen, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    said = ended.command("archive", "--out", str(folder))
    assert said.returncode == 0, said.stderr
    assert "12 rows of 2 ranges would be archived and dropped. Nothing was written: add --apply." in said.stdout
    done = ended.command("archive", "--out", str(folder), "--apply", "--by", "ann")
    assert done.returncode == 0, done.stderr
    assert f"12 rows of 2 ranges archived in {folder}; 12 files left the ledger." in done.stdout
    assert _rows(ended) == (0, 0)


def test_copies_of_an_account_that_is_deleted_after_archiving_are_found_and_erased(
    ended: Frozen, tmp_path: Path
) -> None:
    _archive(ended, tmp_path / "archive")
    # A photo that somebody else refers to as well stays.
    shared = f"{ended.sandbox.public_base_url}/{ended.key(ended.photo(2, 1))}"
    ended.write(5, [], [shared, *(f"{ended.sandbox.public_base_url}/{ended.key(ended.photo(5, n))}" for n in (0, 1))])
    ended.execute("DELETE FROM profiles WHERE id = 2")
    ended.write_document(2, [])
    (audited, other) = ended.audit()
    assert {example.shown for example in audited.examples[Finding.ORPHAN_COPY]} == {
        f"{ended.name}/{ended.photo(2, number)}" for number in (0, 1)
    }
    assert other.findings[Finding.ORPHAN_COPY] == 0
    ended.migrate([ended.keys[0]])
    done = erase(ended.stores, seconds=0)
    assert (done.files, done.spared) == (1, 1)
    with ended.s3() as s3:
        listed = s3.list_objects_v2(Bucket=ended.places.bucket, Prefix=ended.key("2/"))
    assert [item["Key"] for item in listed["Contents"]] == [ended.key(ended.photo(2, 1))]
    assert ended.gone() == []
    ended.migrate([ended.keys[0]])
    assert erase(ended.stores, seconds=0).files == 0
