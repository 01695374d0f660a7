"""A run cut off before each single operation on a store, and a user who edits before each of them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import google.cloud.firestore
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings
from google.auth.credentials import AnonymousCredentials
from psycopg.types.json import Jsonb

from migration_pipeline.core.migrate import CopyLimits, RangeReport, Stores, migrate_range
from migration_pipeline.planning import keep, plan
from migration_pipeline.sandbox.app import AppSize, Kind
from migration_pipeline.settings import load
from migration_pipeline.stores import open_stores
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World
from migration_pipeline_tests.scenarios.watched import Cut, Watch

LIMITS = CopyLimits(in_flight=2)


@dataclass(frozen=True, slots=True)
class Ranges:
    """A world in which every ordinary profile is a range of its own."""

    world: World
    stores: Stores
    before: independent.References
    ids: Iterator[str]
    keys: dict[str, str]

    def next_profile(self) -> str:
        """One that nobody has worked on yet."""
        return next(self.ids)

    def migrate(self, id_: str, watch: Watch | None = None) -> RangeReport:
        return migrate_range(self.keys[id_], (watch or Watch()).stores(self.stores), LIMITS)

    def urls(self, id_: str) -> list[str]:
        return [url for _, url in independent.references_of(self.world.places, id_)]

    def unmoved_in_database(self, id_: str) -> list[str]:
        held = independent.references_of(self.world.places, id_)
        return [url for site, url in held if site == "database" and self.in_source(url)]

    def in_source(self, url: str) -> bool:
        places = self.world.places
        return independent.source_of(url, places.account_url, places.alias_hosts) is not None


@pytest.fixture
def ranges(make_world: MakeWorld) -> Iterator[Ranges]:
    world = make_world(AppSize(profiles=150, photos_per_profile=1, scale=0.002, bad_files=False), profiles_per_range=1)
    settings = load({**os.environ, **world.environment})
    planned = plan(settings)
    keep(planned, settings)
    ids = map(str, world.app.kinds[Kind.PLAIN])
    with open_stores(settings) as stores:
        yield Ranges(
            world, stores, independent.references(world.places), ids, {str(r.last): r.key for r in planned.new}
        )


def test_a_run_cut_before_any_operation_leaves_no_lie_and_the_next_finishes(ranges: Ranges) -> None:
    def end() -> None:
        raise Cut

    number = 0
    while True:
        number += 1
        id_, watch = ranges.next_profile(), Watch(number, end)
        if not cut_off(lambda: ranges.migrate(id_, watch)):  # noqa: B023 - called at once
            break  # it has fewer operations than that
        check_halfway(ranges, id_)
        assert ranges.migrate(id_).complete
        check_migrated(ranges, id_)
    assert number > 20


def test_edits_before_any_operation_are_kept_and_migrated(ranges: Ranges) -> None:
    number = 0
    while True:
        number += 1
        id_ = ranges.next_profile()
        user = User(ranges, id_)
        watch = Watch(number, user.edit)
        ranges.migrate(id_, watch)
        operations = watch.seen
        if number > len(operations):
            break  # it was over before the user came: an edit makes a run longer by another pass
        check_halfway(ranges, id_, also=user.new_url)
        if "set_flags" in operations[number - 1 :]:
            # The flag was decided on after the edit, so it tells the truth of the row with the edit in it.
            assert not independent.is_flagged(ranges.world.places, id_) or not ranges.unmoved_in_database(id_)
        # What came after the range was confirmed is found by the next run.
        assert ranges.migrate(id_).complete
        check_migrated(ranges, id_, left_out=user.removed)
        user.check()
    assert number > 20


def cut_off(run: Callable[[], object]) -> bool:
    """Whether the run was cut off; any other end than that or success is raised."""
    cut = False
    try:
        run()
    except* Cut:
        cut = True
    return cut


def check_halfway(ranges: Ranges, id_: str, also: str = "") -> None:
    """Every reference is the old one or leads to the file; a flag is only where nothing is left."""
    now, old = ranges.urls(id_), {url for _, url in ranges.before[id_]} | {also}
    moved = [url for url in now if url not in old]
    assert all(url.startswith(ranges.world.public_base_url) for url in moved)
    assert independent.check_urls(moved) == []
    if independent.is_flagged(ranges.world.places, id_):
        assert [url for url in now if ranges.in_source(url)] in ([], [also], [also, also])


def check_migrated(ranges: Ranges, id_: str, left_out: tuple[str, ...] = ()) -> None:
    assert independent.is_flagged(ranges.world.places, id_)
    now = ranges.urls(id_)
    assert not [url for url in now if ranges.in_source(url)]
    assert independent.check_urls({url for url in now if url.startswith(ranges.world.public_base_url)}) == []
    held = [(site, url) for site, url in ranges.before[id_] if url not in left_out]
    assert independent.check_copies(ranges.world.places, {id_: held}) == []


class User:
    """A user with a client: takes the first photo away and adds another one, at both sites."""

    def __init__(self, ranges: Ranges, id_: str) -> None:
        self._places, self._id = ranges.world.places, id_
        self.new_url = f"{self._places.account_url}/photos/{id_}/edited.jpg"
        self._photo = {"original": self.new_url, "by": "user"}
        self.removed: tuple[str, ...] = ()

    def edit(self) -> None:
        places = self._places
        with BlobServiceClient(places.account_url, credential=places.account_key) as azure:
            settings = ContentSettings(content_type="image/jpeg")
            azure.get_blob_client("photos", f"{self._id}/edited.jpg").upload_blob(b"new", content_settings=settings)
        with psycopg.connect(places.database_url) as connection:
            row = connection.execute("SELECT photos FROM profiles WHERE id = %s FOR UPDATE", [self._id]).fetchone()
            assert row is not None
            self.removed = tuple(strings(row[0][0]))
            photos = [*row[0][1:], self._photo]
            connection.execute("UPDATE profiles SET photos = %s WHERE id = %s", [Jsonb(photos), self._id])
        self._on_document(lambda document: document.update({"photos": photos}))

    def check(self) -> None:
        """The new photo is there, at both sites, and what was taken away has not come back."""
        with psycopg.connect(self._places.database_url) as connection:
            row = connection.execute("SELECT photos FROM profiles WHERE id = %s", [self._id]).fetchone()
        assert row is not None
        seen: list[Any] = []
        self._on_document(lambda document: seen.append(document.get().to_dict()["photos"]))
        for photos in (row[0], *seen):
            assert [photo.get("by") for photo in photos].count("user") == 1
            assert photos[-1]["original"].endswith(f"/photos/{self._id}/edited.jpg")
            assert not set(self.removed) & set(strings(photos))

    def _on_document(self, work: Callable[[Any], object]) -> None:
        client = google.cloud.firestore.Client(self._places.firestore_project, credentials=AnonymousCredentials())
        work(client.document(f"profiles/{self._id}"))
        client.close()


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) and "://" in value else []
