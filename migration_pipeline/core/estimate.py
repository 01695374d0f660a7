"""What a migration will move, ask for, cost and take: by a sample, or by an inventory."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import sqrt
from statistics import fmean, pstdev
from typing import NamedTuple

from migration_pipeline.core.alert_words import count as so_many
from migration_pipeline.core.copy_file import ReadBack
from migration_pipeline.core.count import Totals
from migration_pipeline.core.inventory import Found
from migration_pipeline.core.large_file import PART_BYTES, part_bytes
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.reading import ASKING
from migration_pipeline.core.sample import Sampled, SampledFiles
from migration_pipeline.core.urls import UrlKind

RUN_SECONDS = 3.0
"""What starting the run of a range is taken to cost a worker, as long as none has been seen: it waits in the queue for
up to two seconds, and its process loads Dagster."""
ASSUMED_FILES, ASSUMED_BYTES = 200.0, 50e6
"""Files and bytes a second that one worker is taken to copy, as long as none has been seen at work."""
_READ_BACK: Mapping[ReadBack, float] = {"never": 0.0, "sampled": 0.01, "always": 1.0}
_BEYOND_PARTS = 3  # requests of an upload in parts beside its parts: uploads left behind are listed, begun, completed
_SURE = 1.96  # standard errors to either side that hold the truth in 95 of 100 cases
_GIGABYTE = 1e9
_HOUR = 3600


class Prices(NamedTuple):
    """What the stores charge, all in one currency."""

    source_reads_per_10000: float
    source_egress_per_gigabyte: float
    target_writes_per_1000: float
    target_storage_per_gigabyte_month: float
    compute_per_vcpu_hour: float = 0.0
    currency: str = "USD"


class Compute(NamedTuple):
    """Processor time that runs need, in all their stages.

    Attributes:
        file: seconds for each file.
        byte: seconds for each byte beside that.
        why: where these figures are from, in words.
    """

    file: float
    byte: float
    why: str


ASSUMED_COMPUTE = Compute(0.8e-3, 4e-9, "an assumption: 0.8 ms a file and 4 ms a megabyte")
"""What a file is taken to need, as long as none was seen: about what the benchmarks measured."""


class Speed(NamedTuple):
    """How fast all workers together copy.

    Attributes:
        files: a second; `None` where nothing bounds it.
        bytes: a second.
        documents: written a second.
        why: where these figures are from, in words.
        starting: seconds that starting the runs of all ranges takes beside that.
    """

    files: float
    bytes: float | None
    documents: float | None
    why: str
    starting: float = 0.0


class Requests(NamedTuple):
    """Requests to both stores."""

    source_reads: int
    target_writes: int
    target_reads: int


class Cost(NamedTuple):
    """In the currency of the prices; storage is for each month."""

    reads: float
    egress: float
    writes: float
    storage_a_month: float

    @property
    def once(self) -> float:
        """What is paid once."""
        return self.reads + self.egress + self.writes


class Million(NamedTuple):
    """What a million files cost, in the currency of the prices, if they are like those that were looked at.

    Attributes:
        cpu_hours: of one processor.
        stores: what the stores charge.
        compute: what the processors cost.
    """

    requests: Requests
    gigabytes: float
    cpu_hours: float
    stores: Cost
    compute: float

    @property
    def once(self) -> float:
        """What is paid once."""
        return self.stores.once + self.compute


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to be expected. Counts are of all profiles, extrapolated from the sample.

    Attributes:
        profiles: all there are.
        sampled: profiles looked at.
        asked: files that the source was asked about.
        deleted, with_files: profiles.
        references: at both sites, by kind; under `query` those with a query string, or a fragment, that is no SAS.
        files: to move; one that several profiles share counts for each, so there may be fewer.
        files_off: by what part of them this may be off, for chance alone, in 95 of 100 cases.
        failing: files that cannot be copied as they are, by outcome.
        bytes: of files that can.
        bytes_off: as for files.
        seconds: of work; hours outside the configured windows do not count.
        rows, documents: that will be written, but for the flag.
        exact_at: when the listing began that files and bytes were counted by; `None` for an estimate by a sample.
        cpu_seconds: of all runs together.
        cpu_is: where that is from, in words.
        million: what each million of the files that can be copied cost; `None` where there are none.
    """

    profiles: int
    sampled: int
    asked: int
    deleted: int
    with_files: int
    references: Mapping[str, int]
    files: int
    files_off: float
    failing: Mapping[Outcome, int]
    bytes: int
    bytes_off: float
    requests: Requests
    cost: Cost
    seconds: float
    speed: Speed
    rows: int
    documents: int
    exact_at: datetime | None = None
    cpu_seconds: float = 0.0
    cpu_is: str = ""
    million: Million | None = None


