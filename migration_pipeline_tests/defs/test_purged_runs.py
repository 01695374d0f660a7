"""Old runs go, and nothing that the UI shows of assets and partitions changes; on Dagster's storage in Postgres."""

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_run_for_test

from migration_pipeline.definitions import defs
from migration_pipeline.defs.purged_runs import Purged, RemovedLogs, purge_runs, remove_logs
from migration_pipeline.sandbox import Sandbox

PARTITIONS = dg.StaticPartitionsDefinition(["a", "b", "c"])
MONTH_AGO = timedelta(days=31)
BAD: set[str] = set()


@dg.multi_asset(
    name="stages",
    specs=[dg.AssetSpec("first"), dg.AssetSpec("last", deps=["first"])],
    partitions_def=PARTITIONS,
    can_subset=False,
)
def stages(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None] | dg.AssetObservation]:
    yield dg.MaterializeResult("first")
    if context.partition_key in BAD:
        yield dg.AssetObservation("last", partition=context.partition_key)
        raise dg.Failure("a profile is left", allow_retries=False)
    yield dg.MaterializeResult("last")


@dg.asset
def swept() -> None:
    """An asset of no partitions, materialized again and again."""


MADE = dg.Definitions(
    assets=[stages, swept],
    jobs=[
        dg.define_asset_job("stages_job", selection=["first", "last"]),
        dg.define_asset_job("swept_job", selection=["swept"]),
    ],
    executor=dg.in_process_executor,
)


class Dagster:
    """An instance on a database of its own, with what the tests look at."""

    def __init__(self, instance: dg.DagsterInstance, url: str) -> None:
        self.instance, self._url = instance, url

    def run(self, partition: str | None = None) -> str:
        job = MADE.resolve_job_def("stages_job" if partition else "swept_job")
        return job.execute_in_process(instance=self.instance, partition_key=partition, raise_on_error=False).run_id

    def age(self, run_ids: Sequence[str]) -> None:
        """Have these runs ended a month ago."""
        then = datetime.now(UTC).replace(tzinfo=None) - MONTH_AGO
        self.sql("UPDATE runs SET create_timestamp = %s, update_timestamp = %s WHERE run_id = ANY(%s)",
                 then, then, list(run_ids))  # fmt: skip

    def purge(self, **how: int) -> Purged:
        return purge_runs(self.instance, datetime.now(UTC) - timedelta(days=30), **how)

    def runs(self) -> set[str]:
        return {run.run_id for run in self.instance.get_runs()}

    def colours(self) -> dict[str, Any]:
        """What the UI's pages are drawn from: partitions that are materialized, and that failed."""
        shown: dict[str, Any] = {}
        for name in ("first", "last"):
            key = dg.AssetKey(name)
            self.instance.wipe_asset_cached_status([key])
            cache = get_and_update_asset_status_cache_value(self.instance, key, PARTITIONS)
            assert cache is not None
            shown[name] = (
                set(self.instance.get_materialized_partitions(key)),
                set(cache.deserialize_failed_partition_subsets(PARTITIONS).get_partition_keys()),
            )
        shown["swept"] = self.instance.get_latest_materialization_event(dg.AssetKey("swept")) is not None
        return shown

    def sql(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url) as connection:
            cursor = connection.execute(text.encode(), values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def one_instance(sandbox: Sandbox) -> Iterator[Dagster]:
    url = sandbox.create_database(f"f{uuid4().hex[:12]}")
    place = urlsplit(url)
    storage = {"scheme": "postgresql+psycopg2", "username": place.username, "password": "unused",
               "hostname": place.hostname, "port": place.port, "db_name": place.path[1:]}  # fmt: skip
    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_db": storage}}}) as instance:
        yield Dagster(instance, url)


@pytest.fixture
def dagster(one_instance: Dagster) -> Dagster:
    BAD.clear()
    one_instance.instance.wipe()
    return one_instance


def test_partitions_keep_their_colours_and_everything_else_goes(dagster: Dagster) -> None:
    BAD.update("bc")
    first = [dagster.run(key) for key in "abc"]
    BAD.discard("b")
    second = [dagster.run("b"), dagster.run("a")]
    sweeps = [dagster.run() for _ in range(4)]
    before = dagster.colours()
    assert before["last"] == ({"a", "b"}, {"c"})
    dagster.age([*first, *second, *sweeps])
    assert dagster.purge() == Purged(runs=5, newest=4, needed=0, more=False)
    assert dagster.runs() == {first[2], *second, sweeps[-1]}
    assert dagster.colours() == before
    assert {row[0] for row in dagster.sql("SELECT DISTINCT run_id FROM event_logs")} == dagster.runs()
    assert dagster.purge().runs == 0

    # A run that got nowhere hides what an older one did no more than it did before.
    BAD.add("a")
    dagster.age([dagster.run("a")])
    red = dagster.colours()
    assert red["last"] == ({"a", "b"}, {"a", "c"})
    assert dagster.purge().runs == 0
    assert dagster.colours() == red


def test_young_runs_and_those_at_work_stay(dagster: Dagster) -> None:
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED]
    at_work = [create_run_for_test(dagster.instance, status=status).run_id for status in statuses]
    dagster.age(at_work)
    young = create_run_for_test(dagster.instance, status=dg.DagsterRunStatus.SUCCESS).run_id
    assert dagster.purge() == Purged(0, 0, 0, more=False)
    assert dagster.runs() == {*at_work, young}


