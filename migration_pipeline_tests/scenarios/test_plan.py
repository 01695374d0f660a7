"""Planning on real servers: what is estimated, that nothing is written, and ranges for profiles that came later."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)

from migration_pipeline.commands import migrate as migrating
from migration_pipeline.core import estimate as estimating
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.estimate import Estimate, Prices
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.sample import SampledFiles, sample
from migration_pipeline.core.urls import UrlKind
from migration_pipeline.defs.new_ranges import INTERVAL, new_ranges
from migration_pipeline.defs.ranges import profile_ranges, profile_ranges_partitions
from migration_pipeline.defs.resources import Migration
from migration_pipeline.planning import estimate, keep, plan
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.sandbox.photo_files import CONTAINERS
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_documents, open_index, open_ledger, url_rules
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World


def test_a_plan_says_what_there_is_and_writes_nothing(make_world: MakeWorld) -> None:
    world = make_world(AppSize(profiles=60, photos_per_profile=2, scale=0.01), profiles_per_range=10)
    before = everything(world)
    done = world.command("plan", "--json", **reader(world))
    assert done.returncode == 0, done.stderr
    assert everything(world) == before

    said, counts = json.loads(done.stdout), world.app.counts
    assert said["sampled"]["profiles"] == said["profiles"] == counts.profiles
    assert said["profiles_with_files"] == len(world.of("migrated")) + len(world.of("waiting"))
    assert said["references"]["source"] == counts.references
    assert said["references"]["target"] > 0
    # Four files more for each that neighbours share.
    assert counts.wanted <= said["files"] <= 1.05 * counts.wanted
    sizes = wanted_sizes(world)
    assert said["bytes"] == pytest.approx(sum(sizes), rel=0.3)
    assert said["requests"]["source_reads"] == pytest.approx(counts.wanted, rel=0.05)
    assert said["failing"].keys() <= {"source_missing", "too_long_key"}
    assert len(said["new"]) == said["ranges"] == 6
    assert said["examples"]["foreign"]
    # Two workers copy 400 files a second, and each takes three seconds to start the run of a range.
    assert said["seconds"] == pytest.approx(said["files"] / 400 + 6 * 3 / 2, rel=0.1)
    assert (said["currency"], said["last_estimate"]) == ("USD", None)
    assert "assumption" in said["speed_is"]
    assert "assumption" in said["cpu_is"]
    # Those that cannot be copied are asked for, too.
    assert 1_000_000 <= said["million_files"]["requests"]["source_reads"] <= 1_200_000
    assert said["million_files"]["gigabytes"] == pytest.approx(sum(sizes) / len(sizes) / 1000, rel=0.3)
    assert not [
        text for text in (done.stdout, done.stderr) for secret in (*world.app.secrets, "sig=") if secret in text
    ]

    fewer = world.command("plan", "--json", MIGRATION_PLAN__RANGES="3", **reader(world))
    assert (json.loads(fewer.stdout)["ranges"], json.loads(fewer.stdout)["profiles_per_range"]) == (3, 20)

    shown = world.command("plan", **reader(world))
    assert (shown.returncode, "Nothing was kept." in shown.stdout) == (0, True), shown.stderr
    assert everything(world) == before


def test_half_of_the_profiles_stand_for_all(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(AppSize(profiles=120, photos_per_profile=1, scale=0.002), profiles_per_range=20)
    settings = settings_of(world, monkeypatch)
    with closing(open_index(settings)) as index, open_documents(settings) as documents:
        sampled = sample(index, documents, url_rules(settings), limit=60)
    assert sampled.profiles == 60
    speed = estimating.bounded(None, 2, requests_per_second=100, bytes_per_second=None, documents_per_second=10)
    expected: Estimate = estimating.estimate(
        sampled, SampledFiles(sizes=[1000]), 120, read_back="never", speed=speed, prices=Prices(1, 1, 1, 1)
    )
    counts = world.app.counts
    assert expected.files == pytest.approx(counts.wanted, rel=0.35)
    assert expected.references[UrlKind.SOURCE] == pytest.approx(counts.references, rel=0.35)
    assert expected.bytes == 1000 * expected.files
    assert 0 < expected.files_off < 0.35
    # A hundred requests a second to each store, and ten documents by both workers together.
    assert expected.seconds == pytest.approx(expected.files / 100 + expected.documents / 10, rel=0.01)
    assert "copy.requests_per_second" in expected.speed.why


def test_some_ranges_to_begin_with(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(AppSize(profiles=1, photos_per_profile=1, scale=0.002))
    settings = settings_of(world, monkeypatch)
    with pytest.raises(Fatal, match="no range is planned"):
        migrating.choose(settings, (), also_done=False, first=1)
    ranges = [ProfileRange(f"{n:02d}", n, n - 1, n, 1) for n in range(1, 13)]
    with closing(open_ledger(settings, create=True)) as ledger:
        ledger.add_ranges(ranges)
        for done in ("01", "02"):
            with ledger.hold(done) as (_, held):
                held.finish({"waiting": 0})

    def chosen(*named: str, first: int | None = None, some: int | None = None, also_done: bool = False) -> list[str]:
        return migrating.choose(settings, named, also_done=also_done, first=first, sample=some).keys

    assert chosen(first=3) == ["03", "04", "05"]
    assert chosen(first=3, also_done=True) == ["01", "02", "03"]
    assert chosen(some=2) == ["05", "10"]
    assert chosen(some=5) == ["04", "06", "08", "10", "12"]
    assert chosen(some=1) == ["08"]
    assert chosen(some=99) == chosen(first=99) == chosen() == [f"{n:02d}" for n in range(3, 13)]
    for wrong in (lambda: chosen("03", first=1), lambda: chosen("03", some=1), lambda: chosen(first=1, some=1)):
        with pytest.raises(Fatal, match="exclude"):
            wrong()


class Ticking:
    """The sensor, tick by tick, on an instance of its own."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.cursor = instance, None

    def tick(self, *, later: timedelta = timedelta()) -> list[str]:
        """The partitions that the tick adds; time passes by setting the cursor's clock back."""
        if self.cursor and later:
            newest, since = json.loads(self.cursor)
            self.cursor = json.dumps([newest, (datetime.fromisoformat(since) - later).isoformat()])
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"migration": Migration()}
        )
        result = new_ranges(context)
        if isinstance(result, dg.SkipReason):
            return [str(result.skip_message)]
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        added = [key for request in result.dynamic_partitions_requests or () for key in request.partition_keys]
        self.instance.add_dynamic_partitions(str(profile_ranges_partitions.name), added)
        return added


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[Ticking]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Ticking(instance)


