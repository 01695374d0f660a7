"""The sandbox's app: the same for the same seed, with every oddity in it, and written as it was drawn.

`sandbox` is the fixture of running servers. The app gets a database and a Firestore project of its own there.
"""

import hashlib
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient

from migration_pipeline import settings
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.core.urls import MAX_KEY_BYTES, UrlKind, UrlRules
from migration_pipeline.sandbox.app import ALIAS_HOST, App, AppSize, AppStores, Kind, create_app, settings_toml
from migration_pipeline.sandbox.app_kinds import BAD_OUTCOMES, UNTOUCHED
from migration_pipeline.sandbox.app_places import Servers
from migration_pipeline.sandbox.app_plan import BIG_NUMBER, AppPlan, PlannedProfile, plan_app
from migration_pipeline.sandbox.photo_files import PHOTOS, VERSIONS, Blob
from migration_pipeline.stores import url_rules
from migration_pipeline_tests import independent

ALIASES = {ALIAS_HOST: PHOTOS}
SMALL = AppSize(profiles=60, photos_per_profile=2, scale=0.01)
PAPER = AppStores(
    database_url="postgresql://app@127.0.0.1:5432/app",
    account_url="http://127.0.0.1:10000/devstoreaccount1",
    account_key="c2VjcmV0IGtleQ==",
    s3_endpoint_url="http://127.0.0.1:8333",
    bucket="files",
    public_base_url="http://127.0.0.1:8333/files",
    firestore_project="demo",
    firestore_host="127.0.0.1:8080",
)


def digest(plan: AppPlan) -> str:
    """Of all rows, documents, names, headers and bytes."""
    whole = hashlib.sha256(repr([asdict(profile) for profile in plan.profiles]).encode())
    for name, blob in plan.blobs.items():
        whole.update(name.encode() + blob.contents())
    return whole.hexdigest()


def of_kind(plan: AppPlan, kind: Kind) -> PlannedProfile:
    return next(profile for profile in plan.profiles if profile.kind is kind)


def strings(profile: PlannedProfile) -> list[str]:
    texts = [value for photo in profile.photos or () for value in photo.values() if isinstance(value, str)]
    return texts + [item.photo_url for item in profile.verifications if item.photo_url]


def rules_for(stores: AppStores, folder: Path) -> UrlRules:
    path = folder / "migration.toml"
    path.write_text(settings_toml(stores, SMALL), encoding="utf-8")
    environment = {"DATABASE_URL": stores.database_url, "AZURE_STORAGE_KEY": stores.account_key}
    return url_rules(settings.load({**environment, "MIGRATION_CONFIG": str(path)}))


@pytest.fixture(scope="module")
def plan() -> AppPlan:
    return plan_app(PAPER, SMALL)


# On paper.


def test_same_seed_makes_the_same_app(plan: AppPlan) -> None:
    assert digest(plan_app(PAPER, SMALL)) == digest(plan)
    assert digest(plan_app(PAPER, replace(SMALL, seed=8))) != digest(plan)


def test_another_process_makes_the_same_app(plan: AppPlan) -> None:
    script = "from migration_pipeline_tests.sandbox.test_app import *; print(digest(plan_app(PAPER, SMALL)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == digest(plan)


def test_a_larger_app_begins_with_the_same_profiles(plan: AppPlan) -> None:
    larger = plan_app(PAPER, replace(SMALL, profiles=70))
    assert larger.profiles[:60] == plan.profiles


@pytest.mark.parametrize("id_type", ["bigint", "uuid"])
def test_sixty_profiles_bring_every_kind(id_type: Any) -> None:
    plan = plan_app(PAPER, replace(SMALL, id_type=id_type))
    assert {profile.kind for profile in plan.profiles} == set(Kind)
    assert len({profile.profile_id for profile in plan.profiles}) == 60
    assert {type(profile.profile_id) for profile in plan.profiles} == {int if id_type == "bigint" else str}


