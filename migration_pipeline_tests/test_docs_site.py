"""The site is built of the pages, strictly, shows each of them, and asks nobody for anything."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from migration_pipeline_tests import pages


def build(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Settings and pages in a folder of their own, for the builder writes beside them."""
    shutil.copytree(pages.ROOT / "docs", tmp_path / "docs")
    shutil.copyfile(pages.ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    return tmp_path


def test_the_site_is_built(sources: Path) -> None:
    done = build(sources)
    assert done.returncode == 0, done.stdout + done.stderr
    made = {page.stem: page.read_text(encoding="utf-8") for page in (sources / "site").glob("*.html")}
    assert {page.stem for page in (sources / "docs").glob("*.md")} <= set(made)
    navigation = re.findall(r": ([\w-]+)\.md$", (sources / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == sorted(page.stem for page in (sources / "docs").glob("*.md"))
    loaded = {
        (page, address)
        for page, text in made.items()
        for address in re.findall(
            r"<(?:link|script|img|iframe)\b[^>]*?(?:href|src)=[\"']?((?:https?:)?//[^\"' >]+)", text
        )
    }
    assert loaded == set()


def test_a_dead_link_fails_the_build(sources: Path) -> None:
    with (sources / "docs" / "faq.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    done = build(sources)
    assert done.returncode != 0
    assert "page does not exist" in re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
