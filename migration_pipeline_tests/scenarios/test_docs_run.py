"""The quickstart and the runbook, word for word: every block marked to be run is run, in order, on real servers."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests import commands_here, pages
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World
from migration_pipeline_tests.scenarios.test_migration import work

APP = AppSize(profiles=24, photos_per_profile=2, scale=0.01)


def play(world: World, page: str, placeholders: dict[str, str], seen: dict[str, Callable[[], None]]) -> None:
    """Run the marked blocks of a page with bash, and whatever is to be seen after one that holds a certain command."""
    ran = [block for block in pages.blocks(pages.ROOT / page) if block.codes]
    assert ran
    wrong = []
    for block in ran:
        text = block.text
        for placeholder, value in placeholders.items():
            text = re.sub(rf"\b{placeholder}\b", value, text)
        plain = [_plain(line) for line in text.splitlines()]
        if all(plain):
            ran_here = [world.command(*arguments) for arguments in plain if arguments]
            failed = [done for done in ran_here if done.returncode not in block.codes or "Traceback" in done.stderr]
        else:
            done = _in_bash(world, text, block.codes)
            failed = [done] if done.returncode or "Traceback" in done.stderr else []
        wrong += [
            f"{page}, line {block.line}:\n{text}ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr}"
            for done in failed
        ]
        for command in [command for command in seen if f"{command} " in text or f"{command}\n" in text]:
            seen.pop(command)()
    assert "\n".join(wrong) == ""
    assert not seen, "no block holds these commands"


def _plain(line: str) -> list[str]:
    """The arguments of a line that calls our command and asks nothing of the shell; else none."""
    words = shlex.split(line, comments=True)
    return words[1:] if words[:1] == ["migration-pipeline"] and not set(line) & set("|<>$;&*`") else []


def _in_bash(world: World, text: str, codes: Sequence[int]) -> commands_here.Done:
    allowed = "|".join(str(code) for code in codes)
    script = "".join(
        f'{line}\ncase $? in {allowed}) ;; *) echo "ended with $?" >&2; exit 70 ;; esac\n' for line in text.splitlines()
    )
    return subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **world.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def asked(world: World) -> Any:
    return json.loads(world.command("status", "--json").stdout)


def rows(world: World, query: str) -> list[Any]:
    with closing(psycopg.connect(world.places.database_url)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.timeout(600)
def test_the_quickstart_works(make_world: MakeWorld) -> None:
    world = make_world(APP, profiles_per_range=12)

    def some_are_done() -> None:
        assert rows(world, "SELECT 1 FROM migration.ranges WHERE ended_at IS NOT NULL")

    def missing_files_are_waived() -> None:
        assert rows(world, "SELECT 1 FROM migration.files WHERE waived_why = 'lost years ago'")

    play(
        world,
        "docs/quickstart.md",
        {},
        {"migrate --sample 2": some_are_done, "dead-letters waive": missing_files_are_waived},
    )
    assert rows(world, "SELECT 1 FROM migration.ranges WHERE ended_at IS NULL") == []
    assert (world.folder / "migration-report" / "report.html").stat().st_size > 10_000


@pytest.mark.timeout(600)
def test_the_runbook_works(make_world: MakeWorld) -> None:
    world = make_world(APP, profiles_per_range=12)
    work(world)
    ((key, container, blob),) = rows(
        world,
        "SELECT key, container, blob FROM migration.files JOIN migration.wanted USING (file_id)"
        " JOIN migration.ranges USING (range_id) WHERE outcome = 'source_missing' ORDER BY key LIMIT 1",
    )

    def paused() -> None:
        assert asked(world)["paused"] is not None

    def resumed() -> None:
        assert asked(world)["paused"] is None

    def rolled_back() -> None:
        assert [row[0] for row in rows(world, "SELECT key FROM migration.ranges WHERE rolled_back_at IS NOT NULL")] == [
            key
        ]

    play(
        world,
        "docs/runbook.md",
        {"RANGE": key, "CONTAINER/BLOB": f"'{container}/{blob}'"},
        {
            "migration-pipeline pause": paused,
            "migration-pipeline resume": resumed,
            "--apply --without-queries": rolled_back,
        },
    )
    assert (world.folder / "letters.csv").stat().st_size > 0
