"""Ctrl-C on `migrate` with a daemon of its own: the backfill is cancelled, no process stays, nothing is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld
from migration_pipeline_tests.scenarios.dagster_ui import wait_for
from migration_pipeline_tests.scenarios.test_migration import SMALL, check_end, copied


@pytest.mark.timeout(900)
def test_a_stopped_migration_can_be_taken_up_again(make_world: MakeWorld) -> None:
    world = make_world(SMALL, profiles_per_range=16)
    before = independent.references(world.places)
    stamps = independent.stamps(world.places, world.of("untouched"))
    assert world.command("plan", "--apply").returncode == 0
    # In the background of a shell, which has Ctrl-C ignored: the daemon must end in order there, too.
    with subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-m", "migration_pipeline.cli", "migrate"],
        env={**os.environ, **world.environment, "MIGRATION_COPY__REQUESTS_PER_SECOND": "3"},
        cwd=world.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_for(lambda: copied(world) >= 30, 300)
        process.send_signal(signal.SIGTERM)  # leaves by the same door as Ctrl-C
        said, _ = process.communicate(timeout=400)
    assert process.returncode == 1
    assert "cancelling backfill" in said
    assert "Traceback" not in said
    assert at_work(world.folder) == []
    log = (world.folder / "dagster" / "daemon-of-migrate.log").read_text(encoding="utf-8")
    assert log.count("Daemon threads shut down") == 1
    stopped_at = copied(world)
    assert world.command("migrate").returncode == 1  # for the bad files
    assert copied(world) > stopped_at
    check_end(world, before, stamps)


OWNER = """
import sys, time
from pathlib import Path
from migration_pipeline.commands.dagster_instance import daemon
with daemon(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_daemon_ends_with_the_command_that_started_it_even_if_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", OWNER, str(log)], env=environment, stdout=subprocess.PIPE) as owner:
        wait_for(lambda: log.exists() and "Instance is configured" in log.read_text(encoding="utf-8"), 120)
        assert len(at_work(tmp_path)) > 2
        owner.kill()
    wait_for(lambda: at_work(tmp_path) == [], 120)
    assert "Daemon threads shut down" in log.read_text(encoding="utf-8")


def at_work(folder: Path) -> list[Path]:
    """Processes that have the folder's name in their environment."""
    return [path for path in Path("/proc").glob("[0-9]*/environ") if str(folder) in environment(path)]


def environment(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # ended meanwhile
        return ""
