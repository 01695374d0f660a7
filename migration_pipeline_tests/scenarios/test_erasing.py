"""Erasing that is cut off, refused or overtaken: nothing needed is gone for good, and nothing is stuck."""

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from migration_pipeline.core.copy_file import CopyLimits
from migration_pipeline.core.erase import Erasure, erase
from migration_pipeline.core.errors import Fatal, MigrationError, Permanent, Transient
from migration_pipeline.core.migrate import RangeReport, migrate_range
from migration_pipeline.core.model import Outcome
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.scenarios.frozen import Frozen, frozen_app, opened
from migration_pipeline_tests.scenarios.test_interruptions import cut_off
from migration_pipeline_tests.scenarios.watched import Cut, Watch

LIMITS = CopyLimits(in_flight=2, read_back="never")
PROFILES, STEP = (130, 1) if os.environ.get("CUTS") == "all" else (60, 3)
"""`make test` takes every third operation."""


class At(Watch):
    """Something that happens just before an operation, the n-th of that name."""

    def __init__(self, name: str, act: Callable[[], None], *, number: int = 1) -> None:
        super().__init__()
        self._name, self._call, self._number = name, act, number

    def _step(self, name: str) -> None:
        self.seen.append(name)
        if name == self._name and self.seen.count(name) == self._number:
            self._call()


class Dropping:
    """An app of which every profile is a range of its own, and takes its photos away."""

    def __init__(self, app: Frozen) -> None:
        self.app, self._ids = app, iter(range(1, len(app.keys) + 1))

    def migrate(self, id_: int) -> RangeReport:
        return migrate_range(self.app.keys[id_ - 1], self.app.stores, LIMITS)

    def next(self) -> int:
        return next(self._ids)

    def dropped(self, *blobs: str) -> int:
        """A profile whose photos were copied, and that holds none of them any more."""
        id_ = self.next()
        if blobs:
            self.app.write(id_, blobs)
        assert self.migrate(id_).complete
        self.app.write(id_, [])
        assert self.migrate(id_).confirmed.dropped == (len(blobs) or 1)
        return id_

    def erase(self, watch: Watch | None = None) -> Erasure:
        return erase((watch or Watch()).stores(self.app.stores), seconds=0)

    def target_url(self, blob: str) -> str:
        return f"{self.app.sandbox.public_base_url}/{self.app.key(blob)}"

    def is_there(self, blob: str) -> bool:
        with self.app.s3() as s3:
            found = s3.list_objects_v2(Bucket=self.app.places.bucket, Prefix=self.app.key(blob))
        return [item["Key"] for item in found.get("Contents", [])] == [self.app.key(blob)]

    def marked(self) -> list[str]:
        return [blob for (blob,) in self.app.ask("SELECT blob FROM migration.files WHERE erasing")]


@pytest.fixture(scope="module")
def shared(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dropping]:
    with opened(
        frozen_app(sandbox, tmp_path_factory.mktemp("erasing"), profiles=PROFILES, per_range=1, photos=1)
    ) as app:
        yield Dropping(app)


@pytest.fixture
def app(shared: Dropping) -> Iterator[Dropping]:
    """Nothing of it is left to be erased."""
    shared.erase()
    yield shared
    shared.erase()
    assert shared.marked() == []


def end() -> None:
    raise Cut


@pytest.mark.scaled
def test_cut_off_before_any_operation_a_photo_that_comes_back_is_migrated(app: Dropping) -> None:
    for number in count(1, STEP):
        id_ = app.dropped()
        watch = Watch(number, end)
        was_cut = cut_off(lambda: app.erase(watch))  # noqa: B023 - called at once
        app.app.write(id_, [app.app.photo(id_)])
        assert app.migrate(id_).complete, watch.seen
        assert app.app.gone([id_]) == []
        assert app.marked() == []
        if not was_cut:
            break
    assert {"begin_erasing", "erase", "erased"} <= set(watch.seen)


@pytest.mark.scaled
def test_cut_off_anywhere_the_next_erasing_goes_on(app: Dropping) -> None:
    for number in count(1, STEP):
        id_ = app.dropped()
        was_cut = cut_off(lambda: app.erase(Watch(number, end)))  # noqa: B023 - called at once
        app.erase()
        assert not app.is_there(app.app.photo(id_))
        assert app.marked() == []
        assert app.app.ask("SELECT count(*) FROM migration.erased WHERE blob = %s", app.app.photo(id_)) == [(1,)]
        if not was_cut:
            break


