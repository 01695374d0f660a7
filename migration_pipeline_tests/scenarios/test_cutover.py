"""From the first upload to S3 to the last blob of the source, with users who upload all along, gate by gate."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from azure.storage.blob import BlobServiceClient, RetentionPolicy

from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import World, new_world
from migration_pipeline_tests.scenarios.dagster_ui import wait_for
from migration_pipeline_tests.scenarios.test_migration import work
from migration_pipeline_tests.scenarios.uploading import Users

URLS_LAST = timedelta(seconds=45)
SOAK = timedelta(seconds=5)
DEADLINE = 900  # seconds: what is waited for is a state, on however slow a machine


class Operator:
    """Somebody at the terminal."""

    def __init__(self, world: World, users: Users) -> None:
        self.world, self._users = world, users

    def tell(self, *arguments: str, **settings: str) -> tuple[int, str]:
        done = self.world.command(*arguments, **settings)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def do(self, *arguments: str) -> str:
        code, said = self.tell(*arguments)
        assert code == 0, said
        return said

    def enter(self, phase: str, *arguments: str) -> None:
        self.do("cutover", "enter", phase, "--why", "it is time", *arguments)
        assert self.phase() == phase

    def held(self, phase: str, *words: str, **settings: str) -> None:
        """Try too early: nothing happens, and each thing is named."""
        before = self.phase()
        code, said = self.tell("cutover", "enter", phase, **settings)
        assert code == 2
        assert [word for word in words if word not in said] == [], said
        assert self.phase() == before

    def phase(self) -> str:
        code, said = self.tell("cutover", "show", "--json")
        assert code in (0, 1)
        return str(json.loads(said)["phase"])

    def migrate(self) -> None:
        """Users go on meanwhile, so somebody may have to wait for the next run; at last they rest."""
        work(self.world)
        with self._users.resting():
            self.until(lambda: {complete for *_, complete in work(self.world)} == {"True"})

    def sweep_until_clean(self) -> None:
        """What comes late is asked for by the sweep, and moved; users go on meanwhile."""
        self.until(lambda: self.tell("sweep", "--full")[0] == 0, self.migrate)

    def list_until_it_may(self, phase: str) -> None:
        def entered() -> bool:
            self.do("inventory")
            return self.tell("cutover", "enter", phase)[0] == 0

        self.until(entered)

    @staticmethod
    def until(done: Callable[[], bool], meanwhile: Callable[[], None] = lambda: time.sleep(1)) -> None:
        began = time.monotonic()
        while not done():
            assert time.monotonic() - began < DEADLINE
            meanwhile()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With servers of its own: here the source is emptied."""
    with Sandbox() as servers, pytest.MonkeyPatch.context() as patch:
        for name, value in servers.environment.items():
            patch.setenv(name, value)
        made = new_world(servers, tmp_path, AppSize(profiles=60, photos_per_profile=1, scale=0.002, bad_files=False))
        made.environment.update(
            MIGRATION_CUTOVER__LONGEST_UPLOAD_HOURS=str(URLS_LAST.total_seconds() / 3600),
            MIGRATION_CUTOVER__SOAK_DAYS=str(SOAK.total_seconds() / 86400),
            MIGRATION_UPLOADS__ORIGINS='["http://127.0.0.1:9"]',
        )
        with source(made) as azure:
            azure.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=7))
        yield made


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_every_upload_of_every_client_ends_in_s3_and_no_gate_opens_early(world: World) -> None:
    with migrating(world) as users:
        operator = Operator(world, users)
        switch(operator, users)
        clean(operator, users)
        straggler = freeze(operator)
        decommission(operator)

    assert users.trouble == []
    assert min(users.to_azure, users.to_s3) > 20
    missing = {id_: lost for id_, sent in users.uploaded.items() if (lost := sent - digests(world, id_))}
    assert missing == {}
    places, now = world.places, independent.references(world.places)
    urls = [url for id_ in users.ids for _, url in now[id_]]
    assert [url for url in urls if independent.source_of(url, places.account_url, places.alias_hosts)] == []
    # What is left was never anybody's, so nobody has proven it to be in S3.
    assert straggler in blobs(world)


