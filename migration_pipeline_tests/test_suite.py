"""The suite itself: what runs where, and in which order."""

from pathlib import Path
from typing import Any, NamedTuple

from migration_pipeline_tests.conftest import _LONGEST, _SLOW_FOLDERS, _SLOW_MODULES, shared_out

TESTS = Path(__file__).parent


class Item(NamedTuple):
    path: Path
    number: int


def items(module: str, count: int) -> list[Any]:
    return [Item(Path(f"{module}.py"), number) for number in range(count)]


def test_the_longest_modules_begin_first_in_both_halves_and_nothing_is_lost() -> None:
    given = [
        *items("test_a", 3),
        *items(_LONGEST[1], 2),
        *items("test_b", 8),
        *items(_LONGEST[0], 1),
        *items("test_c", 2),
    ]
    shared = shared_out(given)
    assert sorted(shared) == sorted(given)
    assert shared[0].path.stem == _LONGEST[0]
    assert shared[len(given) // 2].path.stem == _LONGEST[1]
    for path in {item.path for item in given}:
        assert [item for item in shared if item.path == path] == [item for item in given if item.path == path]


def test_every_name_is_that_of_a_module_or_a_folder() -> None:
    modules = {path.stem for path in TESTS.rglob("test_*.py")}
    assert modules >= {*_LONGEST, *_SLOW_MODULES}
    assert {path.name for path in TESTS.iterdir() if path.is_dir()} >= _SLOW_FOLDERS
