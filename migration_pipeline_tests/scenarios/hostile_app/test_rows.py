"""A row is identified, never assumed: no row of others is written, whatever the tables' keys are."""

import pytest

from migration_pipeline.commands.doctor.database import database
from migration_pipeline.core.errors import Fatal
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.app import HostileApp
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp

PROFILES = "CREATE TABLE profiles (id bigint PRIMARY KEY, photos jsonb, photos_migrated_at timestamptz);"
TENANTS = (
    "CREATE TABLE profiles (tenant int, id bigint, photos jsonb, photos_migrated_at timestamptz,"
    " PRIMARY KEY (tenant, id));"
)
PHOTOS = (
    PROFILES + "CREATE TABLE photos (profile_id bigint NOT NULL, position int NOT NULL, url text, alt text,"
    " PRIMARY KEY (profile_id, position));"
)


def related(*, id_: str | None = None, columns: str = '"url"') -> str:
    named = f', id = "{id_}"' if id_ else ""
    return f'[{{ table = "photos", profile_id = "profile_id", columns = [{columns}]{named} }}]'


def fill(app: HostileApp, profiles: int = 4, positions: int = 2) -> list[str]:
    """Photos of each profile at the same positions as everybody's."""
    blobs = [f"{id_}/{place}.jpg" for id_ in range(1, profiles + 1) for place in range(1, positions + 1)]
    app.upload(*blobs)
    for blob in blobs:
        id_, _, place = blob.removesuffix(".jpg").partition("/")
        app.execute("INSERT INTO profiles (id) VALUES (%s) ON CONFLICT DO NOTHING", int(id_))
        app.execute(
            "INSERT INTO photos (profile_id, position, url) VALUES (%s, %s, %s)", int(id_), int(place), app.az(blob)
        )
    return blobs


@pytest.mark.parametrize("id_", ["position", None])
def test_rows_whose_key_is_theirs_within_a_profile(make_app: MakeApp, id_: str | None) -> None:
    app = make_app(PHOTOS, related=related(id_=id_), per_range=2)
    blobs = fill(app)
    before = app.dump()
    app.plan()
    assert len(app.keys) == 2
    (first,) = app.run(app.keys[:1])
    assert first.complete
    # Nobody of the other range was written, and the first range's own are re-pointed, each to its own photo.
    mine = app.moved(*(blob for blob in blobs if blob[0] in "12"))
    assert checker.changed(checker.with_urls(before, mine), app.dump()) == []
    assert app.run()[1].complete
    assert app.flagged() == {"1", "2", "3", "4"}
    assert checker.changed(checker.with_urls(before, app.moved(*blobs)), app.dump()) == []
    assert app.sweep().clean
    assert [audited.severity for audited in app.audit()] == [0, 0]
    assert all(done.complete for done in app.roll_back())
    assert checker.changed(before, app.dump()) == []


def test_a_key_that_holds_the_url_itself(make_app: MakeApp) -> None:
    tables = PROFILES + (
        "CREATE TABLE photos (profile_id bigint REFERENCES profiles, url text, PRIMARY KEY (profile_id, url));"
        "INSERT INTO profiles VALUES (1), (2)"
    )
    app = make_app(tables, related=related())
    app.upload("a.jpg", "b.jpg")
    for owner, blob in ((1, "a.jpg"), (1, "b.jpg"), (2, "a.jpg")):
        app.execute("INSERT INTO photos VALUES (%s, %s)", owner, app.az(blob))
    before = app.dump()
    assert app.reasons() == {}
    assert checker.changed(checker.with_urls(before, app.moved("a.jpg", "b.jpg")), app.dump()) == []


