"""What `--fix` changes: rules for CORS and the lifecycle, added to those that are there, and shown first."""

import difflib
import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

from migration_pipeline.adapters.s3.errors import CREDENTIALS
from migration_pipeline.adapters.s3.write_path import BucketSetUp, Configuration, Kind, Told
from migration_pipeline.commands.doctor.bucket import days_to_abort
from migration_pipeline.commands.doctor.remedies import MOST_CORS_RULES, merged_cors, merged_lifecycle
from migration_pipeline.core.errors import Fatal, MigrationError
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger, open_write_path

_ACT = "write path"


class Change(NamedTuple):
    """One configuration of the bucket, before and after."""

    kind: Kind
    before: Configuration
    after: Configuration

    def diff(self) -> str:
        """What would change, line by line."""
        before, after = (json.dumps(each, indent=2, default=str).splitlines() for each in (self.before, self.after))
        lines = difflib.unified_diff(before, after, f"{self.kind} now", f"{self.kind} then", lineterm="", n=len(after))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return self._asdict()


def changes_for(settings: Settings, found: BucketSetUp, refused: Sequence[str]) -> list[Change]:
    """What would mend the bucket; nothing that could not be read whole is touched.

    Args:
        settings: the migration.
        found: how the bucket is set up.
        refused: origins from which a browser may not upload.
    """
    changes = []
    if refused and _may_be_written(found.cors):
        before = found.cors.answer or {}
        after = merged_cors(before, refused)
        if after != before and len(after["CORSRules"]) <= MOST_CORS_RULES:
            changes.append(Change("cors", before, after))
    if _may_be_written(found.lifecycle) and days_to_abort(found.lifecycle, settings.target.prefix) is None:
        before = found.lifecycle.answer or {}
        changes.append(Change("lifecycle", before, merged_lifecycle(before, settings.target.prefix)))
    return changes


def apply(settings: Settings, changes: Sequence[Change], by: str) -> None:
    """Write them, each noted as an act before: nothing is changed that nobody knows of.

    Raises:
        Fatal: one changed meanwhile, or the credentials may not.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        for change in changes:
            details = {"bucket": settings.target.bucket, **change.as_json()}
            ledger.control.note(_ACT, by=by, details=json.loads(json.dumps(details, default=str)))
            try:
                run(_write(settings, change))
            except MigrationError as error:
                why = f"{change.kind} was not written: {error}"
                ledger.control.note(_ACT, by=by, why=why, details={"bucket": settings.target.bucket})
                raise _refused(change, error) from None


async def _write(settings: Settings, change: Change) -> None:
    async with open_write_path(settings) as store:
        await store.write(change.kind, change.before, change.after)


def _may_be_written(told: Told) -> bool:
    return told.answer is not None and told.whole


def _refused(change: Change, error: MigrationError) -> Fatal:
    right = "s3:PutBucketCORS" if change.kind == "cors" else "s3:PutLifecycleConfiguration"
    if isinstance(error, Fatal):
        remedy = f"Grant {right}." if error.setting == CREDENTIALS else error.remedy
        return Fatal(f"{change.kind} was not written: {error.message}", setting=error.setting, remedy=remedy)
    remedy = f"Try again; it needs {right}, and a store that knows such rules."
    return Fatal(f"{change.kind} was not written: {error}.", setting="target.bucket", remedy=remedy)
