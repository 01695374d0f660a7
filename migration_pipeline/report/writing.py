"""Writing the report: the ledger read once, as of one moment; every file whole, or not there."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.report import exports
from migration_pipeline.report.course import course
from migration_pipeline.report.facts import Facts, Letters, gather
from migration_pipeline.report.folder import SUMS, Folder, Kept, held
from migration_pipeline.report.page import page
from migration_pipeline.report.verdict import Verdict, verdict
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger

PAGE = "report.html"


class Report(NamedTuple):
    """What was written, and where."""

    folder: Path
    verdict: Verdict
    files: Sequence[Kept]

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / PAGE

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "folder": str(self.folder),
            "page": str(self.page),
            "done": self.verdict.done,
            "verdict": self.verdict.said,
            "sums": SUMS,
            "files": [kept._asdict() for kept in self.files],
        }


def write(settings: Settings, folder: Path) -> Report:
    """Write the page and the Parquet files; what was there under their names is replaced when all are whole.

    Raises:
        Fatal: the folder cannot be written.
    """
    with closing(open_ledger(settings)) as ledger, held(folder.absolute()) as place:
        with ledger.snapshot():
            facts = _export(settings, ledger, place)
        text = page(facts, place.kept)
        place.begin(PAGE).write_text(text, encoding="utf-8")
        place.ended(PAGE, "this page", 0)
        place.put_in_place()
        return Report(place.path, verdict(facts), list(place.kept))


def _export(settings: Settings, ledger: PostgresLedger, place: Folder) -> Facts:
    tally = exports.write_files(ledger.exports, place)
    waiting = exports.write_letters(ledger.exports, place, waived=False)
    waived = exports.write_letters(ledger.exports, place, waived=True)
    accepted_files, accepted = ledger.exports.accepted(exports.MOST_LETTERS)
    letters = Letters(waiting, waived, accepted, accepted_files)
    states = ledger.overview.states()
    exports.write_ranges(states, place)
    exports.write_course(course(ledger.overview), tally, place)
    return gather(settings, ledger, tally, letters)
