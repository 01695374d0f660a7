"""What people see of a plan in the UI."""

import dagster as dg

from migration_pipeline.core.estimate import Estimate, Million
from migration_pipeline.core.reading import ASKING
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.urls import UrlKind
from migration_pipeline.defs import pages
from migration_pipeline.defs.status_page import span
from migration_pipeline.planning import Planned


def plan_page(planned: Planned, expected: Estimate, files: SampledFiles) -> pages.Metadata:
    """Ranges, and what is to be expected of the migration; docs/planning.md tells how far to trust it."""
    sizes = [item.profiles for item in planned.ranges]
    examples = [[kind, text] for kind, texts in planned.sampled.examples.items() for text in texts]
    examples += [[outcome.value, str(file)] for outcome, held in files.examples.items() for file in held]
    return {
        "ranges": len(planned.ranges),
        "new_ranges": len(planned.new),
        "profiles": planned.profiles,
        "largest_range": max(sizes, default=0),
        "smallest_range": min(sizes, default=0),
        "figures": (
            f"estimated by a sample, for {planned.why_sampled}"
            if expected.exact_at is None
            else f"exact, by the inventory of {expected.exact_at:%Y-%m-%d %H:%M} UTC"
        ),
        "sampled_profiles": expected.sampled,
        "sampled_files": expected.asked,
        "profiles_with_files": expected.with_files,
        **{f"references_{kind}": expected.references[kind] for kind in (*UrlKind, ASKING)},
        "files": expected.files,
        "files_off_by_percent": round(100 * expected.files_off, 1),
        "files_that_cannot_be_copied": sum(expected.failing.values()),
        "gigabytes": round(expected.bytes / 1e9, 3),
        "source_requests": expected.requests.source_reads,
        "target_requests": expected.requests.target_writes + expected.requests.target_reads,
        "cost_once": round(expected.cost.once, 2),
        "cost_a_month": round(expected.cost.storage_a_month, 2),
        "duration": f"about {span(expected.seconds)} of work",
        "seconds_of_work": round(expected.seconds),
        "speed": f"{expected.speed.files:,.0f} files a second by all workers together; {expected.speed.why} workers"
        if expected.speed.why[-1:].isdigit()
        else f"{expected.speed.files:,.0f} files a second by all workers together; {expected.speed.why}",
        "rows_to_write": expected.rows,
        "documents_to_write": expected.documents,
        "meaning": dg.MetadataValue.md(pages.markdown(["figure", "unit and meaning"], _MEANING)),
        **pages.table("cost_per_million_files", ["what", "how much", "cost"], _million(expected.million)),
        **pages.table("examples", ["what", "where"], examples),
    }


_MEANING = [
    ["largest_range, smallest_range", "profiles"],
    ["sampled_profiles, sampled_files", "how many were looked at for the estimate; the rest is in proportion"],
    ["files", "different blobs to copy; several references may name one"],
    ["files_off_by_percent", "standard error of that: two times out of three it is off by less"],
    ["gigabytes", "10⁹ bytes to copy"],
    ["source_requests, target_requests", "that the stores will charge for"],
    ["cost_once, cost_a_month", "in the currency that the settings `prices.*` are given in; a month is storage in S3"],
    ["duration, seconds_of_work", "of all workers together, pauses aside; an assumption until ranges have run"],
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