def estimate(
    sampled: Sampled,
    files: SampledFiles,
    profiles: int,
    *,
    read_back: ReadBack,
    speed: Speed,
    prices: Prices,
    compute: Compute = ASSUMED_COMPUTE,
) -> Estimate:
    """What a sample says of so many profiles."""
    scale = profiles / sampled.profiles if sampled.profiles else 0.0
    all_files = sum(sampled.files) * scale
    failing = Counter({why: round(all_files * count / files.answered) for why, count in files.failed.items()})
    copied = all_files - failing.total()
    size = fmean(files.sizes) * copied if files.sizes else 0.0
    requests = Requests(
        round(copied * _mean(_source_reads, files.sizes)) + failing.total() - failing[Outcome.TOO_LONG_KEY],
        round(copied * _mean(_target_writes, files.sizes)),
        round(copied * (_mean(_target_heads, files.sizes) + _READ_BACK[read_back])),
    )
    files_error = _error(sampled.files, all_of=profiles)
    size_error = _error(files.sizes, all_of=round(copied))
    documents = round(sampled.documents * scale)
    expected = Estimate(
        profiles=profiles,
        sampled=sampled.profiles,
        asked=files.answered,
        deleted=round(sampled.deleted * scale),
        with_files=round(sampled.with_files * scale),
        references={kind: round(sampled.references[kind] * scale) for kind in (*UrlKind, ASKING)},
        files=round(all_files),
        files_off=_SURE * files_error,
        failing=failing,
        bytes=round(size),
        bytes_off=_SURE * sqrt(files_error**2 + size_error**2),
        requests=requests,
        cost=_cost(requests, size, prices),
        seconds=_seconds(all_files, size, documents, speed),
        speed=speed,
        rows=round(sampled.rows * scale),
        documents=documents,
        cpu_seconds=copied * compute.file + size * compute.byte,
        cpu_is=compute.why,
    )
    return _with_million(expected, prices)


def exact(
    found: Found,
    totals: Totals,
    *,
    read_back: ReadBack,
    speed: Speed,
    prices: Prices,
    compute: Compute = ASSUMED_COMPUTE,
) -> Estimate:
    """What an inventory and a count of all profiles say: files are different ones, and each of them was looked at."""
    failing = Counter({
        Outcome.SOURCE_MISSING: found.missing,
        Outcome.SOURCE_ARCHIVED: found.archived_needed,
        Outcome.TOO_LONG_KEY: found.too_long,
    })  # fmt: skip
    requests = Requests(
        found.copyable + found.parts + found.missing + found.archived_needed,
        found.copyable - found.large + found.parts + _BEYOND_PARTS * found.large,
        found.large + round(found.copyable * _READ_BACK[read_back]),
    )
    expected = Estimate(
        profiles=totals.profiles,
        sampled=totals.profiles,
        asked=found.files,
        deleted=totals.deleted,
        with_files=totals.with_files,
        references={kind: totals.references[kind] for kind in (*UrlKind, ASKING)},
        files=found.files,
        files_off=0.0,
        failing=+failing,
        bytes=found.bytes,
        bytes_off=0.0,
        requests=requests,
        cost=_cost(requests, found.bytes, prices),
        seconds=_seconds(found.files, found.bytes, totals.documents, speed),
        speed=speed,
        rows=totals.rows,
        documents=totals.documents,
        exact_at=found.listed_at,
        cpu_seconds=found.copyable * compute.file + found.bytes * compute.byte,
        cpu_is=compute.why,
    )
    return _with_million(expected, prices)


