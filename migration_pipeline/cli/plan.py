"""The command `plan`: what a migration will move, cost and take, and the ranges it is cut into."""

from typing import TYPE_CHECKING, Any

import click

from migration_pipeline.cli.show import as_json, honest, moment, print_json, print_table, short
from migration_pipeline.core.alert_words import count, counted
from migration_pipeline.core.plan_words import off_in_words, to_decide
from migration_pipeline.core.queries import Query
from migration_pipeline.core.text import span
from migration_pipeline.core.urls import UrlKind

if TYPE_CHECKING:
    from migration_pipeline.core.calibration import Off
    from migration_pipeline.core.estimate import Estimate, Million
    from migration_pipeline.core.sample import SampledFiles
    from migration_pipeline.planning import Planned


@click.command()
@click.option("--apply", "apply_", is_flag=True, help="Keep the plan: ranges in the ledger, partitions in Dagster.")
@as_json
@honest
def plan(apply_: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Say what is to be moved, by an inventory or else by a sample, and show the ranges of profiles that have none yet.

    Without --apply nothing is written anywhere.
    """
    from migration_pipeline import planning  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    planned, last = planning.plan(settings), planning.last_estimate(settings)
    expected, files = planning.estimate(settings, planned)
    if apply_:
        from migration_pipeline.commands.dagster_instance import instance  # noqa: PLC0415 - as above
        from migration_pipeline.defs.plan_page import plan_page  # noqa: PLC0415 - as above
        from migration_pipeline.defs.ranges import register, set_workers, show_plan  # noqa: PLC0415 - as above

        with instance() as opened:
            planning.keep(planned, settings)
            planning.keep_estimate(expected, settings)
            register(opened, planned.keys)
            set_workers(opened, settings.control.workers)
            show_plan(opened, plan_page(planned, expected, files, last, settings.prices.currency))
    if json_:
        print_json(_plain(planned, expected, files, last, applied=apply_) | {"currency": settings.prices.currency})
        return
    rows = [
        *_ranges(planned),
        *_rows(expected, settings.prices.currency),
        *_million(expected, settings.prices.currency),
    ]
    print_table(["", ""], [*rows, *([["the last estimate", off_in_words(last)]] if last else [])])
    _print_examples(planned, files)
    for sentence in to_decide(expected.references, Query(settings.source.query), files):
        click.echo(sentence)
    if planned.unowned:
        click.echo(
            f"{counted(planned.unowned, 'row', 'names', 'name')} the source, in related tables, without a profile: no "
            "range moves such a row. The source cannot be closed before each has a profile or is deleted "
            "(docs/live-traffic.md)."
        )
    if expected.exact_at is not None:
        click.echo(f"Exact, by the inventory of {moment(expected.exact_at)}; cost and duration follow from that.")
    else:
        click.echo(
            f"Estimated by {count(expected.sampled, 'profile')} and {expected.asked:,} of their files, for "
            f"{planned.why_sampled}; docs/planning.md says how."
        )
    if planned.new and not apply_:
        click.echo("Nothing was kept. `migration-pipeline plan --apply` keeps these ranges.")


def _ranges(planned: "Planned") -> list[list[str]]:
    rows = [["ranges", f"{len(planned.ranges):,} of about {count(planned.profiles_a_range, 'profile')}"]]
    if planned.new:
        sizes = [item.profiles for item in planned.new]
        between = f"from {planned.new[0].key} to {planned.new[-1].key}"
        rows.append(["new ranges", f"{len(sizes):,}, {between}, of {min(sizes):,} to {count(max(sizes), 'profile')}"])
    return rows


def _rows(expected: "Estimate", currency: str) -> list[list[str]]:
    requests, cost, speed = expected.requests, expected.cost, expected.speed
    parts = f"reads {cost.reads:,.2f}, egress {cost.egress:,.2f}, writes {cost.writes:,.2f}"
    about = "" if expected.exact_at is not None else "about "
    failing = [
        [f"  {outcome}", f"{about}{count(number, 'file')}, as they are now"]
        for outcome, number in sorted(expected.failing.items())
    ]
    return [
        ["profiles", f"{expected.profiles:,}, {about}{expected.deleted:,} of them deleted"],
        ["with something to move", f"{about}{expected.with_files:,}"],
        *(
            [f"references: {kind}", f"{about}{number:,}"]
            for kind, number in expected.references.items()
            if number or kind is UrlKind.SOURCE
        ),
        ["files to move", f"{about}{expected.files:,}{_off(expected.files_off)}"],
        *failing,
        ["bytes", f"{about}{_bytes(expected.bytes)}{_off(expected.bytes_off)}"],
        ["requests to the source", f"about {requests.source_reads:,} reads"],
        ["requests to the target", f"about {requests.target_writes:,} writes, {requests.target_reads:,} reads"],
        ["to be written", f"{about}{count(expected.rows, 'profile')} in the database, each once more for its flag"],
        *(
            [["", f"{about}{count(expected.documents, 'document')}, each of which may run a function of the app"]]
            if expected.documents
            else []
        ),
        ["cost, once", f"{cost.once:,.2f} {currency}: {parts}"],
        ["cost, a month", f"{cost.storage_a_month:,.2f} {currency} for storage in the target"],
        ["duration", f"about {span(expected.seconds)} of work at {speed.files:,.0f} files a second"],
        ["", speed.why],
    ]


def _million(expected: "Estimate", currency: str) -> list[list[str]]:
    each = expected.million
    if each is None:
        return []
    paid, asked = each.stores, each.requests
    costs = (
        f"reads {paid.reads:,.2f}, egress {paid.egress:,.2f}, writes {paid.writes:,.2f}, compute {each.compute:,.2f}"
    )
    return [
        ["cost of a million files", f"{each.once:,.2f} {currency} once: {costs}"],
        ["", f"{paid.storage_a_month:,.2f} {currency} a month for storage in the target"],
        ["", f"{asked.source_reads:,} reads, {each.gigabytes:,.1f} GB, {asked.target_writes:,} writes"],
        ["", f"{each.cpu_hours:,.2f} hours of a processor: {expected.cpu_is}"],
    ]


def _print_examples(planned: "Planned", files: "SampledFiles") -> None:
    rows = [[kind, short(text)] for kind, texts in planned.sampled.examples.items() for text in texts]
    rows += [[outcome, short(str(file))] for outcome, held in files.examples.items() for file in held]
    if rows:
        print_table(["examples", ""], rows)
    if files.unanswered:
        click.echo(f"The source said nothing of {count(files.unanswered, 'file')} that it was asked about.")


def _plain(
    planned: "Planned", expected: "Estimate", files: "SampledFiles", last: "Off | None", *, applied: bool
) -> dict[str, Any]:
    return {
        "ranges": len(planned.ranges),
        "new": [item.key for item in planned.new],
        "profiles": planned.profiles,
        "profiles_per_range": planned.profiles_a_range,
        "applied": applied,
        "exact_at": expected.exact_at,
        "why_sampled": planned.why_sampled,
        "sampled": {"profiles": expected.sampled, "files": expected.asked, "unanswered": files.unanswered},
        "profiles_deleted": expected.deleted,
        "profiles_with_files": expected.with_files,
        "references": dict(expected.references),
        "files": expected.files,
        "files_off_by": round(expected.files_off, 3),
        "failing": dict(expected.failing),
        "bytes": expected.bytes,
        "bytes_off_by": round(expected.bytes_off, 3),
        "requests": expected.requests._asdict(),
        "cost": {name: round(value, 4) for name, value in expected.cost._asdict().items()},
        "million_files": None if expected.million is None else _priced(expected.million),
        "cpu_seconds": round(expected.cpu_seconds, 1),
        "cpu_is": expected.cpu_is,
        "seconds": round(expected.seconds),
        "files_per_second": round(expected.speed.files, 1),
        "speed_is": expected.speed.why,
        "last_estimate": None if last is None else last._asdict(),
        "unowned": planned.unowned,
        "names_without_url": {"asked": files.names, "of_blobs": dict(files.named)},
        "rows_to_write": expected.rows,
        "documents_to_write": expected.documents,
        "examples": {
            **planned.sampled.examples,
            **{outcome: [str(file) for file in held] for outcome, held in files.examples.items()},
        },
    }


def _priced(each: "Million") -> dict[str, Any]:
    return {
        "requests": each.requests._asdict(),
        "gigabytes": round(each.gigabytes, 3),
        "cpu_hours": round(each.cpu_hours, 4),
        "cost": {name: round(value, 4) for name, value in each.stores._asdict().items()}
        | {"compute": round(each.compute, 4), "once": round(each.once, 4)},
    }


def _off(share: float) -> str:
    return f" (± {100 * share:.0f} %)" if share else ""


def _bytes(size: int) -> str:
    for unit, power in (("TB", 12), ("GB", 9)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size / 1e6:,.1f} MB"
