"""What the assets are given."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import dagster as dg

from migration_pipeline import cutover as cutting_over
from migration_pipeline import inventory, planning, upkeep
from migration_pipeline.adapters.ledger.overview import RangeTotals
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.core.audit import Audited
from migration_pipeline.core.calibration import Off
from migration_pipeline.core.control import Say
from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.erase import Erasure
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.estimate import Estimate
from migration_pipeline.core.inventory import Found
from migration_pipeline.core.migrate import RangeReport, migrate_range
from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.ports import Dropped
from migration_pipeline.core.removal_report import Decommissioned
from migration_pipeline.core.rollback import RolledBack
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.sweep import Swept
from migration_pipeline.core.transfer import Transferred
from migration_pipeline.cutover import Stand
from migration_pipeline.planning import Planned
from migration_pipeline.report.archive import Archived, archive
from migration_pipeline.report.writing import Report, write
from migration_pipeline.settings import Retention, Settings, load
from migration_pipeline.standing import Shown, keep_metrics, look
from migration_pipeline.stores import copy_limits, open_index, open_ledger, open_stores


class Migration(dg.ConfigurableResource):  # type: ignore[type-arg] # the resource is its own value
    """The migration that `migration.toml` and the environment describe.

    Settings are read when something is done, so the definitions load, and the UI opens, without them.
    """

    def migrate(self, range_key: str, say: Say, *, named: bool = True) -> RangeReport:
        """Migrate one range; see `migrate_range`.

        Args:
            range_key: the range.
            say: told of each stage as it ends.
            named: somebody asked for this very range.

        Raises:
            Fatal: it was rolled back, and nobody named it.
        """
        settings = load()
        if not named:
            self._refuse_rolled_back(settings, range_key)
        with open_stores(settings) as stores:
            return migrate_range(range_key, stores, copy_limits(settings), say=say)

    def totals(self, range_key: str) -> RangeTotals:
        """What is true of a range's files, over all runs."""
        with self.ledger() as ledger:
            return ledger.overview.totals(range_key)

    def _refuse_rolled_back(self, settings: Settings, range_key: str) -> None:
        with closing(open_ledger(settings)) as ledger:
            if ledger.rolled_back([range_key]):
                raise Fatal(
                    f"range {range_key} was rolled back, and stays so: no backfill migrates it again.",
                    setting="RANGE",
                    remedy="To migrate it again, launch this partition alone, or run "
                    f"`migration-pipeline migrate {range_key}`.",
                )

    def take_stock(self, say: Say) -> Found:
        """List the source, count all references, and compare; see `inventory.take_stock`."""
        return inventory.take_stock(load(), say)

    def list_orphans(self, folder: Path) -> inventory.OrphansKept:
        """Write what nobody refers to into a CSV file."""
        return inventory.list_orphans(load(), folder)

    def copy_orphans(self, say: Say) -> Transferred:
        """Copy what nobody refers to."""
        return inventory.copy_orphans(load(), say)

    @property
    def orphans(self) -> str:
        """What is to become of blobs that nobody refers to: `leave`, `list` or `copy`."""
        return load().inventory.orphans

    def plan(self) -> Planned:
        """Plan ranges for profiles that have none, and keep them in the ledger."""
        settings = load()
        planned = planning.plan(settings)
        planning.keep(planned, settings)
        return planned

    def estimate(self, planned: Planned) -> tuple[Estimate, SampledFiles]:
        """What is to be expected of the migration; kept until the first run begins."""
        settings = load()
        expected, files = planning.estimate(settings, planned)
        planning.keep_estimate(expected, settings)
        return expected, files

    def last_estimate(self) -> Off | None:
        """How far the estimate was off that was made before the first run; see `planning.last_estimate`."""
        return planning.last_estimate(load())

    @property
    def currency(self) -> str:
        """What all prices are given in."""
        return load().prices.currency

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

    @property
    def retention(self) -> Retention:
        """How long Dagster remembers what ended."""
        return load().retention

    def sweep(self, *, full: bool) -> Swept:
        """Look for what came late; see `upkeep.sweep`."""
        return upkeep.sweep(load(), full=full)

    def to_erase(self) -> Sequence[Dropped]:
        """Copies that would be looked at for erasing."""
        return upkeep.to_erase(load())

    def erase(self, *, by: str, why: str) -> Erasure:
        """Remove copies that nobody refers to; an act, where there were any."""
        settings = load()
        done = upkeep.erase_dropped(settings)
        if done.files:
            with closing(open_ledger(settings)) as ledger:
                ledger.control.note("erase", by=by, why=why, details={"files": done.files, "objects": done.objects})
        return done

    def audit(self, range_key: str, *, read: bool) -> Audited:
        """Look at every reference of a range again; see `upkeep.audit`."""
        return upkeep.audit(load(), range_key, read=read)

    def decommission(self, range_keys: Sequence[str], *, apply: bool, who: str, why: str, say: Say) -> Decommissioned:
        """Remove blobs of these ranges, or of all, from the source; see `upkeep.remove_from_source`."""
        settings = load()
        with closing(open_ledger(settings)) as ledger:
            planned = [item.key for item in ledger.ranges()]
        keys = [key for key in planned if key in range_keys or not range_keys]
        unknown = sorted(set(range_keys) - set(planned))
        if unknown:
            raise Fatal(f"no such range: {', '.join(unknown)}.", setting="ranges")
        return upkeep.remove_from_source(settings, keys, apply=apply, who=who, why=why, say=say)

    def archive(self, folder: Path, *, apply: bool, who: str, why: str, say: Say) -> Archived:
        """Export rows of finished ranges and drop them; see `report.archive.archive`."""
        return archive(load(), folder, apply=apply, who=who, why=why, say=say)

    def roll_back(self, range_key: str, *, by: str, why: str, without_queries: bool) -> RolledBack:
        """Re-point a range's references to the source."""
        return upkeep.roll_back(load(), range_key, by=by, why=why, without_queries=without_queries)

    def standing(self) -> Shown:
        """How the migration stands, in all; see `standing.look`."""
        return look(load())

    def cutover(self) -> Stand:
        """How far the cut-over is, and what holds it."""
        return cutting_over.stand(load())

    def enter_phase(self, phase: Phase, *, by: str, why: str, switched_at: datetime | None) -> None:
        """Pass the gate to the next phase; see `cutover.enter`."""
        cutting_over.enter(load(), phase, by=by, why=why, switched_at=switched_at)

    def back_to_phase(self, phase: Phase, *, by: str, why: str) -> None:
        """Go back to an earlier phase; see `cutover.go_back`."""
        cutting_over.go_back(load(), phase, by=by, why=why)

    def write_metrics(self) -> Path | None:
        """Write the figures for Prometheus; return where, or `None` where no file is set."""
        settings = load()
        if settings.metrics.textfile is not None:
            keep_metrics(settings, look(settings))
        return settings.metrics.textfile

    def write_report(self, folder: Path) -> Report:
        """Write the report at the end; see `report.writing.write`."""
        return write(load(), folder)

    @contextmanager
    def ledger(self) -> Iterator[PostgresLedger]:
        """The ledger, for reports."""
        with closing(open_ledger(load())) as ledger:
            yield ledger
