"""The operator's jobs, launched from the Launchpad: each shows every choice, and does nothing where none is made."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from migration_pipeline.adapters.ledger.control import Chosen, Selection
from migration_pipeline.adapters.ledger.overview import LetterClass
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.control import Limits
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.core.text import shortened
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import BY
from migration_pipeline.defs.resources import Migration

AS_IT_IS = -1
"""For a limit that stays as it is. The Launchpad shows no field whose default is nothing."""
FIRST = {"dagster/priority": "10"}
"""The runs of operators' jobs leave the queue before all others."""


class Word(dg.Config):
    """Who says it, and why."""

    why: str = Field(default="", description="For everybody who wonders later.")
    by: str = Field(default=BY, description="Your name, for the record.")


class Limiting(Word):
    """Limits to put in force."""

    in_flight: int = Field(
        default=AS_IT_IS, ge=AS_IT_IS, le=1024, description="Files at the same time in each run; -1: as it is."
    )
    requests_per_second: float = Field(
        default=AS_IT_IS, ge=AS_IT_IS, description="To each store, by all runs; -1: as it is, 0: no bound."
    )
    bytes_per_second: float = Field(
        default=AS_IT_IS, ge=AS_IT_IS, description="From the source, by all runs; -1: as it is, 0: no bound."
    )
    reset: bool = Field(default=False, description="Take every limit back: what the settings say holds again.")


class Choosing(Word):
    """Which dead letters: those of a class, a range, a file, or all."""

    class_: str = Field(default="", alias="class", description="Their class, `source_missing` for example.")
    range: str = Field(default="", description="Those that profiles of this partition need.")
    file: str = Field(default="", description="One file, as CONTAINER/BLOB.")
    all: bool = Field(default=False, description="All of them.")


class Retrying(Choosing):
    """Which dead letters to try again."""

    waived: bool = Field(default=False, description="Take waivers back: of those chosen, the waived ones alone.")


class Waiving(Choosing):
    """Which dead letters, and why nobody needs these files any more."""

    why: str = Field(default="", description="Why nobody needs these files any more.")
    apply: bool = Field(default=False, description="Waive them; else they are only counted.")


class Accepting(Choosing):
    """Which dead letters of class `digest_mismatch`, and how you know that the bytes are right."""

    class_: str = Field(default="", alias="class", description="`digest_mismatch`: all of that class.")
    why: str = Field(default="", description="How you know that the stored Content-MD5 is wrong, and not the bytes.")
    apply: bool = Field(default=False, description="Accept them; else they are only counted.")


def refuse(message: str) -> dg.Failure:
    """What an operator has to correct. Trying again by itself would meet the same refusal."""
    return dg.Failure(message, allow_retries=False)


@dg.op(description="Has all runs finish the files in flight, and wait.")
def pause_runs(context: dg.OpExecutionContext, config: Word, migration: Migration) -> None:
    """Pause."""
    if not config.why.strip():
        raise refuse("Nothing was paused: say why, for everybody who wonders why nothing moves.")
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
    given = Limits(
        None if config.in_flight == AS_IT_IS else config.in_flight,
        None if config.requests_per_second == AS_IT_IS else config.requests_per_second,
        None if config.bytes_per_second == AS_IT_IS else config.bytes_per_second,
    )
    if given == Limits() and not config.reset:
        raise refuse("No limit was changed: give one, or reset: true to take all back.")
    if given != Limits() and config.reset:
        raise refuse("No limit was changed: reset: true takes all back, give it alone.")
    if given.in_flight == 0 or any(part < 0 for part in given if part is not None):
        raise refuse("No limit was changed: in_flight is 1 at least, the others are 0 (no bound) or more.")
    with migration.ledger() as ledger:
        holds = ledger.control.limit(given, by=config.by, why=config.why)
    context.add_output_metadata({name: value for name, value in holds._asdict().items() if value is not None})
    context.log.info("Runs at work obey within five seconds.")


@dg.op(description="Has dead letters tried again, and no other: by the next run of their ranges.")
def retry_letters(context: dg.OpExecutionContext, config: Retrying, migration: Migration) -> None:
    """Ask for another try."""
    selection = _selection(config)
    with migration.ledger() as ledger:
        _tell(context, ledger.control.retry(selection, by=config.by, why=config.why, waived=config.waived), "tried")


