"""The cut-over in the UI: its phase, what holds the next gate, and passing it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.cutover import Stand
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import CUTOVER
from migration_pipeline.defs.operator import FIRST, Word, refuse
from migration_pipeline.defs.resources import Migration

CHECK = "nothing_holds_the_next_phase"


@dg.asset(
    group_name=CUTOVER,
    # It has no dependency: the UI asks "Are you sure?" for each that was never materialized, and says "Unsynced" after
    # each range. What is missing is what this asset is there to say, and a sensor keeps it up to date.
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "cutover"},
    description=(
        "From the first upload to S3 to the last blob of the source: the present phase, and each thing that holds the "
        "gate to the next one, with what to do. The jobs enter_phase and back_to_phase change it: docs/cutover.md."
    ),
    check_specs=[dg.AssetCheckSpec(CHECK, asset="cutover", description="Does nothing hold the next phase?")],
)
def cutover(migration: Migration) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Look once."""
    now = migration.cutover()
    yield dg.MaterializeResult(metadata=page(now))
    yield dg.AssetCheckResult(
        check_name=CHECK,
        passed=not now.holds,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"holds": len(now.holds)},
    )


def page(now: Stand) -> pages.Metadata:
    """The present phase, and what holds the next one."""
    rows = [
        [phase, f"{at:%Y-%m-%d %H:%M:%S %Z}" if (at := now.facts.entered.get(phase)) else "", _now(phase, now)]
        for phase in Phase
    ]
    examples = [[name] for name in now.uploads.examples]
    return {
        "phase": now.phase.value,
        "holds_left": len(now.holds),
        "written_since_switch": now.uploads.blobs,
        "removed": now.facts.removed,
        **pages.table("phases", ["phase", "entered", ""], rows),
        **pages.table("holds", ["what holds the next phase", "what to do"], [list(hold) for hold in now.holds]),
        **pages.table("written_since_switch_examples", ["blob"], examples),
    }


def _now(phase: Phase, now: Stand) -> str:
    return "now" if phase is now.phase else "next" if phase is now.phase.next else ""


class Entering(Word):
    """Which phase, who enters it, and why."""

    phase: str = Field(default="", description="The next one; the asset cutover names it.")
    at: str = Field(
        default="", description="For uploads_switched: when uploads were switched, as 2026-03-01T02:00; UTC, else now."
    )


class Returning(Word):
    """Which phase to go back to, who does, and why."""

    phase: str = Field(default="", description="An earlier one.")


@dg.op(description="Enters the next phase of the cut-over, where nothing holds its gate.")
def enter(context: dg.OpExecutionContext, config: Entering, migration: Migration) -> None:
    """Pass the gate, or fail with what holds it."""
    try:
        at = datetime.fromisoformat(config.at) if config.at else None
    except ValueError:
        raise refuse(f"{config.at!r} is no time, as 2026-03-01T02:00.") from None
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    try:
        migration.enter_phase(_phase(config.phase), by=config.by, why=config.why, switched_at=at)
    except MigrationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    context.log.info("The phase is %s now.", config.phase)


@dg.op(description="Goes back to an earlier phase of the cut-over; later gates have to be passed anew.")
def go_back(context: dg.OpExecutionContext, config: Returning, migration: Migration) -> None:
    """Go back, or fail with what is in the way."""
    if not config.why.strip():
        raise refuse("The phase is as it was: say why, for everybody who wonders later.")
    try:
        migration.back_to_phase(_phase(config.phase), by=config.by, why=config.why)
    except MigrationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    context.log.info("The phase is %s again.", config.phase)


def _phase(name: str) -> Phase:
    if name not in set(Phase):
        raise refuse(f"{name!r} is no phase; these are: {', '.join(Phase)}.")
    return Phase(name)


@dg.job(
    name="enter_phase",
    tags=FIRST,
    description="Enters the next phase of the cut-over. Give it, and your name, in the Launchpad.",
)
def enter_job() -> None:
    """One op."""
    enter()


@dg.job(name="back_to_phase", tags=FIRST, description="Goes back to an earlier phase of the cut-over.")
def back_job() -> None:
    """One op."""
    go_back()


JOBS = [enter_job, back_job]