def test_an_app_without_bad_files_has_none() -> None:
    plan = plan_app(PAPER, replace(SMALL, bad_files=False))
    assert {profile.kind for profile in plan.profiles} == set(Kind) - set(BAD_OUTCOMES)
    assert all(blob.stored for blob in plan.blobs.values())


def test_bad_outcomes_are_those_of_the_product() -> None:
    assert {Outcome(name).verified for name in BAD_OUTCOMES.values()} == {False}


def test_sizes_are_believable() -> None:
    plan = plan_app(PAPER, AppSize())
    sizes: dict[str, list[int]] = {version: [] for version in VERSIONS}
    for blob in plan.blobs.values():
        if blob.metadata and blob.metadata["kind"] in sizes and blob.size:
            sizes[blob.metadata["kind"]].append(blob.size)
    assert 5_000 < len(plan.blobs) < 6_500
    assert 200_000 < statistics.median(sizes["original"]) < 300_000
    assert min(sizes["original"]) >= 100_000 > max(sizes["medium"])
    assert max(sizes["original"]) <= 3_000_000
    assert 5_000 <= min(sizes["small"]) <= max(sizes["small"]) <= 20_000
    assert 60_000 <= min(sizes["large_blurred"]) <= max(sizes["large_blurred"]) <= 150_000


def test_files_look_like_photos_and_differ(plan: AppPlan) -> None:
    plain = [b.contents() for b in plan.blobs.values() if b.size and b.content_encoding is None]
    assert all(body.startswith(b"\xff\xd8\xff\xe0") for body in plain)
    assert len(set(plain)) == len(plain)


def test_no_name_is_one_that_the_stand_in_for_s3_cannot_hold(plan: AppPlan) -> None:
    assert not [name for name in plan.blobs if re.search(r"[\x00-\x1f\x7f\\]", name)]
    assert not [name for name in plan.blobs if {"", ".", ".."} & set(name.split("/"))]


def test_both_parsers_find_every_file_in_its_urls(plan: AppPlan, tmp_path: Path) -> None:
    rules, found = rules_for(PAPER, tmp_path), set()
    for url in plan.source_urls & {text for profile in plan.profiles for text in strings(profile)}:
        source = independent.source_of(url, PAPER.account_url, ALIASES)
        assert source is not None
        reference = rules.classify(url)
        assert reference is not None
        assert reference.file == SourceFile(*source)
        found.add("/".join(source))
    moved = {str(blob) for blob in plan.in_target()}
    assert found == set(plan.blobs) - moved


def test_neither_parser_takes_other_urls_for_ours(plan: AppPlan, tmp_path: Path) -> None:
    rules, kinds = rules_for(PAPER, tmp_path), {}
    for kind in (Kind.FOREIGN, Kind.ALREADY_MIGRATED):
        others = [text for text in strings(of_kind(plan, kind)) if text not in plan.source_urls and "://" in text]
        others = [text for text in others if text.startswith("http")]
        assert others
        assert {independent.source_of(url, PAPER.account_url, ALIASES) for url in others} == {None}
        kinds[kind] = {found.kind for url in others if (found := rules.classify(url))}
    assert kinds == {
        Kind.FOREIGN: {UrlKind.FOREIGN},
        Kind.ALREADY_MIGRATED: {UrlKind.TARGET},
    }


def test_shared_files_are_named_in_other_ways(plan: AppPlan) -> None:
    first, second = (profile for profile in plan.profiles[13:15])
    assert first.kind is second.kind is Kind.SHARED
    assert {str(b) for b in first.blobs} & {str(b) for b in second.blobs} == {str(b) for b in first.blobs[:6]}
    # One URL is the same in both, the others differ in spelling alone.
    assert len(set(strings(first)) & set(strings(second)) & plan.source_urls) == 1


def test_too_long_key_is_a_name_that_azure_holds(plan: AppPlan) -> None:
    bad = of_kind(plan, Kind.TOO_LONG_KEY).bad
    assert bad is not None
    assert len(bad.name) <= 1024
    assert len(str(bad).encode()) > MAX_KEY_BYTES


