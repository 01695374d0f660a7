"""An operator's day by clicks in a real browser: nothing here asks Dagster for a run in any other way.

`dagster dev` runs over a small app with bad files. What a click did is judged by the ledger and by Dagster's own
records. With `DAY_SCREENSHOTS` set to a folder, pages that docs/operating.md shows are kept there.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from playwright.sync_api import Locator, Page

from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.settings import load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests import browser
from migration_pipeline_tests.scenarios.conftest import World, new_world
from migration_pipeline_tests.scenarios.dagster_ui import DagsterUi, dagster_dev, wait_for
from migration_pipeline_tests.scenarios.test_operator_day import statuses

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not browser.available(), reason=browser.UNAVAILABLE),
]

APP = AppSize(profiles=24, photos_per_profile=1, scale=0.002)
PATIENCE = 600.0  # seconds; a slow machine is not what is tried here
LOCATION = "/locations/migration_pipeline"


@dataclass
class Operator:
    """Somebody at the browser. Every click is counted, by task."""

    page: Page
    ui: DagsterUi
    world: World
    clicks: Counter[str] = field(default_factory=Counter)
    task: str = ""

    def click(self, what: Locator) -> None:
        what.click(timeout=PATIENCE * 1000)
        self.clicks[self.task] += 1

    def button(self, name: str) -> Locator:
        return self.page.locator("button").filter(has_text=re.compile(f"^{name}"), visible=True).last

    def text(self, text: str) -> Locator:
        return self.page.get_by_text(text, exact=True).filter(visible=True).last

    def begin(self, task: str, path: str = "/overview") -> None:
        """A task, from the page where it begins."""
        self.task = task
        self.page.goto(self.ui.url + path)

    def job(self, name: str) -> None:
        """Jobs > the job."""
        self.click(self.page.locator('a[href="/jobs"]'))
        self.click(self.page.locator(f'a[href$="/jobs/{name}"]').first)

    def launch(self, job: str, config: str) -> None:
        """Jobs > the job > Launchpad, with this config typed over the one that is shown, > Launch Run."""
        self.begin(job)
        self.job(job)
        self.click(self.text("Launchpad"))
        self.type_config(config)
        self.click(self.button("Launch Run"))

    def type_config(self, config: str) -> None:
        editor = self.page.locator(".CodeMirror").last
        editor.wait_for(timeout=PATIENCE * 1000)
        self.click(editor)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(config)

    def sees(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=PATIENCE * 1000)

    def shot(self, name: str) -> None:
        if folder := os.environ.get("DAY_SCREENSHOTS"):
            self.page.wait_for_timeout(2000)  # what slides in has come to rest
            self.page.screenshot(path=Path(folder, f"{name}.png"))

    def ledger(self, ask: Callable[[Any], Any]) -> Any:
        with patch.dict(os.environ, self.world.environment), closing(open_ledger(load())) as ledger:
            return ask(ledger)


@pytest.fixture(scope="module")
def operator(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    world = new_world(sandbox, tmp_path_factory.mktemp("day"), APP, profiles_per_range=8)
    with ExitStack() as stack:
        ui = stack.enter_context(dagster_dev(world))
        # The npm package's Chromium takes the language of a machine without one for "en-US@posix".
        opened = stack.enter_context(browser.open_browser(viewport={"width": 1400, "height": 900}))
        page = opened.pages[0]
        page.set_default_timeout(PATIENCE * 1000)
        operator = Operator(page, ui, world)
        yield operator
        page.screenshot(path=world.folder / "last.png")  # where it failed, if it did


def newest_backfill(ui: DagsterUi) -> str:
    query = "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id } } } }"
    found = ui.ask(query)["partitionBackfillsOrError"]["results"]
    return str(found[0]["id"]) if found else ""


def a_backfill_ends(operator: Operator, launch: Callable[[], None]) -> str:
    """What the clicks launched, once it has ended; it must be a new one."""
    before = newest_backfill(operator.ui)
    launch()
    wait_for(lambda: newest_backfill(operator.ui) != before, PATIENCE)
    backfill = newest_backfill(operator.ui)
    wait_for(lambda: operator.ui.ended(backfill), PATIENCE)
    return backfill


def newest_run(ui: DagsterUi) -> dict[str, Any]:
    """Of somebody's clicks: the sensor that draws the report launches runs of its own."""
    query = "{ runsOrError(limit: 10) { ... on Runs { results { id status pipelineName } } } }"
    found = ui.ask(query)["runsOrError"]["results"]
    return next((dict(run) for run in found if not run["pipelineName"].startswith("__anonymous")), {})


def ended_run(operator: Operator, launch: Callable[[], None]) -> dict[str, Any]:
    """The run that the clicks launched, once it has ended."""
    before = newest_run(operator.ui).get("id")
    launch()
    wait_for(lambda: newest_run(operator.ui).get("id") != before, PATIENCE)
    wait_for(lambda: newest_run(operator.ui)["status"] in ("SUCCESS", "FAILURE"), PATIENCE)
    return newest_run(operator.ui)


