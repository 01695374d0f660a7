"""Removing blobs from the source: nothing that anybody needs ever goes, cut off anywhere, whoever interferes."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
from azure.storage.blob import BlobServiceClient, RetentionPolicy

from migration_pipeline import upkeep
from migration_pipeline.core.errors import Fatal, RangeLost, Transient
from migration_pipeline.core.removal_ports import How
from migration_pipeline.core.removal_report import Stay
from migration_pipeline.core.rollback import roll_back_range
from migration_pipeline.core.sweep import sweep_profiles
from migration_pipeline.defs.decommission import decommissioned_source
from migration_pipeline.defs.resources import Migration
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.settings import load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.frozen import MakeFrozen, frozen_app, opened
from migration_pipeline_tests.scenarios.test_interruptions import cut_off
from migration_pipeline_tests.scenarios.watched import Cut, Watch


def before(name: str, act: Callable[[], None], *, times: int = 1) -> Watch:
    """Something that happens before an operation, the first so many times."""

    class Before(Watch):
        left = times

        def _step(self, operation: str) -> None:
            if operation == name and self.left:
                self.left -= 1
                act()

    return Before()


def test_cut_before_any_operation_nothing_needed_goes_and_the_next_run_finishes(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=32, per_range=1)
    number, names = 0, list[str]()

    def end() -> None:
        raise Cut

    while True:
        number += 1
        key, watch = app.keys[number - 1], Watch(number, end)
        if not cut_off(lambda: app.decommission([key], watch=watch)):  # noqa: B023 - called at once
            break  # it has fewer operations than that
        names += watch.seen  # two that go on at once come in either order
        assert app.gone([number]) == []
        mine = {app.photo(number, photo) for photo in (0, 1)}
        # What is gone was noted before.
        assert mine - app.in_source().keys() <= app.removed().keys()
        assert app.decommission([key]).complete
        assert not mine & app.in_source().keys()
        assert {blob: ended for blob, ended in app.removed().items() if blob in mine} == dict.fromkeys(mine, True)
    assert app.gone() == []
    assert {"note", "begun", "holding", "read", "look", "describe", "begin", "needed_by", "remove", "end"} <= set(names)
    assert len(app.removed()) == 2 * number
    assert len(app.in_source()) == 2 * (32 - number)


@pytest.mark.parametrize("how", How)
def test_cut_while_a_cut_run_is_closed(make_frozen: MakeFrozen, how: How) -> None:
    app = make_frozen(profiles=1, per_range=1)

    def end() -> None:
        raise Cut

    assert cut_off(lambda: app.decommission(how=how, watch=before("end", end)))
    assert list(app.removed().values()) == [False, False]
    assert set(app.in_source().values()) == ({"Archive"} if how is How.ARCHIVE else set())
    for operation in ("look", "end"):
        assert cut_off(lambda: app.decommission(how=how, watch=before(operation, end)))  # noqa: B023 - called at once
    done = app.decommission(how=how)
    assert (done.closed, done.withdrawn, done.files) == (2, 0, 0)
    assert list(app.removed().values()) == [True, True]
    assert app.gone() == []


def test_only_one_removes_at_a_time_and_nobody_rolls_back_meanwhile(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    app.soak()
    at_it, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        at_it.set()
        assert go_on.wait(60)

    first = threading.Thread(target=lambda: app.decommission(watch=before("remove", wait)))
    first.start()
    try:
        assert at_it.wait(60)
        with pytest.raises(Fatal, match="somebody else removes blobs"):
            upkeep.remove_from_source(app.settings, app.keys, apply=True)
        with pytest.raises(Fatal, match="blobs are being removed"):
            upkeep.roll_back(app.settings, app.keys[1])
    finally:
        go_on.set()
        first.join(60)
    assert app.in_source() == {}
    assert set(app.removed().values()) == {True}
    assert len(app.removed()) == 12
    assert app.gone() == []


def test_a_rollback_at_work_keeps_blobs_from_being_removed(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    with closing(open_ledger(app.settings)) as other, other.source_kept():
        with pytest.raises(Fatal, match="rolls ranges back"):
            app.decommission()
        with other.source_kept():  # several may go back at once
            pass
    assert app.removed() == {}
    assert len(app.in_source()) == 12


def test_a_blob_whose_copy_is_not_what_was_proven_stays_and_is_named(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    corrupt, missing = app.photo(1), app.photo(4, 1)
    with app.s3() as s3:
        s3.put_object(Bucket=app.places.bucket, Key=app.key(corrupt), Body=bytes(len(app.bodies[corrupt])))
        s3.delete_object(Bucket=app.places.bucket, Key=app.key(missing))
    done = app.decommission()
    assert app.in_source().keys() == {corrupt, missing}
    assert done.examples[Stay.COPY_DIFFERS] == [(f"{app.name}/{corrupt}", "")]
    assert done.examples[Stay.COPY_MISSING] == [(f"{app.name}/{missing}", "")]
    assert (done.files, done.alarming, done.complete) == (10, 2, False)
    assert app.removed() == dict.fromkeys(app.bodies.keys() - {corrupt, missing}, True)


def test_a_reference_written_back_before_the_look_keeps_its_blob(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    blob = app.photo(2)
    # As late as can be: the tables were searched already, the range was read, and copies are.
    done = app.decommission(watch=before("describe", lambda: app.write(2, [blob])))
    assert done.examples[Stay.REFERRED_TO] == [(f"{app.name}/{blob}", "")]
    assert app.in_source().keys() == {blob}
    assert app.gone() == []


def test_a_reference_written_back_after_the_look_is_repointed_by_the_next_sweep(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    app.decommission(watch=before("remove", lambda: app.write(2, [app.photo(2, 0), app.photo(2, 1)])))
    assert app.in_source() == {}
    assert len(app.gone()) == 4  # of its row and its document; the bytes are in S3
    swept = sweep_profiles([app.stores.profiles.find([2])], app.stores)
    assert swept.late == 1
    app.migrate(sorted(swept.ranges))
    assert app.gone() == []
    found = [finding for audited in app.audit() for finding, count in audited.findings.items() if count]
    assert set(found) == {"sound"}


def test_newer_bytes_written_meanwhile_stay(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    newer, newest = app.photo(1), app.photo(2)
    app.upload(newer, b"newer")
    assert app.decommission(apply=False).reasons == {Stay.CHANGED_AT_SOURCE: 1}
    done = app.decommission(watch=before("remove", lambda: app.upload(newest, b"newest")))
    assert app.in_source().keys() == {newer, newest}
    assert {file for file, _ in done.examples[Stay.CHANGED_AT_SOURCE]} == {
        f"{app.name}/{newer}",
        f"{app.name}/{newest}",
    }
    assert not {newer, newest} & app.removed().keys()


def test_whoever_lost_the_range_removes_nothing_more(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=20, per_range=20)
    take = "UPDATE migration.ranges SET epoch = epoch + 1"
    with pytest.raises(RangeLost):
        app.decommission(watch=before("remove", lambda: app.execute(take)))
    # Those that were let in before the first of them went, at most: sixteen are under way at once.
    left = app.in_source()
    assert len(left) >= 40 - 16
    done = app.decommission()
    assert done.closed + done.withdrawn == 40
    assert done.withdrawn == len(left)
    assert app.in_source() == {}
    assert app.gone() == []


def test_the_cap_stops_it_and_the_next_run_goes_on(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    left = [12]
    for most in (5, 5, 5):
        done = app.decommission(max_delete=most)
        left.append(len(app.in_source()))
        assert done.files == left[-2] - left[-1] <= most
        assert done.capped == (left[-1] > 0)
    assert left == [12, 7, 2, 0]
    assert app.decommission(max_delete=0).complete
    with closing(open_ledger(app.settings)) as ledger:
        totals = ledger.removal.totals()
        acts = [(act.who, act.what, act.why) for act in ledger.overview.acts()]
    assert (totals.deleted, totals.archived, totals.begun) == (12, 0, 0)
    assert totals.bytes == sum(map(len, app.bodies.values()))
    assert acts == [("ann", "decommission", "the end")] * 4


def test_it_goes_no_faster_than_it_is_told(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=3, per_range=3)
    began = time.monotonic()
    assert app.decommission(per_second=4).files == 6
    assert time.monotonic() - began >= 5 / 4


def test_a_blob_that_a_range_not_audited_needs_stays(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    shared = app.photo(1)
    app.write(6, [shared])
    # The second range refers to it now, and was audited before its newest run.
    app.migrate(app.keys[1:])
    assert app.decommission(apply=False).reasons == {Stay.NEEDED_ELSEWHERE: 1}
    done = app.decommission()
    assert done.examples[Stay.NEEDED_ELSEWHERE][0][0] == f"{app.name}/{shared}"
    assert done.left == {app.keys[1]: "it was not audited since its newest run"}
    assert app.in_source().keys() == {shared, *(app.photo(id_, n) for id_ in (4, 5, 6) for n in (0, 1))}
    app.audit()
    with closing(open_ledger(app.settings)) as other, other.hold(app.keys[1], run=False):
        # Somebody is at work there: what he does is not known.
        busy = app.decommission(app.keys[:1])
        assert (busy.files, busy.reasons[Stay.NEEDED_ELSEWHERE]) == (0, 1)
    app.decommission()
    assert app.in_source() == {}
    assert app.gone() == []


def test_what_somebody_refers_to_in_any_way_stays(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=9, per_range=3)
    kept = [app.photo(id_) for id_ in range(1, 8)]
    app.execute("UPDATE profiles SET deleted_at = now(), photos = %s WHERE id = 9", json.dumps([app.url(kept[0])]))
    late = f"HTTPS://IMG.Example.com/{kept[1]}?sv=1&sig=x"
    app.execute("INSERT INTO verifications (profile_id, photo_url) VALUES (8, %s)", late)
    app.write_document(8, [{"original": app.url(kept[2])}])
    app.write_document(5, [{"original": f"{app.url(kept[4])}?snapshot=2026-01-01T00:00:00.0000000Z"}])
    app.execute("UPDATE profiles SET deleted_at = now() WHERE id = 6")
    app.write_document(6, [{"original": app.url(kept[5])}])
    app.execute("DELETE FROM profiles WHERE id = 7")
    app.write_document(7, [{"original": app.url(kept[6])}])
    app.write_document(4, [{"original": app.url(kept[3]).replace("4/0.jpg", "4/0%2e%6Apg")}])
    # Of the same range, and of a profile that never needed any file.
    kept.append(app.photo(2, 1))
    app.write(0, [])
    app.write_document(0, [{"original": app.url(kept[-1])}])
    done = app.decommission()
    assert app.in_source().keys() == set(kept)
    assert {file for file, _ in done.examples[Stay.REFERRED_TO]} == {f"{app.name}/{blob}" for blob in kept}
    assert app.gone() == []


def test_a_dry_run_says_what_would_go_and_writes_nothing(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    app.soak()
    stamps, blobs = independent.stamps(app.places, range(1, 7)), app.in_source()
    told = app.command("decommission", "--all", "--json", MIGRATION_DECOMMISSION__REQUIRE_SOFT_DELETE="true")
    assert told.returncode == 0, told.stderr
    said = json.loads(told.stdout)
    assert (said["files"], said["bytes"], said["applied"]) == (12, sum(map(len, app.bodies.values())), False)
    assert {key: found["files"] for key, found in said["ranges"].items()} == dict.fromkeys(app.keys, 6)
    assert ["does not keep deleted blobs" in text for text in said["refusals"]] == [True]
    assert app.in_source() == blobs
    assert (app.removed(), app.acts()) == ({}, [])
    assert independent.untouched(app.places, stamps) == []


def test_nothing_is_deleted_where_the_account_keeps_no_deleted_blobs(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    app.soak()
    asked = {"MIGRATION_DECOMMISSION__REQUIRE_SOFT_DELETE": "true"}
    with pytest.raises(Fatal, match=r"decommission.require_soft_delete: .* \(az storage account"):
        upkeep.remove_from_source(load({**os.environ, **app.environment, **asked}), app.keys, apply=True)
    assert (len(app.in_source()), app.removed(), app.acts()) == (12, {}, [])
    with app.azure() as azure, kept_for(azure, days=7):
        told = app.command("decommission", "--all", "--apply", "--by", "ann", "--why", "soaked", **asked)
    assert told.returncode == 0, told.stderr + told.stdout
    assert app.in_source() == {}
    assert app.acts() == [("ann", "decommission", "soaked")]
    assert app.ask("SELECT DISTINCT who, how FROM migration.removed") == [("ann", "delete")]


@contextmanager
def kept_for(azure: BlobServiceClient, *, days: int) -> Iterator[None]:
    azure.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=days))
    yield
    azure.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))


def test_while_something_holds_nothing_is_removed(make_frozen: MakeFrozen) -> None:
    app = make_frozen()
    with pytest.raises(Fatal, match="the soak is not over"):
        app.decommission(holds=["the soak is not over"])
    assert app.decommission(holds=["the soak is not over"], apply=False).refusals == ["the soak is not over"]
    assert (len(app.in_source()), app.removed()) == (12, {})


@pytest.mark.parametrize("how", How)
def test_there_is_no_rollback_afterwards(make_frozen: MakeFrozen, how: How) -> None:
    app = make_frozen()
    app.decommission(app.keys[:1], how=how)
    assert app.in_source() == {
        **({app.photo(id_, n): "Archive" for id_ in (1, 2, 3) for n in (0, 1)} if how is How.ARCHIVE else {}),
        **{app.photo(id_, n): "Hot" for id_ in (4, 5, 6) for n in (0, 1)},
    }
    stamps = independent.stamps(app.places, range(1, 4))
    ledger = app.ask("SELECT started_at, ended_at, audited_at, report FROM migration.ranges ORDER BY 1")
    with pytest.raises(Fatal, match="cannot be rolled back any more"):
        roll_back_range(app.keys[0], app.stores)
    assert independent.untouched(app.places, stamps) == []
    assert app.ask("SELECT started_at, ended_at, audited_at, report FROM migration.ranges ORDER BY 1") == ledger
    assert roll_back_range(app.keys[1], app.stores).complete
    # A profile of the other range that took over a photo of the first: its file is not there any more either.
    app.migrate(app.keys[1:])
    app.write(4, [], [f"{app.sandbox.public_base_url}/{app.key(app.photo(1))}"])
    with pytest.raises(Fatal, match="cannot be rolled back any more"):
        roll_back_range(app.keys[1], app.stores)
    assert app.gone() == []


def test_archived_first_and_deleted_later(make_frozen: MakeFrozen) -> None:
    app = make_frozen(profiles=2, per_range=2)
    assert app.decommission(how=How.ARCHIVE).files == 4
    assert set(app.in_source().values()) == {"Archive"}
    assert app.decommission(how=How.ARCHIVE).files == 0
    assert app.decommission(how=How.DELETE).files == 4
    assert app.in_source() == {}
    assert app.ask("SELECT how, count(*) FROM migration.removed GROUP BY how ORDER BY how") == [
        ("archive", 4), ("delete", 4),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["status", "lost_reply", "reset"])
def test_passing_errors_of_the_source_are_outlived(sandbox: Sandbox, tmp_path: Path, kind: Any) -> None:
    port = urlsplit(sandbox.azure_account_url).port or 0
    with FaultProxy(port) as proxy:
        account = sandbox.azure_account_url.replace(f":{port}", f":{proxy.port}")
        app = frozen_app(sandbox, tmp_path, profiles=6, per_range=3, account_url=account)
        for id_ in range(1, 7):  # as the app spells them, whose host is the proxy here
            app.write(id_, [], [app.url(app.photo(id_, n)).replace(f":{port}", f":{proxy.port}") for n in (0, 1)])
        with opened(app):
            app.migrate()
            app.audit()
            proxy.faults = [Fault(kind, 0.3, "^(DELETE|HEAD)")]
            for _ in range(10):
                try:
                    complete = app.decommission().complete
                except Transient:
                    continue  # five times in a row; what was begun is closed by the next
                if complete:
                    break
            assert proxy.happened[kind] > 0
            assert app.in_source() == {}
            assert app.removed() == dict.fromkeys(app.bodies, True)
            assert app.gone() == []


def test_the_asset_is_a_dry_run_unless_it_is_told_otherwise(
    make_frozen: MakeFrozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_frozen()
    app.soak()
    for name, value in app.environment.items():
        monkeypatch.setenv(name, value)
    with dg.instance_for_test() as instance:

        def run(**config: Any) -> dg.ExecuteInProcessResult:
            return dg.materialize(
                [decommissioned_source],
                instance=instance,
                resources={"migration": Migration()},
                run_config={"ops": {"decommissioned_source": {"config": {"by": "ann", **config}}}},
                raise_on_error=False,
            )

        dry = run()
        assert dry.success
        metadata = dry.asset_materializations_for_node("decommissioned_source")[0].metadata
        assert (metadata["blobs"].value, metadata["applied"].value, len(app.in_source())) == (12, 0, 12)
        assert not run(ranges=["no such range"], apply=True).success
        with app.s3() as s3:
            s3.delete_object(Bucket=app.places.bucket, Key=app.key(app.photo(4)))
        failed = run(ranges=app.keys[1:], apply=True, by="ann", why="soaked")
        assert not failed.success
        assert app.in_source().keys() == {app.photo(4), *(app.photo(id_, n) for id_ in (1, 2, 3) for n in (0, 1))}
        assert run(ranges=app.keys[:1], apply=True).success
        # An audit that finds the copy missing holds every range.
        app.audit()
        assert not run(ranges=app.keys[:1], apply=True).success
    assert app.in_source().keys() == {app.photo(4)}
