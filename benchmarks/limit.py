"""`make bench-limit`: how near the copy engine comes to what the machine allows, on a stub that costs little.

In one run: our engine, rclone, and the least that a client can do: bare sockets in an event loop, that look at nothing.
CPU is of the client alone, with its start-up taken off; engines take turns within each round, medians count.
"""

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import stub
from benchmarks.copy_engine import KB, MB, Spent, machine, run_engine
from benchmarks.engines import Task
from migration_pipeline_tests.certificates import Certificates, made_in

RESULTS = Path(__file__).with_name("results") / "limit.json"
IN_FLIGHT = 64
ENGINES = ("migration_pipeline", "rclone", "bare sockets")


class Case(NamedTuple):
    """Files of one size."""

    size: int
    files: int
    latency_ms: int = 0
    tls: bool = False

    @property
    def name(self) -> str:
        """For people."""
        size = f"{self.size // KB} KB" if self.size < MB else f"{self.size // MB} MB"
        return f"{size}, {self.latency_ms} ms, {'TLS' if self.tls else 'plain'}"


CASES = [
    Case(size, files, latency_ms, tls)
    for latency_ms, tls in ((0, False), (0, True), (30, False))
    for size, files in ((10 * KB, 4000), (100 * KB, 3000), (MB, 600))
]


def main() -> None:
    """Run the cases and write their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name holds this; writes no results")
    parser.add_argument("--table", action="store_true", help="measure nothing; print the table of the results")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(table_of(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")  # noqa: S106 - of the stub
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        os.environ.pop(name, None)  # a bundle is read into memory where one is named
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_FOLDER"] = folder
        certificates = made_in(Path(folder))
        for case in CASES:
            if options.only in case.name:
                rows += measured(case, options.rounds, certificates)
                show(case, rows[-len(ENGINES) :])
        if not options.only:
            rows.append(large_file(certificates))
            Console().print(rows[-1])
            RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


def measured(case: Case, rounds: int, certificates: Certificates) -> list[dict[str, Any]]:
    """Every engine in turn, so many times."""
    spent: dict[str, list[Spent]] = {engine: [] for engine in ENGINES}
    starts: dict[str, Spent] = {}
    with served(case, certificates) as base:
        for number in range(rounds):
            for engine in ENGINES:
                task = _task(case, base, f"r{number}{ENGINES.index(engine)}/")
                if engine not in starts:
                    one = replace(task, names=task.names[:1], prefix=f"s{ENGINES.index(engine)}")
                    runs = [run_engine(engine, replace(one, prefix=f"{one.prefix}{n}/")) for n in range(2)]
                    starts[engine] = min(runs, key=lambda each: each.cpu)
                spent[engine].append(run_engine(engine, task))
    return [_row(case, engine, spent[engine], starts[engine]) for engine in ENGINES]


def _row(case: Case, engine: str, spent: Sequence[Spent], start: Spent) -> dict[str, Any]:
    return {
        "engine": engine,
        **case._asdict(),
        "case": case.name,
        "cpu_ms_per_file": round(median(1000 * (each.cpu - start.cpu) / case.files for each in spent), 3),
        "files_per_s": round(median(case.files / (each.seconds - start.seconds) for each in spent), 1),
        "peak_rss_mb": round(max(each.rss for each in spent), 1),
    }


def large_file(certificates: Certificates) -> dict[str, Any]:
    """A file of 5 GB among small ones: peak memory."""
    case = Case(100 * KB, 300)
    with served(case, certificates) as base:
        task = _task(case, base, "large/")
        spent = run_engine(ENGINES[0], replace(task, names=[stub.LARGE, *task.names]))
    return {"engine": ENGINES[0], "case": "5 GB among 300 of 100 KB", "peak_rss_mb": round(spent.rss, 1)}


def _task(case: Case, base: str, prefix: str) -> Task:
    return Task(
        account_url=f"{base}/{stub.ACCOUNT}",
        account_key="a2V5",
        endpoint_url=base,
        container=stub.CONTAINER,
        bucket=stub.BUCKET,
        prefix=prefix,
        names=[f"{number:06}.jpg" for number in range(case.files)],
        in_flight=IN_FLIGHT,
    )


@contextmanager
def served(case: Case, certificates: Certificates) -> Iterator[str]:
    """The stub for a case: its URL."""
    command = [sys.executable, "-m", "benchmarks.stub", str(case.size), str(case.latency_ms)]
    command += [str(certificates.server)] if case.tls else []
    if case.tls:
        os.environ["AWS_CA_BUNDLE"] = os.environ["RCLONE_CA_CERT"] = str(certificates.authority)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            yield f"http{'s' if case.tls else ''}://127.0.0.1:{port}"
        finally:
            process.terminate()
            os.environ.pop("AWS_CA_BUNDLE", None)
            os.environ.pop("RCLONE_CA_CERT", None)


def bare(task: Task) -> None:
    """The least: one connection to each store for each file in flight, and answers that nobody looks at."""
    import uvloop  # noqa: PLC0415 - its cost is its own

    tls = task.endpoint_url.startswith("https")
    port = int(task.endpoint_url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE")) if tls else None
    todo = iter(task.names)

    async def place() -> None:
        loop = asyncio.get_running_loop()
        _, get = await loop.create_connection(lambda: _Bare(loop), "127.0.0.1", port, ssl=context)
        _, put = await loop.create_connection(lambda: _Bare(loop), "127.0.0.1", port, ssl=context)
        for name in todo:
            ask = f"GET /{stub.ACCOUNT}/{stub.CONTAINER}/{name}?sig=s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            pieces, size = await get.ask([ask.encode()])
            write = (
                f"PUT /{task.bucket}/{task.prefix}{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
            )
            await put.ask([write.encode(), *pieces])

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(task.in_flight):
                group.create_task(place())

    uvloop.run(work())


class _Bare(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    async def ask(self, pieces: list[bytes]) -> tuple[list[bytes], int]:
        """Send, and have the body's pieces and how long they are."""
        self._pieces: list[bytes] = []
        self._size = self._left = -1
        self._done = self._loop.create_future()
        self._transport.writelines(pieces)
        return await self._done, self._size

    def data_received(self, data: bytes) -> None:
        if self._size < 0:
            head, _, data = data.partition(b"\r\n\r\n")
            self._size = self._left = int(head.split(b"Content-Length: ", 1)[1].split(b"\r\n", 1)[0])
        self._left -= len(data)
        self._pieces.append(data)
        if self._left == 0:
            self._done.set_result(self._pieces)