@dg.op(description="Lets profiles finish without these files; their references stay as they are, at the source.")
def waive_letters(context: dg.OpExecutionContext, config: Waiving, migration: Migration) -> None:
    """Waive, or count what would be waived."""
    selection = _selection(config)
    if config.apply and not config.why.strip():
        raise refuse("Nothing was waived: say why nobody needs these files any more.")
    with migration.ledger() as ledger:
        if config.apply:
            _tell(context, ledger.control.waive(selection, by=config.by, why=config.why), "waived")
            return
        _count(context, ledger.overview.letter_classes(**selection._asdict()), "waived")


@dg.op(description="Has files copied as they are whose bytes are not those of their stored Content-MD5.")
def accept_letters(context: dg.OpExecutionContext, config: Accepting, migration: Migration) -> None:
    """Accept, or count what would be accepted."""
    if config.class_ not in ("", Outcome.DIGEST_MISMATCH):
        raise refuse("Only digest_mismatch is about a blob's stored Content-MD5.")
    selection = _selection(config)._replace(outcome=Outcome.DIGEST_MISMATCH)
    if config.apply and not config.why.strip():
        raise refuse("Nothing was accepted: say how you know that the stored Content-MD5 is wrong.")
    with migration.ledger() as ledger:
        if config.apply:
            _tell(context, ledger.control.accept(selection, by=config.by, why=config.why), "accepted")
            return
        _count(context, ledger.overview.letter_classes(**selection._asdict()), "accepted")


def _count(context: dg.OpExecutionContext, classes: Sequence[LetterClass], done: str) -> None:
    would = sum(item.waiting for item in classes)
    rows = [
        [item.outcome.value, str(item.waiting), ", ".join(shortened(str(file)) for file in item.examples)]
        for item in classes
    ]
    columns = ["class", "files", "for example"]
    context.add_output_metadata({f"would_be_{done}": would, **pages.table("classes", columns, rows)})
    context.log.info("%s would be %s. Nothing was: set apply: true.", count(would, "dead letter"), done)


def _selection(config: Choosing) -> Selection:
    if not (config.all or config.class_ or config.range or config.file):
        raise refuse("No dead letter was chosen: give class, range or file, or all: true.")
    if config.all and (config.class_ or config.range or config.file):
        raise refuse("all: true excludes class, range and file.")
    if config.class_ and config.class_ not in _CLASSES:
        raise refuse(f"{config.class_!r} is no class of dead letters; these are: {', '.join(_CLASSES)}.")
    file = SourceFile(*config.file.split("/", 1)) if "/" in config.file else None
    if config.file and file is None:
        raise refuse("Give the file as CONTAINER/BLOB.")
    return Selection(Outcome(config.class_) if config.class_ else None, config.range or None, file)


_CLASSES = [outcome.value for outcome in Outcome if not outcome.verified]


def _tell(context: dg.OpExecutionContext, chosen: Chosen, done: str) -> None:
    context.add_output_metadata({"files": chosen.files, "ranges": len(chosen.ranges)})
    if not chosen.files:
        raise refuse("No dead letters match.")
    context.log.info(
        "%s: %s. The sensor requested_ranges runs %s within a minute.",
        count(chosen.files, "dead letter"),
        "to be tried again" if done == "tried" else done,
        "its range" if len(chosen.ranges) == 1 else f"their {len(chosen.ranges)} ranges",
    )


@dg.job(name="pause", tags=FIRST, description="Has all runs wait. Give why, and your name, in the Launchpad.")
def pause_job() -> None:
    """One op."""
    pause_runs()


@dg.job(name="resume", tags=FIRST, description="Has all runs go on.")
def resume_job() -> None:
    """One op."""
    resume_runs()


@dg.job(name="limits", tags=FIRST, description="Has runs at work copy harder or less hard; -1 leaves a limit as it is.")
def limits_job() -> None:
    """One op."""
    limit_runs()


@dg.job(
    name="retry_dead_letters",
    tags=FIRST,
    description="Has dead letters tried again: of one class, range or file, or all.",
)
def retry_job() -> None:
    """One op."""
    retry_letters()


@dg.job(
    name="waive_dead_letters",
    tags=FIRST,
    description="Lets profiles finish without files that nobody can copy. Counts them, unless you set apply: true.",
)
def waive_job() -> None:
    """One op."""
    waive_letters()


@dg.job(
    name="accept_dead_letters",
    tags=FIRST,
    description="Has files copied as they are whose stored Content-MD5 is wrong. Counts them, unless apply: true.",
)
def accept_job() -> None:
    """One op."""
    accept_letters()


JOBS = [pause_job, resume_job, limits_job, retry_job, waive_job, accept_job]