@pytest.mark.parametrize(
    ("tables", "profiles", "others", "named", "remedy"),
    [
        (TENANTS, "{}", "[]", r"database\.profiles\.id: .*'id'.*primary key is tenant, id", "CREATE UNIQUE INDEX"),
        (
            PHOTOS.replace("PRIMARY KEY (profile_id, position)", "id bigint PRIMARY KEY"),
            "{}",
            related(id_="position"),
            r"database\.related\.id: table 'photos'.*'position'",
            "Leave id out",
        ),
        (
            PHOTOS.replace(", PRIMARY KEY (profile_id, position)", "")
            + "CREATE UNIQUE INDEX ON photos (position) WHERE alt IS NULL;",
            "{}",
            related(id_="position"),
            r"database\.related\.id: .*'position'",
            "Add a primary key",
        ),
        (
            PHOTOS.replace(", PRIMARY KEY (profile_id, position)", "")
            + "CREATE UNIQUE INDEX ON photos (profile_id, position, alt); CREATE INDEX ON photos (position);",
            "{}",
            related(),
            r"database\.related: .*no primary key",
            "Add a primary key",
        ),
        (
            PHOTOS + "CREATE TABLE old_photos () INHERITS (photos);",
            "{}",
            related(),
            r"database\.related: .*old_photos",
            "attach them as partitions",
        ),
        (PROFILES + "CREATE VIEW seen AS SELECT * FROM profiles;", '{ table = "seen" }', "[]", "a view", "the table"),
    ],
)
def test_a_table_whose_rows_cannot_be_told_apart_is_refused_everywhere(
    make_app: MakeApp, tables: str, profiles: str, others: str, named: str, remedy: str
) -> None:
    # The same names, with keys as they ought to be, so that there is a plan before the key is gone.
    app = make_app(tables, profiles=profiles, related=others)
    before = app.dump()
    for act in (app.plan, app.sweep, app.erase):
        with pytest.raises(Fatal, match=named) as refused:
            act()
        assert remedy in refused.value.remedy
    with pytest.raises(Fatal, match=named):
        app.run(["0000000001-0000000009"])
    lines = list(database(app.settings))
    assert any(line.health == "failure" and remedy in line.remedy for line in lines), lines
    assert app.dump() == before


def test_a_key_that_is_dropped_after_planning_stops_the_run(make_app: MakeApp) -> None:
    app = make_app(PHOTOS, related=related())
    fill(app)
    app.plan()
    app.execute("ALTER TABLE photos DROP CONSTRAINT photos_pkey")
    before = app.dump()
    with pytest.raises(Fatal, match="no primary key"):
        app.run()
    assert checker.changed(before, app.dump()) == []


KEYS = {
    "smallint": "7", "numeric(12,3)": "1.5", "timestamptz": "2026-10-25 02:30:00.123456+01", "date": "2026-01-01",
    "char(5)": "a ", "varchar(9)": "it's", "bytea": "\\x00ff", "inet": "10.0.0.1", "float8": "0.1",
    "uuid": "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
}  # fmt: skip


def test_keys_of_any_type(make_app: MakeApp) -> None:
    tables = [
        f"CREATE TABLE t{n} (profile_id bigint, k {type_}, url varchar(200), PRIMARY KEY (profile_id, k));"
        for n, type_ in enumerate(KEYS)
    ]
    named = [f'{{ table = "t{n}", profile_id = "profile_id", columns = ["url"] }}' for n in range(len(KEYS))]
    app = make_app(
        f"{PROFILES} INSERT INTO profiles VALUES (1), (2); {''.join(tables)}", related=f"[{', '.join(named)}]"
    )
    app.upload("a.jpg")
    for n, (type_, value) in enumerate(KEYS.items()):
        for owner in (1, 2):
            app.execute(f"INSERT INTO t{n} VALUES (%s, %s::{type_}, %s)", owner, value, app.az("a.jpg"))
    before = app.dump()
    assert app.reasons() == {}
    assert checker.changed(checker.with_urls(before, app.moved("a.jpg")), app.dump()) == []


def test_partitions_and_a_key_that_ends_in_another_table(make_app: MakeApp) -> None:
    app = make_app(
        PROFILES + "CREATE TABLE photos (profile_id bigint, day date, n int, url text, PRIMARY KEY (day, n))"
        " PARTITION BY RANGE (day);"
        "CREATE TABLE p1 PARTITION OF photos FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        "CREATE TABLE p2 PARTITION OF photos FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');"
        "INSERT INTO profiles VALUES (1), (2)",
        related=related(),
    )
    app.upload("a.jpg", "b.jpg")
    for owner, day, blob in ((1, "2026-01-05", "a.jpg"), (2, "2026-02-05", "b.jpg"), (2, "2026-01-06", "a.jpg")):
        app.execute("INSERT INTO photos VALUES (%s, %s, 1, %s)", owner, day, app.az(blob))
    before = app.dump()
    assert app.reasons() == {}
    assert checker.changed(checker.with_urls(before, app.moved("a.jpg", "b.jpg")), app.dump()) == []