def show(case: Case, rows: Sequence[dict[str, Any]]) -> None:
    """A table for people."""
    table = Table(title=case.name)
    for name in ("engine", "CPU ms/file", "files/s", "peak MB"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for row in rows:
        table.add_row(row["engine"], *(str(row[each]) for each in ("cpu_ms_per_file", "files_per_s", "peak_rss_mb")))
    Console().print(table)


def table_of(written: dict[str, Any]) -> str:
    """The results as a page's table: a line for each case."""
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for row in written["rows"]:
        cases.setdefault(row["case"], {})[row["engine"]] = row
    heads = ["files", "CPU ms a file: ours", "rclone", "bare sockets", "times rclone", "files/s: ours", "rclone"]
    lines = [f"| {' | '.join([*heads, 'bare sockets', 'peak MB: ours', 'rclone'])} |", "|" + "---|" * 10]
    for name, found in cases.items():
        if len(found) == len(ENGINES):
            ours, rclone, least = (found[engine] for engine in ENGINES)
            figures = [f"{row['cpu_ms_per_file']:.2f}" for row in (ours, rclone, least)]
            figures.append(f"{rclone['cpu_ms_per_file'] / ours['cpu_ms_per_file']:.1f}")
            figures += [f"{row['files_per_s']:.0f}" for row in (ours, rclone, least)]
            figures += [f"{row['peak_rss_mb']:.0f}" for row in (ours, rclone)]
            lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
