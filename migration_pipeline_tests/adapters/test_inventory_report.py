"""Azure's inventory reports, CSV and Parquet, and how listings get into the ledger: on a real Postgres."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from migration_pipeline.adapters.azure import report_files
from migration_pipeline.adapters.azure.inventory_report import read_report
from migration_pipeline.adapters.azure.inventory_rows import Rows, as_csv
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.inventory import Listed
from migration_pipeline.core.model import SourceFile
from migration_pipeline.inventory import read
from migration_pipeline.sandbox import Sandbox

MADE_AT = datetime(2026, 9, 9, 8, tzinfo=UTC)
ODD = (
    'a"b.jpg',
    "a\nb",
    "a\r\nb",
    "a\rb",
    "a\n\\.\nb",
    "\\.",
    "\\N",
    ",",
    " x ",
    "é",
    "e\u0301",
    "😀",
    "a//b",
    "%41",
    "'",
)
Write = Callable[[Path, list[dict[str, Any]]], Path]


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return sandbox.create_database(f"i{uuid4().hex[:12]}")


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(url, "migration")) as opened:
        yield opened


def blobs(count: int = 50, container: str = "photos") -> list[Listed]:
    names = [*ODD, *(f"{n // 7}/{n}.jpg" for n in range(count))]
    return [
        Listed(
            SourceFile(container, name),
            n * 1000,
            hashlib.md5(name.encode(), usedforsecurity=False).digest() if n % 5 else None,
            f'"0x8D{n:04X}"',
            ("Hot", "Cool", "Archive")[n % 3],
            datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n, milliseconds=7 * n),
        )
        for n, name in enumerate(names)
    ]


def rows_of(listed: Sequence[Listed]) -> list[dict[str, Any]]:
    """As Azure's reports have them, the columns in an order of its own."""
    return [
        {
            "Name": str(blob.file),
            "Last-Modified": blob.written_at,
            "Content-Length": blob.size,
            "Etag": (blob.etag or "").strip('"'),
            "Content-MD5": base64.b64encode(blob.md5).decode() if blob.md5 else None,
            "AccessTier": blob.tier,
            "BlobType": "BlockBlob",
        }
        for blob in listed
    ]


def as_csv_report(path: Path, rows: list[dict[str, Any]]) -> Path:
    def text(value: Any) -> str:
        if isinstance(value, datetime):
            return value.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"  # seven digits
        return "" if value is None else str(value)

    names = list(rows[0])
    table = pa.table({name: pa.array([text(row.get(name)) for row in rows], pa.string()) for name in names})
    csv.write_csv(table, path.with_suffix(".csv"))
    return path.with_suffix(".csv")


def as_parquet_report(path: Path, rows: list[dict[str, Any]]) -> Path:
    def plain(value: Any) -> Any:
        return round(value.timestamp() * 1000) if isinstance(value, datetime) else value

    table = pa.Table.from_pylist([{name: plain(value) for name, value in row.items()} for row in rows])
    parquet.write_table(table, path.with_suffix(".parquet"), row_group_size=20)
    return path.with_suffix(".parquet")


FORMATS = pytest.mark.parametrize("write", [as_csv_report, as_parquet_report])


def held(url: str) -> dict[str, tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT file_id::text, container, blob, size_bytes, md5, etag, tier, written_at FROM migration.inventory"
        ).fetchall()
    return {row[0]: row[1:] for row in rows}


def expected(listed: Sequence[Listed]) -> dict[str, tuple[object, ...]]:
    return {
        str(blob.file.file_id): (*blob.file, blob.size, blob.md5, blob.etag, blob.tier, blob.written_at)
        for blob in listed
    }


def keep(ledger: PostgresLedger, listed: Sequence[Listed], containers: Sequence[str] = ("photos",)) -> int:
    """A whole listing, in pages of twenty."""
    begun = ledger.listings.begin("listing", containers)
    progress: dict[str, Any] = {}
    for start in range(0, len(listed), 20):
        page = listed[start : start + 20]
        after, progress = progress, {"page": start}
        rows = Rows(as_csv(page), len(page), sum(blob.size for blob in page), progress, {})
        ledger.listings.keep(begun.listing_id, rows, after=after)
    ledger.listings.finish(begun.listing_id)
    return begun.listing_id


def test_a_listing_is_kept_as_it_is(ledger: PostgresLedger, url: str) -> None:
    listed = blobs()
    keep(ledger, listed)
    assert held(url) == expected(listed)
    newest = ledger.inventory.newest_listing(["photos"])
    assert newest is not None
    assert (newest.blobs, newest.bytes, newest.source) == (len(listed), sum(b.size for b in listed), "listing")
    assert ledger.inventory.newest_listing(["photos", "others"]) is None
    last = max(listed, key=lambda blob: blob.written_at)
    newer = ledger.inventory.newer_than(last.written_at - timedelta(seconds=2.5), limit=2)
    assert (newer.count, newer.newest_at) == (3, last.written_at)
    assert newer.examples[0] == (last.file, last.written_at)
    assert len(newer.examples) == 2