def test_what_backfills_retries_and_other_runs_need_stays(dagster: Dagster) -> None:
    for name, status in (("b-going", BulkActionStatus.REQUESTED), ("b-over", BulkActionStatus.COMPLETED_SUCCESS)):
        dagster.instance.add_backfill(
            PartitionBackfill(
                backfill_id=name, status=status, from_failure=False, tags={}, backfill_timestamp=time.time(),
                partition_names=["a"], serialized_asset_backfill_data=None,
            )
        )  # fmt: skip

    def ended(**tags: str) -> str:
        named = {f"dagster/{name}": value for name, value in tags.items()}
        return create_run_for_test(dagster.instance, status=dg.DagsterRunStatus.FAILURE, tags=named).run_id

    waits, retried, going, over, parent = (
        ended(will_retry="true"), ended(will_retry="true", auto_retry_run_id="another"),
        ended(backfill="b-going"), ended(backfill="b-over"), ended(),
    )  # fmt: skip
    child = create_run_for_test(
        dagster.instance, status=dg.DagsterRunStatus.STARTED, parent_run_id=parent, root_run_id=parent
    ).run_id
    dagster.age([waits, retried, going, over, parent])
    assert dagster.purge() == Purged(runs=2, newest=0, needed=3, more=False)
    assert dagster.runs() == {waits, going, parent, child}


def test_one_pass_deletes_so_many_and_the_next_goes_on(dagster: Dagster) -> None:
    sweeps = [dagster.run() for _ in range(5)]
    dagster.age(sweeps)
    assert dagster.purge(at_most=3) == Purged(runs=3, newest=0, needed=0, more=True)
    assert dagster.runs() == set(sweeps[3:])
    assert dagster.purge(at_most=3) == Purged(runs=1, newest=1, needed=0, more=False)


@pytest.mark.parametrize("storage", ["run_storage", "event_log_storage"])
def test_a_pass_that_was_killed_between_events_and_run_is_made_good(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    old, newest = dagster.run(), dagster.run()
    dagster.age([old, newest])
    name = {"run_storage": "delete_run", "event_log_storage": "delete_events"}[storage]

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getattr(dagster.instance, storage), name, killed)
        with pytest.raises(KeyboardInterrupt):
            dagster.purge()
    assert dagster.runs() == {old, newest}
    assert dagster.purge().runs == 1
    assert {row[0] for row in dagster.sql("SELECT DISTINCT run_id FROM event_logs")} == {newest}


def test_the_asset_obeys_the_settings(dagster: Dagster, ledger: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger
    dagster.age([dagster.run(), dagster.run()])
    log = Path(dagster.instance.compute_log_manager.get_captured_local_path(["r", "compute_logs", "x"], "err"))  # type: ignore[attr-defined]
    log.parent.mkdir(parents=True)
    log.write_text("said")
    aged(log)
    job = defs.resolve_job_def("purge_runs")
    monkeypatch.setenv("MIGRATION_RETENTION__RUN_DAYS", "0")
    monkeypatch.setenv("MIGRATION_RETENTION__LOG_DAYS", "0")
    applied = {"ops": {"purged_runs": {"config": {"apply": True, "by": "a test", "why": ""}}}}
    assert job.execute_in_process(instance=dagster.instance, run_config=applied).success
    assert (len(dagster.runs()), log.exists()) == (3, True)
    monkeypatch.setenv("MIGRATION_RETENTION__RUN_DAYS", "30")
    monkeypatch.setenv("MIGRATION_RETENTION__LOG_DAYS", "30")
    assert job.execute_in_process(instance=dagster.instance, run_config=applied).success
    assert (len(dagster.runs()), log.exists()) == (3, False)  # one went, and this one came


def aged(path: Path) -> None:
    then = time.time() - MONTH_AGO.total_seconds()
    os.utime(path, (then, then), follow_symlinks=False)


def test_old_output_goes_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside, logs = tmp_path / "outside", tmp_path / "logs"
    names = ("outside/kept.txt", "logs/old/compute_logs/x.err", "logs/old/compute_logs/x.out", "logs/mixed/old.err",
             "logs/mixed/young.err")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("said")
    (logs / "link").symlink_to(outside)
    (logs / "mixed" / "link.err").symlink_to(outside / "kept.txt")
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if path.name != "young.err":
            aged(path)
    assert remove_logs(logs, datetime.now(UTC) - timedelta(days=30)) == RemovedLogs(files=3, bytes=12)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if "/link/" not in str(path)}
    assert left == {
        "outside", "outside/kept.txt", "logs", "logs/link", "logs/mixed", "logs/mixed/link.err", "logs/mixed/young.err",
    }  # fmt: skip
