"""Everything goes down at once, in the middle of a backfill: started again, it goes on by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import flagged, new_world
from migration_pipeline_tests.scenarios.dagster_ui import wait_for
from migration_pipeline_tests.scenarios.test_migration import copied
from migration_pipeline_tests.scenarios.test_operator_day import services, statuses


@pytest.fixture
def servers() -> Iterator[Sandbox]:
    """Of its own: its Postgres crashes."""
    with Sandbox() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_a_machine_that_went_down_goes_on_where_it_was(servers: Sandbox, tmp_path: Path) -> None:
    world = new_world(
        servers,
        tmp_path,
        AppSize(profiles=60, photos_per_profile=2, scale=0.01, bad_files=False),
        profiles_per_range=10,
    )
    assert world.command("plan", "--apply").returncode == 0
    with services(world) as running:
        keys = running.ui.assets()["migrated_profiles"]
        backfill = running.ui.backfill(keys)
        wait_for(lambda: copied(world) >= 30, 120)
        # Webserver, daemon, code servers, both run workers and the database, without a word to anybody.
        running.daemon.kill_with_all_that_it_started()
        running.web.kill_with_all_that_it_started()
        servers.postgres.crash()
        servers.postgres.start_again()
        running.start_web()
        assert not running.ui.ended(backfill)
        running.start_daemon()
        # Nobody does anything: what was at work is found to be gone, and is run again; and where Dagster gave the whole
        # backfill up meanwhile, what it left is asked for.
        wait_for(lambda: running.ui.ended(backfill) and statuses(running.ui) == (set(keys), set()), 1200)
    assert flagged(world) >= set(world.of("migrated"))
    places, now = world.places, independent.references(world.places)
    urls = [url for id_ in world.of("migrated") for _, url in now[id_]]
    assert [url for url in urls if independent.source_of(url, places.account_url, places.alias_hosts)] == []
    assert independent.check_urls({url for url in urls if url.startswith(world.public_base_url)}) == []
