"""Values that the app's database refuses: their profile waits and says why, and nobody's values are told."""

import pytest

from migration_pipeline.adapters.postgres.connection import connect, translated
from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.app import HostileApp
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp

SECRET = "carol@example.com"
PROFILES = (
    "CREATE TABLE profiles (id bigint PRIMARY KEY, photos {type}, email text NOT NULL DEFAULT '" + SECRET + "',"
    " photos_migrated_at timestamptz{more});"
)
TRIGGER = (
    "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
    "CREATE {kind} TRIGGER meddle {when} UPDATE {of} ON profiles {late} FOR EACH ROW EXECUTE FUNCTION meddle();"
)


def trigger(body: str, *, when: str = "BEFORE", of: str = "OF photos", late: str = "", kind: str = "") -> str:
    return PROFILES.format(type="text", more="") + TRIGGER.format(body=body, when=when, of=of, late=late, kind=kind)


ROW_3 = "IF NEW.id = 3 THEN {} END IF; RETURN NEW;"
ROLE = (
    "DO $$ BEGIN CREATE ROLE somebody; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO somebody; GRANT USAGE ON SCHEMA public TO somebody;"
)
REFUSALS = {
    "too long": (
        PROFILES.format(type="varchar(4000)", more=""),
        "ALTER TABLE profiles ALTER photos TYPE varchar({length})",
        "too long for photos of table profiles (SQLSTATE 22001)",
    ),
    "a check": (
        PROFILES.format(type="text", more=", CONSTRAINT old_host CHECK (id <> 3 OR photos LIKE '%devstore%')"),
        "",
        "a constraint of table profiles refuses the new value (old_host) (SQLSTATE 23514)",
    ),
    "a unique value": (
        PROFILES.format(type="text", more=""),
        "CREATE UNIQUE INDEX only_once ON profiles (photos); INSERT INTO profiles (id, photos) VALUES (9, '{new3}')",
        "has to be unique (only_once) (SQLSTATE 23505)",
    ),
    "a trigger that raises": (
        trigger(ROW_3.format("RAISE EXCEPTION 'no photos for %', NEW.email;")),
        "",
        "a trigger of table profiles refuses the new value (SQLSTATE P0001)",
    ),
    "a broken trigger": (
        trigger(ROW_3.format("INSERT INTO nowhere VALUES (NEW.email);")),
        "",
        "a trigger of table profiles refuses the new value (SQLSTATE 42P01)",
    ),
    "a trigger that changes it back": (trigger(ROW_3.format("NEW.photos := OLD.photos;")), "", "keeps the new value"),
    "a trigger that drops the row": (
        trigger("IF NEW.id = 3 THEN RETURN NULL; END IF; RETURN NEW;"), "", "keeps the new value"
    ),
    "a trigger that writes it back afterwards": (
        trigger(
            "IF NEW.id = 3 AND pg_trigger_depth() < 2 THEN UPDATE profiles SET photos = OLD.photos WHERE id = 3;"
            " END IF; RETURN NULL;",
            when="AFTER",
        ),
        "",
        "keeps the new value",
    ),
    "a trigger that speaks at the end": (
        trigger(
            ROW_3.format("RAISE EXCEPTION 'no photos for %', NEW.email;"),
            kind="CONSTRAINT",
            when="AFTER",
            late="DEFERRABLE INITIALLY DEFERRED",
        ),
        "",
        "a trigger of table profiles refuses the new value (SQLSTATE P0001)",
    ),
    "a trigger against the flag": (
        trigger(ROW_3.format("RAISE EXCEPTION 'no flag for %', NEW.email;"), of="OF photos_migrated_at"),
        "",
        "a trigger of table profiles refuses the new value (SQLSTATE P0001)",
    ),
    "a trigger that clears the flag": (
        trigger(ROW_3.format("NEW.photos_migrated_at := NULL;"), of="OF photos_migrated_at"),
        "",
        "keeps the new value",
    ),
    "row-level security": (
        PROFILES.format(type="text", more="")
        + "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY see ON profiles USING (true) WITH CHECK (id <> 3 OR photos LIKE '%devstoreaccount1%');" + ROLE,
        "",
        "row-level security of table profiles refuses the new value (SQLSTATE 42501)",
    ),
}  # fmt: skip


def fill(app: HostileApp, profiles: int = 120) -> list[str]:
    blobs = [f"{id_}.jpg" for id_ in range(1, profiles + 1)]
    app.upload(*blobs)
    for blob in blobs:
        app.execute("INSERT INTO profiles (id, photos) VALUES (%s, %s)", int(blob.removesuffix(".jpg")), app.az(blob))
    return blobs


