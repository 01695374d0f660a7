"""Dead letters as a page: what failed, why, and the commands that go on from there."""

from collections.abc import Iterator, Sequence
from datetime import UTC

import dagster as dg

from migration_pipeline.adapters.ledger.overview import DeadLetter, LetterClass
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.model import REMEDIES, WAIVED, Outcome
from migration_pipeline.defs import pages
from migration_pipeline.defs.groups import VERIFY
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.status_page import NOTHING_WAITS

_LETTERS = 1000
_COMMAND = "migration-pipeline dead-letters"


@dg.asset(
    # It has no dependency: it is read from the ledger, and the UI would call it "Unsynced" after each range.
    group_name=VERIFY,
    kinds={"postgres"},
    owners=pages.OWNERS,
    tags={"stage": "report"},
    description=(
        "Files that could not be copied and wait for somebody: by class, with what to do about each, and how to try "
        "them again or waive them, in a terminal or by the Launchpad. The sensor fresh_pages keeps it up to date."
    ),
    check_specs=[dg.AssetCheckSpec(NOTHING_WAITS, asset="dead_letters", description="Does no dead letter wait?")],
)
def dead_letters(migration: Migration) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """List what waits."""
    with migration.ledger() as ledger:
        classes = ledger.overview.letter_classes()
        letters = ledger.overview.dead_letters(waived=False, limit=_LETTERS)
        planned = bool(ledger.ranges())
    yield dg.MaterializeResult(metadata=page(classes, letters))
    passed, summary = judged(classes, planned=planned)
    yield dg.AssetCheckResult(
        check_name=NOTHING_WAITS, passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata={"summary": summary}
    )


def judged(classes: Sequence[LetterClass], *, planned: bool) -> tuple[bool, str]:
    """Whether nothing waits, and that in words."""
    if not planned:
        return False, "Nothing is planned yet."
    waiting = sum(item.waiting for item in classes)
    parts = [f"{item.waiting:,} {item.outcome}" for item in classes if item.waiting]
    return not waiting, f"{count(waiting, 'dead letter')}: {', '.join(parts)}." if waiting else "Nothing waits."


def page(classes: Sequence[LetterClass], letters: Sequence[DeadLetter]) -> pages.Metadata:
    """Classes with their commands and the letters on one page, then numbers, which plot over materializations."""
    rows = [
        [item.outcome, item.profile_id, str(item.file), item.range_key, str(item.attempts), item.message]
        for item in letters
    ]
    parts = [_class(item) for item in classes]
    if rows:
        parts.append(pages.capped(["class", "profile", "file", "range", "tries", "message"], rows))
    return {
        **({"report": dg.MetadataValue.md("\n\n".join(parts))} if parts else {}),
        "waiting": sum(item.waiting for item in classes),
        "waived": sum(item.waived for item in classes),
        **{f"waiting_{item.outcome}": item.waiting for item in classes if item.waiting},
    }


def _class(item: LetterClass) -> str:
    """A paragraph, with what goes on from there: what waits needs a remedy, what is waived none."""
    newest = f", newest {item.newest.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if item.newest else ""
    parts = [f"**{item.outcome}**: {item.waiting:,} waiting, {item.waived:,} waived{newest}"]
    if item.waiting:
        parts += [
            REMEDIES[item.outcome],
            f"For example {', '.join(pages.escaped(str(file)) for file in item.examples)}",
            *_ways(item.outcome),
        ]
    elif item.waived:
        parts.append(WAIVED)
    if item.waived:
        parts += _back(item.outcome)
    return "\n\n".join(parts)


def _ways(outcome: Outcome) -> list[str]:
    """What an operator may do, each for a terminal and for the Launchpad."""
    retry, waive = f"{{class: {outcome}}}", f"{{class: {outcome}, why: '…', by: '…'}}"
    accept = [
        "Count what would be accepted; with `--apply`, or `apply: true`, they are copied as they are:",
        _both(f"accept --class {outcome} --why '…'", "accept_dead_letters", f"accept_letters: {{config: {waive}}}"),
    ]
    return [
        "Try them again:",
        _both(f"retry --class {outcome}", "retry_dead_letters", f"retry_letters: {{config: {retry}}}"),
        "Count what would be waived; with `--apply`, or `apply: true`, their profiles finish without these files:",
        _both(f"waive --class {outcome} --why '…'", "waive_dead_letters", f"waive_letters: {{config: {waive}}}"),
        *(accept if outcome is Outcome.DIGEST_MISMATCH else []),
    ]


def _back(outcome: Outcome) -> list[str]:
    back = f"{{class: {outcome}, waived: true}}"
    return [
        "Take the waivers back:",
        _both(f"retry --class {outcome} --waived", "retry_dead_letters", f"retry_letters: {{config: {back}}}"),
    ]


def _both(command: str, job: str, op: str) -> str:
    pad = f"# Jobs > {job} > Launchpad\nops: {{{op}}}"
    return f"```sh\n{_COMMAND} {command}\n```\n\n```yaml\n{pad}\n```"
