"""Figures for Prometheus: a text file that its node exporter's textfile collector picks up.

A run lives for minutes and in a process of its own, so there is nothing that could be scraped; what is counted is in
the ledger in any case. Names follow Prometheus's "Metric and label naming": base units, and `_total` for counters.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from migration_pipeline.adapters.ledger.status import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

METRICS = {
    "migration_ranges": "Ranges by state.",
    "migration_profiles_planned": "Profiles of all ranges when they were planned.",
    "migration_profiles": "Profiles by what the newest run of their range said.",
    "migration_files_known": "Files that profiles of ranges looked at so far need.",
    "migration_files_copied_total": "Files copied, over all runs.",
    "migration_copied_bytes_total": "Bytes of files copied, over all runs.",
    "migration_dead_letters": "Files that could not be copied, by class, and by whether somebody waived them.",
    "migration_stage_seconds": "Wall time of the newest runs of all ranges, by stage.",
    "migration_paused": "1 while runs are told to wait, 0 otherwise.",
    "migration_workers": "Runs that said in the last 15 seconds that they are at work.",
    "migration_last_progress_timestamp_seconds": "When a file last ended, in Unix time; absent before the first.",
}
"""Every metric, in the file's order."""


def write(path: Path, now: Standing, *, paused: bool) -> None:
    """Replace the file in one step: the collector never reads half of it.

    Raises:
        OSError: the folder is not there, or not ours to write.
    """
    # Imported here: runs over ranges need not load it.
    from prometheus_client import CollectorRegistry, write_to_textfile  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class OfTheLedger(Collector):
        def collect(self) -> "Iterator[Metric]":
            return _metrics(now, paused=paused)

    registry = CollectorRegistry()
    registry.register(OfTheLedger())
    write_to_textfile(str(path), registry)


def _metrics(now: Standing, *, paused: bool) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - as above

    def gauge(name: str, value: float) -> "Metric":
        return GaugeMetricFamily(name, METRICS[name], value=value)

    def by(name: str, labels: list[str], values: "Mapping[Any, float]") -> "Metric":
        family = GaugeMetricFamily(name, METRICS[name], labels=labels)
        for keys, value in values.items():
            family.add_metric(keys, value)
        return family

    state = now.status
    yield by(
        "migration_ranges",
        ["state"],
        {
            ("done",): state.done,
            ("working",): state.working,
            ("to_come",): state.not_begun,
            ("incomplete",): state.incomplete,
            ("rolled_back",): state.rolled_back,
        },
    )
    yield gauge("migration_profiles_planned", state.profiles)
    yield by(
        "migration_profiles",
        ["state"],
        {
            ("migrated",): state.migrated,
            ("nothing_to_move",): state.nothing_to_move,
            ("waiting",): state.waiting,
        },
    )
    yield gauge("migration_files_known", state.files)
    for name, value in (("migration_files_copied_total", state.copied), ("migration_copied_bytes_total", state.bytes)):
        yield CounterMetricFamily(name, METRICS[name], value=value)
    letters = {
        (letter.outcome.value, which): count
        for letter in now.letters
        for which, count in (("waiting", letter.waiting), ("waived", letter.waived))
    }
    yield by("migration_dead_letters", ["class", "state"], letters)
    yield by("migration_stage_seconds", ["stage"], {(stage,): value for stage, value in state.seconds.items()})
    yield gauge("migration_paused", paused)
    yield gauge("migration_workers", now.workers)
    if now.last_progress:
        yield gauge("migration_last_progress_timestamp_seconds", now.last_progress.timestamp())
