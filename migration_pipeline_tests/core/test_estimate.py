"""What a million files cost, and that the page says the same."""

from pathlib import Path

import pytest

from migration_pipeline.core.estimate import (
    ASSUMED_COMPUTE,
    Compute,
    Cost,
    Estimate,
    Million,
    Prices,
    Requests,
    bounded,
    estimate,
    measured_compute,
)
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.sample import Sampled, SampledFiles
from migration_pipeline.settings import sections

PAGE = Path(__file__).parents[2] / "docs/planning.md"
SPEED = bounded(None, 2, requests_per_second=None, bytes_per_second=None, documents_per_second=None)
SIZES = {"30 KB": 30_000, "300 KB": 300_000, "3 MB": 3_000_000, "30 MB": 30_000_000}


def estimated(files: SampledFiles, prices: Prices, compute: Compute = ASSUMED_COMPUTE) -> Estimate:
    """Of a hundred thousand profiles with five files each."""
    sampled = Sampled(profiles=500, files=[5] * 500)
    return estimate(sampled, files, 100_000, read_back="sampled", speed=SPEED, prices=prices, compute=compute)


def test_a_million_files_cost_what_the_others_do_in_proportion() -> None:
    files = SampledFiles(sizes=[1_000_000] * 80)
    files.failed[Outcome.SOURCE_MISSING] = 20
    prices = Prices(1.0, 2.0, 3.0, 4.0, compute_per_vcpu_hour=5.0)
    found = estimated(files, prices, measured_compute(36.0, 10_000))
    # 400,000 of the 500,000 can be copied; each of the others is asked for once, in vain.
    assert found.million == Million(
        Requests(1_250_000, 1_000_000, 10_000), 1000.0, 1.0, Cost(125.0, 2000.0, 3000.0, 4000.0), 5.0
    )
    assert found.million.once == 5130.0
    assert (found.cpu_seconds, found.cpu_is) == (1440.0, "as measured for 10,000 files")


def test_what_no_file_says_is_not_said() -> None:
    nothing = estimate(Sampled(), SampledFiles(), 0, read_back="never", speed=SPEED, prices=Prices(1, 1, 1, 1))
    assert nothing.million is None
    assert measured_compute(0.0, 0) is ASSUMED_COMPUTE


def test_the_page_has_the_figures_of_the_code() -> None:
    columns = [of_size(size) for size in SIZES.values()]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").split("## A million files\n")[1].split("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    assert header == ["", *SIZES]
    assert rows == [[name, *(column[name] for column in columns)] for name in columns[0]]


def of_size(size: int) -> dict[str, str]:
    """A million files of one size at the prices that the settings have by default, as the page says it."""
    found = estimated(SampledFiles(sizes=[size] * 200), Prices(**sections.Prices().model_dump())).million
    assert found is not None
    asked, paid = found.requests, found.stores
    return {
        "reads of the source": f"{asked.source_reads:,}",
        "writes to the target": f"{asked.target_writes:,}",
        "reads of the target": f"{asked.target_reads:,}",
        "gigabytes": f"{found.gigabytes:,.0f}",
        "hours of a processor": f"{found.cpu_hours:,.2f}",
        "reads cost": f"{paid.reads:,.2f}",
        "egress costs": f"{paid.egress:,.2f}",
        "writes cost": f"{paid.writes:,.2f}",
        "compute costs": f"{found.compute:,.2f}",
        "**once**": f"**{found.once:,.2f}**",
        "storage, a month": f"{paid.storage_a_month:,.2f}",
    }


@pytest.mark.parametrize("price", sections.Prices().model_dump(exclude={"currency"}))
def test_every_price_is_in_it(price: str) -> None:
    dear = Prices(**{**sections.Prices().model_dump(), price: 1000.0})
    files = SampledFiles(sizes=[30_000] * 200)
    usual, dearer = (estimated(files, prices).million for prices in (Prices(**sections.Prices().model_dump()), dear))
    assert usual is not None
    assert dearer is not None
    assert dearer.once + dearer.stores.storage_a_month > usual.once + usual.stores.storage_a_month


def test_the_page_names_what_is_assumed() -> None:
    assert ASSUMED_COMPUTE.why.removeprefix("an assumption: ") in " ".join(PAGE.read_text(encoding="utf-8").split())
