"""What people see of a plan in the UI."""

import dagster as dg

from migration_pipeline.core.alert_words import amount
from migration_pipeline.core.calibration import Off
from migration_pipeline.core.estimate import Estimate, Million
from migration_pipeline.core.plan_words import off_in_words
from migration_pipeline.core.reading import ASKING
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.text import span
from migration_pipeline.core.urls import UrlKind
from migration_pipeline.defs import pages
from migration_pipeline.planning import Planned


def plan_page(
    planned: Planned, expected: Estimate, files: SampledFiles, last: Off | None, currency: str
) -> pages.Metadata:
    """Ranges, and what is to be expected of the migration; docs/planning.md tells how far to trust it.

    Args:
        planned: the ranges.
        expected: by a sample, or by an inventory.
        files: of the sample.
        last: how far the estimate was off that was made before the first run; `None` before a range has ended.
        currency: of the prices.
    """
    sizes = [item.profiles for item in planned.ranges]
    examples = [[kind, text] for kind, texts in planned.sampled.examples.items() for text in texts]
    examples += [[outcome.value, str(file)] for outcome, held in files.examples.items() for file in held]
    return {
        "ranges": len(planned.ranges),
        "new_ranges": len(planned.new),
        "profiles": planned.profiles,
        "files": expected.files,
        "files_that_cannot_be_copied": sum(expected.failing.values()),
        "bytes": amount(expected.bytes),
        "duration": f"about {span(expected.seconds)} of work",
        "speed": f"{_rate(expected.speed.files)} files a second by all workers together",
        "speed_is": expected.speed.why,
        **({"last_estimate": off_in_words(last)} if last is not None else {}),
        "cost_once": f"{expected.cost.once:,.2f} {currency}",
        "cost_a_month": f"{expected.cost.storage_a_month:,.2f} {currency}",
        "figures": (
            f"estimated by a sample, for {planned.why_sampled}"
            if expected.exact_at is None
            else f"exact, by the inventory of {expected.exact_at:%Y-%m-%d %H:%M} UTC"
        ),
        "largest_range": max(sizes, default=0),
        "smallest_range": min(sizes, default=0),
        "sampled_profiles": expected.sampled,
        "sampled_files": expected.asked,
        "profiles_with_files": expected.with_files,
        **{f"references_{kind}": expected.references[kind] for kind in (*UrlKind, ASKING)},
        "files_off_by_percent": round(100 * expected.files_off, 1),
        "source_requests": expected.requests.source_reads,
        "target_requests": expected.requests.target_writes + expected.requests.target_reads,
        "seconds_of_work": round(expected.seconds),
        "rows_to_write": expected.rows,
        "documents_to_write": expected.documents,
        "meaning": dg.MetadataValue.md(pages.markdown(["figure", "unit and meaning"], _MEANING)),
        **pages.table("cost_per_million_files", ["what", "how much", f"cost, {currency}"], _million(expected.million)),
        **pages.table("examples", ["what", "where"], examples),
    }


def _rate(files: float) -> str:
    return f"{files:,.0f}" if files >= 10 else f"{files:.1f}"  # noqa: PLR2004 - one digit more where it tells


_MEANING = [
    ["largest_range, smallest_range", "profiles"],
    ["sampled_profiles, sampled_files", "how many were looked at for the estimate; the rest is in proportion"],
    ["files", "different blobs to copy; several references may name one"],
    ["files_off_by_percent", "of that, by chance alone: in 95 of 100 plans it is off by less"],
    ["bytes", "to copy; a MB is a million of them"],
    ["source_requests, target_requests", "that the stores will charge for"],
    ["cost_once, cost_a_month", "by the settings `prices.*`; a month is storage in S3"],
    ["duration, seconds_of_work", "of all workers together, pauses aside; an assumption until ranges have ended"],
    ["last_estimate", "how far the one before the first run was off, for the ranges that have ended since"],
    ["rows_to_write, documents_to_write", "rows of the database, documents of Firebase that hold such a reference"],
]


def _million(each: Million | None) -> list[list[str]]:
    if each is None:
        return []
    paid, asked = each.stores, each.requests
    return [
        ["reads of the source", f"{asked.source_reads:,}", f"{paid.reads:,.2f}"],
        ["egress", f"{each.gigabytes:,.1f} GB", f"{paid.egress:,.2f}"],
        ["writes to the target", f"{asked.target_writes:,}", f"{paid.writes:,.2f}"],
        ["compute", f"{each.cpu_hours:,.2f} hours", f"{each.compute:,.2f}"],
        ["once", "", f"{each.once:,.2f}"],
        ["storage, a month", "", f"{paid.storage_a_month:,.2f}"],
    ]
