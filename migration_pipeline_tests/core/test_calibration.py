"""What ended ranges say of the rest, and of the estimate that was made before them."""

from datetime import UTC, datetime, timedelta

import pytest

from migration_pipeline.core.calibration import Off, Ran, at_work, off, rate
from migration_pipeline.core.estimate import Cost, Prices, Requests
from migration_pipeline.core.plan_words import off_in_words
from migration_pipeline.core.spent import Expected

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXPECTED = Expected(
    NOON, 100, 1000, 10**6, Requests(0, 0, 0), Cost(0, 0, 0, 0), 8.0, 0, 0, exact=False, prices=Prices(1, 1, 1, 1)
)


def ran(begin: float, seconds: float, *, copied: int = 100, paused: float = 0.0, files: int = 100) -> Ran:
    """The run of a range of ten profiles; times are in seconds after noon."""
    began = NOON + timedelta(seconds=begin)
    return Ran(began, began + timedelta(seconds=seconds), 10, copied, files, paused)


def test_what_starting_a_run_takes_is_work_and_a_break_is_not() -> None:
    assert at_work([ran(0, 10), ran(15, 10)]) == 25
    assert at_work([ran(0, 10), ran(3600, 10)]) == 20


def test_workers_beside_each_other_share_the_time() -> None:
    runs = [ran(0, 100), ran(0, 50), ran(55, 50), ran(20, 10)]
    assert at_work(runs) == 105
    assert rate(runs) == pytest.approx(400 / 105)


def test_a_pause_is_no_work() -> None:
    # Both waited for the same half of the time.
    assert at_work([ran(0, 100, paused=50), ran(0, 100, paused=50)]) == pytest.approx(50)


def test_runs_that_copied_nothing_say_nothing_of_copying() -> None:
    assert rate([ran(0, 1, copied=0)]) is None
    assert rate([ran(0, 100), ran(101, 1000, copied=0)]) == 1.0


def test_the_newest_hour_counts() -> None:
    assert rate([ran(0, 1000), ran(10_000, 10)]) == 10.0


def test_the_last_estimate_is_compared_for_what_has_run() -> None:
    # Two ranges of ten profiles, a fifth of all: 1.6 of the 8 seconds, 200 of the 1,000 files.
    found = off(EXPECTED, [ran(0, 80, files=150), ran(82, 80, files=150)])
    assert found == Off(NOON, files_expected=200.0, files=300, seconds_expected=1.6, seconds=162.0)
    assert off_in_words(found) == (
        "of 2026-03-01 12:00 UTC. For what has run since: 2 min 42 s of work instead of 2 s (101.2 times), "
        "300 files instead of 200 (+50%)"
    )


def test_nothing_is_compared_where_nothing_was_expected_or_has_run() -> None:
    assert off(None, [ran(0, 80)]) is None
    assert off(EXPECTED, []) is None
    assert off(EXPECTED._replace(files=0), [ran(0, 80)]) is None
