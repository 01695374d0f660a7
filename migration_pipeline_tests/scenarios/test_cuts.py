"""Each act cut off after every single call to a store or the ledger, then done again: all ends as if nothing had been.

`make test` takes a few of the cut points of each act, other ones for each act; `CUTS=all` takes every one.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from migration_pipeline import cutover
from migration_pipeline.adapters.ledger.control import Selection
from migration_pipeline.core.copy_file import CopyLimits
from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.erase import erase
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.core.rollback import roll_back_range
from migration_pipeline.core.sweep import Swept, sweep_files, sweep_profiles
from migration_pipeline.inventory import take_stock
from migration_pipeline.report.archive import archive
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.calls import calls_of, cut_after
from migration_pipeline_tests.scenarios.frozen import Frozen, MakeFrozen, frozen_app, opened

# A process that is gone closes nothing itself.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ALL = os.environ.get("CUTS") == "all"
STEP = 19
LIMITS = CopyLimits(in_flight=2, read_back="never")


@dataclass(frozen=True, slots=True)
class Mine:
    """A range of two profiles that nobody had before."""

    app: Frozen
    key: str
    ids: tuple[int, int]

    def migrate(self) -> None:
        migrate_range(self.key, self.app.stores, LIMITS)

    def sweep(self) -> None:
        sweep_profiles([self.app.stores.profiles.find(list(self.ids))], self.app.stores)

    def sweep_files(self) -> None:
        sweep_files([self.key], self.app.stores, Swept())

    def roll_back(self) -> None:
        assert roll_back_range(self.key, self.app.stores).complete

    def erase(self) -> None:
        erase(self.app.stores, seconds=0)

    def decommission(self) -> None:
        self.app.decommission([self.key])

    def retry(self) -> None:
        with closing(open_ledger(self.app.settings)) as ledger:
            ledger.control.retry(Selection(range_key=self.key), by="ann")

    def waive(self) -> None:
        with closing(open_ledger(self.app.settings)) as ledger:
            ledger.control.waive(Selection(range_key=self.key), by="ann", why="gone for good")

    # -- what there is before an act

    def as_it_was(self) -> None:
        """Nothing was done."""

    def written_back(self) -> None:
        """An old client writes an old URL back."""
        self.migrate()
        self.app.write(self.ids[0], [self.app.photo(self.ids[0])])

    def written_over(self) -> None:
        """The source has newer bytes."""
        self.migrate()
        self.app.upload(self.app.photo(self.ids[0]), b"newer")

    def taken_away(self) -> None:
        """A photo is gone from its row and document, and a run has seen that."""
        self.migrate()
        self.app.write(self.ids[0], [])
        self.migrate()

    def audited(self) -> None:
        """Its blobs may go."""
        self.migrate()
        self.app.audit([self.key])

    def missing(self) -> None:
        """A blob is gone, and its profile waits."""
        with self.app.azure() as azure:
            azure.get_blob_client(self.app.name, self.app.photo(self.ids[0])).delete_blob()
        self.migrate()

    # -- and what there is after it

    def look_after(self) -> None:
        """A whole round: what is left is migrated, swept and audited."""
        self.migrate()
        self.sweep()
        self.sweep_files()
        if self.app.ask("SELECT FROM migration.ranges WHERE key = %s AND requested_at IS NOT NULL", self.key):
            self.migrate()
        self.app.audit([self.key])

    def state(self) -> dict[str, Any]:
        """Everything, as seen without the product; the two profiles are called 0 and 1."""
        app, ids = self.app, list(self.ids)
        blobs = [app.photo(id_) for id_ in ids]
        with app.s3() as s3:
            listed = s3.list_objects_v2(Bucket=app.places.bucket, Prefix=app.key(""))
        objects = {item["Key"]: item["Size"] for item in listed.get("Contents", [])}
        source, references = app.in_source(), independent.references(app.places)
        rows = dict(app.ask("SELECT id, photos_migrated_at IS NOT NULL FROM profiles WHERE id = ANY(%s)", ids))
        files = app.ask(
            "SELECT blob, outcome IN ('copied', 'already_there'), ours, erasing, waived_at IS NOT NULL,"
            " retry_at IS NOT NULL, replaces IS NOT NULL FROM migration.files WHERE blob = ANY(%s)",
            blobs,
        )
        wanted = app.ask(
            "SELECT f.blob, w.profile_id, w.dropped_at IS NOT NULL FROM migration.wanted w JOIN migration.files f"
            " USING (file_id) WHERE f.blob = ANY(%s)",
            blobs,
        )
        ((requested, rolled_back, waiting, findings),) = app.ask(
            "SELECT requested_at IS NOT NULL, rolled_back_at IS NOT NULL, report->>'waiting', findings::text"
            " FROM migration.ranges WHERE key = %s",
            self.key,
        )
        removed = app.ask("SELECT blob, ended_at IS NOT NULL FROM migration.removed WHERE blob = ANY(%s)", blobs)
        found = {
            "references": [(ids.index(id_), *held) for id_ in ids for held in sorted(references.get(str(id_), []))],
            "flags": [rows[id_] for id_ in ids],
            "objects": [objects.get(app.key(blob)) for blob in blobs],
            "source": [blob in source for blob in blobs],
            "files": files,
            "wanted": [(blob, ids.index(int(id_)), dropped) for blob, id_, dropped in wanted],
            "range": (requested, rolled_back, waiting, findings),
            "removed": removed,
        }
        numbers = {str(id_): number for number, id_ in enumerate(ids)}
        text = json.dumps(found).replace(app.name, "app")
        text = re.sub(r"\b(\d+)(?=/0\.jpg)", lambda match: f"<{numbers[match[1]]}>", text)
        named = json.loads(text)
        return {**named, **{name: sorted(named[name]) for name in ("files", "wanted", "removed")}}


@pytest.fixture(scope="module")
def mine(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Mine]]:
    """Ranges, one after the other; another app where one has no more."""

    def ranges() -> Iterator[Mine]:
        while True:
            made = frozen_app(sandbox, tmp_path_factory.mktemp("cuts"), profiles=120, per_range=2, photos=1)
            for blob in made.bodies:  # sizes are compared
                made.upload(blob, b"x" * 500)
            with opened(made) as app:
                for number, key in enumerate(app.keys):
                    yield Mine(app, key, (2 * number + 1, 2 * number + 2))

    found = ranges()
    yield found
    found.close()  # type: ignore[attr-defined] # it is a generator


ACTS: dict[str, tuple[Callable[[Mine], None], Callable[[Mine], None], int]] = {
    "migrate": (Mine.as_it_was, Mine.migrate, 40),
    "sweep": (Mine.written_back, Mine.sweep, 10),
    "sweep --full": (Mine.written_over, Mine.sweep_files, 8),
    "erase": (Mine.taken_away, Mine.erase, 20),
    "rollback": (Mine.migrate, Mine.roll_back, 30),
    "decommission": (Mine.audited, Mine.decommission, 20),
    "dead-letters retry": (Mine.missing, Mine.retry, 5),
    "dead-letters waive": (Mine.missing, Mine.waive, 5),
}
"""What there is before, the act, and how many cut points it has at least; docs/testing.md has a row for each."""


@pytest.mark.scaled
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ACTS)
def test_an_act_cut_off_after_any_call_and_done_again_ends_as_if_it_had_not_been(
    mine: Iterator[Mine], name: str, record_property: Callable[[str, object], None]
) -> None:
    before, act, least = ACTS[name]
    uncut = next(mine)
    before(uncut)
    calls = calls_of(lambda: act(uncut))
    record_property("cut points", calls)
    assert calls >= least
    act(uncut)
    uncut.look_after()
    expected = uncut.state()
    numbers = range(1, calls + 1) if ALL else range(1 + sum(map(ord, name)) % STEP, calls + 1, STEP)
    cuts = 0
    for number in numbers:
        one = next(mine)
        before(one)
        # It may have a few calls less than the one before: a run at work says so by the clock.
        cuts += cut_after(number, lambda: act(one))  # noqa: B023 - called at once
        act(one)
        one.look_after()
        assert one.state() == expected, f"cut after call {number} of {calls}"
    assert cuts >= len(numbers) * 0.8


@pytest.mark.timeout(3600)
def test_archiving_and_taking_stock_cut_off_after_any_call(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    app = make_frozen(profiles=2, per_range=1, photos=1)
    take_stock(app.settings)
    inventory = "SELECT blob, size_bytes, etag FROM migration.inventory ORDER BY 1"
    held = app.ask(inventory)
    calls = calls_of(lambda: take_stock(app.settings))
    for number in range(1, calls + 1, 1 if ALL else STEP):
        cut_after(number, lambda: take_stock(app.settings))
        take_stock(app.settings)
        assert app.ask(inventory) == held
    app.audit()
    assert app.decommission().complete
    rows = app.ask("SELECT count(*) FROM migration.wanted")
    for number in count(1, 1 if ALL else STEP):
        folder = tmp_path / f"archive{number}"
        if not cut_after(number, lambda: archive(app.settings, folder, apply=True, who="ann")):  # noqa: B023 - called at once
            break
        left = app.ask("SELECT count(*) FROM migration.wanted")
        assert left == rows or list(folder.glob("*.parquet"))
        if left != rows:
            break
    archive(app.settings, tmp_path / "archive", apply=True, who="ann")
    assert app.ask("SELECT count(*) FROM migration.wanted") == [(0,)]
    assert app.gone() == []


@pytest.mark.timeout(3600)
def test_steps_of_the_cut_over_cut_off_after_any_call(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=2, per_range=1, photos=1)
    app.soak()
    phases = "SELECT phase FROM migration.phases ORDER BY phase_id"
    for number in count(1, 1 if ALL else STEP):
        before = app.ask(phases)
        was_cut = cut_after(
            number,
            lambda: cutover.go_back(app.settings, Phase.SOURCE_FROZEN, by="ann", why="it was too early"),
        )
        added = app.ask(phases)[len(before) :]
        assert added in ([], [(Phase.SOURCE_FROZEN.value,)])
        if not added:
            cutover.go_back(app.settings, Phase.SOURCE_FROZEN, by="ann", why="it was too early")
        upkeep_round(app)
        cutover.enter(app.settings, Phase.SOAK, by="ann")
        if not was_cut:
            break
    assert number > 10


def upkeep_round(app: Frozen) -> None:
    """What the gate to the soak wants."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - of this one act

    assert upkeep.sweep(app.settings, full=True).clean
    take_stock(app.settings)
