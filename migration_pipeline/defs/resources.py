"""What the assets are given."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg

from migration_pipeline import planning, upkeep
from migration_pipeline.adapters.postgres_ledger import PostgresLedger
from migration_pipeline.core.audit import Audited
from migration_pipeline.core.control import Say
from migration_pipeline.core.erase import Erasure
from migration_pipeline.core.estimate import Estimate
from migration_pipeline.core.migrate import RangeReport, migrate_range
from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.rollback import RolledBack
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.sweep import Swept
from migration_pipeline.planning import Planned
from migration_pipeline.settings import load
from migration_pipeline.standing import keep_metrics, look
from migration_pipeline.stores import copy_limits, open_index, open_ledger, open_stores


class Migration(dg.ConfigurableResource):  # type: ignore[type-arg] # the resource is its own value
    """The migration that `migration.toml` and the environment describe.

    Settings are read when something is done, so the definitions load, and the UI opens, without them.
    """

    def migrate(self, range_key: str, say: Say) -> RangeReport:
        """Migrate one range; see `migrate_range`."""
        settings = load()
        with open_stores(settings) as stores:
            return migrate_range(range_key, stores, copy_limits(settings), say=say)

    def plan(self) -> Planned:
        """Plan ranges for profiles that have none, and keep them in the ledger."""
        settings = load()
        planned = planning.plan(settings)
        planning.keep(planned, settings)
        return planned

    def estimate(self, planned: Planned) -> tuple[Estimate, SampledFiles]:
        """What is to be expected of the migration."""
        return planning.estimate(load(), planned)

    def plan_more(self, *, quiet: bool, at_most: int) -> tuple[list[str], int]:
        """Plan ranges for profiles beyond the last one; see `planning.plan_more`."""
        return planning.plan_more(load(), quiet=quiet, at_most=at_most)

    def newest_profile(self) -> ProfileId | None:
        """The highest id."""
        with closing(open_index(load())) as index:
            bounds = index.bounds()
        return bounds[1] if bounds else None

    @property
    def workers(self) -> int:
        """How many ranges are to be worked on at the same time."""
        return load().control.workers

    def sweep(self, *, full: bool) -> Swept:
        """Look for what came late; see `upkeep.sweep`."""
        return upkeep.sweep(load(), full=full)

    def erase(self) -> Erasure:
        """Remove copies that nobody refers to."""
        return upkeep.erase_dropped(load())

    def audit(self, range_key: str, *, read: bool) -> Audited:
        """Look at every reference of a range again; see `upkeep.audit`."""
        return upkeep.audit(load(), range_key, read=read)

    def roll_back(self, range_key: str) -> RolledBack:
        """Re-point a range's references to the source."""
        return upkeep.roll_back(load(), range_key)

    def write_metrics(self) -> Path | None:
        """Write the figures for Prometheus; return where, or `None` where no file is set."""
        settings = load()
        if settings.metrics.textfile is not None:
            keep_metrics(settings, look(settings))
        return settings.metrics.textfile

    @contextmanager
    def ledger(self) -> Iterator[PostgresLedger]:
        """The ledger, for reports."""
        with closing(open_ledger(load())) as ledger:
            yield ledger
