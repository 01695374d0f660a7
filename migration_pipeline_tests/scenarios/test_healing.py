"""Sweeps, rollbacks and removals that are cut off, overtaken or shut out: the next one heals, and nothing is hidden."""

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from migration_pipeline import cutover, upkeep
from migration_pipeline.adapters.postgres import locks
from migration_pipeline.core.copy_file import CopyLimits
from migration_pipeline.core.cutover import Phase
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.migrate import RangeReport, migrate_range
from migration_pipeline.core.rollback import LOCKED, REPLACED, roll_back_range
from migration_pipeline.core.sweep import Swept, sweep_files, sweep_profiles
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.stores import open_stores
from migration_pipeline_tests.scenarios.frozen import Frozen, MakeFrozen, frozen_app, opened
from migration_pipeline_tests.scenarios.test_erasing import At, end
from migration_pipeline_tests.scenarios.test_interruptions import cut_off
from migration_pipeline_tests.scenarios.watched import Watch

LIMITS = CopyLimits(in_flight=2, read_back="never")


@pytest.fixture(scope="module")
def app(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    with opened(frozen_app(sandbox, tmp_path_factory.mktemp("healing"), profiles=40, per_range=2, photos=1)) as made:
        yield made


@pytest.fixture(scope="module")
def pairs(app: Frozen) -> Iterator[tuple[str, int, int]]:
    """Ranges that nobody had before, each with its two profiles."""
    return zip(app.keys, range(1, 41, 2), range(2, 41, 2), strict=True)


def migrate(app: Frozen, key: str, watch: Watch | None = None) -> RangeReport:
    return migrate_range(key, (watch or Watch()).stores(app.stores), LIMITS)


def requested(app: Frozen) -> set[str]:
    return {key for (key,) in app.ask("SELECT key FROM migration.ranges WHERE requested_at IS NOT NULL")}


def flagged(app: Frozen) -> set[int]:
    return {id_ for (id_,) in app.ask("SELECT id FROM profiles WHERE photos_migrated_at IS NOT NULL")}


def test_a_full_sweep_cut_off_anywhere_leaves_nothing_that_the_next_calls_clean(
    app: Frozen, pairs: Iterator[tuple[str, int, int]]
) -> None:
    key, id_, _ = next(pairs)
    assert migrate(app, key).complete
    for number in count(1):
        blob = app.photo(id_)
        app.bodies[blob] = f"version {number}".encode()
        app.upload(blob, app.bodies[blob])
        watch = Watch(number, end)
        was_cut = cut_off(lambda: sweep_files([key], watch.stores(app.stores), Swept()))  # noqa: B023 - called at once
        sweep_files([key], app.stores, swept := Swept())
        assert key in requested(app)
        assert swept.outdated == 1 or not was_cut or "outdate" in watch.seen
        assert migrate(app, key).complete
        assert app.gone([id_]) == []
        if not was_cut:
            break
    sweep_files([key], app.stores, swept := Swept())
    assert swept.clean


def test_newer_bytes_that_an_older_release_noted_and_nobody_asked_for_are_asked_for(
    app: Frozen, pairs: Iterator[tuple[str, int, int]]
) -> None:
    key, id_, _ = next(pairs)
    blob = app.photo(id_)
    assert migrate(app, key).complete
    app.bodies[blob] = b"newer"
    app.upload(blob, b"newer")
    app.execute("UPDATE migration.files SET outcome = NULL, replaces = etag WHERE blob = %s", blob)
    sweep_files([key], app.stores, swept := Swept())
    assert (swept.outdated, swept.ranges) == (1, {key})
    assert migrate(app, key).complete
    assert app.gone([id_]) == []


def test_every_range_that_holds_an_outdated_file_is_asked_for(
    app: Frozen, pairs: Iterator[tuple[str, int, int]]
) -> None:
    (first, id_, _), (second, other, _) = next(pairs), next(pairs)
    blob = app.photo(id_)
    app.write(other, [blob])
    assert migrate(app, first).complete
    assert migrate(app, second).complete
    app.bodies[blob] = b"newer"
    app.upload(blob, b"newer")
    sweep_files([first], app.stores, swept := Swept())
    assert swept.ranges == {first, second} == requested(app) & {first, second}
    assert migrate(app, second).complete
    assert migrate(app, first).complete
    assert app.gone([id_, other]) == []


def test_a_photo_written_behind_confirms_reading_is_found_though_its_range_waits(
    app: Frozen, pairs: Iterator[tuple[str, int, int]]
) -> None:
    key, id_, other = next(pairs)
    app.write(id_, ["nobody/has/this.jpg"])
    app.write(other, [])
    late = app.photo(other)
    report = migrate(app, key, At("note_held", lambda: app.write(other, [late])))
    assert list(report.reasons()) == ["source_missing"]
    profiles = [app.stores.profiles.find([id_, other])]
    swept = sweep_profiles(profiles, app.stores)
    assert (swept.late, swept.ranges) == (1, {key})
    migrate(app, key)
    assert other in flagged(app)
    assert app.gone([other]) == []
    # Who waits is no news again and again.
    assert sweep_profiles(profiles, app.stores).clean


def test_a_sweep_by_time_finds_what_no_time_tells_of_and_says_so(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=4, per_range=4, photos=1)
    database = app.settings.database
    by_time = database.profiles.model_copy(update={"updated_at": "updated_at"})
    settings = app.settings.model_copy(update={"database": database.model_copy(update={"profiles": by_time})})
    told = ["rows of verifications, which has no updated_at", "documents"]
    assert upkeep.sweep(settings).clean  # the first looks at all
    assert upkeep.sweep(settings).unseen == told
    app.upload("late.jpg", b"late")
    app.execute("INSERT INTO verifications (profile_id, photo_url) VALUES (3, %s)", app.url("late.jpg"))
    swept = [upkeep.sweep(settings) for _ in range(2)]
    assert {id_ for item in swept for id_ in item.examples} == {3}
    assert [item.unseen for item in swept] == [told, told]
    assert upkeep.sweep(settings, full=True).unseen == ()


def test_a_flag_whose_row_stays_locked_is_told_and_the_profile_stays_as_it_is(
    app: Frozen, pairs: Iterator[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LOCK_WAIT", "20ms")
    key, id_, other = next(pairs)
    assert migrate(app, key).complete
    with psycopg.connect(app.places.database_url) as connection:
        connection.execute("SELECT FROM profiles WHERE id = %s FOR UPDATE", [id_])
        done = roll_back_range(key, app.stores)
    assert [(item.profile_id, item.reason) for item in done.left] == [(id_, LOCKED)]
    assert not done.complete
    assert flagged(app) & {id_, other} == {id_}
    # A flagged profile does not refer to the source.
    assert all("/devstoreaccount1/" not in url for url in urls(app, id_))
    assert roll_back_range(key, app.stores).complete
    assert not flagged(app) & {id_, other}
    assert app.gone([id_, other]) == []
    assert all("/devstoreaccount1/" in url for url in urls(app, id_) + urls(app, other))


def urls(app: Frozen, id_: int) -> list[str]:
    ((photos,),) = app.ask("SELECT photos FROM profiles WHERE id = %s", id_)
    return [photo["original"] for photo in photos]


def test_a_photo_that_was_replaced_in_s3_does_not_go_back_behind_it(
    app: Frozen, pairs: Iterator[tuple[str, int, int]]
) -> None:
    key, id_, other = next(pairs)
    assert migrate(app, key).complete
    with app.s3() as s3:
        s3.put_object(Bucket=app.places.bucket, Key=app.key(app.photo(id_)), Body=b"newer, by the app")
        s3.delete_object(Bucket=app.places.bucket, Key=app.key(app.photo(other)))
    done = roll_back_range(key, app.stores)
    assert [(item.profile_id, item.reason) for item in done.left] == [(id_, REPLACED)]
    (url,) = urls(app, id_)
    assert url.startswith(app.sandbox.public_base_url)
    # Where the copy is gone, the source is all there is.
    assert app.gone([other]) == []
    assert urls(app, other) == [app.url(app.photo(other))]


@pytest.mark.parametrize("operation", ["remove", "needed_by", "end"])
def test_a_removal_cut_off_before_anything_went_keeps_nobody_from_going_back(
    make_frozen: MakeFrozen, operation: str
) -> None:
    app = make_frozen(profiles=2, per_range=1, photos=1)
    app.soak()
    key = app.keys[0]
    assert cut_off(lambda: app.decommission([key], watch=At(operation, end)))
    assert list(app.removed().values()) == [False]
    went = operation == "end"
    assert (app.photo(1) in app.in_source()) is not went
    if went:
        with pytest.raises(Fatal, match="removed from the source"):
            cutover.go_back(app.settings, Phase.MIGRATE, by="ann", why="it was too early")
        with pytest.raises(Fatal, match="cannot be rolled back"):
            upkeep.roll_back(app.settings, key, by="ann")
        assert list(app.removed().values()) == [True]
        return
    cutover.go_back(app.settings, Phase.MIGRATE, by="ann", why="it was too early")
    assert app.removed() == {}
    assert upkeep.roll_back(app.settings, key, by="ann").complete
    assert urls(app, 1) == [app.url(app.photo(1))]
    assert app.gone() == []


def test_a_rollback_alone_closes_what_a_removal_was_cut_off_at(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=2, per_range=1, photos=1)
    assert cut_off(lambda: app.decommission(watch=At("remove", end)))
    with open_stores(app.settings) as stores, pytest.raises(Fatal, match="cannot be rolled back"):
        roll_back_range(app.keys[0], stores)  # which does not know whether it is gone
    assert upkeep.roll_back(app.settings, app.keys[0], by="ann").complete
    assert app.gone() == []
