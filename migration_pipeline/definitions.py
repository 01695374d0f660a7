"""What Dagster loads."""

import dagster as dg

from migration_pipeline.defs.migrated import migrate_job, migrated_range
from migration_pipeline.defs.ranges import profile_ranges
from migration_pipeline.defs.report import dead_letters, migration_report
from migration_pipeline.defs.resources import Migration

defs = dg.Definitions(
    assets=[profile_ranges, migrated_range, dead_letters, migration_report],
    jobs=[migrate_job],
    resources={"migration": Migration()},
    # One process a run, at a quarter of the multiprocess default's CPU. It stands here and not on the job, because
    # backfills launched from the asset pages do not go through the job.
    executor=dg.in_process_executor,
)