@FORMATS
def test_a_report_reads_as_the_listing_does(ledger: PostgresLedger, url: str, tmp_path: Path, write: Write) -> None:
    listed = blobs()
    half = len(listed) // 2
    files = [write(tmp_path / "one", rows_of(listed[:half])), write(tmp_path / "two", rows_of(listed[half:]))]
    begun = read(ledger, read_report(files, MADE_AT), ["photos"], lambda _: None)
    assert held(url) == expected(listed)
    newest = ledger.inventory.newest_listing()
    assert newest is not None
    assert (newest.listing_id, newest.began_at, newest.blobs) == (begun.listing_id, MADE_AT, len(listed))


@FORMATS
def test_what_is_no_blob_of_now_is_skipped_and_counted(
    ledger: PostgresLedger, url: str, tmp_path: Path, write: Write
) -> None:
    listed = blobs(20)
    rows = [
        row
        | {"hdi_isfolder": "false", "Snapshot": None, "IsCurrentVersion": "true", "VersionId": "v2", "Deleted": None}
        for row in rows_of(listed)
    ]
    odd = [
        {"hdi_isfolder": "true", "Content-Length": None, "Name": "photos/folder"},
        {"Snapshot": "2026-01-01T00:00:00.0000000Z"},
        {"IsCurrentVersion": "false", "VersionId": "v1"},
        {"IsCurrentVersion": "False", "VersionId": "v0"},
        {"Deleted": "true"},
        {"Name": "others/a.jpg"},
    ]
    rows += [rows[0] | change for change in odd]
    read(ledger, read_report([write(tmp_path / "r", rows)], MADE_AT), ["photos"], lambda _: None)
    assert held(url) == expected(listed)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT skipped FROM migration.listings").fetchall()[0][0] == {
            "directories": 1, "snapshots": 1, "old versions": 2, "deleted": 1, "other containers": 1,
        }  # fmt: skip


@FORMATS
def test_reading_goes_on_where_it_was_cut_off(
    ledger: PostgresLedger, url: str, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_files, "_BATCH_ROWS", 13)
    listed = blobs(100)
    files = [write(tmp_path / "one", rows_of(listed[:70])), write(tmp_path / "two", rows_of(listed[70:]))]
    told: list[str] = []

    def cut_off(text: str) -> None:
        told.append(text)
        if len(told) == 8:  # in the second file
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(ledger, read_report(files, MADE_AT), ["photos"], cut_off)
    assert held(url) == {}
    monkeypatch.setattr(report_files, "_BATCH_ROWS", 5)  # another release may read in other batches
    begun = read(ledger, read_report(files, MADE_AT), ["photos"], told.append)
    assert held(url) == expected(listed)
    assert begun.blobs > 70, "it was read from the beginning"
    newest = ledger.inventory.newest_listing()
    assert newest is not None
    assert newest.blobs == len(listed)