def test_a_row_with_a_null_in_its_key_waits_and_nobody_else_is_written(make_app: MakeApp) -> None:
    app = make_app(
        PROFILES + "CREATE TABLE photos (profile_id bigint, position int, url text, UNIQUE (profile_id, position));"
        "INSERT INTO profiles VALUES (1), (2)",
        related=related(id_="position"),
    )
    app.upload("a.jpg")
    for owner, position in ((1, None), (1, None), (1, 1), (2, 1)):
        app.execute("INSERT INTO photos VALUES (%s, %s, %s)", owner, position, app.az("a.jpg"))
    reasons = app.reasons()
    assert set(reasons) == {"1"}
    assert "the row's alone, or is NULL" in reasons["1"]
    rows = app.ask("SELECT profile_id, position, url = %s FROM photos ORDER BY 1, 2", app.s3("a.jpg"))
    assert rows == [(1, 1, True), (1, None, False), (1, None, False), (2, 1, True)]
    assert app.flagged() == {"2"}


def test_columns_with_nothing_to_replace_are_not_written(make_app: MakeApp) -> None:
    """A trigger for one column alone does not fire for another's sake."""
    app = make_app(
        PROFILES + "CREATE TABLE photos (profile_id bigint, position int, url text, alt text,"
        " PRIMARY KEY (profile_id, position)); INSERT INTO profiles VALUES (1);"
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';"
        "CREATE TRIGGER no BEFORE UPDATE OF alt ON photos FOR EACH ROW EXECUTE FUNCTION no()",
        related=related(columns='"url", "alt"'),
    )
    app.upload("a.jpg")
    app.execute("INSERT INTO photos VALUES (1, 1, %s, 'a photo')", app.az("a.jpg"))
    assert app.reasons() == {}
    assert app.ask("SELECT url, alt FROM photos") == [(app.s3("a.jpg"), "a photo")]


ARRAYS = (
    "[0:1]={URL,NULL}",
    '[-3:-2][5:6]={{URL,"x y"},{"NULL",URL}}',
    '{"URL?sv=1&sig=x","a\\"b\\\\c",""}',
    "{{URL},{other}}",
    "{}",
    "{NULL}",
)


@pytest.mark.parametrize("type_", ["text[]", "varchar(300)[]"])
def test_arrays_keep_their_bounds(make_app: MakeApp, type_: str) -> None:
    app = make_app(f"CREATE TABLE profiles (id bigint PRIMARY KEY, photos {type_}, photos_migrated_at timestamptz)")
    app.upload("a,b.jpg")
    url, new = app.az("a,b.jpg").replace(",", "%2C"), app.s3("a%2Cb.jpg")
    for id_, value in enumerate(ARRAYS):
        app.execute("INSERT INTO profiles VALUES (%s, %s)", id_, value.replace("URL", url))
    shapes = "SELECT id, array_dims(photos), photos::text FROM profiles ORDER BY id"
    before = app.ask(shapes)
    assert app.reasons() == {}
    for (_, dims, old), (_, dims_now, now) in zip(before, app.ask(shapes), strict=True):
        expected = old.replace("?sv=1&sig=x", "").replace(url, new)
        assert dims_now == dims
        # Without its query, an element may do without quotation marks.
        assert now in (expected, expected.replace(f'"{new}"', new))


def test_domains_and_arrays_of_json(make_app: MakeApp) -> None:
    app = make_app(
        "CREATE DOMAIN url AS text CHECK (VALUE LIKE 'http%'); CREATE DOMAIN link AS url;"
        "CREATE DOMAIN album AS jsonb; CREATE TABLE profiles (id bigint PRIMARY KEY, one link, many url[],"
        " photos jsonb[], raw json[], album album, photos_migrated_at timestamptz);",
        profiles='{ columns = ["one", "many", "photos", "raw", "album"] }',
    )
    app.upload("a b.jpg")
    url, new = app.az("a%20b.jpg"), app.s3("a%20b.jpg")
    app.execute(
        "INSERT INTO profiles SELECT 1, u, ARRAY[u]::url[], ARRAY[jsonb_build_object('a \"b\"', u, 'n', 1.50)],"
        " ARRAY[('{\"x\" :  \"' || u || '\"}')::json], to_jsonb(u) FROM (SELECT %s AS u) AS t",
        url,
    )
    before = app.dump()
    assert app.reasons() == {}
    assert checker.changed(checker.with_urls(before, {url: new}), app.dump()) == []
    assert app.ask("SELECT raw[1]::text FROM profiles") == [(f'{{"x" :  "{new}"}}',)]
