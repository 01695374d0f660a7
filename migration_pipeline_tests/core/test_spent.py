"""What was asked of the stores, and what it cost."""

from datetime import UTC, datetime

from migration_pipeline.core.estimate import Cost, Prices, Requests
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.pace import PaceFacts
from migration_pipeline.core.spent import Expected, Spent, cost, spent, summable
from migration_pipeline.core.transfer import Transferred

PRICES = Prices(0.004, 0.08, 0.005, 0.02)


def test_a_runs_counters_are_those_that_are_added_up() -> None:
    done = Transferred(
        retries=3, source_pace=PaceFacts(reads=5, bytes=70, overloads=1), target_pace=PaceFacts(writes=4)
    )
    done.outcomes[Outcome.COPIED] = 2
    counters = {"copied": done.copied, **spent(done), "waiting": 9, "paused_seconds": 1.5}
    assert summable(counters) == {
        "copied": 2, "retries": 3, "source_reads": 5, "source_bytes": 70, "source_throttles": 1, "target_reads": 0,
        "target_writes": 4, "target_throttles": 0, "paused_seconds": 1.5,
    }  # fmt: skip
    assert {*Spent._fields, "paused_seconds"} == set(summable(counters))
    assert summable({"seconds": {"confirm": 2.5}}) == {"confirm_seconds": 2.5}


def test_runs_that_were_cut_off_are_told_in_proportion() -> None:
    asked = Spent(copied=80, source_reads=100, target_writes=90)
    assert asked.for_all(80) is asked
    assert asked.for_all(160) == Spent(160, 0, 200, 0, 0, 0, 180, 0)
    assert Spent().for_all(10) is None
    assert Spent().for_all(0) == Spent()


def test_what_was_asked_costs_what_the_prices_say() -> None:
    asked = Spent(source_reads=20_000, source_bytes=10_000_000_000, target_writes=3000)
    assert cost(asked, 5_000_000_000, PRICES) == Cost(0.008, 0.8, 0.015, 0.1)


def test_what_was_expected_comes_back_as_it_was_kept() -> None:
    expected = Expected(
        datetime(2026, 11, 1, tzinfo=UTC), 10, 100, 5000, Requests(100, 100, 1), Cost(1, 2, 3, 4), 60.5, 9, 8,
        exact=True, prices=PRICES,
    )  # fmt: skip
    assert Expected.of(expected.plain()) == expected
