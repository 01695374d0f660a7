"""Pages of the Dagster UI in Chromium, and how long they take until what they are for can be read."""

import re
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Page

from benchmarks.scale.results import Figures, summary
from migration_pipeline_tests.browser import open_browser

_KEY = re.compile(r"^\d{10}-\d{10}$")
_LONGEST = 120_000  # milliseconds
_GROUP = "/locations/migration_pipeline/asset-groups/migrate"
_ASSET = "/assets/migrated_profiles"


class Browser:
    """Looks at one UI; scripts are in its cache after the first page, as they are in an operator's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        browser = self._stack.enter_context(open_browser(viewport={"width": 1600, "height": 1000}))
        self._page: Page = browser.pages[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def loaded(self) -> bool:
        """Whether the UI serves the definitions."""
        body = b'{"query": "{ assetNodes { id } }"}'
        request = urllib.request.Request(f"{self._url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310 - the UI
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
                return b'"id"' in answer.read()
        except OSError:
            return False

    def pages(self, times: int) -> dict[str, Figures]:
        """What an operator of so many partitions looks at."""
        self._group()  # the first page brings the scripts
        looked: dict[str, Callable[[], float]] = {
            "group": self._group,
            "asset": self._asset,
            "partitions": self._partitions,
            "backfill_dialog": self._dialog,
        }
        return {name: summary([look() for _ in range(times)]) for name, look in looked.items()}

    def backfill_pages(self, backfill_id: str, times: int) -> dict[str, Figures]:
        """A backfill, and the list of runs beside it."""
        looked: dict[str, Callable[[], float]] = {
            "backfill": lambda: self._look(
                f"/runs/b/{backfill_id}", lambda page: page.get_by_text("migrated_profiles")
            ),
            "backfill_runs": lambda: self._look(
                f"/runs/b/{backfill_id}?tab=runs",
                lambda page: page.get_by_text(re.compile("^(Queued|Started|Success)$")),
            ),
        }
        return {name: summary([look() for _ in range(times)]) for name, look in looked.items()}

    def _group(self) -> float:
        return self._look(_GROUP, lambda page: page.get_by_text("migrated_profiles"))

    def _asset(self) -> float:
        return self._look(f"{_ASSET}?view=overview", lambda page: page.get_by_text("Latest materialization"))

    def _partitions(self) -> float:
        return self._look(f"{_ASSET}?view=partitions", lambda page: page.get_by_text(_KEY))

    def _dialog(self) -> float:
        """From the click on the asset's page until failed and missing partitions are chosen, and could be launched."""
        self._asset()
        began = time.perf_counter()
        self._page.get_by_text(re.compile("^Materialize")).first.click(timeout=_LONGEST)
        # The other stages are of the same op: the UI says so first.
        self._page.get_by_role("button", name="Confirm").click(timeout=_LONGEST)
        self._page.get_by_role("button", name="Failed and missing").click(timeout=_LONGEST)
        self._page.get_by_text(re.compile(r"^[1-9][\d,]* partitions?$")).first.wait_for(timeout=_LONGEST)
        return 1000 * (time.perf_counter() - began)

    def _look(self, path: str, shows: Callable[[Page], Any]) -> float:
        self._page.goto("about:blank")
        began = time.perf_counter()
        self._page.goto(self._url + path, wait_until="commit", timeout=_LONGEST)
        # Texts are there twice, for names that do not fit: hidden ones do not count.
        shows(self._page).locator("visible=true").first.wait_for(timeout=_LONGEST)
        return 1000 * (time.perf_counter() - began)


def wait_for(true: Callable[[], bool], seconds: float) -> None:
    """Ask until it is so.

    Raises:
        TimeoutError: it was not, for so long.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)