def test_new_profiles_get_ranges_when_there_are_enough(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, ticking: Ticking
) -> None:
    world = make_world(AppSize(profiles=5, photos_per_profile=1, scale=0.002), profiles_per_range=20)
    settings = settings_of(world, monkeypatch)
    assert ticking.tick() == ["No range is planned yet: materialize profile_ranges first."]
    planned = plan(settings)
    keep(planned, settings)
    # The plan was cut off before its partition was made.
    assert ticking.tick() == planned.keys
    assert ticking.tick() == []

    def come(first: int, last: int) -> None:
        with psycopg.connect(world.places.database_url) as connection:
            connection.execute(
                "INSERT INTO profiles (id, username, bio, updated_at)"
                " SELECT n, 'u', '', now() FROM generate_series(%s::int, %s::int) n",
                [first, last],
            )

    come(5001, 5045)
    whole = ticking.tick()
    assert [key[11:] for key in whole] == ["0000005020", "0000005040"]
    assert ticking.tick() == []  # five are left, and came just now
    assert ticking.tick(later=INTERVAL) == ["0000005041-0000005045"]
    come(5046, 5049)
    assert ticking.tick(later=INTERVAL) == []
    assert ticking.tick(later=INTERVAL) == []  # four of twenty make no range of their own
    come(5050, 5070)
    assert ticking.tick() == ["0000005046-0000005065"]
    with closing(open_ledger(settings)) as ledger:
        kept = [item.key for item in ledger.ranges()]
    monkeypatch.setenv("DATABASE_URL", f"{world.places.database_url}_gone")
    (said,) = ticking.tick()
    assert said.startswith("No range can be planned now: DATABASE_URL: ")
    assert kept == sorted(ticking.instance.get_dynamic_partitions(str(profile_ranges_partitions.name)))


