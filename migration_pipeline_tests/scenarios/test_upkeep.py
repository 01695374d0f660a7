"""Looking after a migration from the command line, on real servers: sweep, erase, audit, rollback."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import boto3
import dagster as dg
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from psycopg.types.json import Jsonb

from migration_pipeline.cutover import WRITE_PATH
from migration_pipeline.defs.cutover import back_job, cutover, enter_job
from migration_pipeline.defs.requests import requested_ranges
from migration_pipeline.defs.resources import Migration
from migration_pipeline.defs.rollback import rolled_back_ranges
from migration_pipeline.defs.upkeep import (
    audited_references,
    erased_copies,
    full_sweep,
    late_references,
)
from migration_pipeline.sandbox.app import AppSize, Kind
from migration_pipeline.settings import load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World, flagged
from migration_pipeline_tests.scenarios.test_migration import work


class Migrated:
    """A world that was migrated, and what it was before."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.before = independent.references(world.places)
        self.dump = independent.dump(world.places)
        self.s3 = boto3.client("s3", endpoint_url=world.places.s3_endpoint_url, region_name="us-east-1")
        self.bucket = world.places.bucket

    def migrate(self) -> None:
        assert {complete for *_, complete in work(self.world)} == {"True"}

    def command(self, *arguments: str, **environment: str) -> tuple[int, Any]:
        done = self.world.command(*arguments, "--json", **environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout or "null")

    def plain(self, number: int = 0) -> str:
        return str(self.world.app.kinds[Kind.PLAIN][number])

    def source(self, id_: str, number: int = 0) -> tuple[str, str, str]:
        """Container, blob, and the URL that the profile had for it in the database."""
        url = [url for site, url in self.before[id_] if site == "database"][number]
        found = independent.source_of(url, self.world.places.account_url, self.world.places.alias_hosts)
        assert found is not None
        return *found, url

    def write_over(self, container: str, blob: str, body: bytes) -> None:
        places = self.world.places
        with BlobServiceClient(places.account_url, credential=places.account_key) as azure:
            azure.get_blob_client(container, blob).upload_blob(body, overwrite=True)

    def object(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def execute(self, text: str, *values: Any) -> None:
        with psycopg.connect(self.world.places.database_url) as connection:
            connection.execute(text, values)


@pytest.fixture
def migrated(make_world: MakeWorld) -> Iterator[Migrated]:
    world = make_world(AppSize(profiles=30, photos_per_profile=1, scale=0.002, bad_files=False), profiles_per_range=10)
    made = Migrated(world)
    made.migrate()
    yield made
    made.s3.close()


def test_a_reference_written_back_by_an_old_client_is_found_and_moved_again(migrated: Migrated) -> None:
    id_ = migrated.plain()
    *_, url = migrated.source(id_)
    assert migrated.command("sweep")[0] == 0
    migrated.execute("UPDATE profiles SET photos = %s WHERE id = %s", Jsonb([{"original": url}]), id_)
    code, swept = migrated.command("sweep")
    assert (code, swept["late"], len(swept["ranges"])) == (1, 1, 1)
    assert id_ not in flagged(migrated.world)
    assert [(run.partition_key, run.tags["migration/why"]) for run in requests(migrated)] == [
        (swept["ranges"][0], "late references to the source")
    ]
    migrated.migrate()
    assert id_ in flagged(migrated.world)
    assert requests(migrated) == []
    now = independent.references(migrated.world.places)[id_]
    assert [u for _, u in now if u.startswith(migrated.world.public_base_url)] == [u for _, u in now]


def requests(migrated: Migrated) -> list[dg.RunRequest]:
    """What the sensor asks Dagster for."""
    with dg.instance_for_test() as instance, patch.dict(os.environ, migrated.world.environment):
        _, found = migrated.command("status")
        assert found
        with psycopg.connect(migrated.world.places.database_url) as connection:
            keys = [row[0] for row in connection.execute("SELECT key FROM migration.ranges")]
        instance.add_dynamic_partitions("profile_ranges", keys)
        context = dg.build_sensor_context(instance, resources={"migration": Migration()})
        return [item for item in requested_ranges(context) if isinstance(item, dg.RunRequest)]  # type: ignore[union-attr]


def test_dagster_does_the_same(migrated: Migrated) -> None:
    container, blob, url = migrated.source(migrated.plain())
    migrated.execute("UPDATE profiles SET photos = %s WHERE id = %s", Jsonb([{"original": url}]), migrated.plain(1))
    migrated.s3.delete_object(Bucket=migrated.bucket, Key=f"{container}/{blob}")
    with (
        dg.instance_for_test() as instance,
        patch.dict(os.environ, migrated.world.environment),
        psycopg.connect(migrated.world.places.database_url) as connection,
    ):
        keys = [row[0] for row in connection.execute("SELECT key FROM migration.ranges ORDER BY 1")]
        instance.add_dynamic_partitions("profile_ranges", keys)
        given = {"instance": instance, "resources": {"migration": Migration()}, "raise_on_error": False}
        audits = [dg.materialize([audited_references], partition_key=key, **given) for key in keys]
        assert [audit.success for audit in audits].count(False) == 1
        (failed,) = [audit for audit in audits if not audit.success]
        (event,) = failed.filter_events(lambda e: e.event_type_value == "STEP_FAILURE")
        assert "1 stale" in str(event.event_specific_data)
        assert "dangling" in str(event.event_specific_data)
        erasing = {"ops": {"erased_copies": {"config": {"by": "ann", "apply": True}}}}
        for asset, config in ((late_references, None), (full_sweep, None), (erased_copies, erasing)):
            done = dg.materialize([asset], run_config=config, **given)
            assert done.success
        assert migrated.plain(1) not in flagged(migrated.world)
        told = {"ops": {"rolled_back_ranges": {"config": {"by": "ann", "apply": True}}}}
        back = [dg.materialize([rolled_back_ranges], partition_key=key, run_config=told, **given) for key in keys]
        # Where a URL had a SAS, or the file is gone, a profile is left.
        assert len(back) == len(keys)
        observed = instance.fetch_observations(dg.AssetKey("migrated_profiles"), limit=10).records
        assert {record.partition_key for record in observed} == set(keys)
    assert not flagged(migrated.world) & set(migrated.world.of("migrated"))


def test_the_cut_over_is_shown_and_entered_from_the_ui(migrated: Migrated) -> None:
    def told(job: dg.JobDefinition, op: str, **config: str) -> str:
        """Why the job failed; nothing where it did not."""
        done = job.execute_in_process(
            instance=instance,
            resources={"migration": Migration()},
            run_config={"ops": {op: {"config": config}}},
            raise_on_error=False,
        )
        return str([event.event_specific_data for event in done.filter_events(lambda e: e.is_step_failure)] or "")

    with dg.instance_for_test() as instance, patch.dict(os.environ, migrated.world.environment):
        assert "the write path was never examined" in told(enter_job, "enter", phase="uploads_switched")
        with closing(open_ledger(load())) as ledger:
            ledger.remember(WRITE_PATH, {"at": ledger.now().isoformat(), "failures": 0})
        assert told(enter_job, "enter", phase="uploads_switched", at="2026-03-01T02:00", by="ann") == ""
        assert "is no phase" in told(enter_job, "enter", phase="nonsense")
        shown = dg.materialize([cutover], instance=instance, resources={"migration": Migration()})
        metadata = shown.asset_materializations_for_node("cutover")[0].metadata
        assert (metadata["phase"].value, metadata["holds_left"].value) == ("uploads_switched", 1)
        assert "as a trial" in str(metadata["holds"].value)
        (check,) = shown.get_asset_check_evaluations()
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert told(back_job, "go_back", phase="prepare", why="the release was taken back", by="ann") == ""
        assert [act["why"] for act in migrated.command("acts")[1]] == ["the release was taken back", ""]


def test_only_what_was_written_since_the_last_sweep_is_looked_at(migrated: Migrated) -> None:
    profiles = json.dumps({"deleted_at": "deleted_at", "updated_at": "updated_at"})
    # Without what no time tells of: documents, and a table that has no such column.
    alone = {"MIGRATION_FIREBASE__KIND": "none", "MIGRATION_DATABASE__RELATED": "[]"}
    by_time = {"MIGRATION_DATABASE__PROFILES": profiles, **alone}
    _, first = migrated.command("sweep", **by_time)
    _, second = migrated.command("sweep", **by_time)
    assert first["profiles"] == len(alive(migrated))
    assert second["profiles"] == 0
    id_ = migrated.plain()
    *_, url = migrated.source(id_)
    migrated.execute(
        "UPDATE profiles SET photos = %s, updated_at = now() WHERE id = %s", Jsonb([{"original": url}]), id_
    )
    _, third = migrated.command("sweep", **by_time)
    assert (third["profiles"], third["late"]) == (1, 1)


def test_a_few_profiles_at_a_time_are_swept_until_all_were(migrated: Migrated) -> None:
    looked_at = [migrated.command("sweep", MIGRATION_SWEEP__PROFILES_PER_SWEEP="10")[1]["profiles"] for _ in range(5)]
    assert sum(looked_at[:3]) == len(alive(migrated))
    assert looked_at[3:] == [0, looked_at[0]]  # past the last one, and from the first one again


def alive(migrated: Migrated) -> list[str]:
    with psycopg.connect(migrated.world.places.database_url) as connection:
        return [row[0] for row in connection.execute("SELECT id::text FROM profiles WHERE deleted_at IS NULL")]


def test_a_first_photo_that_lands_late_is_moved_and_one_of_no_range_is_told(migrated: Migrated) -> None:
    """Neither profile is flagged: the one had nothing to move, and nobody planned the other."""
    *_, url = migrated.source(migrated.plain())
    empty = next(id_ for id_ in alive(migrated) if id_ not in flagged(migrated.world))
    migrated.execute("UPDATE profiles SET photos = %s WHERE id = %s", Jsonb([{"original": url}]), empty)
    migrated.execute(
        "INSERT INTO profiles (id, username, photos, updated_at) VALUES (999999, 'late', %s, now())",
        Jsonb([{"original": url}]),
    )
    code, swept = migrated.command("sweep")
    assert (code, swept["late"], swept["unplanned"], len(swept["ranges"])) == (1, 1, 1, 1)
    migrated.migrate()  # plans what is beyond the last range, too
    assert {empty, "999999"} <= flagged(migrated.world)
    assert migrated.command("sweep", "--full")[0] == 0


def test_newer_bytes_at_the_source_are_copied_and_newer_objects_left(migrated: Migrated) -> None:
    container, blob, _ = migrated.source(migrated.plain(0))
    _, other, _ = migrated.source(migrated.plain(1))
    migrated.write_over(container, blob, b"newer")
    migrated.write_over(container, other, b"newer")
    migrated.s3.put_object(Bucket=migrated.bucket, Key=f"{container}/{other}", Body=b"newest, by the app")
    code, swept = migrated.command("sweep", "--full")
    assert (code, swept["newer"]) == (1, 2)
    ended = [complete for *_, complete in work(migrated.world)]
    assert migrated.object(f"{container}/{blob}") == b"newer"
    assert migrated.object(f"{container}/{other}") == b"newest, by the app"
    assert "False" in ended
    # Of the two, the one that S3 has other bytes of waits for somebody.
    assert migrated.plain(0) in flagged(migrated.world)
    _, letters = migrated.command("dead-letters", "list")
    assert [(item["outcome"], item["file"]) for item in letters] == [("target_conflict", f"{container}/{other}")]


def test_copies_of_deleted_profiles_go_in_all_versions_and_shared_ones_stay(make_world: MakeWorld) -> None:
    world = make_world(AppSize(profiles=30, photos_per_profile=1, scale=0.002, bad_files=False), profiles_per_range=10)
    made = Migrated(world)
    made.s3.put_bucket_versioning(Bucket=made.bucket, VersioningConfiguration={"Status": "Enabled"})
    made.migrate()
    container, blob, _ = made.source(made.plain())
    # Two versions of ours, and one that the app put on top.
    made.write_over(container, blob, b"newer")
    made.command("sweep", "--full")
    made.migrate()
    key = f"{container}/{blob}"
    made.s3.put_object(Bucket=made.bucket, Key=key, Body=b"the app's own")
    shared = [str(id_) for id_ in world.app.kinds[Kind.SHARED][:2]]
    for id_ in (made.plain(), shared[0]):
        made.execute("DELETE FROM verifications WHERE profile_id = %s", id_)
        made.execute("DELETE FROM profiles WHERE id = %s", id_)
        delete_document(world, id_)
    made.migrate()
    listed = made.command("erase", MIGRATION_ERASE__AFTER_HOURS="0")[1]
    assert listed
    assert made.command("erase", "--apply")[1]["files"] == 0  # not a day has passed
    code, erased = made.command("erase", "--apply", MIGRATION_ERASE__AFTER_HOURS="0")
    assert (code, erased["spared"], erased["unproven"]) == (0, 0, [])
    assert erased["files"] == len(listed)
    versions = made.s3.list_object_versions(Bucket=made.bucket, Prefix=key)
    assert len(versions["Versions"]) == 1
    assert "DeleteMarkers" not in versions
    assert made.object(key) == b"the app's own"
    now = independent.references(world.places)
    assert independent.check_urls({u for _, u in now[shared[1]] if u.startswith(world.public_base_url)}) == []
    left = [url for id_, held in now.items() for _, url in held if url.startswith(world.public_base_url)]
    assert independent.check_urls(set(left)) == []
    with psycopg.connect(world.places.database_url) as connection:
        rows = connection.execute("SELECT key, removed FROM migration.erased").fetchall()
    assert (key, 2) in rows
    assert len(rows) == len(listed)
    assert made.command("audit")[1]["findings"]["dangling"] == 0
    made.s3.close()


def delete_document(world: World, id_: str) -> None:
    with independent._firestore(world.places) as client:  # noqa: SLF001 - of these tests' own
        client.document(f"profiles/{id_}").delete()


def test_an_audit_finds_each_thing_that_is_wrong(migrated: Migrated) -> None:
    code, audited = migrated.command("audit")
    assert code < 3
    for name in ("dangling", "corrupt", "stale", "orphan_copy"):
        assert audited["findings"][name] == 0
    assert audited["findings"]["sound"] > 200
    assert (code, audited["findings"]["drifted"]) == (0, 0)
    orphans = forget_photos(migrated, migrated.plain(4))
    drifted = put_into_document(migrated, of=migrated.plain(5), into=migrated.plain(6))
    code, audited = migrated.command("audit")
    # Somebody should look, and no user sees anything.
    assert code == 1
    assert shown(audited, "drifted") == {drifted}
    assert {item["shown"] for item in audited["examples"] if item["finding"] == "orphan_copy"} == orphans
    assert (audited["findings"]["drifted"], audited["findings"]["orphan_copy"]) == (1, len(orphans))
    missing, corrupt, changed = (migrated.source(migrated.plain(n)) for n in range(3))
    *_, late = migrated.source(migrated.plain(3))
    migrated.s3.delete_object(Bucket=migrated.bucket, Key="/".join(missing[:2]))
    migrated.s3.put_object(Bucket=migrated.bucket, Key="/".join(corrupt[:2]), Body=b"damaged")
    migrated.write_over(*changed[:2], b"newer")
    migrated.execute("UPDATE profiles SET photos = %s WHERE id = %s", Jsonb([{"original": late}]), migrated.plain(3))
    for how in ((), ("--read",)):
        code, audited = migrated.command("audit", *how)
        assert code == 3
        assert shown(audited, "dangling") == {"/".join(missing[:2])}
        assert shown(audited, "corrupt") == {"/".join(corrupt[:2])}
        assert {"/".join(changed[:2])} < shown(audited, "stale")


def forget_photos(migrated: Migrated, id_: str) -> set[str]:
    """Take the photos out of a row and its document; the keys of the copies that nobody refers to from now on."""
    urls = {url for site, url in independent.references(migrated.world.places)[id_] if site == "firebase"}
    migrated.execute("UPDATE profiles SET photos = '[]' WHERE id = %s", id_)
    with independent._firestore(migrated.world.places) as client:  # noqa: SLF001 - of these tests' own
        client.document(f"profiles/{id_}").update({"photos": []})
    return {unquote(url.removeprefix(f"{migrated.world.public_base_url}/")) for url in urls}


def put_into_document(migrated: Migrated, *, of: str, into: str) -> str:
    """Have a document name a file that its row does not; the file's key."""
    url = next(url for site, url in independent.references(migrated.world.places)[of] if site == "firebase")
    with independent._firestore(migrated.world.places) as client:  # noqa: SLF001 - of these tests' own
        document = client.document(f"profiles/{into}")
        document.update({"photos": [*document.get().to_dict()["photos"], {"original": url}]})
    return "/".join(url.split("/")[4:])


def shown(audited: Any, finding: str) -> set[str]:
    """Container and blob of a finding's examples."""
    urls = [item["shown"] for item in audited["examples"] if item["finding"] == finding]
    return {"/".join(url.split("/")[4:]) for url in urls}


def test_rolled_back_everything_is_as_before_and_can_be_migrated_again(migrated: Migrated) -> None:
    world = migrated.world
    new_url = f"{world.public_base_url}/uploads/new.jpg"
    migrated.s3.put_object(Bucket=migrated.bucket, Key="uploads/new.jpg", Body=b"new")
    migrated.execute(
        "UPDATE profiles SET photos = jsonb_insert(photos, '{0}', %s) WHERE id = %s",
        Jsonb({"original": new_url}),
        migrated.plain(),
    )
    assert world.command("rollback", "--all").returncode == 0
    assert flagged(world)  # it only said what it would do
    code, told = migrated.command("rollback", "--all", "--apply")
    assert code == 1
    assert {item["reason"].split(";")[0] for item in told["left"]} == {"its URL had a SAS, which is not kept"}
    code, told = migrated.command("rollback", "--all", "--apply", "--without-queries")
    assert (code, told["left"]) == (0, [])
    assert not flagged(world) & set(world.of("migrated"))
    dump = independent.dump(world.places)
    row = dump["profiles"][migrated.plain()]
    assert new_url in row[1]
    photos = [item for item in json.loads(row[1]) if item != {"original": new_url}]
    dump["profiles"][migrated.plain()] = (row[0], json.dumps(photos), *row[2:])
    assert canonical(dump, world) == canonical(migrated.dump, world)
    assert migrated.command("status")[1]["ranges"]["rolled_back"] == 3
    migrated.migrate()
    assert set(world.of("migrated")) <= flagged(world)
    assert migrated.command("status")[1]["ranges"]["rolled_back"] == 0


def canonical(dump: Any, world: World) -> Any:
    """Every URL of the source as the blob that it names; spellings and query strings are not kept."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if not isinstance(value, str):
            return value
        if value.startswith("["):
            return plain(json.loads(value, parse_int=str, parse_float=str))
        found = independent.source_of(value, world.places.account_url, world.places.alias_hosts)
        return list(found) if found else value

    return plain({name: dict(rows) for name, rows in dump.items()})


def test_what_changed_at_the_source_does_not_go_back(migrated: Migrated) -> None:
    container, blob, _ = migrated.source(migrated.plain())
    migrated.write_over(container, blob, b"newer")
    code, told = migrated.command("rollback", "--all", "--apply", "--without-queries")
    assert code == 1
    assert {(item["file"], item["reason"]) for item in told["left"]} == {
        (f"{container}/{blob}", "the source was written after it was copied")
    }
    now = independent.references(migrated.world.places)[migrated.plain()]
    key = f"{migrated.world.public_base_url}/{container}/{blob}"
    assert key in [url for _, url in now]
    assert independent.check_urls([key]) == []


def test_without_firebase_all_of_it_works(make_world: MakeWorld) -> None:
    size = AppSize(profiles=12, photos_per_profile=1, scale=0.002, bad_files=False)
    world = make_world(size, profiles_per_range=20)
    none = replace(world, environment={**world.environment, "MIGRATION_FIREBASE__KIND": "none"})
    made = Migrated(none)
    stamps = independent.stamps(world.places, made.before)
    made.migrate()
    for command in (["sweep"], ["sweep", "--full"], ["erase"], ["erase", "--apply"]):
        assert made.command(*command)[0] == 0
    assert made.command("audit")[0] == 0
    assert made.command("rollback", "--all", "--apply", "--without-queries")[0] == 0
    after = independent.stamps(world.places, made.before)
    assert {id_: stamp.document for id_, stamp in after.items()} == {id_: s.document for id_, s in stamps.items()}
