"""The part `partitions`: how long pages of the Dagster UI take with so many partitions, and whether backfills begin."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psycopg

from benchmarks.scale import profiles
from benchmarks.scale.pages import Browser, wait_for
from benchmarks.scale.results import Figures, load_average, say
from migration_pipeline.commands.dagster_instance import daemon, instance, shipped, webserver
from migration_pipeline.commands.launches import cancel, launch_backfill, location_of, state
from migration_pipeline.defs.migrated import SPECS
from migration_pipeline.defs.ranges import register, set_workers
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.sandbox.app_plan import plan_app
from migration_pipeline.sandbox.app_records import fill_database
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.settings import CONFIG_VARIABLE, load

SIZES = (500, 5_000)
SLICES = 10
_GREEN = 0.8  # of the partitions, before pages are looked at
_START_SECONDS = 240


def measure(sizes: Sequence[int], slices: int, times: int) -> Figures:
    """Register partitions step by step and look at pages; then launch a backfill of all of them in slices."""
    found: list[Figures] = []
    with profiles.postgres() as server, _home() as home:
        url = server.url("app")
        os.environ.update(_environment(url, server.port, home))
        _tables(url)
        with instance() as opened:
            set_workers(opened, 2)
        port = free_ports(1)[0]
        with webserver(port, home / "webserver.log"), Browser(f"http://127.0.0.1:{port}") as browser:
            wait_for(browser.loaded, _START_SECONDS)
            for size in sizes:
                registered = _register(url, size)
                say(f"{size:,} partitions are registered")
                busy = load_average()
                found.append(
                    {"partitions": size, **registered, "machine_was_busy_with": busy, "pages": browser.pages(times)}
                )
                say(f"looked at {size:,} partitions")
            backfill = _backfill(home, browser, sizes[-1], slices, times)
    return {"sizes": found, "backfill": backfill}


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scale-home-") as folder:
        home = Path(folder)
        shutil.copyfile(shipped("dagster.yaml"), home / "dagster.yaml")
        yield home


def _environment(url: str, port: int, home: Path) -> dict[str, str]:
    config = home / "migration.toml"
    config.write_text(profiles.settings_of(url, profiles_per_range=1), encoding="utf-8")
    return {
        "DATABASE_URL": url, "AZURE_STORAGE_KEY": "bm9uZQ==", CONFIG_VARIABLE: str(config),
        "DAGSTER_HOME": str(home), "DAGSTER_COMPUTE_LOGS": str(home / "compute_logs"), "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": str(port), "DAGSTER_PG_USERNAME": "postgres", "DAGSTER_PG_PASSWORD": "unused",
        "DAGSTER_PG_DB": "dagster",
    }  # fmt: skip


def _tables(url: str) -> None:
    """The app's tables, without a row."""
    size = AppSize(profiles=0)
    fill_database(profiles.stores(url), size, plan_app(profiles.stores(url), size))


def _register(url: str, size: int) -> Figures:
    """A profile without files for each range: its run does all there is to do but copying."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO profiles (id, username, photos, updated_at) SELECT n, 'user' || n, '[]', now()"
            " FROM generate_series((SELECT coalesce(max(id), 0) + 1 FROM profiles), %s) AS n",
            [size],
        )
    settings = load()
    before = time.monotonic()
    planned = plan(settings)
    keep(planned, settings)
    planning = time.monotonic() - before
    with instance() as opened:
        before = time.monotonic()
        register(opened, planned.keys)
        registering = time.monotonic() - before
        opened.report_runless_asset_event(dg.AssetMaterialization("profile_ranges"))
        known = set(opened.get_materialized_partitions(SPECS[-1].key))
        green = [key for key in planned.keys[: int(_GREEN * size)] if key not in known]
        before = time.monotonic()
        for key in green:
            for spec in SPECS:
                opened.report_runless_asset_event(dg.AssetMaterialization(spec.key, partition=key))
        say(f"made {len(green):,} partitions green in {time.monotonic() - before:.0f} s")
    return {
        "planning_seconds": round(planning, 2),
        "registering_seconds": round(registering, 2),
        "green": int(_GREEN * size),
    }


def _backfill(home: Path, browser: Browser, partitions: int, slices: int, times: int) -> Figures:
    """Ask for all slices, have the daemon take the first in hand, and look at its page; then cancel all."""
    with instance() as opened:
        keys = list(opened.get_dynamic_partitions("profile_ranges"))
        parts = [keys[start : start + partitions // slices] for start in range(0, partitions, partitions // slices)]
        before = time.monotonic()
        launched = [launch_backfill(location_of(opened), part) for part in parts]
        launching = time.monotonic() - before
        with daemon(home / "daemon.log"):
            before = time.monotonic()
            wait_for(lambda: state(opened, launched[0]).queued > 0, _START_SECONDS)
            first_run = time.monotonic() - before
            wait_for(lambda: _submitted(opened, launched[0].id) >= len(parts[0]), 3600)
            submitted = time.monotonic() - before
            say(f"the first slice's {len(parts[0])} runs are queued")
            page = browser.backfill_pages(launched[0].id, times)
            runs = state(opened, launched[0])
            for one in launched:
                cancel(opened, one)
    return {
        "slices": len(parts),
        "partitions_of_a_slice": len(parts[0]),
        "launching_all_slices_seconds": round(launching, 1),
        "first_run_queued_after_seconds": round(first_run, 1),
        "first_slice_queued_after_seconds": round(submitted, 1),
        "pages": page,
        "runs_of_the_first_slice": runs._asdict(),
        "not_run": "the slices were cancelled then: all runs take hours, and are measured by bench-backfill",
    }


def _submitted(opened: dg.DagsterInstance, backfill_id: str) -> int:
    return opened.get_runs_count(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
