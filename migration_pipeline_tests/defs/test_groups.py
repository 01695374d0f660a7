"""Groups by what people do; and nothing is removed by a click on "Materialize"."""

import os

import dagster as dg
import psycopg
import pytest

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.definitions import defs
from migration_pipeline.defs.groups import CUTOVER, HOUSEKEEPING, MIGRATE, PLAN, VERIFY
from migration_pipeline.defs.ranges import register
from migration_pipeline_tests.defs.clicks import STAGES
from migration_pipeline_tests.defs.conftest import KEY

GROUPS = {
    PLAN: {"source_inventory", "profile_ranges"},
    MIGRATE: {"migration_status", *STAGES},
    VERIFY: {"late_references", "full_sweep", "audited_references", "dead_letters", "migration_report"},
    CUTOVER: {"cutover", "orphan_copies", "decommissioned_source"},
    HOUSEKEEPING: {"operator_log", "erased_copies", "archived_ranges", "purged_runs", "rolled_back_ranges"},
}
JOBS = {
    "erase": "erased_copies",
    "decommission": "decommissioned_source",
    "archive": "archived_ranges",
    "purge_runs": "purged_runs",
}
"""Jobs that remove something, each with its asset."""


def test_every_asset_stands_in_the_group_of_what_it_is_for() -> None:
    found: dict[str, set[str]] = {}
    for spec in defs.resolve_all_asset_specs():
        found.setdefault(str(spec.group_name), set()).add(spec.key.to_user_string())
    assert found == GROUPS


def test_materialize_all_of_the_group_migrate_is_the_job_migrate() -> None:
    job = defs.resolve_job_def("migrate")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(STAGES)
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} & GROUPS[MIGRATE] == set(STAGES)


@pytest.mark.parametrize("asset", JOBS.values())
def test_what_removes_cannot_be_started_without_its_config(asset: str) -> None:
    everything = defs.get_repository_def().get_job("__ASSET_JOB")
    job = everything.get_subset(asset_selection={dg.AssetKey(asset)})
    with pytest.raises(dg.DagsterInvalidConfigError, match="Missing required config"):
        dg.validate_run_config(job, {})
    assert dg.validate_run_config(job, {"ops": {asset: {"config": {"by": "ann"}}}})


@pytest.mark.parametrize(("name", "asset"), JOBS.items())
def test_the_launchpad_begins_with_a_dry_run_that_succeeds_and_says_so(
    name: str, asset: str, ledger: PostgresLedger, instance: dg.DagsterInstance
) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"]) as app:
        app.execute("CREATE TABLE profiles (id bigint PRIMARY KEY, photos jsonb, photos_migrated_at timestamptz)")
    done = defs.resolve_job_def(name).execute_in_process(instance=instance)
    assert done.success
    (made,) = done.asset_materializations_for_node(asset)
    assert made.metadata["applied"].value == 0
    assert made.metadata["summary"].value in {
        "0 copies would be looked at. Nothing was removed: a dry run.", "Nothing to do.",
        "Nothing was deleted: a dry run.",
    }  # fmt: skip
    assert ledger.overview.acts(limit=1) == []


@pytest.mark.parametrize(("name", "asset"), JOBS.items())
def test_nobody_removes_without_a_name(
    name: str, asset: str, ledger: PostgresLedger, instance: dg.DagsterInstance
) -> None:
    done = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        run_config={"ops": {asset: {"config": {"by": " ", "apply": True}}}},
        raise_on_error=False,
    )
    assert not done.success
    assert "Nobody is named" in str(done.failure_data_for_node(asset))
    assert ledger.overview.acts(limit=1) == []


def test_schedules_mean_what_they_say() -> None:
    for schedule in defs.schedules or ():
        asset = JOBS.get(schedule.job_name)
        if asset is not None:
            with dg.build_schedule_context() as context:
                (request,) = schedule.evaluate_tick(context).run_requests or ()
            config = request.run_config["ops"][asset]["config"]
            assert config == {"by": f"schedule {schedule.name}", "apply": True}


def test_orphans_that_are_to_be_left_are_nothing_to_fail_for(
    ledger: PostgresLedger, instance: dg.DagsterInstance
) -> None:
    assert ledger
    everything = defs.get_repository_def().get_job("__ASSET_JOB")
    done = everything.get_subset(asset_selection={dg.AssetKey("orphan_copies")}).execute_in_process(instance=instance)
    assert done.success
    (made,) = done.asset_materializations_for_node("orphan_copies")
    assert made.metadata["summary"].value == 'Nothing to do: inventory.orphans is "leave", not "copy".'


def test_partitions_that_no_range_has_go_with_the_next_plan(instance: dg.DagsterInstance) -> None:
    """Somebody clicked "Add a partition"."""
    instance.add_dynamic_partitions("profile_ranges", ["a typo"])
    theirs = ["0000000500-0000000599", "000001-0b5e2a5c-uuid"]
    instance.add_dynamic_partitions("profile_ranges", theirs)
    assert register(instance, [KEY, "0000000010-0000000019"]) == ["a typo"]
    # Another migration in the same Dagster instance may have planned these.
    assert set(instance.get_dynamic_partitions("profile_ranges")) == {KEY, "0000000010-0000000019", *theirs}
    assert register(instance, [KEY, "0000000010-0000000019"]) == []
