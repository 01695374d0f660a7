"""Folders of killed sandboxes go; those in use, and those of others, stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from migration_pipeline.commands.dagster_instance import LOG_BYTES, begin_anew
from migration_pipeline.sandbox.leftovers import PREFIX, in_use, remove_abandoned

HOLD = """
import signal, sys
from pathlib import Path
from migration_pipeline.sandbox.leftovers import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def folder(within: Path, name: str) -> Path:
    made = within / f"{PREFIX}{name}"
    (made / "postgres").mkdir(parents=True)
    (made / "postgres" / "data").write_text("rows")
    return made


def test_the_folder_of_a_killed_process_goes_and_none_other(tmp_path: Path) -> None:
    killed, used, unmarked = (folder(tmp_path, name) for name in ("killed", "used", "unmarked"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(outside)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(killed)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with in_use(used), in_use(outside):
        assert remove_abandoned(tmp_path) == []
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
        assert remove_abandoned(tmp_path) == [killed]
    assert not killed.exists()
    assert (used.exists(), unmarked.exists(), outside.exists()) == (True, True, True)
    assert remove_abandoned(tmp_path) == [used]
    assert outside.exists()


def test_a_log_that_has_grown_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    begin_anew(log)
    for size in (10, LOG_BYTES, LOG_BYTES + 1):
        log.unlink(missing_ok=True)
        with log.open("wb") as file:
            file.truncate(size)
        begin_anew(log)
        assert log.exists() == (size <= LOG_BYTES)
    assert (tmp_path / "daemon.log.old").stat().st_size == LOG_BYTES + 1
