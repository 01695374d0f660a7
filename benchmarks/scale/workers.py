"""The part `workers`: the same ranges by one worker, by two and by four, and whether limits hold for all together."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.scale.results import Figures, load_average, say
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.commands.demo import prepare
from migration_pipeline.core.control import Limits
from migration_pipeline.core.errors import RangeBusy
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, create_app, settings_toml
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_ledger, open_stores

WORKERS = (1, 2, 4)
_RANGES = 16
_EVERY = 0.5  # seconds
_FIRST, _LAST = 0.2, 0.8  # of the files: between them a limit is kept by all workers


class Case(NamedTuple):
    """How far away the stores are, and how many files a worker copies at once."""

    latency_ms: int = 0
    in_flight: int = 64


CASES = (Case(), Case(latency_ms=30), Case(latency_ms=30, in_flight=8))


def measure(
    workers: Sequence[int], profiles: int, requests_per_second: float, cases: Sequence[Case] = CASES
) -> Figures:
    """Each case with each number of workers; then a limit, with the fewest and the most of them."""
    size = AppSize(profiles=profiles, photos_per_profile=5, scale=0.15, bad_files=False)
    rows = []
    for case in cases:
        alone = 0.0
        for count in workers:
            row = _run(size, count, case, None)
            alone = alone or row["files_per_second"]
            rows.append(row | {"times_one_worker": round(row["files_per_second"] / alone, 2)})
            say(f"{case}: {count} workers, {row['files_per_second']} files/s")
    limited = [_run(size, count, Case(), requests_per_second) for count in (workers[0], workers[-1])]
    return {"ranges": _RANGES, "profiles": profiles, "cores": os.cpu_count(), "rows": rows, "limited": limited}


def _run(size: AppSize, workers: int, case: Case, limit: float | None) -> Figures:
    """The app made anew, and migrated."""
    with Sandbox() as servers, _near_or_far(servers) as (stores, proxies):
        create_app(stores, size)
        os.environ.update(prepare(servers, size, workers))
        config = settings_toml(stores, size, profiles_per_range=-(-size.profiles // _RANGES))
        (servers.folder / "migration.toml").write_text(config, encoding="utf-8")
        os.environ["MIGRATION_COPY__IN_FLIGHT"] = str(case.in_flight)
        settings = load()
        keep(plan(settings), settings)
        for proxy in proxies:
            proxy.faults = [Fault("delay", seconds=case.latency_ms / 1000)] if case.latency_ms else []
        busy = load_average()
        with closing(open_ledger(settings)) as ledger:
            if limit:
                ledger.control.limit(Limits(requests_per_second=limit), by="bench")
            seen, usages = _work(ledger, workers)
            figures = _figures(ledger, seen)
    said: Figures = {"workers": workers, **case._asdict(), "machine_was_busy_with": busy, **figures}
    said["cpu_seconds_of_workers"] = round(sum(one.ru_utime + one.ru_stime for one in usages), 1)
    said["peak_megabytes_of_workers"] = [round(one.ru_maxrss / 1024) for one in usages]
    return said if limit is None else said | {"limit_requests_per_second": limit, **_rate(seen)}


@contextmanager
def _near_or_far(servers: Sandbox) -> Iterator[tuple[AppStores, list[FaultProxy]]]:
    """The app's stores behind proxies that can delay requests; there in every case, for they take part of a core."""
    stores = AppStores.on(servers)
    azure, s3 = (urlsplit(url).port or 0 for url in (stores.account_url, stores.s3_endpoint_url))
    with FaultProxy(azure) as before_azure, FaultProxy(s3) as before_s3:
        behind = replace(
            stores,
            account_url=stores.account_url.replace(f":{azure}", f":{before_azure.port}"),
            s3_endpoint_url=stores.s3_endpoint_url.replace(f":{s3}", f":{before_s3.port}"),
            public_base_url=stores.public_base_url.replace(f":{s3}", f":{before_s3.port}"),
        )
        yield behind, [before_azure, before_s3]


def _work(ledger: PostgresLedger, workers: int) -> tuple[list[tuple[float, int]], list[Any]]:
    """Have so many processes migrate all ranges; what was copied when, and what each process took."""
    command = [sys.executable, "-m", "benchmarks.scale", "workers", "--within"]
    running = [subprocess.Popen([*command, f"{n}/{workers}"]) for n in range(workers)]  # noqa: S603 - this very package
    seen, usages = [(time.monotonic(), 0)], []
    while running:
        time.sleep(_EVERY)
        ((copied,),) = ledger.query("SELECT coalesce(sum(copied), 0) FROM {s}.ranges")
        seen.append((time.monotonic(), int(copied)))
        for process in list(running):
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode:
                    sys.exit("a worker failed")
                running.remove(process)
                usages.append(usage)
    return seen, usages


def within(which: str) -> None:
    """Migrate, in this process, whatever range nobody works on, until all are done."""
    place, workers = map(int, which.split("/"))
    settings = load()
    with open_stores(settings) as stores:
        ranges = list(stores.ledger.ranges())
        start = place * len(ranges) // workers
        for item in ranges[start:] + ranges[:start]:
            if item.key in stores.ledger.done():
                continue
            try:
                migrate_range(item.key, stores, copy_limits(settings))
            except RangeBusy:
                continue


def _figures(ledger: PostgresLedger, seen: Sequence[tuple[float, int]]) -> Figures:
    ((began, ended),) = ledger.query("SELECT min(started_at), max(ended_at) FROM {s}.ranges")
    seconds, files = (ended - began).total_seconds(), seen[-1][1]
    return {
        "files": files,
        "ranges_done": len(ledger.done()),
        "seconds": round(seconds, 1),
        "files_per_second": round(files / seconds, 1),
    }


def _rate(seen: Sequence[tuple[float, int]]) -> Figures:
    """Between a fifth and four fifths of the files: at both ends, some workers are not copying."""
    last = seen[-1][1]
    middle = [item for item in seen if _FIRST * last <= item[1] <= _LAST * last]
    seconds = middle[-1][0] - middle[0][0]
    return {"files_per_second_kept": round((middle[-1][1] - middle[0][1]) / seconds, 1) if seconds else None}
