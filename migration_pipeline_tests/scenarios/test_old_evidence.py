"""What an earlier run proved of a copy is no proof today: others remove, replace and archive objects in S3."""

import json
from collections.abc import Iterator

import pytest

from migration_pipeline.core.confirm import NOT_RENEWED
from migration_pipeline.core.copy_file import CopyLimits
from migration_pipeline.core.errors import Transient
from migration_pipeline.core.migrate import RangeReport, migrate_range
from migration_pipeline.core.sweep import sweep_profiles
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.scenarios.frozen import Frozen, frozen_app, opened
from migration_pipeline_tests.scenarios.watched import Watch

LIMITS = CopyLimits(in_flight=2, max_attempts=2, patience=0, read_back="never")


class Old:
    """An app of which every profile is a range of its own; a test takes profiles that nobody had before."""

    def __init__(self, app: Frozen) -> None:
        self.app, self._ids = app, iter(range(1, len(app.keys) + 1))

    def migrated(self) -> int:
        """A profile whose files were copied by an earlier run."""
        id_ = next(self._ids)
        assert self.run(id_).complete
        return id_

    def names(self, *blobs: str) -> int:
        """Another profile, which names these blobs of the source and no others."""
        id_ = next(self._ids)
        self.app.write(id_, blobs)
        return id_

    def run(self, id_: int, watch: Watch | None = None) -> RangeReport:
        watch = watch or Watch()
        return migrate_range(self.app.keys[id_ - 1], watch.stores(self.app.stores), LIMITS)

    def remove(self, blob: str) -> None:
        with self.app.s3() as s3:
            s3.delete_object(Bucket=self.app.places.bucket, Key=self.app.key(blob))

    def put(self, blob: str, body: bytes, storage_class: str = "STANDARD") -> None:
        with self.app.s3() as s3:
            s3.put_object(Bucket=self.app.places.bucket, Key=self.app.key(blob), Body=body, StorageClass=storage_class)

    def held(self, id_: int) -> list[str]:
        ((photos,),) = self.app.ask("SELECT photos::text FROM profiles WHERE id = %s", id_)
        return [photo["original"] for photo in json.loads(photos)]

    def letters(self, blob: str) -> list[str]:
        return [outcome for (outcome,) in self.app.ask("SELECT outcome FROM migration.files WHERE blob = %s", blob)]


@pytest.fixture(scope="module")
def old(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    with opened(frozen_app(sandbox, tmp_path_factory.mktemp("old"), profiles=16, per_range=1, photos=1)) as app:
        yield Old(app)


def test_a_shared_file_that_the_app_removed_from_s3_is_copied_again(old: Old) -> None:
    blob = old.app.photo(old.migrated())
    second = old.names(blob)
    old.remove(blob)
    report = old.run(second)
    assert (report.complete, report.transferred.copied) == (True, 1)
    assert old.app.gone([second]) == []
    assert old.held(second)[0].startswith(old.app.sandbox.public_base_url)


def test_an_old_url_written_back_is_re_pointed_to_bytes(old: Old) -> None:
    id_ = old.migrated()
    old.remove(old.app.photo(id_))
    old.app.write(id_, [old.app.photo(id_)])
    swept = sweep_profiles([old.app.stores.profiles.find([id_])], old.app.stores)
    assert swept.late == 1
    assert old.run(id_).transferred.copied == 1
    assert old.app.gone([id_]) == []


def test_what_a_rule_archived_is_waited_for_and_taken_once_it_is_read_again(old: Old) -> None:
    blob = old.app.photo(old.migrated())
    second = old.names(blob)
    body = old.app.bodies[blob]
    old.put(blob, body, "GLACIER")
    report = old.run(second)
    assert list(report.reasons()) == ["target_archived"]
    assert old.held(second) == [old.app.url(blob)]
    assert old.letters(blob) == ["target_archived"]
    (audited,) = old.app.audit([old.app.keys[old.app.keys.index(report.key) - 1]])
    assert audited.findings["dangling"] == 2  # of the first profile, in its row and its document
    old.put(blob, body)
    # Even if the source is gone by now.
    with old.app.azure() as azure:
        azure.get_blob_client(old.app.name, blob).delete_blob()
    assert old.run(second).complete
    assert old.app.gone([second]) == []


def test_what_was_replaced_in_place_is_neither_referred_to_nor_touched(old: Old) -> None:
    blob = old.app.photo(old.migrated())
    second = old.names(blob)
    old.put(blob, b"newer, by the app")
    report = old.run(second)
    assert list(report.reasons()) == ["target_conflict"]
    assert old.held(second) == [old.app.url(blob)]
    with old.app.s3() as s3:
        there = s3.get_object(Bucket=old.app.places.bucket, Key=old.app.key(blob))["Body"].read()
    assert there == b"newer, by the app"


def test_a_copy_that_is_as_it_was_costs_one_question_and_a_new_one_none(old: Old) -> None:
    first = Watch()
    id_ = next(old._ids)  # noqa: SLF001 - one that was not migrated yet
    old.run(id_, first)
    assert first.seen.count("describe") == 0
    second, again = old.names(old.app.photo(id_)), Watch()
    assert old.run(second, again).complete
    assert [again.seen.count(name) for name in ("describe", "create")] == [1, 0]
    # Nothing is to be re-pointed any more: nothing is asked.
    idle = Watch()
    assert old.run(second, idle).complete
    assert idle.seen.count("describe") == 0


def test_a_reference_that_comes_back_behind_discovery_waits_for_the_look(old: Old) -> None:
    id_ = old.migrated()
    blob = old.app.photo(id_)

    def come_back() -> None:
        old.remove(blob)
        old.app.write(id_, [blob])

    class Behind(Watch):
        def _step(self, name: str) -> None:
            super()._step(name)
            if name == "unfinished" and self.seen.count(name) == 1:
                come_back()

    assert old.run(id_, Behind()).complete
    assert old.app.gone([id_]) == []


def test_what_could_not_be_looked_at_is_neither_relied_on_nor_forgotten(old: Old) -> None:
    blob = old.app.photo(old.migrated())
    second = old.names(blob)

    class Away(Watch):
        def _step(self, name: str) -> None:
            super()._step(name)
            if name == "describe":
                raise Transient("S3 answered 503", overload=True)

    report = old.run(second, Away())
    assert list(report.reasons()) == [NOT_RENEWED]
    assert old.held(second) == [old.app.url(blob)]
    assert old.letters(blob) == ["copied"]
    with old.app.azure() as azure:  # the copy alone is left
        azure.get_blob_client(old.app.name, blob).delete_blob()
    assert old.run(second).complete
    assert old.app.gone([second]) == []


def test_a_copy_and_its_source_that_are_gone_leave_the_reference_as_it_is(old: Old) -> None:
    blob = old.app.photo(old.migrated())
    second = old.names(blob)
    old.remove(blob)
    with old.app.azure() as azure:
        azure.get_blob_client(old.app.name, blob).delete_blob()
    assert list(old.run(second).reasons()) == ["source_missing"]
    assert old.held(second) == [old.app.url(blob)]
    old.put(blob, old.app.bodies[blob])
    assert old.run(second).complete
    assert old.app.gone([second]) == []
