"""Taking stock on real servers: what is found, going on after a kill, exact plans, and what becomes of orphans."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import boto3
import dagster as dg
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from migration_pipeline.cli.main import main
from migration_pipeline.core.inventory import Found
from migration_pipeline.defs.inventory import orphan_copies, source_inventory
from migration_pipeline.defs.resources import Migration
from migration_pipeline.inventory import copy_orphans, take_stock
from migration_pipeline.planning import estimate, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.sandbox.photo_files import CONTAINERS, PHOTOS
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import World, new_world

File = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Shop:
    """A world with blobs of its own beside the app's: one archived that a profile refers to, and some of nobody.

    Attributes:
        archived: the needed one.
        orphans: names and bytes of those that nobody refers to.
    """

    world: World
    photos: ContainerClient
    archived: File
    orphans: dict[str, bytes]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Of its own: everything that is in the source counts here, other tests' blobs too."""
    with Sandbox() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def shop(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    world = new_world(
        sandbox,
        tmp_path_factory.mktemp("inventory"),
        AppSize(profiles=60, photos_per_profile=2, scale=0.01),
        profiles_per_range=20,
    )
    mine = uuid4().hex[:8]
    archived, orphans = f"{mine}/archived.jpg", {f"{mine}/orphan {n}.jpg": os.urandom(100 + n) for n in range(12)}
    orphans[f"{mine}//a%2Fb\u00e9.jpg"] = b"odd"
    with BlobServiceClient(sandbox.azure_account_url, credential=world.environment["AZURE_STORAGE_KEY"]) as azure:
        photos = azure.get_container_client(PHOTOS)
        photos.upload_blob(archived, b"cold").set_standard_blob_tier("Archive")
        for name, body in orphans.items():
            photos.upload_blob(name, body)
        with psycopg.connect(world.places.database_url) as connection:
            url = json.dumps([{"original": f"{sandbox.azure_account_url}/{PHOTOS}/{archived}"}])
            connection.execute(
                "UPDATE profiles SET photos = (photos::jsonb || %s::jsonb) WHERE id::text = %s",
                [url, world.of("migrated")[0]],
            )
        yield Shop(world, photos, (PHOTOS, archived), orphans)
        for name in (archived, *orphans):
            photos.delete_blob(name)


@pytest.fixture
def settings(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in shop.world.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIGRATION_INVENTORY__ORPHAN_AFTER_HOURS", "0")
    return load()


@dataclass(frozen=True, slots=True)
class Truth:
    """What code that shares nothing with the product finds.

    Attributes:
        held: size and tier of every blob.
        wanted: files that profiles which are not deleted refer to at the source, for each profile.
        known: files that anybody refers to, at either store.
    """

    held: dict[File, tuple[int, str]]
    wanted: dict[str, set[File]]
    known: set[File]

    @property
    def to_move(self) -> set[File]:
        return set().union(*self.wanted.values())

    @property
    def too_long(self) -> set[File]:
        return {file for file in self.to_move if len("/".join(file).encode()) > 1024}


def truth(shop: Shop) -> Truth:
    world = shop.world
    account, aliases = world.places.account_url, world.places.alias_hosts
    with BlobServiceClient(account, credential=world.environment["AZURE_STORAGE_KEY"]) as azure:
        held = {
            (container, blob.name): (blob.size, blob.blob_tier)
            for container in CONTAINERS
            for blob in azure.get_container_client(container).list_blobs()
        }
    with psycopg.connect(world.places.database_url) as connection:
        deleted = {row[0] for row in connection.execute("SELECT id::text FROM profiles WHERE deleted_at IS NOT NULL")}
    wanted: dict[str, set[File]] = {}
    known: set[File] = set()
    for profile, urls in independent.references(world.places).items():
        for _, url in urls:
            source = independent.source_of(url, account, aliases)
            if source is not None:
                known.add(source)
                if profile not in deleted:
                    wanted.setdefault(profile, set()).add(source)
            elif url.startswith(f"{world.public_base_url}/"):
                container, _, blob = unquote(url.removeprefix(f"{world.public_base_url}/")).partition("/")
                known.add((container, blob))
    return Truth(held, wanted, known)


def compare(found: Found, seen: Truth) -> None:
    to_move, there = seen.to_move - seen.too_long, set(seen.held)
    cold = {file for file, (_, tier) in seen.held.items() if tier == "Archive"}
    good = (to_move & there) - cold
    assert (found.blobs, found.size) == (len(there), sum(size for size, _ in seen.held.values()))
    assert (found.files, found.bytes) == (len(seen.to_move), sum(seen.held[file][0] for file in good))
    assert (found.missing, found.too_long) == (len(to_move - there), len(seen.too_long))
    assert (found.archived, found.archived_needed) == (len(cold), len(cold & to_move))
    assert (found.orphans, found.young) == (len(there - seen.known), 0)
    assert {tuple(item.file) for item in found.examples["missing"]} == to_move - there
    assert {tuple(item.file) for item in found.examples["archived"]} == cold & to_move


def test_what_is_missing_archived_or_of_nobody(shop: Shop, settings: Settings) -> None:
    found, seen = take_stock(settings), truth(shop)
    compare(found, seen)
    assert found.missing == found.archived_needed == found.too_long == 1
    orphans = {(PHOTOS, name) for name in shop.orphans}
    assert orphans <= set(seen.held) - seen.known
    assert found.only_deleted == len(set(seen.held) & seen.known - seen.to_move - in_target(seen, shop))
    (held,) = [item for item in found.held if item.tier == "Archive"]
    assert (held.container, held.size_class, held.blobs, held.bytes) == (PHOTOS, "up to 100 KB", 1, 4)
    assert Found.of(json.loads(json.dumps(found.plain()))) == found
    with psycopg.connect(shop.world.places.database_url) as connection:
        text = "".join(
            row[0]
            for table in ("listings", "inventory", "counts", "referenced", "state")
            for row in connection.execute(f"SELECT t::text FROM migration.{table} t").fetchall()
        )
    assert shop.archived[1] in text
    assert not [secret for secret in (*shop.world.app.secrets, "sig=") if secret in text]


def in_target(seen: Truth, shop: Shop) -> set[File]:
    """Files that profiles which are not deleted refer to in S3 already."""
    account, base = shop.world.places.account_url, f"{shop.world.public_base_url}/"
    found = set()
    for urls in independent.references(shop.world.places).values():
        for _, url in urls:
            if independent.source_of(url, account, shop.world.places.alias_hosts) is None and url.startswith(base):
                container, _, blob = unquote(url.removeprefix(base)).partition("/")
                found.add((container, blob))
    return found & seen.known


def test_the_command_says_so(shop: Shop) -> None:
    world = shop.world
    young = world.command("inventory", "--json")
    said = json.loads(young.stdout)
    assert (young.returncode, said["orphans"]) == (1, 0), young.stderr
    assert said["young"] >= len(shop.orphans)
    assert [item["file"] for item in said["examples"]["archived"]] == ["/".join(shop.archived)]
    shown = world.command("inventory", MIGRATION_INVENTORY__ORPHAN_AFTER_HOURS="0")
    assert shown.returncode == 1
    assert "referred to, and archived" in shown.stdout
    refused = world.command("inventory", "--report", str(world.folder / "migration.toml"))
    assert (refused.returncode, "nothing says when it was made" in refused.stderr) == (2, True), refused.stderr
    assert main.commands["inventory"].help


KILLED = """
import os, sys
from migration_pipeline import inventory
from migration_pipeline.adapters.azure import listing as azure_listing
from migration_pipeline.adapters.postgres import profiles as postgres_profiles
from migration_pipeline.settings import load
azure_listing.AzureListing.__init__.__kwdefaults__["blobs_a_page"] = 200
inventory._BATCHES = 1
postgres_profiles._BATCH = 20
told = 0
def say(text):
    global told
    told += 1
    print(text, flush=True)
    if told == int(sys.argv[1]):
        os._exit(9)
inventory.take_stock(load(), say)
"""


def test_a_killed_inventory_goes_on(shop: Shop, settings: Settings) -> None:
    newest = "SELECT max(listing_id), (SELECT max(count_id) FROM migration.counts) FROM migration.listings"
    take_stock(settings)
    with psycopg.connect(shop.world.places.database_url, autocommit=True) as connection:
        ((listing, count),) = connection.execute(newest).fetchall()
        ended, lines = [], []
        for _ in range(30):
            done = subprocess.run(
                [sys.executable, "-c", KILLED, "3"],
                env={**os.environ, **shop.world.environment},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode in (0, 9), done.stderr
            ended.append(done.returncode)
            lines += done.stdout.splitlines()
            if done.returncode == 0:
                break
        assert ended.count(9) >= 2
        assert ended[-1] == 0
        # One listing and one count, each gone on with: no page and no profile was looked at twice.
        assert connection.execute(newest).fetchall() == [(listing + 1, count + 1)]
    listed = [int(line.split()[1].replace(",", "")) for line in lines if line.startswith("listed")]
    counted = [int(line.split()[-2]) for line in lines if line.startswith("counted")]
    assert listed == sorted(set(listed))
    assert (counted.count(20), counted.count(40), counted[-1]) == (1, 1, 60)
    with closing(open_ledger(settings)) as ledger:
        kept = ledger.found.kept()
    assert kept is not None
    compare(kept.found, truth(shop))


def test_a_blob_that_went_is_gone_and_one_that_came_late_is_there(shop: Shop, settings: Settings) -> None:
    name = f"{uuid4().hex[:8]}/late.jpg"
    take_stock(settings)
    shop.photos.upload_blob(name, b"late")
    url = f"{shop.world.places.account_url}/{PHOTOS}/{name}"
    profile = shop.world.of("migrated")[1]
    with psycopg.connect(shop.world.places.database_url, autocommit=True) as connection:
        ((before,),) = connection.execute("SELECT photos::text FROM profiles WHERE id::text = %s", [profile]).fetchall()

        def meanwhile(text: str) -> None:
            # The listing is over, the count has not begun: a user adds a photo.
            if text.startswith("listed") and f"in {CONTAINERS[-1]}" in text:
                shop.photos.upload_blob(name, b"late", overwrite=True)
                connection.execute(
                    "UPDATE profiles SET photos = (photos::jsonb || %s::jsonb) WHERE id::text = %s",
                    [json.dumps([{"original": url}]), profile],
                )

        shop.photos.delete_blob(name)
        try:
            found = take_stock(settings, meanwhile)
            assert (found.came_late, found.missing) == (1, 1)
            compare(found, truth(shop))
        finally:
            connection.execute("UPDATE profiles SET photos = %s WHERE id::text = %s", [before, profile])
            shop.photos.delete_blob(name)
        compare(take_stock(settings), truth(shop))
        assert connection.execute("SELECT FROM migration.inventory WHERE blob = %s", [name]).fetchall() == []


def test_a_plan_is_exact_by_an_inventory(shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found, seen = take_stock(settings), truth(shop)
    monkeypatch.setenv("MIGRATION_PLAN__FILES_PER_RANGE", "120")
    settings = load()
    planned = plan(settings)
    expected, examples = estimate(settings, planned)
    assert (expected.exact_at, planned.why_sampled) == (found.listed_at, "")
    assert (expected.files, expected.bytes) == (len(seen.to_move), found.bytes)
    assert expected.failing == {"source_missing": 1, "source_archived": 1, "too_long_key": 1}
    assert {len(files) for files in examples.examples.values()} == {1}
    assert expected.references["source"] == sum(
        independent.source_of(url, shop.world.places.account_url, shop.world.places.alias_hosts) is not None
        for profile in seen.wanted
        for _, url in independent.references(shop.world.places)[profile]
    )
    assert expected.requests.source_reads == found.files - 1
    assert expected.requests.target_writes == found.files - 3

    # Ranges tile the profiles, and no range has more files than it may, but for a profile that has more alone.
    with psycopg.connect(shop.world.places.database_url) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM profiles ORDER BY id").fetchall()]
    sizes, first = [], 0
    for cut in planned.new:
        within = [id_ for id_ in ids if first < id_ <= cut.last]
        assert (len(within), within[-1]) == (cut.profiles, cut.last)
        sizes.append(sum(len(seen.wanted.get(str(id_), ())) for id_ in within))
        assert sizes[-1] <= 120 or len(within) == 1
        first = cut.last
    assert (first, sum(cut.profiles for cut in planned.new)) == (ids[-1], len(ids))
    assert len(sizes) >= 6
    done = shop.world.command("plan", MIGRATION_PLAN__FILES_PER_RANGE="120")
    assert "Exact, by the inventory of" in done.stdout
    assert f"files to move {expected.files:,} " in " ".join(done.stdout.split())


def test_a_plan_says_why_it_is_not_exact(shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    take_stock(settings)
    assert plan(settings).stock is not None
    with psycopg.connect(shop.world.places.database_url, autocommit=True) as connection:

        def why(change: str, back: str) -> str:
            connection.execute(change)
            said = plan(settings).why_sampled
            connection.execute(back)
            assert plan(settings).stock is not None
            return said

        assert "older than 7 days" in why(
            "UPDATE migration.listings SET began_at = began_at - interval '8 days'",
            "UPDATE migration.listings SET began_at = began_at + interval '8 days'",
        )
        assert "worked on since" in why(
            "INSERT INTO migration.ranges (range_id, key, last_id, numeric_ids, profiles, started_at)"
            " VALUES (1, 'a', '1', true, 1, now())",
            "DELETE FROM migration.ranges",
        )
        assert "cut off" in why(
            "UPDATE migration.state SET value = value || '{\"count_id\": 0}' WHERE name = 'what the source holds'",
            "UPDATE migration.state SET value = value || jsonb_build_object('count_id',"
            " (SELECT max(count_id) FROM migration.counts)) WHERE name = 'what the source holds'",
        )
    monkeypatch.setenv("MIGRATION_DATABASE__RELATED", "[]")
    planned = plan(load())
    assert (planned.stock, planned.why_sampled) == (None, "the inventory was taken under other settings")
    expected, _ = estimate(load(), planned)
    assert expected.exact_at is None


def test_ids_that_are_no_numbers(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(
        sandbox, tmp_path, AppSize(profiles=25, photos_per_profile=1, scale=0.002, id_type="uuid", bad_files=False)
    )
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIGRATION_PLAN__FILES_PER_RANGE", "30")
    settings = load()
    found = take_stock(settings)
    assert found.files == world.app.counts.wanted
    whole = plan(settings)
    assert whole.stock is not None
    assert sum(cut.profiles for cut in whole.new) == world.app.counts.profiles
    with psycopg.connect(world.places.database_url, autocommit=True) as connection:
        ids = [row[0] for row in connection.execute("SELECT id::text FROM profiles ORDER BY id").fetchall()]
        assert [cut.last for cut in whole.new] == sorted((cut.last for cut in whole.new), key=ids.index)
        # Planned to the middle, the rest is cut the same; so it is by a sample where the last planned profile is gone.
        kept = whole.new[:2]
        with closing(open_ledger(settings, create=True)) as ledger:
            ledger.add_ranges(kept)
        assert [cut.last for cut in plan(settings).new] == [cut.last for cut in whole.new[2:]]
        connection.execute("DELETE FROM verifications WHERE profile_id = %s", [kept[-1].last])
        connection.execute("DELETE FROM profiles WHERE id = %s", [kept[-1].last])
        rest = plan(settings).new
        assert sum(cut.profiles for cut in rest) == world.app.counts.profiles - sum(cut.profiles for cut in kept)
        assert rest[-1].last == ids[-1]


def objects(world: World, prefix: str) -> dict[str, bytes]:
    with closing(boto3.client("s3", endpoint_url=world.places.s3_endpoint_url, region_name="us-east-1")) as s3:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=world.places.bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: s3.get_object(Bucket=world.places.bucket, Key=key)["Body"].read() for key in keys}


CUT_OFF = """
import os
from migration_pipeline import inventory
from migration_pipeline.adapters.ledger.orphans import LedgerOrphans
from migration_pipeline.settings import load
LedgerOrphans.record = lambda self, results, keys: os._exit(9)
inventory.copy_orphans(load())
"""


def test_orphans_are_copied_once_and_verified(shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    world = shop.world
    seen = truth(shop)
    names = {f"orphans/{container}/{blob}" for container, blob in set(seen.held) - seen.known}
    monkeypatch.setenv("MIGRATION_INVENTORY__ORPHANS", "copy")
    hours = {"MIGRATION_INVENTORY__ORPHANS": "copy", "MIGRATION_INVENTORY__ORPHAN_AFTER_HOURS": "0"}
    asked = world.command("inventory", **hours)
    assert "No orphan was copied: --apply" in asked.stdout, asked.stderr
    assert objects(world, "orphans/") == {}
    cut = subprocess.run([sys.executable, "-c", CUT_OFF], env={**os.environ, **world.environment, **hours}, check=False)
    assert cut.returncode == 9
    done = world.command("inventory", "--apply", "--json", **hours)
    assert json.loads(done.stdout)["orphans_failed"] == 0, done.stdout + done.stderr
    copies = objects(world, "orphans/")
    mine = {name for name in names if name.removeprefix(f"orphans/{PHOTOS}/") in shop.orphans}
    assert len(mine) == len(shop.orphans)
    for key in mine:
        # SeaweedFS lists a key with two slashes as one with one.
        listed = key if key in copies else key.replace("//", "/")
        assert copies[listed] == shop.orphans[key.removeprefix(f"orphans/{PHOTOS}/")]
    with psycopg.connect(world.places.database_url) as connection:
        rows: list[Any] = connection.execute("SELECT key, outcome, md5, size_bytes FROM migration.orphans").fetchall()
        assert {row[0] for row in rows} == names
        assert {row[1] for row in rows} <= {"copied", "already_there"}
        assert "already_there" in {row[1] for row in rows}, "what the cut-off run copied was copied again"
        digests = {row[0]: bytes(row[2]) for row in rows}
        for key in mine:
            body = shop.orphans[key.removeprefix(f"orphans/{PHOTOS}/")]
            assert digests[key] == hashlib.md5(body, usedforsecurity=False).digest()
        assert connection.execute("SELECT count(*) FROM migration.files").fetchall() == [(0,)]
    assert copy_orphans(load()).outcomes.total() == 0
    compare(take_stock(settings), truth(shop))
    monkeypatch.setenv("MIGRATION_INVENTORY__ORPHAN_PREFIX", f"{PHOTOS}/")
    refused = world.command("inventory", "--apply", **hours, MIGRATION_INVENTORY__ORPHAN_PREFIX=f"{PHOTOS}/")
    assert (refused.returncode, "inventory.orphan_prefix" in refused.stderr) == (2, True), refused.stderr


def test_the_asset_takes_stock_and_lists_orphans(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert settings.inventory.orphans == "leave"
    monkeypatch.setenv("MIGRATION_INVENTORY__ORPHANS", "list")
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        done = dg.materialize(
            [source_inventory],
            instance=instance,
            resources={"migration": Migration()},
            run_config={"ops": {"source_inventory": {"config": {"folder": str(tmp_path / "orphans")}}}},
        )
        (made,) = done.asset_materializations_for_node("source_inventory")
        said = {name: value.value for name, value in made.metadata.items()}
        checks = {item.check_name: item.passed for item in done.get_asset_check_evaluations()}
        assert checks == {
            "every_referenced_blob_is_in_the_source": False,
            "every_referenced_blob_can_be_read": False,
            "every_referenced_blob_has_a_key": False,
            "every_blob_is_referred_to": False,
        }
        idle = dg.materialize([orphan_copies], instance=instance, resources={"migration": Migration()})
        (made,) = idle.asset_materializations_for_node("orphan_copies")
        assert made.metadata["copied"].value == 0
        assert 'inventory.orphans is "list"' in str(made.metadata["summary"].value)
    seen = truth(shop)
    orphans = set(seen.held) - seen.known
    assert (said["blobs"], said["orphans"], said["missing"]) == (len(seen.held), len(orphans), 1)
    (path,) = (tmp_path / "orphans").iterdir()
    assert str(path) == said["orphans_file"]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {"/".join(file) for file in orphans}
    assert len(rows) == len(orphans)
    assert all(datetime.fromisoformat(row["written_at"]) <= datetime.now(UTC) for row in rows)
