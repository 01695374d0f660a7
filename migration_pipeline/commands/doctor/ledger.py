"""The ledger: whether it is there or may be made, and may be written."""

from contextlib import closing

from migration_pipeline.adapters.ledger import probe as ledger_probe
from migration_pipeline.adapters.ledger.postgres_ledger import POOLED, SETTING, UNPOOLED
from migration_pipeline.commands.doctor.findings import Findings, What, failure, ok
from migration_pipeline.core.alert_words import count
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger


def ledger(settings: Settings) -> Findings:
    """One that a newer release wrote refuses to open; an older one is brought up to date by opening it."""
    schema = settings.ledger.schema_name
    with closing(open_ledger(settings)) as opened:
        if not opened.keeps_sessions():
            yield failure(What.LEDGER, f"{SETTING} {POOLED}", UNPOOLED)
        if not opened.may_be_created():
            yield failure(
                What.LEDGER_RIGHTS,
                f"LEDGER_URL: there is no schema {schema}, and the role may not create one.",
                "Grant CREATE on the database to the role.",
            )
            return
        version = ledger_probe.version(opened.query)
        if version is None:
            yield ok(What.LEDGER, f"schema {schema} is made by the first plan that is kept")
            yield ok(What.LEDGER_RIGHTS, "the role may create it")
            return
        yield ok(What.LEDGER, f"schema {schema} at version {version}, {count(len(opened.ranges()), 'range')} planned")
        missing = ledger_probe.missing_rights(opened.query, schema)
        for right in missing:
            yield failure(
                What.LEDGER_RIGHTS, f"LEDGER_URL: the role may not {right}.", "Grant it, or have it own the schema."
            )
        if not missing:
            yield ok(What.LEDGER_RIGHTS, "the role reads and writes it")
