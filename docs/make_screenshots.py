# ruff: noqa: INP001 - a script, and no package
"""Draws some of docs/images anew: a made-up app is migrated under `dagster dev`, and Chromium looks at pages of it.

    make screenshots                      # these, and those that an operator's day comes by
    python docs/make_screenshots.py --ui http://127.0.0.1:3000    # pages of a UI that runs already
    python docs/make_screenshots.py end_report                    # the report at the end alone, without a UI

Pictures show what was there: bad files are among those of the app, so
some ranges stay red.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from playwright.sync_api import Page

from migration_pipeline import planning
from migration_pipeline.adapters.ledger.status import summed
from migration_pipeline.commands.dagster_instance import shipped
from migration_pipeline.commands.demo import prepare
from migration_pipeline.core.migrate import migrate_range
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize, AppStores, create_app
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.settings import load
from migration_pipeline.stores import copy_limits, open_ledger, open_stores
from migration_pipeline_tests.browser import open_browser

IMAGES = Path(__file__).parent / "images"
SIZE = AppSize(profiles=168, scale=0.2)
PROFILES_PER_RANGE = 12
COLOURS = 128  # of a picture; the UI has few, and a picture so takes a third of the room
STAGES = ["file_references", "file_copies", "database_urls", "firebase_urls", "migrated_profiles"]
# Stack traces name folders of the machine that draws.
HIDE = """folder => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "");
}"""
WAIT = 600  # seconds, for the backfill


class Shot(NamedTuple):
    """A page to draw.

    Attributes:
        path: in the UI.
        shows: text that is there once the page is whole.
        size: of the window, in pixels.
    """

    name: str
    path: str
    shows: str
    size: tuple[int, int] = (1400, 860)


class Ui:
    """The running UI, asked by GraphQL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, query: str, **variables: object) -> Any:  # noqa: ANN401 - JSON
        """The answer's data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310 - the UI
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return json.load(answer)["data"]

    def loaded(self) -> bool:
        """Whether the UI serves our definitions."""
        try:
            return bool(self.partitions())
        except (OSError, KeyError, TypeError, StopIteration):
            return False

    def partitions(self) -> list[str]:
        """Keys, in order."""
        nodes = self.ask("{ assetNodes { assetKey { path } partitionKeys } }")["assetNodes"]
        return next(node["partitionKeys"] for node in nodes if node["assetKey"]["path"] == ["migrated_profiles"])

    def newest_backfill(self) -> tuple[str, str]:
        """Its id and status."""
        query = "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id status } } } }"
        newest = self.ask(query)["partitionBackfillsOrError"]["results"][0]
        return newest["id"], newest["status"]


SHOTS = [
    Shot("inventory", "/assets/source_inventory?view=events", "orphans", size=(1400, 1300)),
    Shot("cutover", "/assets/cutover?view=events", "holds_left", size=(1400, 1000)),
]
"""Pages that no operator's day comes by: `test_browser_day.py` draws the others."""
END_REPORT = Shot("end_report", "", "Files by outcome", size=(1280, 1440))


def draw(ui: Ui, only: list[str]) -> None:
    """Shoot every page, or those named."""
    with open_browser() as browser:
        page = browser.pages[0]
        for shot in SHOTS:
            if not only or shot.name in only:
                _keep(shot, _shoot(page, ui, shot))


def draw_end_report(folder: Path) -> None:
    """Shoot the page that `report` writes, once somebody has waived what is gone for good."""
    waive = ["dead-letters", "waive", "--class", "source_missing", "--why", "gone for good, users were told", "--apply"]
    _command("-m", "migration_pipeline.cli", *waive)
    migrate_directly()
    _command("-m", "migration_pipeline.cli", "report", "--out", str(folder))
    with open_browser() as browser:
        page = browser.pages[0]
        page.set_viewport_size({"width": END_REPORT.size[0], "height": END_REPORT.size[1]})
        page.goto((folder / "report.html").as_uri())
        page.get_by_text(END_REPORT.shows).first.wait_for()
        _keep(END_REPORT, page.screenshot())


def _shoot(page: Page, ui: Ui, shot: Shot) -> bytes:
    page.set_viewport_size({"width": shot.size[0], "height": shot.size[1]})
    page.goto(ui.url + shot.path)
    page.get_by_text(shot.shows).first.wait_for(timeout=60_000)
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !/Loading(…|[.]{3})/.test(document.body.innerText)", timeout=60_000)
    page.wait_for_timeout(2000)  # what slides in has come to rest
    page.evaluate(HIDE, str(Path(sys.prefix).parent) + "/")
    return page.screenshot()


def _keep(shot: Shot, png: bytes) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    path = IMAGES / f"{shot.name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB")  # noqa: T201 - a script


def migrate_an_app(ui: Ui) -> None:
    """A backfill of everything, until it ended; then what is materialized by hand."""
    query = "mutation ($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename } }"
    assets = [{"path": [stage]} for stage in STAGES]
    ui.ask(query, p={"assetSelection": assets, "partitionNames": ui.partitions(), "title": "all ranges"})
    _wait(lambda: ui.newest_backfill()[1] not in ("REQUESTED", "FAILING"), WAIT)
    switch_uploads()
    for asset in ("source_inventory", "cutover"):
        _materialize(asset)


def switch_uploads() -> None:
    """The cut-over's first gate."""
    _command("-m", "migration_pipeline.cli", "doctor", "--write-path", "--fix", "--apply")
    _command("-m", "migration_pipeline.cli", "cutover", "enter", "uploads_switched", "--why", "release 4.2 is out")


def migrate_directly() -> None:
    """Plan, and migrate every range with something left, without a UI or daemon."""
    settings = load()
    planned = planning.plan(settings)
    planning.keep(planned, settings)
    planning.keep_estimate(planning.estimate(settings, planned)[0], settings)
    with closing(open_ledger(settings)) as ledger:
        left = summed(ledger.overview.states()).left
    for key in left:
        with open_stores(settings) as stores:
            migrate_range(key, stores, copy_limits(settings))


def _materialize(asset: str) -> None:
    _command("-m", "dagster", "asset", "materialize", "--select", asset, "-m", "migration_pipeline.definitions")


def _wait(true: Any, seconds: float) -> None:  # noqa: ANN401 - a function of nothing
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(1)


def _command(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")


@contextmanager
def dagster_dev(folder: Path) -> Iterator[Ui]:
    """The UI and the daemon, for as long as the block runs."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "dagster_dev.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [*command, "-w", str(shipped("workspace.yaml"))], stdout=log, stderr=log, start_new_session=True
        )
        try:
            ui = Ui(f"http://127.0.0.1:{port}")
            _wait(ui.loaded, 180)
            yield ui
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ui", help="a UI that runs already")
    parser.add_argument("names", nargs="*", help="of pictures; all where none is named")
    given = parser.parse_args()
    if given.ui:
        draw(Ui(given.ui), given.names)
        return
    with Sandbox() as servers:
        create_app(AppStores.on(servers), SIZE)
        os.environ.update(prepare(servers, SIZE, workers=2))
        os.environ["MIGRATION_PLAN__PROFILES_PER_RANGE"] = str(PROFILES_PER_RANGE)
        os.environ["MIGRATION_UPLOADS__ORIGINS"] = '["https://app.example.com"]'
        if given.names == [END_REPORT.name]:
            migrate_directly()
        else:
            _materialize("profile_ranges")
            with dagster_dev(servers.folder) as ui:
                migrate_an_app(ui)
                draw(ui, given.names)
        if not given.names or END_REPORT.name in given.names:
            draw_end_report(servers.folder / "report")


if __name__ == "__main__":
    main()
