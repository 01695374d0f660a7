"""Query strings and fragments that may mean something: kept or dropped as the operator says, and brought back."""

import json
from typing import Any

import pytest

from migration_pipeline import upkeep
from migration_pipeline.core.rollback import HAD_QUERY, SPELLED_DIFFERENTLY
from migration_pipeline_tests.scenarios.hostile_app.app import HostileApp
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp

TABLES = (
    "CREATE TABLE profiles (id bigint PRIMARY KEY, photos json, bio text, photos_migrated_at timestamptz);"
    "CREATE TABLE covers (id bigint PRIMARY KEY, profile_id bigint NOT NULL REFERENCES profiles, url text);"
    "CREATE INDEX ON covers (profile_id);"
)
SAS = "sv=2024-01-01&se=2040-01-01&sr=b&sp=r&sig=c2VjcmV0"


def made(make_app: MakeApp, query: str) -> HostileApp:
    app = make_app(
        TABLES,
        profiles='{ columns = ["photos", { name = "bio", embedded = true }] }',
        related='[{ table = "covers", profile_id = "profile_id", columns = ["url"] }]',
        MIGRATION_SOURCE__QUERY=query,
    )
    app.upload("a.jpg", "b.jpg", "c.jpg")
    a, b, c = (app.az(f"{name}.jpg") for name in "abc")
    photos = {
        # The same file in several sizes, in one value and in several; a fragment; spellings of JSON; an alias of none.
        1: [{"o": a, "m": f"{a}?w=400&h=400", "s": f"{a}?w=200#top"}, f"{b}#x"],
        2: [f"{a}?{SAS}"],
        3: [f"{c}?v=3"],
        4: [f"{a}?w=1", f"{a}?w=2"],
    }
    bios = {1: f'<img srcset="{a}?w=1&amp;h=1 1x, {a}?w=2&amp;h=2 2x">', 3: f"see {c}?v=3, or {c}?v=3."}
    for id_, value in photos.items():
        app.execute(
            "INSERT INTO profiles (id, photos, bio) VALUES (%s, %s, %s)",
            id_,
            json.dumps(value).replace("/", "\\/"),
            bios.get(id_),
        )
    app.execute("INSERT INTO covers VALUES (1, 1, %s), (2, 3, %s)", f"{a}?w=9", f"{c}?v=3")
    return app


def values(app: HostileApp) -> list[tuple[Any, ...]]:
    return app.ask("SELECT id, photos::text, bio FROM profiles UNION ALL SELECT id, url, '' FROM covers ORDER BY 1, 2")


@pytest.mark.parametrize("query", ["keep", "drop"])
def test_what_was_there_comes_back(make_app: MakeApp, query: str) -> None:
    app = made(make_app, query)
    before = values(app)
    assert app.reasons() == {}
    assert app.flagged() == {"1", "2", "3", "4"}
    moved = {id_: json.loads(text) for id_, text, _ in values(app) if text.startswith("[")}
    new = app.s3("a.jpg")
    if query == "keep":
        assert moved[1][0] == {"o": new, "m": f"{new}?w=400&h=400", "s": f"{new}?w=200#top"}
    else:
        assert moved[1][0] == {"o": new, "m": new, "s": new}
    assert moved[2] == [new]
    (bio,) = (bio for id_, _, bio in values(app) if id_ == 1 and bio)
    assert bio == before_moved(before, app, query)
    assert "c2VjcmV0" not in app.ledger_text() + str(app.ask("SELECT places::text, spelling FROM migration.wanted"))
    (done,) = app.roll_back()
    assert {(item.profile_id, item.reason) for item in done.left} == {(2, HAD_QUERY)}
    (done,) = [upkeep.roll_back(app.settings, key, without_queries=True) for key in app.keys]
    assert done.complete
    after = [(id_, text.replace(f"?{SAS}", ""), bio) for id_, text, bio in before]
    assert values(app) == after


def before_moved(before: list[tuple[Any, ...]], app: HostileApp, query: str) -> str:
    (bio,) = (bio for id_, _, bio in before if id_ == 1 and bio)
    text = str(bio).replace(app.az("a.jpg"), app.s3("a.jpg"))
    return text if query == "keep" else text.replace("?w=1&amp;h=1", "").replace("?w=2&amp;h=2", "")


def test_a_reference_of_which_nobody_can_say_how_it_was_spelled_stays(make_app: MakeApp) -> None:
    app = made(make_app, "drop")
    app.run()
    # Users go on: one photo of two is gone, and nobody can say which size the other was.
    new = app.s3("a.jpg")
    app.execute("UPDATE profiles SET photos = %s WHERE id = 4", json.dumps([new]))
    # All of this file's had the same query string: one more is spelled like these.
    app.execute("UPDATE profiles SET photos = %s WHERE id = 3", json.dumps([app.s3("c.jpg")] * 2))
    (done,) = [upkeep.roll_back(app.settings, key, without_queries=True) for key in app.keys]
    assert {(item.profile_id, item.reason) for item in done.left} == {(4, SPELLED_DIFFERENTLY)}
    photos = dict(app.ask("SELECT id, photos FROM profiles"))
    assert photos[4] == [new]
    assert photos[3] == [f"{app.az('c.jpg')}?v=3"] * 2


def test_a_question_waits_for_its_answer(make_app: MakeApp) -> None:
    app = made(make_app, "wait")
    before = values(app)
    assert set(app.reasons()) == {"1", "3", "4"}
    assert app.flagged() == {"2"}
    changed = [new for old, new in zip(before, values(app), strict=True) if old != new]
    assert {id_ for id_, *_ in changed} == {1, 2}  # what asks nothing has moved: one URL of the first, and the SAS
    assert app.in_target() == {"a.jpg", "b.jpg", "c.jpg"}  # copied all the same, and ready
    answered = app.settings.model_copy(update={"source": app.settings.source.model_copy(update={"query": "keep"})})
    app.settings = answered
    assert app.reasons() == {}
    assert app.flagged() == {"1", "2", "3", "4"}
    (done,) = [upkeep.roll_back(app.settings, key, without_queries=True) for key in app.keys]
    assert done.complete
    assert values(app) == [(id_, text.replace(f"?{SAS}", ""), bio) for id_, text, bio in before]
