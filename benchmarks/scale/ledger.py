"""The part `ledger`: what the product's own statements take at a million files, at ten million and at fifty million."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.scale import ledger_fill, profiles
from benchmarks.scale.ledger_fill import SCHEMA, Shape
from benchmarks.scale.results import Figures, load_average, say, summary, timed
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.postgres_range import PostgresRangeLedger
from migration_pipeline.adapters.ledger.status import standing
from migration_pipeline.core.model import CopyResult, Outcome, ProfileRange, SourceFile, Wish
from migration_pipeline.defs.report import report
from migration_pipeline.report.course import course
from migration_pipeline.settings import CONFIG_VARIABLE, load
from migration_pipeline.standing import look

SIZES = (1_000_000, 10_000_000, 50_000_000)
SHAPE = Shape(files=10_000, profiles=2_000)
_RECORDED_AT_ONCE = 200  # as a run at some hundred files a second hands them over
_SPARE_BYTES = 5_000_000_000
Times = dict[str, list[float]]


def measure(sizes: Sequence[int], shape: Shape, times: int, most_gigabytes: float) -> Figures:
    """Fill a ledger stage by stage, and ask it the same each time."""
    found: list[Figures] = []
    with profiles.postgres() as server, tempfile.TemporaryDirectory() as folder:
        url = server.url("app")
        config = Path(folder, "migration.toml")
        config.write_text(profiles.settings_of(url, profiles_per_range=shape.profiles), encoding="utf-8")
        os.environ.update({"DATABASE_URL": url, "AZURE_STORAGE_KEY": "bm9uZQ==", CONFIG_VARIABLE: str(config)})
        with closing(PostgresLedger(url, SCHEMA)) as ledger:
            for files in sizes:
                if why := _no_room(files, found, most_gigabytes):
                    say(why)
                    return {"stages": found, "not_run": why}
                found.append(_stage(ledger, url, files, shape, times))
    return {"stages": found}


def _no_room(files: int, found: Sequence[Figures], most_gigabytes: float) -> str:
    """Why so many files would not find room; empty where they do, or nothing is known yet."""
    if not found:
        return ""
    each = found[-1]["database_bytes"] / found[-1]["files"]
    whole, more = each * files, each * (files - found[-1]["files"])
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if whole > most_gigabytes * 1e9 or more > free - _SPARE_BYTES:
        return (
            f"{files:,} files would take {whole / 1e9:.0f} GB; {free / 1e9:.0f} GB are free, {most_gigabytes} allowed"
        )
    return ""


def _stage(ledger: PostgresLedger, url: str, files: int, shape: Shape, times: int) -> Figures:
    """Make the ledger so large, the last ranges left for the product to do, and measure."""
    first, last = len(ledger.ranges()) + 1, files // shape.files
    new = [shape.range(ordinal) for ordinal in range(first, last + 1)]
    began = time.monotonic()
    ledger.add_ranges(new)
    adding = time.monotonic() - began
    began = time.monotonic()
    ledger_fill.fill(url, shape, range(first, last + 1 - times))
    filling = time.monotonic() - began
    busy = load_average()
    fresh = [shape.range(ordinal) for ordinal in range(last + 1 - times, last + 1)]
    finished = [shape.range(1 + n * (last - times) // times) for n in range(times)]
    figures = {
        "files": files, "ranges": last, "ranges_added": len(new), "adding_ranges_seconds": round(adding, 2),
        "made_in_seconds": round(filling), "machine_was_busy_with": busy,
        "first_run_of_a_range": _first_runs(ledger, fresh, shape),
        "finished_range": _finished(ledger, finished),
        "overview": _overview(ledger, times),
        "plans": _plans(ledger, url, finished[-1]),
    }  # fmt: skip
    say(f"asked at {files:,} files")
    return figures | _sizes(url)


def _first_runs(ledger: PostgresLedger, ranges: Sequence[ProfileRange], shape: Shape) -> dict[str, Figures]:
    """What the ledger is told and asked while a range is migrated: whole calls, a range's files each."""
    took: Times = {}
    for bounds in ranges:
        wishes = shape.wishes(bounds.ordinal)
        with ledger.hold(bounds.key) as (_, held):
            _time(took, "want", held.want, wishes)
            todo = _time(took, "unfinished", held.unfinished)
            if len(todo) != shape.files:
                raise AssertionError(f"{len(todo)} of {shape.files} files to do: the ledger is not what it should be")
            for start in range(0, len(wishes), _RECORDED_AT_ONCE):
                batch = [_copied(wish) for wish in wishes[start : start + _RECORDED_AT_ONCE]]
                _time(took, f"record_{_RECORDED_AT_ONCE}", held.record, batch)
            _time(took, "known", held.known)
            _time(took, "profiles_with_files", held.profiles_with_files)
            _time(took, "spellings", held.spellings)
            files = {wish.file for wish in wishes}
            _time(took, "note_held", held.note_held, files)
            _time(took, "finish", held.finish, {"waiting": 0, "files": shape.files})
    return {name: summary(values) for name, values in took.items()}


