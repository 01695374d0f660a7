"""`doctor`: every setting, and every store's reachability and rights, each with a remedy where it is wrong.

It writes nothing but three objects of random names in the target, and removes them.
"""

from collections.abc import Callable

from migration_pipeline.commands.doctor.clocks import clocks
from migration_pipeline.commands.doctor.database import database
from migration_pipeline.commands.doctor.documents import documents
from migration_pipeline.commands.doctor.findings import Finding, Findings, Health, What, refusal
from migration_pipeline.commands.doctor.ledger import ledger
from migration_pipeline.commands.doctor.set_up import set_up
from migration_pipeline.commands.doctor.source import source
from migration_pipeline.commands.doctor.target import target
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.settings import Settings

__all__ = ["Finding", "Health", "What", "examine"]


def _dagster_home(settings: Settings) -> Findings:
    # Imported here: a second and more of Dagster, which an examination of the write path does without.
    from migration_pipeline.commands.doctor.dagster_home import dagster_home  # noqa: PLC0415

    yield from dagster_home(settings)


_CHECKS: dict[What, Callable[[Settings], Findings]] = {
    What.SETTINGS: set_up,
    What.SOURCE_CLOCK: clocks,
    What.DATABASE: database,
    What.LEDGER: ledger,
    What.SOURCE: source,
    What.TARGET: target,
    What.FIREBASE: documents,
    What.DAGSTER: _dagster_home,
}


def examine(settings: Settings) -> Findings:
    """Look at everything in turn; one store's refusal does not hide the others'."""
    for name, check in _CHECKS.items():
        try:
            yield from check(settings)
        except MigrationError as error:
            yield refusal(name, error)
