"""The suite itself: what runs where, and in which order."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from migration_pipeline_tests.conftest import _LONGEST, _SLOW_FOLDERS, _SLOW_MODULES, shared_out

TESTS = Path(__file__).parent


class Item(NamedTuple):
    path: Path
    number: int


def items(module: str, count: int) -> list[Any]:
    return [Item(Path(f"{module}.py"), number) for number in range(count)]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_longest_modules_begin_first_in_each_share_and_nothing_is_lost(processes: int) -> None:
    given = [
        *items("test_a", 3),
        *items(_LONGEST[2], 1),
        *items(_LONGEST[1], 2),
        *items("test_b", 8),
        *items(_LONGEST[0], 1),
        *items("test_c", 3),
    ]
    shared = shared_out(given, processes)
    assert sorted(shared) == sorted(given)
    begins = range(0, len(given), len(given) // processes)
    assert [shared[begin].path.stem for begin in begins] == list(_LONGEST[:processes])
    for path in {item.path for item in given}:
        assert [item for item in shared if item.path == path] == [item for item in given if item.path == path]


def test_every_name_is_that_of_a_module_or_a_folder() -> None:
    modules = {path.stem for path in TESTS.rglob("test_*.py")}
    assert modules >= {*_LONGEST, *_SLOW_MODULES}
    assert {path.name for path in TESTS.rglob("*") if path.is_dir()} >= _SLOW_FOLDERS