@pytest.mark.parametrize(
    "refusal",
    [
        Permanent(Outcome.TARGET_REFUSED, "S3 answered 409 ObjectLocked"),
        Fatal("S3 answered 403 AccessDenied", setting="AWS_ACCESS_KEY_ID"),
        Transient("S3 answered 503"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_copy_that_s3_refuses_to_remove_stays_usable_and_harms_no_other(
    app: Dropping, refusal: MigrationError
) -> None:
    first, second = app.dropped(), app.dropped()

    def refuse() -> None:
        raise refusal

    done = app.erase(At("erase", refuse))
    here, gone = app.app.photo(first), app.app.photo(second)
    if isinstance(refusal, Transient):  # asked again
        assert (done.files, done.refused, app.is_there(here)) == (2, [], False)
        return
    assert (done.files, len(done.refused)) == (1, 1)
    assert refusal.args[-1 if isinstance(refusal, Permanent) else 0] in done.refused[0]
    left = [blob for blob in (here, gone) if app.is_there(blob)]
    assert len(left) == 1
    assert app.marked() == []
    id_ = first if left == [here] else second
    app.app.write(id_, left)
    assert app.migrate(id_).complete
    assert app.app.gone([id_]) == []


@pytest.mark.scaled
def test_a_reference_written_before_any_operation_leads_to_bytes_in_the_end(app: Dropping) -> None:
    for number in count(1, STEP):
        id_, other = app.dropped(), app.next()
        blob = app.app.photo(id_)

        def copy_the_url(other: int = other, blob: str = blob) -> None:
            app.app.write(other, [], [app.target_url(blob)])

        watch = Watch(number, copy_the_url)
        done = app.erase(watch)
        if number > len(watch.seen) or watch.seen[number - 1 :].count("holding") == 0:
            app.app.write(other, [])
            break  # written after the last look: of a copy that has been gone for a while
        assert done.lost == []
        assert app.app.gone([other]) == []
        assert app.is_there(blob)
        app.app.write(other, [])
    assert number > 5


def test_a_copy_that_is_referred_to_and_cannot_be_brought_back_is_named(app: Dropping) -> None:
    id_, other = app.dropped(), app.next()
    blob = app.app.photo(id_)

    def copy_the_url() -> None:
        app.app.write(other, [], [app.target_url(blob)])
        with app.app.azure() as azure:
            azure.get_blob_client(app.app.name, blob).delete_blob()

    done = app.erase(At("holding", copy_the_url, number=2))
    assert (len(done.lost), done.spared) == (1, 1)
    assert blob in done.lost[0]
    app.app.write(other, [])


def test_a_name_that_is_escaped_where_nothing_asks_for_it_is_found(app: Dropping) -> None:
    blob = "tilde~tilde~~~~~~~~~~~~~~~~~~~.jpg"
    app.app.bodies[blob] = b"tilde"
    app.app.upload(blob, b"tilde")
    app.dropped(blob)
    other = app.next()
    app.app.write(other, [], [app.target_url(blob).replace("~", "%7E")])
    done = app.erase()
    assert (done.files, done.spared) == (0, 1)
    assert app.app.gone([other]) == []
    app.app.write(other, [])
    assert app.erase().files == 1


def test_a_name_too_long_for_a_key_ends_nothing(app: Dropping) -> None:
    too_long, id_ = "l" * 1020, app.dropped()
    other = app.next()
    app.app.write(other, [too_long])
    # Cut off before it could be found too long: to the ledger it may have been copied.
    assert cut_off(lambda: migrate_range(app.app.keys[other - 1], At("unfinished", end).stores(app.app.stores), LIMITS))
    app.app.write(other, [])
    assert app.migrate(other).complete
    assert app.erase().files == 1
    assert not app.is_there(app.app.photo(id_))


def test_odd_urls_end_as_findings_of_their_own(app: Dropping) -> None:
    id_ = app.next()
    assert app.migrate(id_).complete
    base = f"{app.app.sandbox.public_base_url}/{app.app.name}/{app.app.name}"
    odd = [f"{base}/a/../../b.jpg", f"{base}/..", f"{base}/./c.jpg", f"{base}//d.jpg", f"{base}/{'l' * 1100}.jpg"]
    app.app.write(id_, ["x/../y.jpg", "..", "m" * 1024], [*odd, app.target_url(app.app.photo(id_))])
    (audited,) = app.app.audit([app.app.keys[id_ - 1]])
    shown = {example.shown for examples in audited.examples.values() for example in examples}
    assert len([url for url in odd if url in shown]) == len(odd)
    assert audited.findings["sound"] == 2  # of the photo, in the row and in the document
    app.app.write(id_, [])
