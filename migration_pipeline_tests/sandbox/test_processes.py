"""Servers end with whoever started them, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from migration_pipeline.sandbox import azurite, npm_packages
from migration_pipeline.sandbox.processes import SandboxUnavailable, ServerProcess

OWNER = """
import sys, time
from pathlib import Path
from migration_pipeline.sandbox.processes import ServerProcess
folder = Path(sys.argv[1])
code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
server = ServerProcess("test", [sys.executable, "-c", code, str(folder / "pid")], log=folder / "log")
server.wait_ready((folder / "pid").exists)
print("ready", flush=True)
time.sleep(600)
"""
SECONDS = 15


def ended(pid: int) -> bool:
    """Whether the process is gone within some seconds; one whose parent has not asked for its end yet is gone too."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"):
                return True
        except ProcessLookupError:
            return True
        except FileNotFoundError:
            pass  # it went between the two questions, or there is no /proc here: the first one will tell
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_its_owner(how: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
        owner.send_signal(how)
        try:
            owner.wait(SECONDS)
        finally:
            owner.kill()
    assert ended(pid)


def test_a_server_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; sys.exit('no such port')"
    server = ServerProcess("test", [sys.executable, "-c", code], log=tmp_path / "log")
    with pytest.raises(SandboxUnavailable, match="no such port"):
        server.wait_ready(lambda: False)
    server.close()


def test_azurite_never_stands_still_to_collect_bytes() -> None:
    """It would, ten minutes after its start: longer than any test may take."""
    script = azurite._installed() / "node_modules/azurite/dist/src/blob"  # noqa: SLF001 - where it is installed
    keep = Path(azurite.__file__).with_name("azurite_package") / "keep_extents.js"
    code = (
        f"process.argv[1] = '{script}/main.js'; require('{keep}');"
        f"const {{default: Collector}} = require('{script}/gc/BlobGCManager.js');"
        "console.log(new Collector(null, null, null, () => {}, null).gcIntervalInMS);"
    )
    node = [str(npm_packages.node() / "bin/node"), "-e", code]
    assert int(subprocess.run(node, capture_output=True, text=True, check=True).stdout) > 7 * 24 * 3600 * 1000
