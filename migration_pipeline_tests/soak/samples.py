"""What workers and the database take, looked at from outside every few seconds. Reads /proc, as Linux has it."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger

_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Process:
    """A process to look at, and the folder that its temporary files go to."""

    pid: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one moment.

    Attributes:
        seconds: since the beginning.
        memory: resident megabytes of each worker.
        descriptors, threads: of each worker, the fewest since the sample before: what comes and goes with each request
            would hide what stays.
        temporary: megabytes in each worker's folder.
        connections: to Postgres, by application.
        database: megabytes of it all.
        ledger: megabytes of the ledger's tables and indexes.
        files: that the ledger knows, or has recorded as erased.
        profiles: of the app.
    """

    seconds: float
    memory: Sequence[float]
    descriptors: Sequence[int]
    threads: Sequence[int]
    temporary: Sequence[float]
    connections: Mapping[str, int]
    database: float
    ledger: float
    files: int
    profiles: int


class Sampler:
    """Takes samples in a thread of its own, for as long as the block of `sampling` runs."""

    def __init__(self, settings: Settings, workers: Sequence[Process], *, every: float) -> None:
        self.samples: list[Sample] = []
        self.failed: list[str] = []
        self._settings, self._workers, self._every = settings, workers, every
        self._counts: list[list[tuple[int, int]]] = []
        self._over = threading.Event()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        thread = threading.Thread(target=self._sample, name="sampler")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _sample(self) -> None:
        began = time.monotonic()
        try:
            with (
                psycopg.connect(
                    self._settings.secrets.database_url.get_secret_value(), autocommit=True, application_name="sampler"
                ) as database,
                closing(open_ledger(self._settings)) as ledger,
            ):
                due = began
                while not self._over.wait(min(1.0, self._every / 5)):
                    self._counts.append([_counts(worker.pid) for worker in self._workers])
                    if time.monotonic() < due:
                        continue
                    due += self._every
                    outcomes = sum(count for _, count, *_ in ledger.tallies.outcomes())
                    ((erased,),) = ledger.query("SELECT count(*) FROM {s}.erased")
                    self.samples.append(self._now(time.monotonic() - began, database, outcomes + erased))
        except Exception as error:  # noqa: BLE001 - a thread's end is told by whoever reads it
            self.failed.append(f"{type(error).__name__}: {error}")

    def _now(self, seconds: float, database: "psycopg.Connection[tuple[int, ...]]", files: int) -> Sample:
        schema = self._settings.ledger.schema_name
        connections = database.execute(
            "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND application_name <> 'sampler' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        ((whole, of_ledger, profiles),) = database.execute(
            "SELECT pg_database_size(current_database()), (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relkind = 'r')::bigint,"
            " (SELECT count(*) FROM profiles)",
            [schema],
        ).fetchall()
        fewest = [[min(counts) for counts in zip(*of_one, strict=True)] for of_one in zip(*self._counts, strict=True)]
        self._counts.clear()
        return Sample(
            round(seconds, 1),
            [round(_status(worker.pid, "VmRSS") * 1024 / _MEGABYTE, 1) for worker in self._workers],
            [descriptors for descriptors, _ in fewest],
            [threads for _, threads in fewest],
            [round(_bytes_in(worker.folder) / _MEGABYTE, 3) for worker in self._workers],
            {str(name): number for name, number in connections},
            round(whole / _MEGABYTE, 2),
            round(of_ledger / _MEGABYTE, 3),
            files,
            profiles,
        )


def _counts(pid: int) -> tuple[int, int]:
    """Descriptors and threads."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()), _status(pid, "Threads")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"{pid} is no more")


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it was there a moment ago
            total += path.lstat().st_size
    return total
