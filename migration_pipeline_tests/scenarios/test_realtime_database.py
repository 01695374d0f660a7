"""An app whose clients read the Realtime Database, migrated and rolled back."""

import json
from dataclasses import replace
from typing import Any

import psycopg
import requests

from migration_pipeline.sandbox.app import AppSize
from migration_pipeline_tests import independent
from migration_pipeline_tests.scenarios.conftest import MakeWorld, World, flagged
from migration_pipeline_tests.scenarios.test_migration import work


def test_nodes_are_re_pointed_and_go_back(make_world: MakeWorld) -> None:
    made = make_world(AppSize(profiles=40, photos_per_profile=1, scale=0.002, bad_files=False), profiles_per_range=20)
    host = made.environment["FIREBASE_DATABASE_EMULATOR_HOST"]
    # Only what is described here of Firebase is used: the made-up app's Firestore is left alone.
    world = replace(
        made,
        environment={
            **made.environment,
            "MIGRATION_FIREBASE__KIND": "realtime_database",
            "MIGRATION_FIREBASE__DATABASE_URL": f"https://{made.places.bucket}.example.com",
            "MIGRATION_FIREBASE__FIELDS": json.dumps(["media.photos"]),
        },
    )
    url = f"http://{host}/profiles.json?ns={made.places.bucket}"
    with psycopg.connect(made.places.database_url) as connection:
        rows = connection.execute("SELECT id::text, photos::text FROM profiles WHERE photos IS NOT NULL").fetchall()
    # A node's numbers are floats, so what no float holds stays text here.
    nodes = {id_: {"media": {"photos": json.loads(p, parse_float=str)}, "name": id_} for id_, p in rows}
    requests.put(url, json=nodes, timeout=30).raise_for_status()
    stored = requests.get(url, timeout=30).json()

    assert {complete for *_, complete in work(world)} == {"True"}
    assert set(world.of("migrated")) <= flagged(world)
    now = requests.get(url, timeout=30).json()
    for id_ in world.of("migrated"):
        if id_ in now:
            assert not [u for u in urls(now[id_]) if in_source(world, u)]
            assert now[id_]["name"] == id_
    ours = {u for node in now.values() for u in urls(node) if u.startswith(world.public_base_url)}
    assert len(ours) > 100
    assert independent.check_urls(ours) == []

    done = world.command("rollback", "--all", "--apply", "--without-queries")
    assert done.returncode == 0, done.stderr
    back = requests.get(url, timeout=30).json()
    assert [named(world, node) for node in back.values()] == [named(world, node) for node in stored.values()]


def in_source(world: World, url: str) -> bool:
    return independent.source_of(url, world.places.account_url, world.places.alias_hosts) is not None


def urls(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in urls(item)]
    return [value] if isinstance(value, str) and "://" in value else []


def named(world: World, node: Any) -> list[Any]:
    """What a node's URLs name, whatever their spelling."""
    places = world.places
    return [independent.source_of(u, places.account_url, places.alias_hosts) or u for u in urls(node)]
