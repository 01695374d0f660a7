"""What people see of a range in the UI: numbers that plot over partitions, and short tables of offenders."""

import resource
import sys
from collections.abc import Sequence
from typing import Any

import dagster as dg

from migration_pipeline.adapters.ledger.overview import RangeTotals
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.confirm import REASONS
from migration_pipeline.core.migrate import RangeReport
from migration_pipeline.core.model import REMEDIES, Outcome, Rewritten
from migration_pipeline.core.text import LONGEST, shortened

OWNERS = ["team:migration"]
"""Whom the UI names for every asset; alerts go where ALERT_URLS says."""

_ROWS = 50
_SENTENCE = 200  # characters of a text with spaces: the UI wraps only there
_REASONS = 5
Metadata = dict[str, Any]

_STAGES = {
    "discover": "file_references",
    "transfer": "file_copies",
    "rewrite_database": "database_urls",
    "rewrite_firebase": "firebase_urls",
    "confirm": "migrated_profiles",
}


def file_references(report: RangeReport) -> Metadata:
    """Of the discover stage."""
    found = report.discovered
    return {
        "profiles": found.profiles,
        "profiles_deleted": found.deleted,
        "profiles_with_files": found.with_files,
        "files": found.files,
        "references": found.references,
        "references_with_query": found.asking,
        "foreign_urls": found.foreign,
        "other_container_urls": found.other_container,
        "unparsable_urls": found.unparsable,
        "embedded_values": found.embedded,
        "drifted_profiles": found.drifted,
        **{
            key: value
            for kind, texts in sorted(found.examples.items())
            for key, value in table(f"{kind}_examples", ["URL"], [[text] for text in texts]).items()
        },
        **table("drifted_examples", ["profile"], [[str(text)] for text in found.drifted_examples]),
    }


def file_copies(report: RangeReport, totals: RangeTotals) -> Metadata:
    """Of the transfer stage: what is true of the range, then what this run did. Rates are of files, so of some only."""
    done = report.transferred
    seconds = report.seconds.get("transfer", 0.0)
    rates = {
        "files_per_second": round(done.copied / seconds, 1) if seconds else 0.0,
        "cpu_milliseconds_per_file": round(1000 * done.cpu_seconds / max(1, done.copied), 2),
    }
    return {
        "files_in_s3": totals.files_in_s3,
        "megabytes_in_s3": round(totals.bytes / 1e6, 1),
        "tries_of_all_runs": totals.tries,
        "copied_by_this_run": done.copied,
        "megabytes_by_this_run": round(done.bytes / 1e6, 1),
        "already_there": done.outcomes[Outcome.ALREADY_THERE],
        "failed": done.failed,
        **(rates if done.copied else {}),
        "retries": done.retries,
        "source_throttles": done.source_pace.overloads,
        "target_throttles": done.target_pace.overloads,
        "source_requests_at_once": done.source_pace.limit,
        "source_requests_at_once_lowest": done.source_pace.lowest,
        "target_requests_at_once": done.target_pace.limit,
        "target_requests_at_once_lowest": done.target_pace.lowest,
        "content_types_guessed": done.guessed_types,
        "peak_memory_megabytes": round(peak_memory() / 1e6, 1),
        **{f"failed_{outcome}": n for outcome, n in sorted(done.outcomes.items()) if not outcome.verified},
    }


def rewritten(done: Rewritten) -> Metadata:
    """Of either rewrite stage."""
    return {
        "urls": done.urls,
        "profiles": done.profiles,
        "conflicts": done.conflicts,
        "longest_lock_milliseconds": round(1000 * done.longest_lock, 1),
    }


def migrated_profiles(report: RangeReport) -> Metadata:
    """Of the confirm stage."""
    done = report.confirmed
    rows = [[str(item.profile_id), item.reason, str(item.file or "")] for item in done.waiting]
    return {
        "migrated": done.migrated,
        "newly_migrated": done.newly_flagged,
        "unflagged": done.unflagged,
        "nothing_to_move": done.untouched,
        "copies_dropped": done.dropped,
        "waiting": len(done.waiting),
        "paused_seconds": round(report.paused_seconds, 1),
        **table("waiting_profiles", ["profile", "why", "file"], rows),
    }


def left(report: RangeReport, name: str, number: int) -> Metadata:
    """Of a check: how many, and whose they are."""
    rows = [[str(item.profile_id), item.reason, str(item.file or "")] for item in report.confirmed.waiting]
    return {name: number, **(table("waiting_profiles", ["profile", "why", "file"], rows) if number else {})}


def seconds(report: RangeReport) -> dict[str, Metadata]:
    """Wall and processor seconds, by asset."""
    return {
        _STAGES[stage]: {"seconds": round(value, 3), "cpu_seconds": round(report.cpu_seconds.get(stage, 0.0), 3)}
        for stage, value in report.seconds.items()
    }


def what_is_left(report: RangeReport) -> str:
    """One short text with everything an operator needs: the UI's failed partition shows little else."""
    waiting, profiles = len(report.confirmed.waiting), report.discovered.profiles
    reasons = report.reasons().most_common(_REASONS)
    what = ", ".join(f"{number:,} {reason}" for reason, number in reasons)
    are = "is" if waiting == 1 else "are"
    more = ", …" if len(report.reasons()) > len(reasons) else ""
    lines = [f"{waiting:,} of {count(profiles, 'profile')} {are} not migrated: {what}{more}."]
    for reason, number in reasons:
        remedy = REMEDIES[Outcome(reason)] if reason in set(Outcome) else REASONS.get(reason, "Run the range again.")
        ids = [str(item.profile_id) for item in report.confirmed.waiting if item.reason == reason][:_REASONS]
        more = ", …" if number > len(ids) else ""
        lines.append(f"{reason}: {'profile' if number == 1 else 'profiles'} {', '.join(ids)}{more}. {remedy}")
    if waiting < profiles:
        lines.append("The others are migrated, or had nothing to move.")
    return "\n".join(lines)


def peak_memory() -> int:
    """Bytes of this process at its largest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def table(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Metadata:
    """The first rows as metadata, each cell as code; nothing where there are none."""
    return {name: dg.MetadataValue.md(capped(columns, rows))} if rows else {}


def capped(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first rows as a Markdown table, each cell as code; and how many more there are."""
    text = markdown(columns, [[escaped(cell) for cell in row] for row in rows[:_ROWS]])
    return text if len(rows) <= _ROWS else f"{text}\n\n… and {len(rows) - _ROWS} more"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the cells' text is taken as it is."""
    return "\n".join(_line(cells) for cells in (columns, ["---"] * len(columns), *rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Names come from users: as code, they cannot become markup. A code span cannot hold a line end or a bar.

    Of a long name the middle is left out, or one cell would push all others out of sight; commands give it in full.
    """
    if text.isascii() and text.isdigit():
        return text
    shown = shortened(text, _SENTENCE if " " in text else LONGEST)
    return "`" + shown.replace("`", "'").replace("|", "¦") + "`" if shown else ""
