"""Every command that a page names is there, with these options; so is every target of make and every module."""

import importlib.util
import re
import shlex

import click
import pytest

from migration_pipeline.cli.main import main
from migration_pipeline_tests import pages

COMMAND = "migration-pipeline"
PLACEHOLDER = re.compile(r"…|[A-Z][A-Z_/]*…?")
"""RANGE, CONTAINER/BLOB, …: what the reader puts in."""


def complaint(words: list[str]) -> str | None:
    """What is wrong with these arguments of the command; None where they are as its help says."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.commands.get(words[0])
        if below is None:
            return f"{command.name} has no command {words[0]}"
        command, words = below, words[1:]
    if isinstance(command, click.Group) and command is not main and "--help" not in words:
        return f"{command.name} wants one of its commands"
    context = click.Context(command)
    try:
        given, rest, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            value = given.get(parameter.name or "")
            if isinstance(value, str) and not PLACEHOLDER.fullmatch(value):
                parameter.type_cast_value(context, value)
    except click.UsageError as error:
        return error.format_message()
    rest = [word for word in rest if word != "…"]
    return f"{command.name} takes no {rest}" if rest else None


def shell_lines(text: str) -> list[str]:
    """Commands of a block, one a line, without prompts and comments."""
    return [line.removeprefix("$ ").strip() for line in text.replace("\\\n", " ").splitlines()]


def calls(line: str) -> list[list[str]]:
    """Arguments of each call of ours in a line of shell."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        words = line.split()
    found: list[list[str]] = []
    collecting = False
    for word in words:
        if word == COMMAND:
            found.append([])
            collecting = True
        elif word in {"&&", "||", "|", ";", ">", "&"}:
            collecting = False
        elif collecting:
            found[-1].append(word)
    return found


def mentioned() -> list[tuple[str, list[str]]]:
    """Where, and the arguments, of each mention: in blocks, and in code within sentences."""
    found = []
    for page in pages.pages():
        for block in pages.blocks(page):
            if block.language in {"sh", "console", "bash", ""}:
                found += [(pages.name(page), call) for line in shell_lines(block.text) for call in calls(line)]
        for span in pages.spans(page):
            first = span.split()[0] if span.split() else ""
            if first == COMMAND:
                found += [(pages.name(page), call) for call in calls(span)]
            elif first in main.commands and " " in span:
                found += [(pages.name(page), call) for call in calls(f"{COMMAND} {span}")]
    return found


def test_every_command_and_option_that_a_page_names_is_there() -> None:
    all_of_them = mentioned()
    assert len(all_of_them) > 90
    wrong = {(page, shlex.join(words), said) for page, words in all_of_them if (said := complaint(words))}
    assert wrong == set()


@pytest.mark.parametrize(
    "arguments",
    ["migrat", "migrate --frist 3", "plan RANGE", "cutover enter nowhere", "limits --in-flight", "status --watch yes"],
)
def test_wrong_commands_are_found(arguments: str) -> None:
    assert complaint(arguments.split()) is not None


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    makefile = (pages.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):(?!=)", makefile, re.MULTILINE))
    named = {
        (pages.name(page), target)
        for page in pages.pages()
        for text in [*pages.spans(page), *(line for block in pages.blocks(page) for line in shell_lines(block.text))]
        for target in re.findall(r"^make ([a-z][\w-]*)", text)
    }
    assert named
    assert {(page, target) for page, target in named if target not in targets} == set()


def test_every_module_that_a_page_runs_is_there() -> None:
    modules = {
        module
        for page in pages.pages()
        for module in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8"))
        if module.startswith(("benchmarks", "migration_pipeline", "examples"))
    }
    assert modules
    assert {module for module in modules if importlib.util.find_spec(module) is None} == set()
