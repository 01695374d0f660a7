"""docs/security.md: every threat says what it must say, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/security.md").read_text(encoding="utf-8")
THREATS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n# Threats\n")[-1].split("\n### ")[1:]}
"""Title → its section."""
PARTS = ["What could happen", "What the project does", "Held by", "What you do"]
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def names_in(path: str) -> set[str]:
    """Names of a file's tests; read, and not imported, for some need a Chromium or an emulator."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_there_are_threats() -> None:
    assert len(THREATS) > 15


@pytest.mark.parametrize("title", THREATS)
def test_every_threat_says_what_holds_it(title: str) -> None:
    parts = re.findall(r"^\*\*([^*]+)\.\*\*", THREATS[title], re.MULTILINE)
    assert parts == PARTS
    held = THREATS[title].split("**Held by.**")[1].split("**What you do.**")[0]
    assert TEST.findall(held) or "no test" in held


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 50
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []
    assert PAGE.count("::test_") == len(named)