def test_the_day(operator: Operator) -> None:
    day = Day(operator)
    day.plan()
    day.migrate()
    day.find_the_reason()
    day.run_again_what_failed()
    day.run_again_what_a_backfill_left()
    day.pause_and_resume()
    for task, clicks in operator.clicks.items():
        print(f"{clicks:3} clicks: {task}")  # noqa: T201 - a figure for the docs
    assert operator.clicks["migrate everything"] == 5
    assert operator.clicks["run again what failed"] <= 5
    assert operator.clicks["why a range is red"] <= 2


class Day:
    """Its tasks, in the order in which they come up."""

    def __init__(self, operator: Operator) -> None:
        self.op = operator
        self.red: set[str] = set()
        self.backfill = ""

    def plan(self) -> None:
        op = self.op
        op.begin("plan")
        op.job("plan")
        op.click(op.button("Materialize"))
        wait_for(lambda: bool(op.ui.assets()["migrated_profiles"]), PATIENCE)

    def migrate(self) -> None:
        op = self.op

        def launch() -> None:
            op.begin("migrate everything")
            op.job("migrate")
            op.click(op.button("Materialize all"))
            op.click(op.text("All"))
            op.shot("launch")
            op.click(op.button("Launch backfill"))

        self.backfill = a_backfill_ends(op, launch)
        green, self.red = statuses(op.ui)
        assert green
        assert self.red
        for stage in ("file_references", "file_copies", "database_urls", "firebase_urls"):
            assert statuses(op.ui, stage) == (green, self.red), stage

    def find_the_reason(self) -> None:
        op, red = self.op, min(self.red)
        op.begin("why a range is red", "/assets/migrated_profiles?view=partitions")
        op.click(op.text(red))
        op.shot("partitions")
        op.click(op.text("View logs"))
        op.sees("not migrated:")
        op.shot("failed_run")

    def run_again_what_failed(self) -> None:
        op = self.op

        def failed() -> None:
            op.begin("run again what failed")
            op.job("migrate")
            op.click(op.button("Materialize all"))
            op.click(op.text("Failed"))
            op.click(op.button("Launch (backfill|run|1 run)"))

        before = self._tries()
        # A single red range is launched as a run, several as a backfill.
        ended_run(op, failed)
        assert all(self._tries()[name] > tried for name, tried in before.items())
        assert statuses(op.ui)[1] == self.red

    def run_again_what_a_backfill_left(self) -> None:
        op = self.op

        def launch() -> None:
            op.begin("run again what a backfill left", f"/runs/b/{self.backfill}")
            op.sees("Partition selection")
            op.shot("backfill")
            op.click(self._menu())
            op.click(op.text("Re-execute from failure"))

        before = self._tries()
        a_backfill_ends(op, launch)
        assert all(self._tries()[name] > tried for name, tried in before.items())
        assert statuses(op.ui)[1] == self.red

    def _menu(self) -> Locator:
        """The only button in the head of a backfill's page; it has no name."""
        buttons = self.op.page.locator("button").filter(visible=True).all()
        return next(item for item in buttons if (box := item.bounding_box()) and box["y"] < 60 < box["x"])

    def pause_and_resume(self) -> None:
        op = self.op
        began = time.monotonic()
        op.launch("pause", "ops: {pause_runs: {config: {why: the app is slow, by: ann}}}")
        clicked = time.monotonic()
        wait_for(lambda: op.ledger(lambda it: it.control.said().paused_why) == "the app is slow", PATIENCE)
        print(f"paused {time.monotonic() - clicked:.1f} s after the click, {clicked - began:.1f} s of clicks")  # noqa: T201 - as above
        wait_for(lambda: "the app is slow" in self._observed()["now"], PATIENCE)
        op.begin("is it paused?", "/assets/migration_status?view=events")
        op.sees("paused by ann: the app is slow")
        op.shot("status")
        run = ended_run(op, lambda: op.launch("resume", "ops: {resume_runs: {config: {by: ann}}}"))
        assert run["status"] == "SUCCESS"
        assert op.ledger(lambda it: it.control.said().paused_why) is None

    def _ask(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.op.world.places.database_url) as connection:
            return connection.execute(text.encode()).fetchall()

    def _tries(self) -> dict[str, int]:
        failed = "outcome NOT IN ('copied', 'already_there')"
        return dict(self._ask(f"SELECT blob, attempts FROM migration.files WHERE {failed}"))

    def _observed(self) -> dict[str, str]:
        query = (
            "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetObservations(limit: 1) {"
            " metadataEntries { label ... on TextMetadataEntry { text } } } } }"
        )
        (node,) = self.op.ui.ask(query, key={"path": ["migration_status"]})["assetNodes"]
        entries = [entry for made in node["assetObservations"] for entry in made["metadataEntries"]]
        return {"now": ""} | {entry["label"]: entry.get("text", "") for entry in entries}
