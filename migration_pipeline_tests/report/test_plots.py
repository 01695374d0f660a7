"""The report's plots: well-formed pictures that hold the figures they are drawn from."""

import base64
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from migration_pipeline.adapters.ledger.overview import ProgressRow
from migration_pipeline.report import plots
from migration_pipeline.report.course import over_time

BEGIN = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
LARGEST = 60_000  # bytes of a picture


def rows(*seconds: int, files: int = 100, failed: int = 0) -> list[ProgressRow]:
    return [ProgressRow(BEGIN + timedelta(seconds=n), files, failed, 5_000_000) for n in seconds]


def texts(svg: str) -> list[str]:
    """What it says; raises where it is no XML."""
    assert len(svg) < LARGEST
    tree = ET.fromstring(svg)  # noqa: S314 - we drew it
    return [text for node in tree.iter("{http://www.w3.org/2000/svg}text") for text in node.itertext() if text.strip()]


def test_progress_says_how_much_in_all() -> None:
    said = texts(plots.progress(over_time(rows(*range(0, 3000, 10)))))
    assert "In S3: 30,000 files, 1,500 MB" in said
    assert {"files", "MB", "UTC", "08:10"} <= set(said)
    assert max(int(text.replace(",", "")) for text in said if text.replace(",", "").isdigit()) > 20_000


def test_stretches_in_which_nothing_happened_are_there_as_zeros() -> None:
    table = over_time(rows(0, 10, 40, failed=5))
    assert list(table["files"]) == [0, 100, 100, 0, 0, 100]
    assert list(table["files_per_second"]) == [0, 10, 10, 0, 0, 10]
    assert list(table["failed_per_second"]) == [0, 0.5, 0.5, 0, 0, 0.5]


@pytest.mark.parametrize(("days", "stretch"), [(1, 10), (1, 600), (40, 600)])
def test_long_migrations_are_drawn_in_few_points(days: int, stretch: int) -> None:
    table = over_time(rows(*range(0, days * 86_400, 600), files=60), stretch)
    assert table["files_per_second"].max() == pytest.approx(0.1, rel=0.3 if stretch == 600 else 1)
    assert len(table) < 160
    assert table["files"].sum() == days * 144 * 60
    size = "720 MB" if days == 1 else "29 GB"
    assert f"In S3: {days * 144 * 60:,} files, {size}" in texts(plots.progress(table))
    assert texts(plots.rate(table))


@pytest.mark.parametrize("seconds", [0, 10, 170, 3600, 4 * 3600 + 600, 60 * 86_400])
def test_any_length_of_time_has_its_ticks(seconds: int) -> None:
    # Matplotlib warns where it finds no fitting ticks, and a warning fails a test.
    for draw in (plots.progress, plots.rate):
        assert "UTC" in texts(draw(over_time(rows(0, seconds))))


def test_the_rate_shows_failures_only_where_there_are_some() -> None:
    assert "Files a second: 10 at best" in texts(plots.rate(over_time(rows(0, 10))))
    assert "failed (below 0)" not in texts(plots.rate(over_time(rows(0, 10))))
    assert "failed (below 0)" in texts(plots.rate(over_time(rows(0, 10, failed=1))))


def test_every_outcome_has_a_bar_with_its_number() -> None:
    said = texts(plots.outcomes([("copied", 5_600_000), ("not tried", 30), ("source_missing", 1)]))
    assert {"copied", "5,600,000", "not tried", "30", "source_missing", "1"} <= set(said)
    # A bar of one file is no third of one of millions: the scale is said, and has its marks.
    assert {"files, on a logarithmic scale", "10,000", "1,000,000"} <= set(said)


def test_sizes_between_the_smallest_and_the_largest_have_a_place() -> None:
    said = texts(plots.sizes([(1024, 3, 4000), (4096, 1, 5000)]))
    assert "Files by size: 2 KB on average" in said
    assert {"1 KB", "2 KB", "4 KB"} <= set(said)


def test_an_empty_ledger_has_pictures_that_say_so() -> None:
    nothing = over_time([])
    for svg in (plots.progress(nothing), plots.rate(nothing), plots.outcomes([]), plots.sizes([])):
        assert plots.NOTHING in texts(svg)


def test_a_picture_is_within_the_text_and_the_same_for_the_same_figures() -> None:
    svg = plots.outcomes([("copied", 3)])
    assert svg == plots.outcomes([("copied", 3)])
    address = plots.as_image(svg, "Outcomes").removeprefix("![Outcomes](data:image/svg+xml;base64,").removesuffix(")")
    assert base64.b64decode(address).decode() == svg
