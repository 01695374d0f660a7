"""Related rows whose profile is gone: what they name is kept, and told, whatever type their ids have."""

from pathlib import Path

import pytest

from migration_pipeline.cutover import stand
from migration_pipeline.inventory import list_orphans
from migration_pipeline.planning import plan
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp

RELATED = '[{ table = "photos", profile_id = "profile_id", columns = ["url"] }]'
IDS = {
    "bigint": ["1", "2", "77"],
    "uuid": [f"00000000-0000-0000-0000-00000000000{n}" for n in "127"],
    "text": ["ann", "bob", "gone"],
}


def tables(type_: str, reference: str = "") -> str:
    return (
        f"CREATE TABLE profiles (id {type_} PRIMARY KEY, photos jsonb, photos_migrated_at timestamptz);"
        f"CREATE TABLE photos (id serial PRIMARY KEY, profile_id {type_} {reference}, url text);"
    )


@pytest.mark.parametrize("type_", IDS)
def test_what_rows_without_a_profile_name_is_kept_and_told(make_app: MakeApp, tmp_path: Path, type_: str) -> None:
    app = make_app(tables(type_), related=RELATED)
    ann, bob, gone = IDS[type_]
    app.upload("ann.jpg", "bob.jpg", "old.jpg", "lost.jpg", "copied.jpg", "free.jpg")
    for id_ in (ann, bob):
        app.execute(f"INSERT INTO profiles (id) VALUES (%s::{type_})", id_)
    for owner, blob in (
        (ann, "ann.jpg"), (bob, "bob.jpg"), (ann, "old.jpg"), (ann, "copied.jpg"), (ann, "free.jpg"), (None, "lost.jpg")
    ):  # fmt: skip
        app.execute(f"INSERT INTO photos (profile_id, url) VALUES (%s::{type_}, %s)", owner, app.az(blob))
    assert app.reasons() == {}
    # A row that names a copy in S3 loses its profile, and so does one that comes back to the source.
    app.execute(f"UPDATE photos SET profile_id = %s::{type_} WHERE url LIKE '%%copied.jpg'", gone)
    app.execute(
        f"UPDATE photos SET profile_id = %s::{type_}, url = %s WHERE url LIKE '%%old.jpg'", gone, app.az("old.jpg")
    )
    app.execute("DELETE FROM photos WHERE url LIKE '%%free.jpg'")
    before = app.dump()
    assert app.run()[0].complete
    assert checker.changed(before, app.dump()) == []
    swept = app.sweep()
    assert (swept.unowned, swept.clean) == (2, False)
    assert app.erase().spared == 2
    assert app.in_target() == {"ann.jpg", "bob.jpg", "old.jpg", "copied.jpg"}
    app.soak()
    holds = [hold.what for hold in stand(app.settings).removal_holds]
    assert "2 rows name the source without a profile" in holds
    assert plan(app.settings).unowned == 2
    # What they name is nobody's orphan; what nobody names any more is.
    kept = list_orphans(app.settings, tmp_path)
    assert ["free.jpg" in line for line in kept.path.read_text().splitlines()[1:]] == [True]
    # They are dealt with: one gets a profile, the other is removed. Then nothing holds any more.
    app.execute(f"UPDATE photos SET profile_id = %s::{type_} WHERE url LIKE '%%old.jpg'", ann)
    app.execute("DELETE FROM photos WHERE url LIKE '%%lost.jpg'")
    assert app.run()[0].complete
    swept = app.sweep()
    assert swept.unowned == 0


@pytest.mark.parametrize("type_", IDS)
def test_a_blob_that_only_a_row_without_a_profile_names_is_not_removed(make_app: MakeApp, type_: str) -> None:
    app = make_app(tables(type_), related=RELATED)
    ann, _, gone = IDS[type_]
    app.upload("a.jpg", "b.jpg")
    app.execute(f"INSERT INTO profiles (id) VALUES (%s::{type_})", ann)
    for blob in ("a.jpg", "b.jpg"):
        app.execute(f"INSERT INTO photos (profile_id, url) VALUES (%s::{type_}, %s)", ann, app.az(blob))
    assert app.reasons() == {}
    app.soak()
    assert stand(app.settings).removal_holds == []
    # After the last look of the gates: an old client writes, and its user goes.
    app.execute(
        f"INSERT INTO photos (profile_id, url) VALUES (%s::{type_}, %s), (NULL, %s)",
        gone,
        app.az("a.jpg"),
        app.az("a.jpg"),
    )
    app.decommission()
    assert app.in_source() == {"a.jpg"}


@pytest.mark.parametrize(
    ("reference", "unowned"),
    [("NOT NULL REFERENCES profiles", 0), ("REFERENCES profiles ON DELETE SET NULL", 1), ("", 1)],
)
def test_a_foreign_key_says_which_rows_can_be_nobodys(make_app: MakeApp, reference: str, unowned: int) -> None:
    app = make_app(tables("bigint", reference), related=RELATED)
    app.upload("a.jpg")
    app.execute("INSERT INTO profiles (id) VALUES (1), (2)")
    app.execute("INSERT INTO photos (profile_id, url) VALUES (1, %s), (2, %s)", app.az("a.jpg"), app.az("a.jpg"))
    if unowned:
        app.execute("DELETE FROM profiles WHERE id = 2")
    app.run()
    assert app.sweep().unowned == unowned
