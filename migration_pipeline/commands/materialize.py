"""Materializes assets in this process, recorded on the user's own Dagster instance."""

from migration_pipeline.commands.dagster_instance import instance
from migration_pipeline.core.errors import Fatal

# Runs print every step to the terminal otherwise.
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def materialize(*assets: str) -> None:
    """Materialize unpartitioned assets, as a run of their own, and wait for its end.

    Raises:
        Fatal: no Dagster instance, or the run failed; Dagster's event log has the details.
    """
    import dagster as dg  # noqa: PLC0415 - loading all definitions takes a second

    from migration_pipeline.definitions import defs  # noqa: PLC0415 - as above

    job = defs.resolve_implicit_global_asset_job_def()
    with instance() as opened:
        done = job.execute_in_process(
            instance=opened,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            run_config=_QUIET,
            raise_on_error=False,
        )
    if not done.success:
        raise Fatal(f"run {done.run_id} of {', '.join(assets)} failed; the Dagster UI shows why.", setting="dagster")
