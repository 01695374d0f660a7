"""Each way that the UI offers to run what failed does all that is left of it: by the GraphQL that the clicks send."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from dagster._core.execution.backfill import BulkActionStatus

from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox import Sandbox
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
    before = office.tries()
    backfill = BACKFILLS[way](office)
    found = office.ui.backfill(backfill)
    assert found.status is BulkActionStatus.COMPLETED_FAILED, found.error
    meant = [office.green, *office.red] if way.endswith("Re-execute") else list(office.red)
    assert sorted(run.tags["dagster/partition"] for run in office.ui.runs_of(backfill)) == meant
    assert office.tries() == {blob: tried + 1 for blob, tried in before.items()}
    test_a_range_is_green_in_all_its_assets_or_in_none(office)


@pytest.mark.parametrize("way", RUNS)
def test_a_run_of_what_failed_tries_every_file_of_it_again(office: Office, way: str) -> None:
    before = office.tries()
    run = office.ui.instance.get_run_by_id(RUNS[way](office))
    assert run is not None
    assert run.tags["dagster/partition"] == office.red[0]
    assert office.tries() == {blob: tried + (blob == office.app.photo(2)) for blob, tried in before.items()}
    test_a_range_is_green_in_all_its_assets_or_in_none(office)


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
