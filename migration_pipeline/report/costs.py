"""What was expected when the ranges were planned, beside what was used."""

from migration_pipeline.core.estimate import Cost
from migration_pipeline.core.spent import cost
from migration_pipeline.report.facts import Facts
from migration_pipeline.report.parts import Cell, Row, Section, Table
from migration_pipeline.report.words import NONE, count, duration, moment, money, plural, size


def cost_section(facts: Facts) -> Section:
    """Counts, requests, cost and time."""
    hoped, used = _expected(facts), _used(facts)
    rows: list[Row] = [[name, hoped.get(name, NONE), used.get(name, "not counted")] for name in used | hoped]
    table = Table(["", "expected", "used"], rows, numbers={1, 2})
    return Section("Cost and time, expected and used", _said(facts), [table])


def _expected(facts: Facts) -> dict[str, Cell]:
    expected = facts.expected
    if expected is None:
        return {}
    requests = expected.requests
    return {
        "files": count(expected.files),
        "bytes of the copies": size(expected.bytes),
        "time at work": duration(expected.seconds),
        "reads of the source": count(requests.source_reads),
        "writes to the target": count(requests.target_writes),
        "reads of the target": count(requests.target_reads),
        **_priced(expected.cost, expected.prices.currency),
    }


def _used(facts: Facts) -> dict[str, Cell]:
    used: dict[str, Cell] = {
        "files": count(sum(facts.tally.files.values())),
        "bytes of the copies": size(facts.tally.held),
        "time at work": duration(facts.course.at_work),
    }
    spent = facts.totals.spent.for_all(facts.standing.status.copied)
    if spent is None:
        return used
    return used | {
        "bytes asked of the source": size(spent.source_bytes),
        "reads of the source": count(spent.source_reads),
        "writes to the target": count(spent.target_writes),
        "reads of the target": count(spent.target_reads),
        **_priced(cost(spent, facts.tally.held, facts.prices), facts.prices.currency),
    }


def _priced(paid: Cost, currency: str) -> dict[str, Cell]:
    return {
        "cost of reads": money(paid.reads, currency),
        "cost of egress": money(paid.egress, currency),
        "cost of writes": money(paid.writes, currency),
        "cost, once": money(paid.once, currency),
        "storage in the target, a month": money(paid.storage_a_month, currency),
    }


def _said(facts: Facts) -> list[str]:
    expected, copied, counted = facts.expected, facts.standing.status.copied, facts.totals.spent.copied
    if expected is None:
        said = ["No estimate was kept before the first run, so there is nothing to compare with."]
    else:
        how = "by an inventory of the source" if expected.exact else "by a sample"
        said = [
            f"Expected {how} on {moment(expected.at)}, of {plural(expected.profiles, 'profile')}, before the first run."
        ]
        if expected.prices != facts.prices:
            said.append("Prices in the settings have changed since: what was used is told at those of now.")
    if counted < copied:
        said.append(
            f"Requests were counted for {counted:,} of {plural(copied, 'file')}: runs that were cut off keep none."
            + (" For the others they are told in proportion." if counted else "")
        )
    said.append(
        "What was used is counted requests and bytes at the prices of the settings: an estimate still, for stores round"
        " as they please, and free tiers, reads of the target, Firebase and the database are not in it."
    )
    return said
