"""`make soak-workers MINUTES=30 WORKERS=4 FAULTS=0.01`: nothing is lost and nothing grows, however long it takes.

So many processes migrate, sweep, erase and audit an app whose users come, edit and go, while a proxy before each store
fails a share of the requests, in every way. At the end users rest, and what they hold is judged; so are memory,
descriptors, threads, temporary files, connections and the ledger: see `flatness`. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from migration_pipeline.core.erase import erase
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline_tests.soak.flatness import Allowed, Flatness, flatness
from migration_pipeline_tests.soak.live import APPS
from migration_pipeline_tests.soak.oracle import Broken, after_erasing, at_any_moment
from migration_pipeline_tests.soak.passing_apps import PassingApps
from migration_pipeline_tests.soak.picture import drawn
from migration_pipeline_tests.soak.samples import Process, Sample, Sampler
from migration_pipeline_tests.soak.schedules import World, open_world

ROOT = Path(__file__).parents[2]
RESULT, PICTURE = ROOT / "benchmarks/results/soak_workers.json", ROOT / "docs/images/soak_workers.svg"
ACTS_PER_SECOND = 20.0
LIFE_SECONDS = 180.0
ERASE_AFTER_HOURS = 0.025  # 90 s: more than four times as long as an old client remembers
SILENCE_SECONDS = 5
IN_FLIGHT = 8
_STOP_SECONDS = 300.0
_SLOW_DOWN = "<?xml version='1.0' encoding='utf-8'?><Error><Code>SlowDown</Code></Error>"
_BUSY = f"503 Slow Down\r\nContent-Length: {len(_SLOW_DOWN)}\r\nContent-Type: application/xml\r\n\r\n{_SLOW_DOWN}"
_OOPS = "500 Oops\r\nContent-Length: 0\r\n\r\n"

ALLOWED = {
    "memory": Allowed(0.02, 4.0),  # of some 150 MB: in half an hour, a leak of 1 MB a minute makes 10
    "descriptors": Allowed(0.0, 5.0),
    "threads": Allowed(0.0, 5.0),
    "temporary": Allowed(0.0, 1.0),
    "connections": Allowed(0.0, 4.0),
    "ledger_per_file": Allowed(0.1, 100.0),  # bytes
}
"""How far from flat each figure may be. Figures of workers hold for each of them."""


def every_kind(rate: float, busy: str, *, upload: bool) -> list[Fault]:
    """Faults of every kind that hit this share of the requests together."""
    kinds = [
        Fault("status", answer=busy),
        Fault("status", answer=_OOPS),
        Fault("reset"),
        Fault("hang"),
        Fault("delay", seconds=1.0),
        Fault("lost_reply"),
        Fault("cut_upload", match="^PUT") if upload else Fault("cut_body", match="^GET"),
    ]
    return [Fault(f.kind, rate / len(kinds), f.match, f.answer, f.seconds) for f in kinds]


@dataclass(slots=True)
class Told:
    """What came of it.

    Attributes:
        edits: of rows and documents.
        failed: acts of users that an error ended.
        did: things that workers did, by name.
        failures: of workers: runs that an error ended.
        faults: that happened, by store and kind.
        requests: to each store.
        samples: see `Sampler`.
    """

    minutes: float
    edits: int = 0
    users: int = 0
    failed: list[str] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    faults: dict[str, dict[str, int]] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(item.promise == 3 for item in self.broken)

    def flatness(self) -> dict[str, Flatness]:
        """Of each figure."""
        return {name: flatness(values, self.minutes, ALLOWED[name.split(" ")[0]]) for name, values in self._series()}

    def _series(self) -> Iterator[tuple[str, list[float]]]:
        for name in ("memory", "descriptors", "threads", "temporary"):
            for number, values in enumerate(zip(*(getattr(sample, name) for sample in self.samples), strict=True), 1):
                yield f"{name} {number}", list(values)
        yield "connections", [sum(sample.connections.values()) for sample in self.samples]
        yield "ledger_per_file", [1e6 * sample.ledger / max(1, sample.files) for sample in self.samples]


@contextmanager
def open_faulty_world(sandbox: Sandbox) -> Iterator[tuple[World, Mapping[str, FaultProxy]]]:
    """A world whose stores the migration reaches through proxies, which pass everything on until they are told."""
    azure_port, s3_port = (urlsplit(url).port or 0 for url in (sandbox.azure_account_url, sandbox.s3_endpoint_url))
    with FaultProxy(azure_port, seed=1) as azure, FaultProxy(s3_port, seed=2) as s3:
        account = sandbox.azure_account_url.replace(f":{azure_port}", f":{azure.port}")
        with open_world(sandbox, azure_account_url=account, s3_endpoint_url=f"http://127.0.0.1:{s3.port}") as world:
            yield world, {"source": azure, "target": s3}


def soak(
    sandbox: Sandbox,
    *,
    seconds: float,
    workers: int,
    faults: float,
    every: float,
    apps: int = APPS,
    life: float = LIFE_SECONDS,
) -> Told:
    """Let workers work and users act for so long, and judge what they hold then.

    Args:
        sandbox: where everything is.
        seconds: for which they do.
        workers: processes.
        faults: share of the requests to each store that fail.
        every: seconds from one sample to the next.
        apps: at any time, of three users each.
        life: seconds that each lives.
    """
    told = Told(seconds / 60)
    with open_faulty_world(sandbox) as (world, proxies), ExitStack() as stack:
        users = PassingApps(world, seed=1, size=apps, life=life)
        stack.callback(users.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-workers-")))
        proxies["source"].faults = every_kind(faults, "503 Busy\r\nContent-Length: 0\r\n\r\n", upload=False)
        proxies["target"].faults = every_kind(faults, _BUSY, upload=True)
        with users.acting(ACTS_PER_SECOND):
            processes = [stack.enter_context(_worker(world, folder, number, seconds)) for number in range(workers)]
            sampler = Sampler(
                world.settings, [Process(one.pid, folder / str(n)) for n, one in enumerate(processes)], every=every
            )
            with sampler.sampling():
                _wait(processes, seconds)
            _take_reports(processes, told)
        for name, proxy in proxies.items():
            told.requests[name], told.faults[name] = proxy.requests, dict(proxy.happened)
            proxy.faults = ()
        told.samples, told.failures = sampler.samples, [*told.failures, *sampler.failed]
        told.broken = list(users.come_to_rest())
        erase(world.stores, seconds=0)
        for app in users.everybody:
            told.broken += [*at_any_moment(app), *after_erasing(app)]
            app.hang_up()
        told.edits, told.failed, told.users = users.edits, users.failed, 3 * len(users.everybody)
    return told


@contextmanager
def _worker(world: World, folder: Path, number: int, seconds: float) -> "Iterator[subprocess.Popen[str]]":
    temporary = folder / str(number)
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "migration_pipeline_tests.soak.one_of_several", str(number), str(seconds)],
        env={
            **os.environ,
            **world.environment,
            "TMPDIR": str(temporary),
            "MIGRATION_COPY__IN_FLIGHT": str(IN_FLIGHT),
            "MIGRATION_COPY__TIMEOUT_SECONDS": str(SILENCE_SECONDS),
            "MIGRATION_ERASE__AFTER_HOURS": str(ERASE_AFTER_HOURS),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(processes: "Sequence[subprocess.Popen[str]]", seconds: float) -> None:
    """Until all but the last things that workers do are done; one that ends before has failed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and all(process.poll() is None for process in processes):
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))


