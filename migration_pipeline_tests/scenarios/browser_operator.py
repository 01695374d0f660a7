"""Somebody at the browser before the Dagster UI, whose clicks are counted; and what Dagster's own records say."""

import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image
from playwright.sync_api import Locator, Page

from migration_pipeline.settings import load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.scenarios.alert_servers import Webhook
from migration_pipeline_tests.scenarios.conftest import World
from migration_pipeline_tests.scenarios.dagster_ui import DagsterUi, wait_for

PATIENCE = 600.0  # seconds; a slow machine is not what is tried here
VIEW = (1400, 900)
GROUP = "/locations/migration_pipeline/asset-groups/migrate"
# Stack traces name folders of the machine that draws.
WITHOUT_FOLDERS = """folder => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "");
}"""
COLOURS = 128  # of a picture; the UI has few, and a picture so takes a third of the room


@dataclass
class Operator:
    """Somebody at the browser. Every click is counted, by task."""

    page: Page
    ui: DagsterUi
    world: World
    webhook: Webhook
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

    def launch(self, task: str, job: str, config: str) -> None:
        """Jobs > the job > Launchpad, with this config typed over the one that is shown, > Launch Run."""
        self.begin(task)
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

    def shot(self, name: str, *, size: tuple[int, int] = VIEW, keep: int | None = None) -> None:
        """Keep the page as a picture, of which the first so many lines of pixels, if pictures are wanted."""
        folder = os.environ.get("DAY_SCREENSHOTS")
        if folder is None:
            return
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.wait_for_timeout(2000)  # what slides in has come to rest
        self.page.evaluate(WITHOUT_FOLDERS, str(Path(sys.prefix).parent) + "/")
        clip = {"x": 0, "y": 0, "width": size[0], "height": keep or size[1]}
        picture = Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(Path(folder, f"{name}.png"), optimize=True)
        self.page.set_viewport_size({"width": VIEW[0], "height": VIEW[1]})

    def look(self, name: str, path: str, shows: str, *, opens: str = "", **shot: Any) -> None:
        """A page that somebody opens and reads: it has to show this."""
        self.page.goto(self.ui.url + path)
        self.sees(shows)
        if opens:
            self.click(self.text(opens))
        self.shot(name, **shot)

    def ledger(self, ask: Callable[[Any], Any]) -> Any:
        with patch.dict(os.environ, self.world.environment), closing(open_ledger(load())) as ledger:
            return ask(ledger)


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


def unfinished(ui: DagsterUi) -> int:
    query = "{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) { ... on Runs { count } } }"
    return int(ui.ask(query)["runsOrError"]["count"])


def newest_run(ui: DagsterUi, job: str) -> dict[str, Any]:
    query = (
        "query ($job: String!) { runsOrError(filter: {pipelineName: $job}, limit: 1)"
        " { ... on Runs { results { id status } } } }"
    )
    found = ui.ask(query, job=job)["runsOrError"]["results"]
    return dict(found[0]) if found else {}


def ended_run(operator: Operator, job: str, launch: Callable[[], None]) -> str:
    """How the run of the job ended that the clicks launched."""
    before = newest_run(operator.ui, job).get("id")
    launch()
    wait_for(lambda: newest_run(operator.ui, job).get("id") != before, PATIENCE)
    wait_for(lambda: newest_run(operator.ui, job)["status"] in ("SUCCESS", "FAILURE"), PATIENCE)
    return str(newest_run(operator.ui, job)["status"])


class Pages:
    """What the UI's pages say, asked as they ask it."""

    def __init__(self, ui: DagsterUi) -> None:
        self._ui = ui

    def check(self, asset: str) -> tuple[bool, str] | None:
        """Whether the asset's check passed, and what it says; `None` before it was ever evaluated."""
        query = (
            "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetChecksOrError { ... on AssetChecks {"
            " checks { executionForLatestMaterialization { evaluation { success metadataEntries {"
            " ... on TextMetadataEntry { text } } } } } } } } }"
        )
        (node,) = self._ui.ask(query, key={"path": [asset]})["assetNodes"]
        (check,) = node["assetChecksOrError"]["checks"]
        if (execution := check["executionForLatestMaterialization"]) is None:
            return None
        said = [entry.get("text", "") for entry in execution["evaluation"]["metadataEntries"]]
        return bool(execution["evaluation"]["success"]), " ".join(said)

    def says(self, asset: str) -> str:
        """What the asset's check says."""
        found = self.check(asset)
        return found[1] if found else ""

    def materialized(self, asset: str) -> int:
        query = "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetMaterializations { timestamp } } }"
        (node,) = self._ui.ask(query, key={"path": [asset]})["assetNodes"]
        return len(node["assetMaterializations"])

    def observed(self) -> dict[str, str]:
        query = (
            "query ($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { assetObservations(limit: 1) {"
            " metadataEntries { label ... on TextMetadataEntry { text } } } } }"
        )
        (node,) = self._ui.ask(query, key={"path": ["migration_status"]})["assetNodes"]
        entries = [entry for made in node["assetObservations"] for entry in made["metadataEntries"]]
        return {"now": ""} | {entry["label"]: entry.get("text", "") for entry in entries}
