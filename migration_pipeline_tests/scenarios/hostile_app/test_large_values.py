"""Large values: few of them at a time, in memory and under locks."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from migration_pipeline.adapters.postgres import profiles as postgres_profiles
from migration_pipeline.adapters.postgres.writing import Flagging, Rewriting
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp


def test_as_many_rows_are_locked_as_their_bytes_allow(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(
        "CREATE TABLE profiles (id bigint PRIMARY KEY, photos jsonb, photos_migrated_at timestamptz);"
        "CREATE TABLE more (id int PRIMARY KEY, profile_id bigint, url text);",
        related='[{ table = "more", profile_id = "profile_id", columns = ["url"] }]',
    )
    app.upload("a.jpg")
    # One row alone is more than a transaction is to hold; of the small ones many fit in.
    sizes = {1: 10, 2: 90_000, 3: 300_000, 4: 10, 5: 90_000, 6: 10}
    for id_, size in sizes.items():
        app.execute(
            "INSERT INTO profiles VALUES (%s, %s)", id_, json.dumps({"url": app.az("a.jpg"), "more": "x" * size})
        )
    app.execute("INSERT INTO more VALUES (1, 6, %s)", "y" * 95_000)
    before = app.dump()
    monkeypatch.setattr(postgres_profiles, "_BYTES_AT_ONCE", 100_000)
    monkeypatch.setattr(postgres_profiles, "_BATCH_BYTES", 200_000)
    locked: dict[str, list[list[object]]] = {"rewrite": [], "flag": []}
    for kind, name in ((Rewriting, "rewrite"), (Flagging, "flag")):
        monkeypatch.setattr(kind, "__call__", _watched(kind.__call__, locked[name]))
    (report,) = app.run()
    assert report.complete
    assert locked["rewrite"] == locked["flag"] == [[1, 2], [3], [4, 5], [6]]
    assert 0 < report.confirmed.longest_lock < 5
    assert report.counters()["longest_lock_seconds"]
    assert checker.changed(checker.with_urls(before, app.moved("a.jpg")), app.dump()) == []
    assert app.sweep().clean


def _watched(does: Callable[..., Any], locked: list[list[object]]) -> Callable[..., Any]:
    def watched(self: Any, cursor: Any, ids: Any, /, *, one_by_one: bool) -> Any:
        locked.append(list(ids))
        return does(self, cursor, ids, one_by_one=one_by_one)

    return watched


def test_what_was_looked_through_is_not_believed_once_it_is_locked(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app("CREATE TABLE profiles (id bigint PRIMARY KEY, photos text[], photos_migrated_at timestamptz)")
    app.upload("a.jpg", "b.jpg")
    app.execute("INSERT INTO profiles VALUES (1, ARRAY[%s])", app.az("a.jpg"))
    prepare = postgres_profiles.PostgresProfiles._prepare  # noqa: SLF001 - the moment between looking and locking
    edits = iter([[app.az("b.jpg"), "mine", app.az("a.jpg")]])

    def edited(self: Any, ids: Any, at: Any) -> None:
        prepare(self, ids, at)
        for value in edits:
            app.execute("UPDATE profiles SET photos = %s", value)

    monkeypatch.setattr(postgres_profiles.PostgresProfiles, "_prepare", edited)
    (report,) = app.run()
    assert app.ask("SELECT photos FROM profiles") == [([app.s3("b.jpg"), "mine", app.s3("a.jpg")],)]
    assert report.complete
