"""The page in a real browser: it asks nobody for anything, draws every picture, and says what `status` says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page

from migration_pipeline.cli.main import main
from migration_pipeline.report.page import TITLE
from migration_pipeline_tests import browser
from migration_pipeline_tests.report.conftest import HOSTILE

PICTURES = 5

pytestmark = pytest.mark.skipif(not browser.available(), reason=browser.UNAVAILABLE)


class Opened:
    """The page, and all that it asked for, said or tried while it was open."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.address = page, path.as_uri()
        self.asked, self.said = list[str](), list[str]()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))

    def open(self, *, scheme: str = "light", size: tuple[int, int] = (1280, 900)) -> Page:
        self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # light or dark
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.goto(self.address)
        return self.page

    def figures(self) -> dict[str, float]:
        found: list[Any] = self.page.evaluate(
            "[...document.querySelectorAll('data')].map(it => [it.id, Number(it.value)])"
        )
        assert len({name for name, _ in found}) == len(found)
        return dict(found)


@pytest.fixture(scope="module")
def opened(written: Path) -> Iterator[Opened]:
    with browser.open_browser() as chromium:
        yield Opened(chromium.pages[0], written / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_every_picture_and_asks_nobody(opened: Opened, scheme: str) -> None:
    page = opened.open(scheme=scheme)
    assert page.title() == TITLE
    drawn = page.evaluate(
        "Promise.all([...document.images].map(it => it.decode().then(() => [it.naturalWidth, it.naturalHeight])))"
    )
    assert len(drawn) == PICTURES
    assert all(width > 100 and height > 100 for width, height in drawn)
    assert [url for url in opened.asked if url != opened.address and not url.startswith("data:")] == []
    assert opened.said == []
    # Words and paper change places with the scheme.
    colours = page.evaluate("['color', 'backgroundColor'].map(it => getComputedStyle(document.documentElement)[it])")
    light = [sum(map(int, colour[4:-1].split(","))) for colour in colours]
    assert (light[0] > light[1]) == (scheme == "dark")


def test_nothing_would_get_through_if_it_were_markup(opened: Opened) -> None:
    page = opened.open()
    # Even code that an escape had missed would be stopped: a script, a handler, a picture from elsewhere, a form.
    page.evaluate(
        """() => {
            document.body.insertAdjacentHTML('beforeend',
                '<img src="http://192.0.2.1/x.png" onerror="document.title = 1"><form action="http://192.0.2.1/">');
            const script = document.createElement('script');
            script.textContent = "document.title = 'taken'";
            document.body.append(script);
        }"""
    )
    page.wait_for_function("[...document.images].at(-1).complete")
    assert page.title() == TITLE
    assert any("Content Security Policy" in text for text in opened.said)
    opened.said.clear()
    opened.asked.clear()


def test_it_says_what_status_says(opened: Opened) -> None:
    done = CliRunner().invoke(main, ["status", "--json"])
    said, figures = json.loads(done.stdout), (opened.open(), opened.figures())[1]
    letters = said["dead_letters"]
    assert {
        "profiles-migrated": said["profiles"]["migrated"],
        "ranges-done": said["ranges"]["done"],
        "files-copied": said["files"]["copied"],
        "bytes-copied": said["files"]["bytes"],
        "letters-waiting": letters["waiting"],
        **{f"waiting-{item['outcome']}": item["waiting"] for item in letters["classes"]},
        **{f"waived-{item['outcome']}": item["waived"] for item in letters["classes"]},
    }.items() <= figures.items()
    assert (said["files"]["copied"], letters["waiting"], letters["waived"]) == (8, len(HOSTILE) - 2, 2)
    assert figures["outcome-copied"] == 8
    assert figures["blobs-deleted"] == 1


def test_it_fits_a_phone_and_can_be_printed(opened: Opened) -> None:
    page = opened.open(size=(360, 740))
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # Rows are blocks: no table has to be scrolled, each value stands under its heading, and no word is broken.
    assert page.evaluate("[...document.querySelectorAll('.table')].every(it => it.scrollWidth <= it.clientWidth)")
    assert page.evaluate("[...document.querySelectorAll('thead')].every(it => it.offsetHeight === 0)")
    broken = """() => [...document.querySelectorAll('td')].filter(it => /^[a-z_]{4,14}$/.test(it.textContent.trim())
        && it.getClientRects().length && it.scrollWidth > it.clientWidth).map(it => it.textContent)"""
    assert page.evaluate(broken) == []
    labelled = "[...document.querySelectorAll('td')].filter(it => it.dataset.label).length"
    assert page.evaluate(labelled) > 10
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("[...document.images].every(it => it.currentSrc === it.src)")
    page.emulate_media(media="screen")
