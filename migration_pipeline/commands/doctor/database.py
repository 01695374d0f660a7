"""The app's database: rights, columns, indexes, and what it does by itself when a row is written."""

from contextlib import closing

from migration_pipeline.adapters.postgres.probe import PostgresProbe
from migration_pipeline.commands.doctor.findings import Finding, Findings, What, failure, ok, warning
from migration_pipeline.settings import Settings
from migration_pipeline.stores import look_up, open_index
from migration_pipeline.upkeep import DOCUMENTS, unseen_by_time


def database(settings: Settings) -> Findings:
    """What settings say of the tables first: where that is wrong, nothing else can be asked."""
    refused = look_up(settings)
    for refusal in refused:
        yield failure(What.DATABASE_TABLES, f"{refusal.setting}: {refusal.message}", refusal.remedy)
    if refused:
        return
    yield ok(What.DATABASE_TABLES, "rows are told apart, and columns are what the settings say")
    with closing(open_index(settings)) as probe:
        yield from _rights(probe)
        yield from _flag(probe, settings.database.profiles.migrated_at)
        yield from _indexes(probe)
        yield from _triggers(probe)
        yield _sweeps(settings)
        bounds = probe.bounds()
        if not probe.takes_writes():
            yield failure(
                What.DATABASE,
                "takes no writes: it is a standby, or read-only by default.",
                "Name the primary in DATABASE_URL.",
            )
        else:
            yield ok(What.DATABASE, f"ids {bounds[0]} to {bounds[1]}" if bounds else "no profile yet")


def _rights(probe: PostgresProbe) -> Findings:
    missing = probe.missing_rights()
    for right in missing:
        yield failure(What.DATABASE_RIGHTS, f"the role may not {right}.", "Grant it to DATABASE_URL's role.")
    if not missing:
        yield ok(What.DATABASE_RIGHTS, "reads and updates the configured columns")


def _flag(probe: PostgresProbe, name: str) -> Findings:
    """A flag that cannot be set or cleared was refused before."""
    type_ = probe.flag_type()
    if type_ == "timestamp with time zone":
        yield ok(What.DATABASE_FLAG, f"{name} is a nullable timestamptz")
    else:
        yield warning(What.DATABASE_FLAG, f"{name} is of type {type_}.", "timestamptz says when, in any time zone.")


def _indexes(probe: PostgresProbe) -> Findings:
    missing = probe.unindexed()
    for column in missing:
        yield warning(
            What.DATABASE_INDEXES,
            f"{column} has no index: every look-up by it would read the whole table.",
            "CREATE INDEX CONCURRENTLY on it before migrating.",
        )
    if not missing:
        yield ok(What.DATABASE_INDEXES, "rows are found by index")


def _triggers(probe: PostgresProbe) -> Findings:
    fired = probe.triggers()
    if fired:
        yield warning(
            What.DATABASE_TRIGGERS,
            f"each migrated profile fires {', '.join(fired)}.",
            "Make sure that they bear it, or have them pass over application_name 'migration-pipeline'.",
        )
        return
    yield ok(What.DATABASE_TRIGGERS, "none is fired")


def _sweeps(settings: Settings) -> Finding:
    unseen = [what for what in unseen_by_time(settings) if what != DOCUMENTS]
    if unseen:
        return warning(
            What.DATABASE_SWEEPS,
            f"no time tells of changes to {' and '.join(unseen)}: sweeps find these as each profile's turn comes.",
            "Set updated_at for them, or run sweep --full more often.",
        )
    return ok(What.DATABASE_SWEEPS, "what comes late is found by time, or as each profile's turn comes")
