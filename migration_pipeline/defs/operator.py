"""The operator's acts: jobs to be launched from the UI, and events of the asset `orders` wherever they were done."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from migration_pipeline.adapters.ledger.control import Chosen, Selection
from migration_pipeline.adapters.ledger.overview import Act
from migration_pipeline.core.control import Limits
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.defs import pages
from migration_pipeline.defs.ranges import GROUP
from migration_pipeline.defs.resources import Migration

_BY = "Dagster UI"
_A_TICK = 50
_SENSOR_SECONDS = 30

orders = dg.AssetSpec(
    "orders",
    group_name=GROUP,
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "control"},
    description=(
        "What operators, and the breaker, said to the runs at work: pauses, limits, dead letters waived or tried "
        "again. An event each, wherever it was said; the jobs pause, resume, limits, waive and retry say it from here."
    ),
)


class Word(dg.Config):
    """Who says it, and why."""

    why: str = Field(default="", description="For everybody who wonders later.")
    by: str = Field(default=_BY, description="Your name, for the record.")


class Pausing(dg.Config):
    """Who pauses, and why."""

    why: str = Field(description="For everybody who wonders why nothing moves.")
    by: str = Field(default=_BY, description="Your name, for the record.")


class Limiting(Word):
    """Limits to put in force; what is left out stays as it is, and all left out takes every limit back."""

    in_flight: int | None = Field(default=None, ge=1, le=1024, description="Files at the same time in each run.")
    requests_per_second: float | None = Field(
        default=None, ge=0, description="To each store, by all runs; 0: no bound."
    )
    bytes_per_second: float | None = Field(default=None, ge=0, description="From the source, by all runs; 0: no bound.")


class Choosing(Word):
    """Which dead letters; at least one of class, range and file is to be given, or `all`."""

    outcome: str | None = Field(default=None, description="Their class, `source_missing` for example.")
    range_key: str | None = Field(default=None, description="Those that profiles of this partition need.")
    file: str | None = Field(default=None, description="One file, as CONTAINER/BLOB.")
    all: bool = Field(default=False, description="All of them.")


class Retrying(Choosing):
    """Which dead letters to try again."""

    waived: bool = Field(default=False, description="Take waivers back: of those chosen, the waived ones alone.")


class Waiving(Choosing):
    """Which dead letters, and why nobody needs these files any more."""

    why: str = Field(description="Why nobody needs these files any more.")


@dg.op(description="Has all runs finish the files in flight, and wait.")
def pause_runs(context: dg.OpExecutionContext, config: Pausing, migration: Migration) -> None:
    """Pause."""
    with migration.ledger() as ledger:
        done = ledger.control.pause(by=config.by, why=config.why)
    context.log.info("Paused: runs at work wait within five seconds." if done else "It was paused already.")


@dg.op(description="Has all runs go on; the breaker counts failures anew.")
def resume_runs(context: dg.OpExecutionContext, config: Word, migration: Migration) -> None:
    """Resume."""
    with migration.ledger() as ledger:
        done = ledger.control.resume(by=config.by, why=config.why)
    context.log.info("Runs go on within five seconds." if done else "It was not paused.")


@dg.op(description="Has runs at work copy harder or less hard from now on.")
def limit_runs(context: dg.OpExecutionContext, config: Limiting, migration: Migration) -> None:
    """Put limits in force."""
    given = Limits(config.in_flight, config.requests_per_second, config.bytes_per_second)
    with migration.ledger() as ledger:
        holds = ledger.control.limit(given, by=config.by, why=config.why)
    context.add_output_metadata({name: value for name, value in holds._asdict().items() if value is not None})


@dg.op(description="Has dead letters tried again, and no other: by the next run of their ranges.")
def retry_letters(context: dg.OpExecutionContext, config: Retrying, migration: Migration) -> None:
    """Ask for another try."""
    with migration.ledger() as ledger:
        _tell(context, ledger.control.retry(_selection(config), by=config.by, why=config.why, waived=config.waived))


@dg.op(description="Lets profiles finish without these files; their references stay as they are, at the source.")
def waive_letters(context: dg.OpExecutionContext, config: Waiving, migration: Migration) -> None:
    """Waive."""
    with migration.ledger() as ledger:
        _tell(context, ledger.control.waive(_selection(config), by=config.by, why=config.why))


def _selection(config: Choosing) -> Selection:
    if not config.all and not (config.outcome or config.range_key or config.file):
        raise dg.Failure("No dead letter is named: give outcome, range_key or file, or all: true.", allow_retries=False)
    if config.outcome is not None and config.outcome not in set(Outcome):
        raise dg.Failure(f"{config.outcome!r} is no class of dead letters.", allow_retries=False)
    file = SourceFile(*config.file.split("/", 1)) if config.file and "/" in config.file else None
    if config.file and file is None:
        raise dg.Failure("The file is to be given as CONTAINER/BLOB.", allow_retries=False)
    return Selection(Outcome(config.outcome) if config.outcome else None, config.range_key, file)


def _tell(context: dg.OpExecutionContext, chosen: Chosen) -> None:
    context.add_output_metadata({"files": chosen.files, "ranges": len(chosen.ranges)})
    if not chosen.files:
        raise dg.Failure("No dead letter is so.", allow_retries=False)
    context.log.info(
        "%s dead letters; the sensor requested_ranges runs their %s ranges.", chosen.files, len(chosen.ranges)
    )


@dg.job(name="pause", description="Has all runs wait. Give why, and your name, in the Launchpad.")
def pause_job() -> None:
    """One op."""
    pause_runs()


@dg.job(name="resume", description="Has all runs go on.")
def resume_job() -> None:
    """One op."""
    resume_runs()


@dg.job(name="limits", description="Has runs at work copy harder or less hard.")
def limits_job() -> None:
    """One op."""
    limit_runs()


@dg.job(name="retry_dead_letters", description="Has dead letters tried again: of one class, range or file, or all.")
def retry_job() -> None:
    """One op."""
    retry_letters()


@dg.job(name="waive_dead_letters", description="Lets profiles finish without files that nobody can copy.")
def waive_job() -> None:
    """One op."""
    waive_letters()


JOBS = [pause_job, resume_job, limits_job, retry_job, waive_job]


@dg.sensor(
    minimum_interval_seconds=_SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the asset `orders` what operators said, from a terminal too.",
)
def operator_acts(context: dg.SensorEvaluationContext, migration: Migration) -> dg.SensorResult | dg.SkipReason:
    """An event for each act since the last tick."""
    try:
        with migration.ledger() as ledger:
            new = ledger.overview.acts_after(int(context.cursor or 0), limit=_A_TICK)
            paused = ledger.control.said().paused_why is not None
    except MigrationError as error:
        return dg.SkipReason(str(error))
    if not new:
        return dg.SkipReason("nobody said anything new")
    return dg.SensorResult(asset_events=_events(new, paused=paused), cursor=str(new[-1].act_id))


def _events(acts: Sequence[Act], *, paused: bool) -> list[Any]:
    return [
        dg.AssetMaterialization(
            "orders",
            description=f"{act.what} by {act.who}",
            metadata={
                "what": act.what,
                "who": act.who,
                "why": act.why,
                "at": dg.MetadataValue.timestamp(act.at.timestamp()),
                "paused_now": int(paused),
                **pages.table("details", ["", ""], [[name, str(value)] for name, value in act.details.items()]),
            },
        )
        for act in acts
    ]
