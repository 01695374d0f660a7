"""The pages that people read: where they are, the code in them, their headings and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(
    r"^(?:<!-- run: (?P<codes>[\d ]+) -->\n)?(?P<marks>```)(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        codes: exit codes that its commands may end with, from `<!-- run: … -->` above it; none where no test runs it.
    """

    page: str
    line: int
    language: str
    text: str
    codes: tuple[int, ...]


def pages() -> list[Path]:
    """Every page of the project."""
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "examples", "deploy"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return found


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("marks")) + 1
        codes = tuple(int(code) for code in (found["codes"] or "").split())
        yield Block(name(page), line, found["language"], found["text"], codes)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """Code within sentences and tables, each on one line."""
    return [" ".join(found[2].split()) for found in _SPAN.finditer(prose(page))]


def without_code(page: Path) -> str:
    """The page without its blocks and spans: what is left is text and links."""
    return _SPAN.sub("`code`", prose(page))


def anchors(page: Path) -> set[str]:
    """What links to the page's headings may end in, as GitHub and the site both make them."""
    seen: dict[str, int] = {}
    made = set()
    for heading in re.findall(r"^#+ (.+?)\s*#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        made.add(f"{slug}-{count}" if count else slug)
    return made