def test_a_report_that_changed_meanwhile_is_read_anew(
    ledger: PostgresLedger, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_files, "_BATCH_ROWS", 13)
    path = as_csv_report(tmp_path / "r", rows_of(blobs(100)))

    def cut_off(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(ledger, read_report([path], MADE_AT), ["photos"], cut_off)
    listed = blobs(40)[::-1]
    as_csv_report(tmp_path / "r", rows_of(listed))
    read(ledger, read_report([path], MADE_AT), ["photos"], lambda _: None)
    assert held(url) == expected(listed)


def test_a_broken_report_is_refused_and_nothing_lost(ledger: PostgresLedger, url: str, tmp_path: Path) -> None:
    listed = blobs()
    keep(ledger, listed)
    before = ledger.inventory.newest_listing()
    later = datetime.now(UTC) + timedelta(hours=1)
    rows = rows_of(blobs(200))
    good_csv, good_parquet = as_csv_report(tmp_path / "good", rows), as_parquet_report(tmp_path / "good", rows)

    def refused(name: str, content: bytes, where: str) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(Fatal, match=where) as error:
            read(ledger, read_report([path], later), ["photos"], lambda _: None)
        assert name in error.value.message
        assert held(url) == expected(listed)
        assert ledger.inventory.newest_listing() == before

    text, packed = good_csv.read_bytes(), good_parquet.read_bytes()
    refused("cut.csv", text[: len(text) // 2], "cut off")
    refused("cut.parquet", packed[: len(packed) // 2], "cannot be read")
    refused("short_row.csv", text + b"photos/x,1\n", "Row #217")
    refused("bad_size.csv", text.replace(b'"150000"', b'"15x000"'), "record 151 has a Content-Length that is none")
    refused("no_time.csv", text.replace(b'"2026-01-01T00:00:10.0700000Z"', b'""'), "record 11 has no Last-Modified")
    refused("no_column.csv", text.replace(b"Last-Modified", b"Lost-Modified"), "no column last-modified")
    refused("other.txt", text, "neither")
    group = parquet.ParquetFile(good_parquet).metadata.row_group(4)
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    refused("damaged.parquet", packed[:start] + b"\xff" * 64 + packed[start + 64 :], "row group 4")
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^inventory_[0-9]' "
        ).fetchall()
    assert len(tables) == 1, "what was refused left a table behind"


def test_a_blob_named_twice_is_refused(ledger: PostgresLedger, url: str, tmp_path: Path) -> None:
    listed = blobs()
    files = [as_csv_report(tmp_path / name, rows_of(part)) for name, part in (("a", listed), ("b", listed[-1:]))]
    with pytest.raises(Fatal, match=r"names photos/7/49\.jpg twice"):
        read(ledger, read_report(files, MADE_AT), ["photos"], lambda _: None)
    assert held(url) == {}
    with pytest.raises(Fatal, match="names a file twice"):
        read_report([files[0], files[0]], MADE_AT)


def test_a_newer_listing_replaces_what_it_covers(ledger: PostgresLedger, url: str) -> None:
    photos, others = blobs(30), blobs(10, "others")
    keep(ledger, [*photos, *others], ["photos", "others"])
    fewer = photos[:-5]
    keep(ledger, fewer)
    assert held(url) == expected([*fewer, *others])
    keep(ledger, [], ["others"])
    assert held(url) == expected(fewer)
    keep(ledger, photos, ["photos", "others"])
    assert held(url) == expected(photos)


def test_one_at_a_time_and_nothing_twice(ledger: PostgresLedger, url: str) -> None:
    with closing(PostgresLedger(url, "migration")) as other, ledger.listings.hold():
        with pytest.raises(Fatal, match="under way"), other.listings.hold():
            pass
        # A process that lost its lock, and does not know it, keeps nothing that the other one kept.
        begun = ledger.listings.begin("listing", ["photos"], seconds=60)
        assert other.listings.begin("listing", ["photos"], seconds=60).listing_id == begun.listing_id
        rows = Rows(as_csv(blobs(1)), 1, 1, {"page": 1}, {})
        ledger.listings.keep(begun.listing_id, rows, after={})
        with pytest.raises(Fatal, match="another one went on"):
            other.listings.keep(begun.listing_id, rows, after={})
    with closing(PostgresLedger(url, "migration")) as other, other.listings.hold():
        # Cut off too long ago, or of other containers: from the beginning.
        assert other.listings.begin("listing", ["photos"], seconds=0).listing_id > begun.listing_id


def test_when_a_report_was_made(tmp_path: Path) -> None:
    folder = tmp_path / "2026" / "09" / "09" / "08-00-00" / "rule"
    folder.mkdir(parents=True)
    path = as_csv_report(folder / "r", rows_of(blobs(5)))
    assert read_report([path], None).began_at == MADE_AT
    elsewhere = as_csv_report(tmp_path / "r", rows_of(blobs(5)))
    with pytest.raises(Fatal, match="nothing says when"):
        read_report([elsewhere], None)
    assert read_report([elsewhere], MADE_AT).began_at == MADE_AT


def test_a_manifest_says_what_belongs_to_a_report(ledger: PostgresLedger, url: str, tmp_path: Path) -> None:
    listed = blobs()
    files = [
        as_csv_report(tmp_path / "one", rows_of(listed[:30])),
        as_csv_report(tmp_path / "two", rows_of(listed[30:])),
    ]
    said = {
        "inventoryStartTime": "2026-09-09T08:00:00Z",
        "status": "Succeeded",
        "files": [{"blob": f"2026/09/09/08-00-00/rule/{f.name}", "size": f.stat().st_size} for f in files],
        "ruleDefinition": {"filters": {"blobTypes": ["blockBlob"], "prefixMatch": ["photos"]}, "objectType": "blob"},
    }
    manifest = tmp_path / "rule-manifest.json"

    def given(**changes: Any) -> Path:
        manifest.write_text(json.dumps(said | changes))
        return manifest

    report = read_report([given()], None)
    assert (report.began_at, report.containers) == (MADE_AT, ["photos"])
    with pytest.raises(Fatal, match="leaves out others"):
        read(ledger, report, ["photos", "others"], lambda _: None)
    read(ledger, report, ["photos"], lambda _: None)
    assert held(url) == expected(listed)
    older = read_report([given(inventoryStartTime="2026-09-08T08:00:00Z")], None)
    with pytest.raises(Fatal, match="the report is of 2026-09-08"):
        read(ledger, older, ["photos"], lambda _: None)

    partial = {"filters": {"prefixMatch": ["photos/2026"]}}
    for wrong, why in (
        ({"status": "Failed"}, "ended as Failed"),
        ({"ruleDefinition": partial}, "'photos/2026' alone"),
        ({"ruleDefinition": {"filters": {"creationTime": {"lastNDays": 3}}}}, "leaves blobs out"),
        ({"ruleDefinition": {"objectType": "container"}}, "of containers"),
        ({"files": [{"blob": "x/gone.csv", "size": 5}]}, "gone.csv is missing"),
        ({"files": [{"blob": "x/one.csv", "size": 5}]}, "instead of 5"),
        ({"files": None}, "is no manifest"),
    ):
        with pytest.raises(Fatal, match=why):
            read_report([given(**wrong)], None)