def _take_reports(processes: "Sequence[subprocess.Popen[str]]", told: Told) -> None:
    for number, process in enumerate(processes):
        said, _ = process.communicate(timeout=_STOP_SECONDS)
        if process.returncode:
            told.failures.append(f"worker {number} ended with {process.returncode}")
            continue
        report = json.loads(said)
        told.did += Counter(report["did"])
        told.failures += report["failed"]


def kept(told: Told, *, workers: int, faults: float) -> dict[str, Any]:
    """As JSON."""
    return {
        "minutes": told.minutes,
        "workers": workers,
        "faults": faults,
        "requests": told.requests,
        "failed_on_purpose": told.faults,
        "edits": told.edits,
        "users": told.users,
        "did": dict(sorted(told.did.items())),
        "acts_failed": told.failed,
        "runs_failed": told.failures,
        "promises_broken": [item.what for item in told.broken],
        "lost": told.lost,
        "flatness": {name: {**found._asdict(), "flat": found.flat} for name, found in told.flatness().items()},
        "samples": [asdict(sample) for sample in told.samples],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--faults", type=float, default=0.01)
    parser.add_argument("--every", type=float, default=10, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    with Sandbox() as sandbox:
        os.environ.update(sandbox.environment)
        told = soak(
            sandbox,
            seconds=60 * options.minutes,
            workers=options.workers,
            faults=options.faults,
            every=options.every,
        )
    options.out.write_text(
        json.dumps(kept(told, workers=options.workers, faults=options.faults), indent=1) + "\n", encoding="utf-8"
    )
    options.picture.write_text(drawn(told.samples), encoding="utf-8")
    for line in [*(f"promise {item.promise}: {item.what}" for item in told.broken), *told.failures, *told.failed]:
        sys.stderr.write(f"{line}\n")
    grown = [name for name, found in told.flatness().items() if not found.flat]
    sys.stdout.write(
        f"{told.minutes:g} minutes, {options.workers} workers: {told.requests}, faults {told.faults}, "
        f"did {dict(told.did)}; promises broken {len(told.broken)}, edits {told.edits}, lost {told.lost}, "
        f"failed {len(told.failed) + len(told.failures)}, grown {grown or 'nothing'}\n"
    )
    sys.exit(bool(told.broken or told.failed or told.failures or grown))


if __name__ == "__main__":
    main()
