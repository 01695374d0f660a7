"""Each way that the UI offers to run what failed does all that is left of it: by the GraphQL that the clicks send."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from migration_pipeline.defs.migrated import NAMED_TAG
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.settings import load
from migration_pipeline.standing import look
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.defs.clicks import STAGES, Ui, dagster_ui
from migration_pipeline_tests.scenarios.frozen import Frozen, frozen_app

# Dagster calls it itself.
pytestmark = pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated")


class Office(NamedTuple):
    """Three ranges of a profile each, after a backfill: the first is green, the blobs of the others are not there."""

    app: Frozen
    ui: Ui
    green: str
    red: Sequence[str]
    backfill: str

    def tries(self) -> dict[str, int]:
        """Blob that is not there → how often it was tried."""
        return dict(self.app.ask("SELECT blob, attempts FROM migration.files WHERE outcome = 'source_missing'"))

    def of_the_job(self) -> str:
        """A backfill of the red ranges, launched from the page of the job, that has ended."""
        backfill = self.ui.materialize(STAGES, self.red, job="migrate")
        assert self.ui.backfill(backfill).status is not BulkActionStatus.FAILED
        return backfill

    def failed_run(self) -> str:
        """Of the first red range."""
        runs = self.ui.runs_of(self.backfill)
        return next(run.run_id for run in runs if run.tags["dagster/partition"] == self.red[0])


@pytest.fixture(scope="module")
def office(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    app = frozen_app(sandbox, tmp_path_factory.mktemp("reruns"), profiles=3, per_range=1, photos=1)
    for id_ in (2, 3):
        with app.azure() as azure:
            azure.get_blob_client(app.name, app.photo(id_)).delete_blob()
    planned = plan(app.settings)
    keep(planned, app.settings)
    green, *red = planned.keys
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in app.environment.items():
            patch.setenv(name, value)
        ui = stack.enter_context(dagster_ui())
        ui.instance.add_dynamic_partitions("profile_ranges", planned.keys)
        backfill = ui.materialize(STAGES, planned.keys)
        assert ui.backfill(backfill).status is BulkActionStatus.COMPLETED_FAILED
        yield Office(app, ui, green, red, backfill)


def test_a_range_is_green_in_all_its_assets_or_in_none(office: Office) -> None:
    for stage in STAGES:
        assert (office.ui.materialized(stage), office.ui.failed(stage)) == ([office.green], office.red), stage


BACKFILLS: dict[str, Callable[[Office], str]] = {
    "asset page > Failed": lambda at: at.ui.materialize(
        at.ui.with_required("file_copies"), at.ui.failed("file_copies")
    ),
    "group > Failed": lambda at: at.ui.materialize(STAGES, at.ui.failed("migrated_profiles")),
    "job migrate > Failed": lambda at: at.ui.materialize(STAGES, at.ui.failed("file_references"), job="migrate"),
    "backfill of the job > Re-execute from failure": lambda at: at.ui.reexecute_backfill(
        at.of_the_job(), "FROM_FAILURE"
    ),
    "backfill > Re-execute from failure": lambda at: at.ui.reexecute_backfill(at.backfill, "FROM_FAILURE"),
    "backfill > Re-execute": lambda at: at.ui.reexecute_backfill(at.backfill, "ALL_STEPS"),
}
RUNS: dict[str, Callable[[Office], str]] = {
    "run > From failure": lambda at: at.ui.reexecute_run(at.failed_run(), "FROM_FAILURE"),
    "run > From asset failure": lambda at: at.ui.reexecute_run(at.failed_run(), "FROM_ASSET_FAILURE"),
    "run > All assets": lambda at: at.ui.reexecute_run(at.failed_run(), "ALL_STEPS"),
    "group > one partition": lambda at: at.ui.materialize_one(STAGES, at.red[0]),
    "job migrate > one partition": lambda at: at.ui.materialize_one(STAGES, at.red[0], job="migrate"),
}


@pytest.mark.parametrize("way", BACKFILLS)
def test_a_backfill_of_what_failed_tries_every_file_of_it_again(office: Office, way: str) -> None:
    launch = BACKFILLS[way]
    before, tries = office.tries(), 2 if "of the job" in way else 1
    backfill = launch(office)
    found = office.ui.backfill(backfill)
    assert found.status is not BulkActionStatus.FAILED, found.error
    meant = [office.green, *office.red] if way.endswith("Re-execute") else list(office.red)
    assert sorted(run.tags["dagster/partition"] for run in office.ui.runs_of(backfill)) == meant
    assert office.tries() == {blob: tried + tries for blob, tried in before.items()}
    test_a_range_is_green_in_all_its_assets_or_in_none(office)


@pytest.mark.parametrize("way", RUNS)
def test_a_run_of_what_failed_tries_every_file_of_it_again(office: Office, way: str) -> None:
    before = office.tries()
    run = office.ui.instance.get_run_by_id(RUNS[way](office))
    assert run is not None
    assert run.tags["dagster/partition"] == office.red[0]
    assert office.tries() == {blob: tried + (blob == office.app.photo(2)) for blob, tried in before.items()}
    test_a_range_is_green_in_all_its_assets_or_in_none(office)


ROLL_BACK = "ops: {rolled_back_ranges: {config: {by: ann, why: a trial, apply: %s}}}"


def test_a_rollback_in_part_stays_rolled_back_until_somebody_names_the_range(office: Office) -> None:
    ui, key, app = office.ui, office.green, office.app
    dry = ui.instance.get_run_by_id(ui.materialize_one(["rolled_back_ranges"], key, config=ROLL_BACK % "false"))
    assert dry is not None
    assert dry.is_success
    assert leads_to_s3(app)

    app.upload(app.photo(1), b"newer bytes")
    done = ui.materialize(["rolled_back_ranges"], [key], job="rollback", config=ROLL_BACK % "true")
    ui.backfill(done)
    (run,) = ui.runs_of(done)
    assert "1 profile of 1 could not go back" in error_of(ui, run.run_id)
    assert "1 profile (1): the source was written after it was copied." in error_of(ui, run.run_id)
    assert [act[:3] for act in app.acts()][-1:] == [("ann", "rollback", "a trial")]
    assert warned(ui, key) == (False, "WARN")
    standing = look(load())
    status = standing.standing.status
    assert (status.rolled_back, status.rolled_back_left, status.waiting) == (1, 1, 2)

    everything = ui.materialize(STAGES, [key, *office.red], job="migrate")
    ui.backfill(everything)
    (refused,) = [run for run in ui.runs_of(everything) if run.tags["dagster/partition"] == key]
    assert "was rolled back, and stays so" in error_of(ui, refused.run_id)
    assert f"migration-pipeline migrate {key}" in error_of(ui, refused.run_id)
    assert not app.ask("SELECT id FROM profiles WHERE photos_migrated_at IS NOT NULL")
    # Chosen alone, it is named.
    named = ui.instance.get_run_by_id(ui.materialize_one(STAGES, key))
    assert named is not None
    assert named.is_success
    assert warned(ui, key) == (True, "ERROR")
    assert app.ask("SELECT id FROM profiles WHERE photos_migrated_at IS NOT NULL") == [(1,)]
    app.bodies[app.photo(1)] = b"newer bytes"


def test_a_rollback_that_was_killed_stays_on_its_way_back(office: Office) -> None:
    key = office.green
    with closing(open_ledger(office.app.settings)) as ledger:
        with ledger.hold(key) as (_, held):
            held.begin_rollback()  # and the process ends here
        assert ledger.rolled_back([key, *office.red]) == {key}
        ledger.request([key], "something came late")
        assert ledger.requested() == []
        assert key not in ledger.done()
        assert ledger.name_again([key, *office.red], by="ann") == [key]
        assert [(item.range_key, item.why) for item in ledger.requested()] == [(key, "named by ann after a rollback")]
    run = office.ui.instance.get_run_by_id(office.ui.materialize_one(STAGES, key))
    assert run is not None
    assert run.is_success


def test_a_backfill_of_named_ranges_migrates_what_was_rolled_back(office: Office) -> None:
    """More of them than may run at once are launched as a backfill, which is no less named than single runs."""
    keys, ui = [office.green, office.red[0]], office.ui
    with closing(open_ledger(office.app.settings)) as ledger:
        for key in keys:
            with ledger.hold(key) as (_, held):
                held.begin_rollback()
        ui.backfill(ui.materialize(STAGES, keys, job="migrate"))
        assert ledger.rolled_back(keys) == set(keys)
        named = ui.materialize(STAGES, keys, tags={NAMED_TAG: "true"})
        ui.backfill(named)
        assert ledger.rolled_back(keys) == set()
        with ledger.hold(office.green) as (_, held):
            held.begin_rollback()
        # Its ranges were named for that launch. What was rolled back since stays so.
        ui.backfill(ui.reexecute_backfill(named, "ALL_STEPS"))
        assert ledger.rolled_back(keys) == {office.green}
    run = ui.instance.get_run_by_id(ui.materialize_one(STAGES, office.green))
    assert run is not None
    assert run.is_success


def leads_to_s3(app: Frozen) -> bool:
    ((photos,),) = app.ask("SELECT photos::text FROM profiles WHERE id = 1")
    return app.sandbox.public_base_url in photos


def error_of(ui: Ui, run_id: str) -> str:
    (record,) = ui.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    event = record.event_log_entry.dagster_event
    assert event is not None
    return str(event.step_failure_data.user_failure_data)


def warned(ui: Ui, key: str) -> tuple[bool, str]:
    """What the check of the partition says, as its page asks for it."""
    (node,) = ui.ask(
        "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetChecksOrError {"
        " ... on AssetChecks { checks { name executionForLatestMaterialization {"
        " evaluation { success severity partition } } } } } } }",
        key={"path": ["migrated_profiles"]},
    )["assetNodes"]
    (check,) = [item for item in node["assetChecksOrError"]["checks"] if item["name"] == "not_rolled_back"]
    found = check["executionForLatestMaterialization"]["evaluation"]
    assert found["partition"] == key
    return found["success"], found["severity"]


def test_a_range_turns_green_once_its_file_is_there(office: Office) -> None:
    """The last of this module: it mends what the others need broken."""
    office.app.upload(office.app.photo(2), office.app.bodies[office.app.photo(2)])
    found = office.ui.backfill(office.ui.reexecute_backfill(office.backfill, "FROM_FAILURE"))
    assert found.status is BulkActionStatus.COMPLETED_FAILED
    for stage in STAGES:
        assert (office.ui.materialized(stage), office.ui.failed(stage)) == (
            [office.green, office.red[0]], [office.red[1]],
        )  # fmt: skip
    # A range that was green fails again: its newest run counts.
    office.app.write(2, [office.app.photo(2), "not there.jpg"])
    run = office.ui.instance.get_run_by_id(office.ui.materialize_one(STAGES, office.red[0]))
    assert run is not None
    again = office.ui.backfill(office.ui.materialize(STAGES, office.ui.failed("database_urls")))
    assert again.status is BulkActionStatus.COMPLETED_FAILED
    assert sorted(item.tags["dagster/partition"] for item in office.ui.runs_of(again.backfill_id)) == office.red
