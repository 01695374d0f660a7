"""The app's database as the planner sees it, on a real Postgres."""

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from uuid import uuid4

import psycopg
import pytest

from migration_pipeline.adapters.postgres import index as postgres_index
from migration_pipeline.adapters.postgres.index import PostgresIndex
from migration_pipeline.adapters.postgres.tables import ProfileTable
from migration_pipeline.core.plan_ports import Block
from migration_pipeline.sandbox import Sandbox

ROWS = 1003
WEIGHT = 12 + 20 + 4 + 3
"""Bytes of a row's own columns: json and jsonb as they are in memory, in words; text and a list as they are written."""


@pytest.fixture(scope="module")
def url(sandbox: Sandbox) -> str:
    url = sandbox.create_database(f"d{uuid4().hex[:12]}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE profiles (id bigint PRIMARY KEY, photos json, more jsonb, one text, many text[],"
            " deleted_at timestamptz, moved timestamptz)"
        )
        connection.execute(
            "INSERT INTO profiles (id, photos, more, one, many, deleted_at, moved)"
            """ SELECT 10 * n, '["é"]', '[1]', 'four', ARRAY['a'],"""
            " CASE WHEN n = 2 THEN now() END, CASE WHEN n = 3 THEN now() END"
            " FROM generate_series(1, %s) AS n",
            [ROWS],
        )
        connection.execute("INSERT INTO profiles (id) VALUES (1)")
    return url


@pytest.fixture
def index(url: str) -> Iterator[PostgresIndex]:
    table = ProfileTable("profiles", "id", ["photos", "more", "one", "many"], "moved", "deleted_at")
    with closing(PostgresIndex(url, profiles=table)) as opened:
        yield opened


def test_blocks_tile_the_table_and_weigh_what_may_have_to_move(index: PostgresIndex) -> None:
    blocks = list(index.blocks(after=None, profiles=10))
    assert [block.profiles for block in blocks] == [10] * 100 + [4]
    assert blocks[0] == Block(1, 90, 10, 7 * WEIGHT)  # the first holds nothing, one is deleted, one flagged
    assert blocks[1] == Block(100, 190, 10, 10 * WEIGHT)
    assert blocks[-1] == Block(10_000, 10_030, 4, 4 * WEIGHT)
    assert all(earlier.last < later.first for earlier, later in pairwise(blocks))
    assert index.weigh([1, 10, 20, 30, 40, 5]) == {1: 0, 10: WEIGHT, 20: 0, 30: 0, 40: WEIGHT}


def test_blocks_go_on_after_an_id(index: PostgresIndex) -> None:
    assert list(index.blocks(after=10_010, profiles=1)) == [
        Block(10_020, 10_020, 1, WEIGHT), Block(10_030, 10_030, 1, WEIGHT)
    ]  # fmt: skip
    assert list(index.blocks(after=10_030, profiles=5)) == []


def test_profiles_are_counted(index: PostgresIndex) -> None:
    assert [index.count(after=None), index.count(after=10), index.count(after=10_030)] == [ROWS + 1, ROWS - 1, 0]


def test_what_is_compressed_weighs_as_much_as_what_is_not(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE long (id bigint PRIMARY KEY, photos jsonb, more json, moved timestamptz)")
        connection.execute("ALTER TABLE long ALTER photos SET STORAGE external, ALTER more SET STORAGE external")
        insert = "INSERT INTO long SELECT %s, to_jsonb(t), to_json(t) FROM repeat('https://example.com/', 1000) AS t"
        connection.execute(insert, [1])
        connection.execute("ALTER TABLE long ALTER photos SET STORAGE main, ALTER more SET STORAGE main")
        connection.execute(insert, [2])
    with closing(PostgresIndex(url, profiles=ProfileTable("long", "id", ["photos", "more"], "moved"))) as opened:
        weights = opened.weigh([1, 2])
    assert weights[1] == weights[2] > 2 * 20_000


def test_a_sample_is_spread_over_the_table(index: PostgresIndex) -> None:
    ids = [int(profile.profile_id) for profile in index.sample(100)]
    assert len(set(ids)) == 100
    # From its start alone it would end at 1,000.
    assert max(ids) > 5000
    assert len(index.sample(5000)) == ROWS + 1


@pytest.mark.parametrize("table", ["profiles", "in_parts"])
def test_a_sample_of_a_large_table_reads_few_of_its_pages(
    url: str, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS in_parts (id bigint PRIMARY KEY, photos json, moved timestamptz)"
            " PARTITION BY RANGE (id);"
            "CREATE TABLE IF NOT EXISTS part_1 PARTITION OF in_parts FOR VALUES FROM (0) TO (5000);"
            "CREATE TABLE IF NOT EXISTS part_2 PARTITION OF in_parts FOR VALUES FROM (5000) TO (20000);"
            "INSERT INTO in_parts SELECT id, photos FROM profiles ON CONFLICT DO NOTHING"
        )
    with closing(PostgresIndex(url, profiles=ProfileTable(table, "id", ["photos"], "moved"))) as opened:
        assert len(opened.sample(5000)) == ROWS + 1
        # Of its eight pages or so, one: chance would have to pick each of them.
        monkeypatch.setattr(postgres_index, "_SAMPLED_PAGES", 1)
        assert len(opened.sample(5000)) < ROWS