def test_a_big_number_is_kept_in_both_sites(plan: AppPlan) -> None:
    profile = of_kind(plan, Kind.BIG_NUMBER)
    assert f'"perceptual_hash": {BIG_NUMBER}' in (profile.photos_json or "")
    assert profile.document_photos[0]["perceptual_hash"] == str(BIG_NUMBER)


def test_sas_urls_hold_secrets_that_are_known(plan: AppPlan) -> None:
    urls = [text for text in strings(of_kind(plan, Kind.SAS)) if text in plan.source_urls]
    assert urls
    assert all("sig=" in url for url in urls)
    assert len(plan.signatures) >= len(urls)


def test_stores_show_no_secret_and_need_an_emulator() -> None:
    assert PAPER.account_key not in repr(PAPER)
    with pytest.raises(ValueError, match="firestore_host"):
        replace(PAPER, firestore_host=None)


# In the servers.


@dataclass
class Made:
    """An app in the servers, and what it was drawn from."""

    app: App
    plan: AppPlan
    stores: AppStores
    places: independent.Places
    said: list[str]

    def of(self, *kinds: Kind) -> dict[str, list[tuple[str, str]]]:
        """References of the profiles of these kinds."""
        ids = {str(id_) for kind in kinds for id_ in self.app.kinds[kind]}
        return {id_: held for id_, held in independent.references(self.places).items() if id_ in ids}


