"""What Dagster loads."""

import dagster as dg

from migration_pipeline.defs.alerts import alerts
from migration_pipeline.defs.archive import archive_job, archived_ranges
from migration_pipeline.defs.cutover import JOBS as CUTOVER_JOBS
from migration_pipeline.defs.cutover import cutover
from migration_pipeline.defs.decommission import decommission_job, decommissioned_source
from migration_pipeline.defs.fresh_pages import fresh_pages
from migration_pipeline.defs.inventory import inventory_job, inventory_schedule, orphan_copies, source_inventory
from migration_pipeline.defs.letters import dead_letters
from migration_pipeline.defs.metrics import metrics
from migration_pipeline.defs.migrated import migrate_job, migrated_range
from migration_pipeline.defs.new_ranges import new_ranges
from migration_pipeline.defs.operator import JOBS as OPERATOR_JOBS
from migration_pipeline.defs.operator_log import operator_acts, operator_log
from migration_pipeline.defs.pause_now import pause_now
from migration_pipeline.defs.purged_runs import purge_job, purge_schedule, purged_runs
from migration_pipeline.defs.ranges import plan_job, profile_ranges
from migration_pipeline.defs.report import migration_report
from migration_pipeline.defs.requests import requested_ranges
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.rollback import rollback_job, rolled_back_ranges
from migration_pipeline.defs.status_page import migration_status, nothing_waits
from migration_pipeline.defs.upkeep import (
    audit_job,
    audited_references,
    erase_job,
    erase_schedule,
    erased_copies,
    full_sweep,
    late_references,
    sweep_job,
    sweep_schedule,
)
from migration_pipeline.defs.watchdog import watchdog

defs = dg.Definitions(
    assets=[
        migration_status,
        source_inventory,
        orphan_copies,
        profile_ranges,
        migrated_range,
        dead_letters,
        migration_report,
        late_references,
        full_sweep,
        erased_copies,
        audited_references,
        decommissioned_source,
        archived_ranges,
        rolled_back_ranges,
        operator_log,
        cutover,
        purged_runs,
    ],
    asset_checks=[nothing_waits],
    jobs=[
        plan_job,
        migrate_job,
        inventory_job,
        sweep_job,
        erase_job,
        audit_job,
        rollback_job,
        decommission_job,
        archive_job,
        purge_job,
        *OPERATOR_JOBS,
        *CUTOVER_JOBS,
    ],
    schedules=[inventory_schedule, sweep_schedule, erase_schedule, purge_schedule],
    sensors=[alerts, fresh_pages, metrics, new_ranges, operator_acts, pause_now, requested_ranges, watchdog],
    resources={"migration": Migration()},
    # One process a run, at a quarter of the multiprocess default's CPU. It stands here and not on the job, because
    # backfills launched from the asset pages do not go through the job.
    executor=dg.in_process_executor,
)
