"""The lock files hold a wheel of every package, for each Python and platform that the project says it runs on."""

import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
LOCKS = ("requirements.lock", "deploy/requirements.lock")
BUILT = {("3.14", "aarch64-apple-darwin"): "watchdog"}
"""What has no wheel there yet. docs/installing.md says so; remove the line once there is one."""


def without_wheel(python: str, platform: str, target: Path) -> str | None:
    """The first package without a usable wheel, or None; nothing is installed."""
    command = [
        *(Path(sys.executable).with_name("uv"), "pip", "install", "--dry-run", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--python-version", python, "--python-platform", platform, "--target", target),
    ]
    both = [word for lock in LOCKS for word in ("-r", ROOT / lock)]
    built = BUILT.get((python, platform))
    for allowed in ([], *([["--no-binary", built]] if built else [])):
        done = subprocess.run([*command, *allowed, *both], capture_output=True, text=True, check=False, timeout=250)
        if done.returncode == 0:
            return built if allowed else None
        missing = re.search(r"Because (\S+)==\S+ has no usable wheels", done.stderr)
        assert missing, done.stderr
        if missing[1] != built:
            return missing[1]
    raise AssertionError(f"{built} cannot be built from source: {done.stderr}")


def test_every_package_has_a_wheel_for_every_python_and_platform(tmp_path: Path) -> None:
    cases = list(product(PYTHONS, PLATFORMS))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda case: without_wheel(*case, tmp_path), cases))
    assert dict(zip(cases, found, strict=True)) == {case: BUILT.get(case) for case in cases}


def test_the_same_pythons_are_named_everywhere() -> None:
    classified = [item.rpartition(" ")[2] for item in PROJECT["classifiers"] if " :: 3." in item]
    assert tuple(classified) == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]},<3.{int(PYTHONS[-1][2:]) + 1}"
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"python: \[(.+)\]", workflow)
    assert tuple(re.findall(r"[\d.]+", matrix)) == PYTHONS