def _finished(ledger: PostgresLedger, ranges: Sequence[ProfileRange]) -> dict[str, Figures]:
    """The same of ranges migrated long ago, as a second run asks; the server's memory has forgotten their rows."""
    took: Times = {}
    for bounds in ranges:
        with ledger.hold(bounds.key) as (_, held):
            spellings = _time(took, "spellings", held.spellings)
            wishes = [
                Wish(profile, file, said.url or "", said.had_query)
                for profile, of in spellings.items()
                for file, said in of.items()
            ]
            _time(took, "want", held.want, wishes)
            left = _time(took, "unfinished", held.unfinished)
            if len(left) > len(wishes) // 100:
                raise AssertionError("identities are not those that the product computes")
            _time(took, "known", held.known)
            files = {wish.file for wish in wishes}
            _time(took, "held_elsewhere_1000", held.held_elsewhere, list(files)[:1000])
            _time(took, "note_held", held.note_held, files)
            _time(took, "finish", held.finish, {"waiting": 0, "files": len(files)})
    return {name: summary(values) for name, values in took.items()}


def _overview(ledger: PostgresLedger, times: int) -> dict[str, Figures]:
    """What people, sensors and reports ask of all ranges."""
    settings, overview = load(), ledger.overview
    asked: dict[str, Callable[[], Any]] = {
        "states": overview.states,
        "standing": lambda: standing(overview, ledger.now()),
        "status": lambda: look(settings),
        "letter_classes": overview.letter_classes,
        "dead_letters_1000": overview.dead_letters,
        "outcomes": ledger.tallies.outcomes,
        "sizes": ledger.tallies.sizes,
        "course": lambda: course(overview),
        "requested": ledger.requested,
        "dropped": lambda: ledger.dropped(seconds=3600),
        "totals": ledger.exports.totals,
        "migration_report": lambda: report(ledger),
    }
    return {name: timed(question, times) for name, question in asked.items()} | {"status_command": _command()}


def _command() -> Figures:
    """`migration-pipeline status`, start and all."""
    command = [sys.executable, "-m", "migration_pipeline.cli", "status", "--json"]
    took = []
    for _ in range(3):
        began = time.perf_counter()
        # It exits with 1 as long as something is left.
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603 - our own command
        took.append(1000 * (time.perf_counter() - began))
    return summary(took)


class _Told(psycopg.Cursor[Any]):
    """Remembers what it was told to ask."""

    asked: list[tuple[Any, Any]] = []  # noqa: RUF012 - of all cursors together

    def execute(self, query: Any, params: Any = None, **how: Any) -> "_Told":  # noqa: ANN401 - as the driver has it
        self.asked.append((query, params))
        super().execute(query, params, **how)
        return self


def _plans(ledger: PostgresLedger, url: str, bounds: ProfileRange) -> dict[str, str]:
    """How Postgres answers a range's reads: the product's own statements, explained."""
    told: dict[str, tuple[Any, Any]] = {}
    with (
        ledger.hold(bounds.key) as (_, held),
        psycopg.connect(url, autocommit=True, cursor_factory=_Told) as connection,
    ):
        reader = PostgresRangeLedger(connection, SCHEMA, bounds, held.fence.epoch, connection, lambda _: set())
        for name in ("unfinished", "known", "spellings", "profiles_with_files"):
            getattr(reader, name)()
            told[name] = _Told.asked[-1]
        connection.cursor_factory = psycopg.Cursor
        plans = {}
        for name, (query, values) in told.items():
            text = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {query.as_string(connection)}"
            plans[name] = "\n".join(row[0] for row in connection.execute(text.encode(), values))
    return plans


def _sizes(url: str) -> Figures:
    with psycopg.connect(url) as connection:
        (row,) = connection.execute(
            "SELECT pg_database_size(current_database()), pg_total_relation_size('migration.files'),"
            " (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('migration.wanted')),"
            " (SELECT count(*) FROM pg_inherits WHERE inhparent = 'migration.wanted'::regclass)"
        ).fetchall()
    return dict(zip(("database_bytes", "files_bytes", "wanted_bytes", "tables_of_wanted"), map(int, row), strict=True))


def _copied(wish: Wish) -> CopyResult:
    file: SourceFile = wish.file
    md5 = hashlib.md5(file.blob.encode(), usedforsecurity=False).digest()
    return CopyResult(file, Outcome.COPIED, 20_000, md5, f'"{md5.hex()}"', source_etag='"0x8D0000000000000"')


def _time(took: Times, name: str, work: Callable[..., Any], *given: object) -> Any:  # noqa: ANN401 - what the work gives
    began = time.perf_counter()
    result = work(*given)
    took.setdefault(name, []).append(1000 * (time.perf_counter() - began))
    return result