def test_the_asset_plans_and_says_what_to_expect(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, ticking: Ticking
) -> None:
    world = make_world(AppSize(profiles=5, photos_per_profile=1, scale=0.002), profiles_per_range=2)
    settings_of(world, monkeypatch)
    done = dg.materialize([profile_ranges], instance=ticking.instance, resources={"migration": Migration()})
    (made,) = done.asset_materializations_for_node("profile_ranges")
    said = {name: value.value for name, value in made.metadata.items()}
    assert (said["ranges"], said["profiles"], said["largest_range"]) == (3, 5, 2)
    assert said["files"] == said["target_requests"] == world.app.counts.wanted
    assert said["references_source"] == world.app.counts.references
    assert "hours" in str(said["cost_per_million_files"])
    assert len(ticking.instance.get_dynamic_partitions(str(profile_ranges_partitions.name))) == 3
    assert str(said["cost_once"]).endswith(" USD")
    assert "last_estimate" not in said
    settings = load()
    expected, _ = estimate(settings, plan(settings))
    assert "assumption" in expected.speed.why
    assert "assumption" in expected.cpu_is
    # Ranges that have ended say how fast it goes, and what a file needs: the run that copied some can tell.
    with closing(open_ledger(settings)) as ledger:
        for item, copied in zip(ledger.ranges(), (0, 2000), strict=False):
            with ledger.hold(item.key) as (_, held):
                held.finish({"copied": copied, "cpu_seconds": {"transfer": 1.5, "confirm": 0.5}, "waiting": 0})
        ledger.query("UPDATE {s}.ranges SET started_at = ended_at - interval '40 seconds' WHERE ended_at IS NOT NULL")
    expected, _ = estimate(settings, plan(settings))
    assert (expected.speed.files, expected.speed.why) == (50, "as the ranges took that have ended")
    assert expected.seconds == pytest.approx(expected.files / 50)
    done = dg.materialize([profile_ranges], instance=ticking.instance, resources={"migration": Migration()})
    (made,) = done.asset_materializations_for_node("profile_ranges")
    assert ": 40 s of work instead of " in str(made.metadata["last_estimate"].value)
    assert (expected.cpu_is, expected.cpu_seconds) == (
        "as measured for 2,000 files",
        pytest.approx(0.001 * said["files"]),
    )


def settings_of(world: World, patch: pytest.MonkeyPatch) -> Settings:
    """The world's settings, in this process."""
    for name, value in world.environment.items():
        patch.setenv(name, value)
    return load()


def reader(world: World) -> dict[str, str]:
    """An environment whose credentials may read, and nothing else."""
    role = f"reader_{world.places.bucket}"
    database = world.places.database_url.rpartition("/")[2]
    with psycopg.connect(world.places.database_url, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    sas = generate_account_sas(
        world.places.account_url.rpartition("/")[2],
        account_key=world.environment["AZURE_STORAGE_KEY"],
        resource_types=ResourceTypes(container=True, object=True),
        permission=AccountSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    host = world.places.database_url.split("@")[1].split("/")[0]
    return {
        "DATABASE_URL": f"postgresql://{role}@{host}/{database}",
        "AZURE_STORAGE_KEY": "",
        "AZURE_STORAGE_SAS_TOKEN": sas,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }


def everything(world: World) -> dict[str, object]:
    """All that the stores hold: relations and rows of the database, documents, objects."""
    with psycopg.connect(world.places.database_url) as connection:
        names = connection.execute(
            "SELECT oid::regclass::text, relkind FROM pg_class"
            " WHERE relnamespace::regnamespace::text !~ '^(pg_|information_)' ORDER BY 1"
        ).fetchall()
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_temp|^pg_toast' ORDER BY 1"
        )
        held: dict[str, object] = {"names": names, "schemas": schemas.fetchall()}
        for name, kind in names:
            if kind == "r":
                # With the transaction that wrote each row: an update to the same values would show.
                rows = connection.execute(f"SELECT xmin::text, t::text FROM {name} t ORDER BY 2").fetchall()
                held[name] = rows
    held["documents"] = independent.dump(world.places)
    with closing(independent._s3(world.places)) as s3:  # noqa: SLF001 - of these tests' own
        listed = s3.list_objects_v2(Bucket=world.places.bucket).get("Contents", [])
        held["objects"] = [(item["Key"], item["ETag"], item["LastModified"]) for item in listed]
        held["uploads"] = s3.list_multipart_uploads(Bucket=world.places.bucket).get("Uploads", [])
    return held


def wanted_sizes(world: World) -> list[int]:
    """Bytes of every file that a profile which is to be migrated names at the source."""
    account, aliases = world.places.account_url, world.places.alias_hosts
    held = independent.references(world.places)
    moving = [*world.of("migrated"), *world.of("waiting")]
    wanted = {independent.source_of(url, account, aliases) for id_ in moving for _, url in held.get(id_, ())}
    sizes = {}
    with BlobServiceClient(account, credential=world.environment["AZURE_STORAGE_KEY"]) as client:
        for container in CONTAINERS:
            for blob in client.get_container_client(container).list_blobs():
                sizes[container, blob.name] = blob.size
    return [sizes[file] for file in wanted if file in sizes]
