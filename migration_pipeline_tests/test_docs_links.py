"""Every link of a page leads somewhere: to a file of the tree, and to a heading of it where one is named."""

import re
from pathlib import Path
from urllib.parse import unquote

from migration_pipeline_tests import pages

LINK = re.compile(r"!?\[(?:[^][]|\[[^]]*\](?:\([^)]*\))?)*\]\((?P<to>[^)\s]+)(?:\s+\"[^\"]*\")?\)")


def dead(page: Path) -> set[str]:
    """Links of a page that lead nowhere."""
    found = set()
    text = pages.without_code(page)
    inner = re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", text)
    for to in [*(match["to"] for match in LINK.finditer(text)), *inner]:
        if re.match(r"[a-z]+:", to):
            continue
        path, _, anchor = unquote(to).partition("#")
        target = (page.parent / path).resolve() if path else page
        lost = not target.exists() or not target.is_relative_to(pages.ROOT)
        if lost or (anchor and target.suffix == ".md" and anchor not in pages.anchors(target)):
            found.add(to)
    return found


def test_every_link_leads_somewhere() -> None:
    assert {pages.name(page): links for page in pages.pages() if (links := dead(page))} == {}


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# A page\n[a](page.md) [b](other.md) [c](#a-page) [d](#b-page) ![e](e.png) [![f](f.png)](page.md)"
    page.write_text(text, encoding="utf-8")
    original, pages.ROOT = pages.ROOT, tmp_path
    try:
        assert dead(page) == {"other.md", "#b-page", "e.png", "f.png"}
    finally:
        pages.ROOT = original


def test_every_page_of_docs_is_linked_from_the_start() -> None:
    start = pages.ROOT / "docs" / "index.md"
    links = re.findall(r"\]\(([^):]+)\)", start.read_text(encoding="utf-8"))
    linked = {(start.parent / to.partition("#")[0]).resolve() for to in links}
    missing = {page.name for page in (pages.ROOT / "docs").glob("*.md") if page.resolve() not in linked | {start}}
    assert missing == set()


def test_every_decision_is_linked_from_their_list() -> None:
    folder = pages.ROOT / "docs" / "decisions"
    linked = set(re.findall(r"\]\((\d[\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in folder.glob("0*.md")}