def _with_million(expected: Estimate, prices: Prices) -> Estimate:
    copied = expected.files - sum(expected.failing.values())
    if copied <= 0:
        return expected
    each, cpu_hours = 1e6 / copied, expected.cpu_seconds / _HOUR
    found = Million(
        Requests(*(round(count * each) for count in expected.requests)),
        gigabytes=expected.bytes / _GIGABYTE * each,
        cpu_hours=cpu_hours * each,
        stores=Cost(*(paid * each for paid in expected.cost)),
        compute=cpu_hours * each * prices.compute_per_vcpu_hour,
    )
    return replace(expected, million=found)


def _cost(requests: Requests, size: float, prices: Prices) -> Cost:
    return Cost(
        requests.source_reads / 10_000 * prices.source_reads_per_10000,
        size / _GIGABYTE * prices.source_egress_per_gigabyte,
        requests.target_writes / 1000 * prices.target_writes_per_1000,
        size / _GIGABYTE * prices.target_storage_per_gigabyte_month,
    )


def bounded(
    measured: float | None,
    workers: int,
    *,
    requests_per_second: float | None,
    bytes_per_second: float | None,
    documents_per_second: float | None,
) -> Speed:
    """How fast all workers are together.

    Args:
        measured: files a second of earlier ranges, with all that a range takes, where there were any.
        workers: that there will be.
        requests_per_second: to each store, by setting.
        bytes_per_second: from the source, by setting.
        documents_per_second: of all workers together, by setting.
    """
    if measured is not None:
        # Documents were written meanwhile: their time is in it.
        files, bytes_, documents_per_second = measured, None, None
        why = "as the ranges took that have ended"
    else:
        files, bytes_ = ASSUMED_FILES * workers, ASSUMED_BYTES * workers
        why = (
            f"an assumption: {ASSUMED_FILES:.0f} files and {ASSUMED_BYTES / 1e6:.0f} MB a second for each of "
            f"{so_many(workers, 'worker')}, and {RUN_SECONDS:.0f} s to start the run of each range"
        )
    if requests_per_second is not None and requests_per_second < files:
        files, why = requests_per_second, f"{why}, bounded by copy.requests_per_second"
    if bytes_per_second is not None and (bytes_ is None or bytes_per_second < bytes_):
        bytes_, why = bytes_per_second, f"{why}, bounded by copy.bytes_per_second"
    return Speed(files, bytes_, documents_per_second, why)


def measured_compute(cpu_seconds: float, files: int) -> Compute:
    """What a file needs, where so many were seen to need that."""
    return Compute(cpu_seconds / files, 0.0, f"as measured for {files:,} files") if files else ASSUMED_COMPUTE


def _seconds(files: float, size: float, documents: float, speed: Speed) -> float:
    copying = max(files / speed.files, size / speed.bytes if speed.bytes else 0.0)
    return speed.starting + copying + (documents / speed.documents if speed.documents else 0.0)


def _error(values: Sequence[int], *, all_of: int) -> float:
    """The relative standard error of a mean; none, where the sample is all there is."""
    if len(values) < 2 or len(values) >= all_of or not any(values):  # noqa: PLR2004 - one value has no spread
        return 0.0
    return pstdev(values) / fmean(values) / sqrt(len(values)) * sqrt(1 - len(values) / all_of)


def _mean(of: Callable[[int], int], sizes: Sequence[int]) -> float:
    return fmean(of(size) for size in sizes) if sizes else 1.0


def _parts(size: int) -> int:
    return -(-size // part_bytes(size)) if size > PART_BYTES else 0


def _source_reads(size: int) -> int:
    return 1 + _parts(size)


def _target_writes(size: int) -> int:
    return _parts(size) + _BEYOND_PARTS if size > PART_BYTES else 1


def _target_heads(size: int) -> int:
    return 1 if size > PART_BYTES else 0