@pytest.fixture(scope="module")
def made(sandbox: Servers) -> Iterator[Made]:
    name = f"app_{uuid4().hex[:12]}"
    with psycopg.connect(sandbox.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = urlunsplit(urlsplit(sandbox.database_url)._replace(path=f"/{name}"))
    stores = replace(AppStores.on(sandbox, firestore_project=name.replace("_", "-")), database_url=url)
    said: list[str] = []
    app = create_app(stores, SMALL, said.append)
    fields = {key: getattr(stores, key) for key in independent.Places.__dataclass_fields__ if key != "alias_hosts"}
    places = independent.Places(alias_hosts=ALIASES, **fields)
    yield Made(app, plan_app(stores, SMALL), stores, places, said)
    with psycopg.connect(sandbox.database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def azure(made: Made) -> Iterator[BlobServiceClient]:
    with BlobServiceClient(made.stores.account_url, credential=made.stores.account_key) as client:
        yield client


def test_counts_are_those_of_the_stores(made: Made, tmp_path: Path) -> None:
    held, rules = independent.references(made.places), rules_for(made.stores, tmp_path)
    moving = [id_ for id_, end in made.app.expected.items() if end != "untouched"]
    found = [rules.classify(url) for id_ in moving for _, url in held[str(id_)]]
    files = [ref.file for ref in found if ref is not None and ref.file is not None]
    counts = made.app.counts
    assert (len(files), len(set(files))) == (counts.references, counts.wanted)
    state = independent.dump(made.places)
    assert (len(state["profiles"]), len(state["verifications"]), len(state["documents"])) == (
        counts.profiles,
        counts.verifications,
        counts.documents,
    )
    assert made.said[-1].startswith(f"uploaded {counts.files:,} files")


def test_rows_and_documents_are_as_drawn(made: Made) -> None:
    state = independent.dump(made.places)
    for profile in made.plan.profiles:
        username, photos, *_, flagged = state["profiles"][str(profile.profile_id)]
        assert username == profile.username
        assert (None if photos is None else json.loads(photos)) == profile.photos
        assert flagged == (profile.kind is Kind.ALREADY_MIGRATED)
        document = state["documents"].get(str(profile.profile_id))
        assert (document is None) == (profile.kind is Kind.NO_DOCUMENT)
        assert document is None or len(document["photos"]) == len(profile.document_photos)
    drifted = of_kind(made.plan, Kind.DRIFTED)
    assert len(drifted.document_photos) == len(drifted.photos or ()) - 1


def test_every_kind_expects_its_end(made: Made) -> None:
    for kind, ids in made.app.kinds.items():
        end = "untouched" if kind in UNTOUCHED else "waiting" if kind in BAD_OUTCOMES else "migrated"
        assert {made.app.expected[id_] for id_ in ids} == {end}
    assert set(made.app.bad_files) == set(BAD_OUTCOMES.values())


@pytest.mark.parametrize("kind", [Kind.NASTY_NAMES, Kind.ODD_HEADERS, Kind.WRONG_MD5, Kind.TOO_LONG_KEY, Kind.DELETED])
def test_files_are_as_drawn(made: Made, azure: BlobServiceClient, kind: Kind) -> None:
    for blob in of_kind(made.plan, kind).blobs:
        stored = azure.get_blob_client(blob.container, blob.name).download_blob(decompress=False)
        settings = stored.properties.content_settings
        assert stored.readall() == blob.contents()
        assert stored.properties.metadata == dict(blob.metadata)
        assert settings.content_type == blob.content_type
        assert settings.cache_control == blob.cache_control
        assert settings.content_encoding == blob.content_encoding
        assert settings.content_disposition == blob.content_disposition
        assert settings.content_language == blob.content_language


def test_content_md5_is_right_wrong_or_absent_as_drawn(made: Made, azure: BlobServiceClient) -> None:
    def shown(blob: Blob) -> bytes | None:
        properties = azure.get_blob_client(blob.container, blob.name).get_blob_properties()
        md5 = properties.content_settings.content_md5
        return None if md5 is None else bytes(md5)

    def right(blob: Blob) -> bytes:
        return hashlib.md5(blob.contents(), usedforsecurity=False).digest()

    for kind in (Kind.PLAIN, Kind.ODD_HEADERS, Kind.WRONG_MD5):
        for blob in of_kind(made.plan, kind).blobs:
            expected = {"right": right(blob), "wrong": shown(blob), "none": None}[blob.md5]
            assert shown(blob) == expected
            assert blob.md5 == "right" or shown(blob) != right(blob)


def test_every_url_resolves_but_those_meant_not_to(made: Made) -> None:
    urls = {url for held in independent.references(made.places).values() for _, url in held}
    ours = {url for url in urls if "cdn.example.org" not in url}
    failures = independent.check_urls(ours, {ALIAS_HOST: f"{made.stores.account_url}/{PHOTOS}"})
    (missing,) = made.app.bad_files["source_missing"]
    assert len(failures) == 1
    assert missing[1] in failures[0]


def test_migrated_profiles_have_their_objects_in_s3(made: Made) -> None:
    # Their blobs are in the source still: a copy under a URL of the source can be compared.
    wanted = {str(blob) for blob in made.plan.in_target()}
    sources = {"": [("", f"{made.stores.account_url}/{name}") for name in wanted]}
    assert independent.check_copies(made.places, sources) == []
    assert all(url.startswith(made.stores.public_base_url) for _, url in made.of(Kind.ALREADY_MIGRATED).popitem()[1])


def test_the_independent_check_sees_missing_and_other_copies(made: Made) -> None:
    ((_, conflict),) = made.app.bad_files["target_conflict"]
    lines = independent.check_copies(made.places, made.of(Kind.TARGET_CONFLICT))
    assert [line for line in lines if line.startswith(f"{conflict}: bytes differ")]
    assert [line for line in lines if "NoSuchKey" in line]


def test_the_independent_check_sees_a_write_of_equal_values(made: Made) -> None:
    (first, *_), (second, *_) = made.app.kinds[Kind.DELETED], made.app.kinds[Kind.PLAIN]
    before = independent.stamps(made.places, [first, second])
    assert independent.untouched(made.places, before) == []
    with psycopg.connect(made.stores.database_url) as connection:
        connection.execute("UPDATE profiles SET bio = bio WHERE id = %s", [first])
    (line,) = independent.untouched(made.places, before)
    assert line.startswith(f"{first}: row was written")


def test_a_database_that_holds_an_app_refuses_another(made: Made) -> None:
    with pytest.raises(psycopg.errors.DuplicateTable):
        create_app(made.stores, SMALL)