def switch(operator: Operator, users: Users) -> None:
    """From the first look to the moment from which on uploads go to S3."""
    operator.held("uploads_switched", "no range is planned", "the write path was never examined")
    operator.do("plan", "--apply")
    operator.tell("doctor", "--write-path", "--fix", "--apply")
    operator.do("doctor", "--write-path")
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d %H:%M:%S}"
    code, said = operator.tell("cutover", "enter", "uploads_switched", "--at", tomorrow)
    assert (code, "which is not yet" in said) == (2, True)
    operator.held("migrate", "phases are entered in order")
    operator.migrate()
    users.hold_a_ticket()
    users.switched.set()
    operator.enter("uploads_switched")
    users.upload_with_the_ticket_held()  # to a profile that was done with


def clean(operator: Operator, users: Users) -> None:
    """Everything is moved, and what the last old URL brings."""
    operator.held("migrate", "as a trial")
    operator.tell("audit")  # users write meanwhile: somebody may wait
    operator.enter("migrate")
    operator.held("sweep_clean", "may be good until", MIGRATION_CUTOVER__LONGEST_UPLOAD_HOURS="24")
    operator.until(lambda: "may be good until" not in operator.tell("cutover", "enter", "sweep_clean")[1])
    with pytest.raises(HTTPError, match="403"):
        users.upload_with_the_ticket_held()
    operator.held("sweep_clean", "no full sweep began", "was not listed after")
    operator.sweep_until_clean()
    operator.list_until_it_may("sweep_clean")


def freeze(operator: Operator) -> str:
    """Nobody may write to the source any more; somebody does all the same, and it is frozen again."""
    operator.enter("source_frozen")
    operator.held("soak", "no full sweep began", "was not listed after")
    straggler = write(operator.world, "straggler.jpg")
    operator.sweep_until_clean()
    operator.do("inventory")
    operator.held("soak", "1 blob was written to the source after it was frozen", straggler)
    operator.do("cutover", "back", "sweep_clean", "--why", "somebody still wrote")
    operator.list_until_it_may("source_frozen")
    operator.sweep_until_clean()
    operator.do("inventory")
    operator.enter("soak")
    return straggler


def decommission(operator: Operator) -> None:
    """Nothing goes before the soak is over, and every range audited; then everything that is proven does."""
    before = blobs(operator.world)
    operator.held("decommissioned", "the soak lasts until", MIGRATION_CUTOVER__SOAK_DAYS="14")
    operator.held("decommissioned", "not audited since the soak began")
    code, said = operator.tell("decommission", "--all", "--apply")
    assert (code, "not audited since the soak began" in said) == (2, True)
    assert blobs(operator.world) == before
    operator.until(lambda: "the soak lasts until" not in operator.tell("cutover", "enter", "decommissioned")[1])
    operator.sweep_until_clean()
    operator.do("inventory")
    operator.do("audit")
    operator.held("decommissioned", "still in the source, and proven to be in S3")
    operator.do("decommission", "--all", "--apply", "--why", "the soak is over")
    operator.held("decommissioned", "was not listed after")
    operator.do("inventory")
    operator.enter("decommissioned")
    code, said = operator.tell("cutover", "back", "migrate", "--why", "I have changed my mind")
    assert (code, "removed from the source" in said) == (2, True)


@contextmanager
def migrating(world: World) -> Iterator[Users]:
    ids = sorted(world.of("migrated"))
    with Users(world, ids, URLS_LAST).at_work() as users:
        wait_for(lambda: users.to_azure >= 5, 60)  # some uploads to the old store come first
        yield users


def digests(world: World, id_: str) -> set[str]:
    """Of what both sites of a profile refer to in S3: of what the database does, and the document as well."""
    refs = independent.references(world.places)[id_]
    sites = {site: {url for where, url in refs if where == site and url.startswith(world.public_base_url)}
             for site in ("database", "firebase")}  # fmt: skip
    return set.intersection(*({_digest(url) for url in urls} for urls in sites.values() if urls))


def _digest(url: str) -> str:
    with urlopen(url, timeout=30) as answer:  # noqa: S310 - the sandbox's own
        return hashlib.sha256(answer.read()).hexdigest()


def source(world: World) -> BlobServiceClient:
    return BlobServiceClient(world.places.account_url, credential=world.places.account_key)


def write(world: World, name: str) -> str:
    """A blob that nobody refers to."""
    with source(world) as azure:
        azure.get_blob_client("photos", name).upload_blob(b"late")
    return f"photos/{name}"


def blobs(world: World) -> set[str]:
    with source(world) as azure:
        return {
            f"{container}/{name}"
            for container in ("photos", "verifications")
            for name in azure.get_container_client(container).list_blob_names()
        }
