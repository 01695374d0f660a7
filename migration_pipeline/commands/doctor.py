"""`doctor`: every setting, and every store's reachability and rights, each with a remedy where it is wrong."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import StrEnum
from typing import NamedTuple

from migration_pipeline.commands.dagster_instance import daemon_alive, instance
from migration_pipeline.core.errors import Fatal, MigrationError
from migration_pipeline.core.model import FileHeaders
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import (
    open_documents,
    open_ledger,
    open_profiles,
    open_source,
    open_target,
    url_rules,
)


class Health(StrEnum):
    """How a line of the examination ended."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(NamedTuple):
    """One line of the examination."""

    what: str
    health: Health
    said: str
    remedy: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything in turn; one store's refusal does not hide the others'."""
    for name, check in _CHECKS.items():
        try:
            yield from check(settings)
        except Fatal as error:
            yield Finding(f"{name}: {error.setting}", Health.FAILURE, error.message, error.remedy)
        except MigrationError as error:
            yield Finding(name, Health.FAILURE, str(error), "Try again; if it stays, look at that store.")


def _settings(settings: Settings) -> Iterator[Finding]:
    url_rules(settings)
    yield Finding("settings", Health.OK, f"{len(settings.source.containers)} containers to {settings.target.bucket}")


def _database(settings: Settings) -> Iterator[Finding]:
    with closing(open_profiles(settings)) as profiles:
        bounds = profiles.bounds()
        yield Finding("database", Health.OK, f"ids {bounds[0]} to {bounds[1]}" if bounds else "no profile yet")
        for missing in profiles.missing_rights():
            yield Finding(
                "database", Health.FAILURE, f"the role may not {missing}.", "Grant it to DATABASE_URL's role."
            )
        for column in profiles.unindexed():
            yield Finding(
                "database", Health.WARNING, f"{column} has no index: every batch would read the whole table.", _INDEX
            )


_INDEX = "CREATE INDEX CONCURRENTLY on it before migrating."


def _ledger(settings: Settings) -> Iterator[Finding]:
    with closing(open_ledger(settings)) as ledger:
        if not ledger.may_be_created():
            yield Finding(
                "ledger: LEDGER_URL",
                Health.FAILURE,
                f"there is no schema {settings.ledger.schema_name}, and the role may not create one.",
                "Grant CREATE on the database to the role.",
            )
            return
        yield Finding(
            "ledger", Health.OK, f"schema {settings.ledger.schema_name}, {len(ledger.ranges())} ranges planned"
        )


def _source(settings: Settings) -> Iterator[Finding]:
    async def check() -> None:
        async with open_source(settings) as source:
            await source.check()

    run(check())
    yield Finding("source", Health.OK, f"lists and reads {', '.join(settings.source.containers)}")


def _target(settings: Settings) -> Iterator[Finding]:
    """Writes an object of a random name under the prefix, and removes it."""
    key = f"{settings.target.prefix}.migration-pipeline-probe-{secrets.token_hex(8)}"

    async def check() -> None:
        async with open_target(settings) as target:
            await target.check()
            body = b"probe"
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            receipt = await target.create(key, body, md5, FileHeaders(content_type="text/plain"))
            await target.remove(key, receipt)

    run(check())
    yield Finding("target", Health.OK, f"creates and removes objects in {settings.target.bucket}")


def _firebase(settings: Settings) -> Iterator[Finding]:
    if settings.firebase.kind == "none":
        yield Finding("firebase", Health.OK, "not used")
        return
    with closing(open_profiles(settings)) as profiles, open_documents(settings) as documents:
        ids = [profile.profile_id for profile in profiles.sample(_DOCUMENTS) if not profile.deleted]
        found = documents.read(ids)
    if ids and not found:
        yield Finding(
            "firebase",
            Health.WARNING,
            f"none of {len(ids)} profiles has a document.",
            "Check firebase.project_id and firebase.document.",
        )
        return
    yield Finding("firebase", Health.OK, f"{len(found)} of {len(ids)} sampled profiles have a document")


_DOCUMENTS = 20  # profiles of which a document is looked for


def _dagster(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - every check has this form
    with instance() as opened:
        workers = opened.get_concurrency_config().run_queue_config
        most = workers.max_concurrent_runs if workers else "unlimited"
        yield Finding("dagster", Health.OK, f"storage reachable, {most} runs at a time ({os.environ['DAGSTER_HOME']})")
        if not daemon_alive(opened):
            yield Finding(
                "dagster daemon",
                Health.WARNING,
                "is not running; `migrate` starts one for its own time.",
                "For backfills from the UI run `dagster-daemon run -w workspace.yaml`, or `dagster dev`.",
            )


_CHECKS: dict[str, Check] = {
    "settings": _settings,
    "database": _database,
    "ledger": _ledger,
    "source": _source,
    "target": _target,
    "firebase": _firebase,
    "dagster": _dagster,
}