@pytest.mark.parametrize("shape", REFUSALS)
def test_one_row_that_refuses_keeps_its_profile_alone(
    make_app: MakeApp, shape: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tables, then, why = REFUSALS[shape]
    assert why is not None
    as_role = {"options": "?options=-c%20role%3Dsomebody"} if shape == "row-level security" else {}
    app = make_app(tables, profiles='{ columns = ["photos"] }')
    count = 8
    blobs = fill(app, count)
    if shape == "too long":
        blobs[2] = "3" + 40 * "x" + ".jpg"
        app.upload(blobs[2])
        app.execute("UPDATE profiles SET photos = %s WHERE id = 3", app.az(blobs[2]))
    if then:
        app.execute(then.format(length=len(app.az(blobs[2])), new3=app.s3("3.jpg")))
    before = app.dump()
    app.plan()
    if as_role:
        app = app.with_urls(database=app.database_url + as_role["options"], ledger=app.database_url)
    reports = app.run()
    waiting = {item.profile_id: item.reason for report in reports for item in report.confirmed.waiting}
    assert set(waiting) == {3} | ({9} & set(waiting))
    assert why in waiting[3]
    others = {str(id_) for id_ in range(1, count + 1)} - {"3"}
    assert app.flagged() - {"9"} == others
    moved = [blob for blob in blobs if blob != blobs[2]]
    against_the_flag = "the flag" in shape
    expected = checker.with_urls(before, app.moved(*(blobs if against_the_flag else moved)))
    assert checker.changed(expected, app.dump()) == []
    told = "\n".join([caplog.text, *capfd.readouterr(), str(reports), app.ledger_text()])
    assert SECRET not in told


def test_rows_that_may_be_seen_and_not_written(make_app: MakeApp) -> None:
    """One profile's own row, and another's row of a related table."""
    secured = (
        "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; CREATE POLICY see ON {t} FOR SELECT USING (true);"
        "CREATE POLICY write ON {t} FOR UPDATE USING ({own} <> {id}) WITH CHECK (true);"
    )
    app = make_app(
        PROFILES.format(type="text", more="")
        + "CREATE TABLE more (profile_id bigint, n int, url text, PRIMARY KEY (profile_id, n));"
        + secured.format(t="profiles", own="id", id=3)
        + secured.format(t="more", own="profile_id", id=5)
        + ROLE,
        profiles='{ columns = ["photos"] }',
        related='[{ table = "more", profile_id = "profile_id", columns = ["url"] }]',
    )
    fill(app, 6)
    for id_ in (3, 4, 5):
        app.execute("INSERT INTO more VALUES (%s, 1, %s)", id_, app.az("1.jpg"))
    app.plan()
    as_role = app.with_urls(database=f"{app.database_url}?options=-c%20role%3Dsomebody", ledger=app.database_url)
    reasons = as_role.reasons()
    assert {id_: "see the row, and not write it" in why for id_, why in reasons.items()} == {"3": True, "5": True}
    assert app.flagged() == {"1", "2", "4", "6"}
    left = app.ask(
        "SELECT id FROM profiles WHERE photos LIKE '%%devstore%%' UNION ALL"
        " SELECT profile_id FROM more WHERE url LIKE '%%devstore%%' ORDER BY 1"
    )
    assert left == [(3,), (3,), (5,)]


def test_a_profile_that_refuses_is_told_in_a_rollback_too(make_app: MakeApp) -> None:
    app = make_app(PROFILES.format(type="text", more=""))
    blobs = fill(app, 4)
    assert app.reasons() == {}
    app.execute(
        TRIGGER.format(body=ROW_3.format("NEW.photos := OLD.photos;"), kind="", when="BEFORE", of="OF photos", late="")
    )
    (done,) = app.roll_back()
    assert [(item.profile_id, "keeps the new value" in item.reason) for item in done.left] == [(3, True)]
    rows = dict(app.ask("SELECT id, photos FROM profiles"))
    assert rows == {id_: (app.s3 if id_ == 3 else app.az)(blob) for id_, blob in enumerate(blobs, 1)}
    app.execute("DROP TRIGGER meddle ON profiles")
    assert all(done.complete for done in app.roll_back())


def test_a_flag_that_cannot_be_cleared_keeps_its_profile_from_going_back(make_app: MakeApp) -> None:
    app = make_app(PROFILES.format(type="text", more=""))
    fill(app, 4)
    assert app.reasons() == {}
    app.execute(
        TRIGGER.format(
            body=ROW_3.format("RAISE EXCEPTION 'no';"), kind="", when="BEFORE", of="OF photos_migrated_at", late=""
        )
    )
    (done,) = app.roll_back()
    assert [item.profile_id for item in done.left] == [3]
    # Flagged and in S3, or neither: never a flag that says what is not so.
    assert app.flagged() == {"3"}
    assert app.ask("SELECT id FROM profiles WHERE photos NOT LIKE '%%devstore%%'") == [(3,)]
    # A sweep that finds it late tells, and does not end with an error.
    app.execute("UPDATE profiles SET photos = %s WHERE id = 3", app.az("3.jpg"))
    assert app.sweep().refused == 1


def test_a_database_that_turns_read_only_is_waited_for(make_app: MakeApp) -> None:
    app = make_app(PROFILES.format(type="text", more=""))
    with connect(app.database_url, setting="DATABASE_URL") as connection:
        connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(Transient, match="takes no writes"), translated("database"):
            connection.execute("UPDATE profiles SET photos = NULL")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'carol@example.com'::bigint",
        "SELECT json 'carol@example.com'",
        "DO $$ BEGIN RAISE 'carol@example.com'; END $$",
    ],
)
def test_an_error_of_the_driver_carries_no_value(make_app: MakeApp, statement: str) -> None:
    app = make_app(PROFILES.format(type="text", more=""))
    with connect(app.database_url, setting="DATABASE_URL") as connection:
        with pytest.raises(Fatal, match="SQLSTATE") as refused, translated("database"):
            connection.execute(statement.encode())
        assert "carol" not in str(refused.value)
        assert refused.value.__suppress_context__
