"""An operator's day by clicks in a real browser: nothing here asks Dagster for a run in any other way.

`dagster dev` runs over a small app with bad files, and a webhook takes alerts. What a click did is judged by the
ledger, by the app's rows and by Dagster's own records. With `DAY_SCREENSHOTS` set to a folder, the pages that
docs/operating.md shows are kept there.
"""

import functools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from azure.storage.blob import BlobClient
from playwright.sync_api import Locator

from migration_pipeline.defs import pause_now
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests import browser
from migration_pipeline_tests.scenarios.alert_servers import servers
from migration_pipeline_tests.scenarios.browser_operator import (
    GROUP,
    PATIENCE,
    VIEW,
    Operator,
    Pages,
    a_backfill_ends,
    ended_run,
    newest_backfill,
    unfinished,
)
from migration_pipeline_tests.scenarios.conftest import World, new_world
from migration_pipeline_tests.scenarios.dagster_ui import dagster_dev, wait_for
from migration_pipeline_tests.scenarios.test_operator_day import statuses

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not browser.available(), reason=browser.UNAVAILABLE),
]

APP = AppSize(profiles=24, photos_per_profile=1, scale=0.002)


@pytest.fixture(scope="module")
def operator(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    world = new_world(sandbox, tmp_path_factory.mktemp("day"), APP, profiles_per_range=4)
    with ExitStack() as stack:
        stack.enter_context(one_more_is_missing(world))
        webhook, _ = stack.enter_context(servers())
        told = {"ALERT_URLS": webhook.url, "MIGRATION_ALERTS__UI_URL": "https://dagster.example.com"}
        ui = stack.enter_context(dagster_dev(world, **told))
        opened = stack.enter_context(browser.open_browser(viewport={"width": VIEW[0], "height": VIEW[1]}))
        page = opened.pages[0]
        page.set_default_timeout(PATIENCE * 1000)
        operator = Operator(page, ui, world, webhook)
        yield operator
        page.screenshot(path=world.folder / "last.png")  # where it failed, if it did


@contextmanager
def one_more_is_missing(world: World) -> Iterator[None]:
    """A photo of the first profile is not in the source, so that two ranges turn red; later worlds share the source."""
    with psycopg.connect(world.places.database_url) as connection:
        rows = connection.execute("SELECT photos::text FROM profiles WHERE id <= 1004 ORDER BY id").fetchall()
    url = re.escape(world.places.account_url)
    name = next(found[1] for (photos,) in rows if (found := re.search(rf"{url}/photos/([\w/.-]+)", photos)))
    key = world.environment["AZURE_STORAGE_KEY"]
    with BlobClient(world.places.account_url, "photos", name, credential=key) as client:
        body = client.download_blob().readall()
        client.delete_blob()
        yield
        client.upload_blob(body, overwrite=True)


def test_the_day(operator: Operator) -> None:
    day = Day(operator)
    day.see_that_nothing_is_planned()
    day.plan()
    day.migrate()
    day.find_the_reason()
    day.be_told()
    day.run_again_in_every_way()
    day.pause_at_once()
    day.pause_with_a_reason()
    day.limit()
    day.waive()
    day.roll_back()
    day.report()
    for task, clicks in operator.clicks.items():
        print(f"{clicks:3} clicks: {task}")  # noqa: T201 - figures for the docs
    assert {task: operator.clicks[task] for task in CLICKS} == CLICKS


CLICKS = {
    "plan": 3,
    "migrate everything": 5,
    "why a range is red": 2,
    "whose profiles, and which files": 3,
    "run again what failed": 5,
    "run again what failed, from a stage's page": 4,
    "run again what failed, from the group": 3,
    "run again what a backfill left": 2,
    "run a whole backfill again": 2,
    "run one range again": 3,
    "run one range again, from asset failure": 3,
    "pause at once": 2,
    "pause with a reason": 5,
    "resume": 2 * 5,  # once after each pause
    "change limits": 5,
    "count what would be waived": 5,
    "waive": 5,
    "roll a range back": 10,
}
"""Of each task; docs/operating.md has the same."""


class Day:
    """Its tasks, in the order in which they come up."""

    def __init__(self, operator: Operator) -> None:
        self.op, self.pages = operator, Pages(operator.ui)
        self.green: set[str] = set()
        self.red: set[str] = set()
        self.backfill = ""

    def see_that_nothing_is_planned(self) -> None:
        """No check is green before there is anything to be right about."""
        for asset in ("migration_status", "dead_letters", "cutover"):
            wait_for(lambda asset=asset: self.pages.check(asset) is not None, PATIENCE)
            found = self.pages.check(asset)
            assert found is not None
            assert not found[0], asset

    def plan(self) -> None:
        op = self.op
        op.begin("plan")
        op.job("plan")
        op.click(op.button("Materialize"))
        wait_for(lambda: bool(op.ui.assets()["migrated_profiles"]), PATIENCE)
        op.begin("")
        op.look("plan", "/assets/profile_ranges?view=events", "cost_once", size=(1400, 1500))

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
        self.green, self.red = statuses(op.ui)
        assert len(self.red) == 2
        assert len(self.green) == 4
        for stage in ("file_references", "file_copies", "database_urls", "firebase_urls"):
            assert statuses(op.ui, stage) == (self.green, self.red), stage
        op.begin("")
        op.look("group", GROUP, "migrated_profiles", size=(2200, 700))
        op.look("copies", "/assets/file_copies?view=events", "files_in_s3", size=(1400, 1120))
        op.look("plots", "/assets/file_copies?view=overview", "Plots", opens="Plots", size=(1400, 1100))

    def find_the_reason(self) -> None:
        op, red = self.op, max(self.red)
        op.begin("why a range is red", "/assets/migrated_profiles?view=partitions")
        op.click(op.text(red))
        op.sees("failed, and did not materialize this asset")
        op.shot("partitions", keep=660)
        op.click(op.text("View logs"))
        op.sees("2 of 4 profiles are not migrated: 1 source_missing, 1 digest_mismatch.")
        op.shot("failed_run")
        # The same partition's own page has it, too: whose profiles are left, and which files they wait for.
        op.begin("whose profiles, and which files", "/assets/migrated_profiles?view=partitions")
        op.click(op.text(red))
        op.click(op.button("View all historical events"))
        op.click(op.page.locator("tr").filter(has_text="Observation").first)
        op.sees("source_missing: profile 1024. Restore the blob")
        op.sees("waiting_profiles")
        op.shot("red_partition")
        op.begin("")
        op.look("checks", "/assets/database_urls?view=checks", "non-blocking")

    def be_told(self) -> None:
        """By the webhook, within two looks of the sensor: what failed and why, and which files cannot be copied."""
        op = self.op
        titles: list[str] = []

        def told() -> bool:
            titles.extend(op.webhook.titles())
            return any("failed" in title for title in titles) and any("cannot be copied" in title for title in titles)

        wait_for(told, PATIENCE)
        assert any("not migrated: " in title for title in titles), titles
        for title in titles:
            print(title)  # noqa: T201 - read with fresh eyes
        op.begin("")
        wait_for(lambda: "2 source_missing" in self.pages.says("dead_letters"), PATIENCE)
        op.look(
            "dead_letters",
            "/assets/dead_letters?view=events",
            "waiting_source_missing",
            opens="[Show Markdown]",
            size=(1400, 1300),
        )

    def run_again_in_every_way(self) -> None:
        op = self.op

        def launch_failed() -> None:
            op.click(op.text("Failed"))
            op.click(op.button("Launch (backfill|run|1 run)"))

        def from_the_job() -> None:
            op.begin("run again what failed")
            op.job("migrate")
            op.click(op.button("Materialize all"))
            launch_failed()

        def from_a_stage() -> None:
            op.begin("run again what failed, from a stage's page", "/assets/file_copies")
            op.click(op.button("Materialize"))
            op.click(op.button("Confirm"))
            launch_failed()

        def from_the_group() -> None:
            op.begin("run again what failed, from the group", GROUP)
            op.click(op.button(r"Materialize all \(5\)"))
            launch_failed()

        def of_the_backfill(task: str, item: str) -> None:
            op.begin(task, f"/runs/b/{self.backfill}")
            op.sees("Partition selection")
            op.shot("backfill", keep=560)
            op.click(self._menu())
            op.click(op.text(item))

        def of_a_run(task: str, item: str) -> None:
            op.begin(task, f"/runs/{self._failed_run()}")
            button = op.button("Re-execute all")
            button.wait_for()
            op.click(button.locator("xpath=following::button[1]"))
            op.click(op.text(item))
            op.click(op.button("Confirm"))  # it says that the backfill stays as it ended

        one = min(self.red)
        self._tried_again(from_the_job)
        self._tried_again(from_a_stage)
        self._tried_again(from_the_group)
        self._tried_again(lambda: of_the_backfill("run again what a backfill left", "Re-execute from failure"))
        self._tried_again(lambda: of_the_backfill("run a whole backfill again", "Re-execute"))
        self._tried_again(lambda: of_a_run("run one range again", "From failure"), only=one)
        self._tried_again(lambda: of_a_run("run one range again, from asset failure", "From asset failure"), only=one)

    def _tried_again(self, launch: Callable[[], None], only: str | None = None) -> None:
        """The clicks had every file that failed tried again, of all red ranges or of one; all else is as it was."""
        op, before = self.op, self._tries()
        launch()
        meant = {name: tried for name, (tried, key) in before.items() if only in (None, key)}
        wait_for(lambda: all(self._tries()[name][0] > tried for name, tried in meant.items()), PATIENCE)
        wait_for(lambda: unfinished(op.ui) == 0, PATIENCE)
        wait_for(lambda: op.ui.ended(newest_backfill(op.ui)), PATIENCE)
        assert op.ui.backfill_status(newest_backfill(op.ui)) != "FAILED"
        assert {name: self._tries()[name][0] - tried for name, (tried, _) in before.items() if name not in meant} == (
            {name: 0 for name in before if name not in meant}
        )
        assert statuses(op.ui) == (self.green, self.red)

    def _menu(self) -> Locator:
        """The only button in the head of a backfill's page; it has no name."""
        buttons = self.op.page.locator("button").filter(visible=True).all()
        return next(item for item in buttons if (box := item.bounding_box()) and box["y"] < 60 < box["x"])

    def pause_at_once(self) -> None:
        op = self.op
        op.begin("pause at once")
        op.click(op.page.locator('a[href="/automation"]'))
        switch = op.page.locator('a[href$="/sensors/pause_now"]').locator("xpath=..").locator("label").nth(1)
        op.click(switch)
        clicked = time.monotonic()
        wait_for(lambda: self._paused() == pause_now.WHY, PATIENCE)
        print(f"paused {time.monotonic() - clicked:.1f} s after the second click")  # noqa: T201 - a figure for the docs
        op.shot("sensors")
        op.begin("")
        op.page.goto(op.ui.url + "/automation")
        op.click(switch)
        assert ended_run(op, "resume", self._resume) == "SUCCESS"
        assert self._paused() is None

    def pause_with_a_reason(self) -> None:
        op = self.op
        op.launch("pause with a reason", "pause", "ops: {pause_runs: {config: {why: the app is slow, by: ann}}}")
        clicked = time.monotonic()
        wait_for(lambda: self._paused() == "the app is slow", PATIENCE)
        print(f"paused {time.monotonic() - clicked:.1f} s after Launch Run")  # noqa: T201 - as above
        wait_for(lambda: "the app is slow" in self.pages.observed()["now"], PATIENCE)
        op.begin("")
        op.look("status", "/assets/migration_status?view=events", "paused by ann: the app is slow")
        assert ended_run(op, "resume", self._resume) == "SUCCESS"
        assert self._paused() is None

    def _resume(self) -> None:
        self.op.launch("resume", "resume", "ops: {resume_runs: {config: {by: ann}}}")

    def _paused(self) -> str | None:
        why: str | None = self.op.ledger(lambda it: it.control.said().paused_why)
        return why

    def limit(self) -> None:
        op = self.op
        config = "ops: {limit_runs: {config: {requests_per_second: 200, by: ann}}}"
        assert ended_run(op, "limits", lambda: op.launch("change limits", "limits", config)) == "SUCCESS"
        assert op.ledger(lambda it: it.control.said().limits.requests_per_second) == 200

    def waive(self) -> None:
        """A dry run first; then the ranges that wait for such files alone turn green by themselves."""
        op, letters = self.op, self._tries()
        config = "ops: {waive_letters: {config: {class: source_missing, why: gone for good, by: ann%s}}}"
        for task, more in (("count what would be waived", ""), ("waive", ", apply: true")):
            launch = functools.partial(op.launch, task, "waive_dead_letters", config % more)
            assert ended_run(op, "waive_dead_letters", launch) == "SUCCESS"
            assert len(self._ask("SELECT 1 FROM migration.files WHERE waived_at IS NOT NULL")) == 2 * bool(more)
        assert len(letters) == 3
        wait_for(lambda: statuses(op.ui)[1] == {max(self.red)}, PATIENCE)
        self.green, self.red = statuses(op.ui)

    def roll_back(self) -> None:
        op, key = self.op, max(self.green)

        def launch() -> None:
            op.begin("roll a range back")
            op.job("rollback")
            op.click(op.button("Materialize"))
            op.click(op.page.get_by_text("Select a partition or create one"))
            op.click(op.text(key))
            op.page.keyboard.press("Escape")
            op.click(op.text("Config"))
            op.click(op.button("Add config"))
            op.type_config("ops: {rolled_back_ranges: {config: {apply: true, by: ann, why: a trial}}}")
            op.click(op.button("Save config"))
            op.click(op.button("Launch (backfill|run|1 run)"))

        assert self._lead_to_s3(key)
        launch()
        wait_for(lambda: not self._lead_to_s3(key), PATIENCE)
        wait_for(lambda: unfinished(op.ui) == 0, PATIENCE)
        acts = [(act.who, act.what, act.why) for act in op.ledger(lambda it: it.overview.acts(limit=1))]
        assert acts == [("ann", "rollback", "a trial")]
        wait_for(lambda: "1 range rolled back" in self.pages.says("migration_status"), PATIENCE)

    def report(self) -> None:
        op = self.op

        def launch() -> None:
            op.begin("draw the report", "/assets/migration_report")
            op.click(op.button("Materialize"))

        made = self.pages.materialized("migration_report")
        launch()
        wait_for(lambda: self.pages.materialized("migration_report") > made, PATIENCE)
        op.begin("")
        op.look(
            "report", "/assets/migration_report?view=events", "files_copied", opens="[Show Markdown]", size=(1400, 1560)
        )
        op.sees("Ranges with profiles left")

    def _lead_to_s3(self, key: str) -> bool:
        first, last = key.split("-")
        rows = self._ask(f"SELECT photos::text FROM profiles WHERE id BETWEEN {int(first)} AND {int(last)}")
        return any(self.op.world.public_base_url in photos for (photos,) in rows)

    def _ask(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.op.world.places.database_url) as connection:
            return connection.execute(text.encode()).fetchall()

    def _tries(self) -> dict[str, tuple[int, str]]:
        """Of each file that failed: how often it was tried, and for which range."""
        rows = self._ask(
            "SELECT DISTINCT blob, attempts, key FROM migration.files JOIN migration.wanted USING (file_id)"
            " JOIN migration.ranges USING (range_id) WHERE outcome NOT IN ('copied', 'already_there')"
        )
        return {blob: (attempts, key) for blob, attempts, key in rows}

    def _failed_run(self) -> str:
        """That of the first red range in the newest backfill; a run that is itself a re-execution has other buttons."""
        runs = self.op.ui.runs(newest_backfill(self.op.ui))
        partition = {"key": "dagster/partition", "value": min(self.red)}
        return next(str(run["id"]) for run in runs if run["status"] == "FAILURE" and partition in run["tags"])
