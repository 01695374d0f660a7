"""What `make scale` rests on: a ledger made in place that the product takes for its own, and a page of its figures."""

import shutil
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from benchmarks.scale import ledger_fill, plots, tables
from benchmarks.scale.ledger_fill import SCHEMA, Shape
from benchmarks.scale.results import read
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.status import standing
from migration_pipeline.core.model import Outcome
from migration_pipeline.sandbox import Sandbox


def test_a_ledger_made_in_place_is_as_a_migration_leaves_it(sandbox: Sandbox) -> None:
    url = sandbox.create_database(f"d{uuid4().hex[:12]}")
    shape, ranges = Shape(files=400, profiles=100), range(1, 5)
    with closing(PostgresLedger(url, SCHEMA)) as ledger:
        ledger.add_ranges([shape.range(ordinal) for ordinal in ranges])
        ledger_fill.fill(url, shape, ranges)
        for ordinal in ranges:
            wishes = shape.wishes(ordinal)
            with ledger.hold(shape.range(ordinal).key, run=False) as (bounds, held):
                # Discovery of the very same files adds none: identities, profiles and spellings are the product's.
                assert held.want(wishes).files == len(held.known()) == shape.files
                assert [bounds.after or 0, bounds.last] == [(ordinal - 1) * 100, ordinal * 100]
                spelled = {(id_, file): said.url for id_, of in held.spellings().items() for file, said in of.items()}
                assert spelled == {(wish.profile_id, wish.file): wish.spelling for wish in wishes}
        # Of 1,600 files, two are those that the source has lost.
        letters = ledger.overview.dead_letters()
        assert [letter.outcome for letter in letters] == [Outcome.SOURCE_MISSING] * 2
        assert {outcome: files for outcome, files, *_ in ledger.tallies.outcomes()} == {
            "copied": 1598,
            "source_missing": 2,
        }
        assert sum(size.files for size in ledger.tallies.sizes()) == 1598
        status = standing(ledger.overview, ledger.now()).status
        assert (status.done, status.incomplete, status.copied, status.waiting) == (2, 2, 1598, 2)
        assert sum(row.files + row.failed for row in ledger.overview.progress()) == 1600


def test_the_page_says_the_figures_that_were_measured(tmp_path: Path) -> None:
    page = shutil.copyfile(tables.PAGE, tmp_path / "scale.md")
    assert tables.write(read(), page) == tables.PAGE.read_text(encoding="utf-8"), "python -m benchmarks.scale table"
    drawn = plots.draw(read(), tmp_path)
    assert [path.name for path in drawn] == sorted(path.name for path in plots.IMAGES.glob("scale_*.svg"))
