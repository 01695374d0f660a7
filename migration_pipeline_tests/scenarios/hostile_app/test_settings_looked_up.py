"""What settings say of the app's database is looked up: refused by name where it does not hold, or made right."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from migration_pipeline.adapters.postgres.connection import connect
from migration_pipeline.commands.doctor.database import database
from migration_pipeline.core.errors import Fatal, Unreachable
from migration_pipeline.sandbox.postgres import PostgresServer
from migration_pipeline.stores import open_profiles
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp

PLAIN = "CREATE TABLE profiles (id bigint PRIMARY KEY, photos text, photos_migrated_at timestamptz{});"
RELATED = '[{ table = "pictures", profile_id = "profile_id", columns = ["url"] }]'


def pictures(type_: str, more: str = "") -> str:
    return PLAIN.format("") + f"CREATE TABLE pictures (id serial PRIMARY KEY, profile_id {type_}, url text{more});"


REFUSED = {
    "owner as text": (pictures("text"), {"related": RELATED}, "profile_id: .*type text.*bigint", "the same type"),
    "owner as uuid": (pictures("uuid"), {"related": RELATED}, "profile_id: .*type uuid.*bigint", "the same type"),
    "owner as citext's like": (pictures("numeric"), {"related": RELATED}, "type numeric", "integers, uuids or text"),
    "a generated column": (
        PLAIN.format(", link text GENERATED ALWAYS AS ('x' || photos) STORED"),
        {"profiles": '{ columns = ["photos", "link"] }'},
        r"columns: .*computes its column 'link'",
        "computed from",
    ),
    "published without identity": (
        pictures("bigint").replace("serial PRIMARY KEY", "serial NOT NULL UNIQUE")
        + "CREATE PUBLICATION all_of_it FOR TABLE pictures;",
        {"related": RELATED},
        "replica identity .pictures",
        "REPLICA IDENTITY FULL",
    ),
    "deleted_at that is a boolean": (
        PLAIN.format(", gone boolean NOT NULL DEFAULT false"),
        {"profiles": '{ columns = ["photos"], deleted_at = "gone" }'},
        "deleted_at: .*boolean",
        'deleted = "gone"',
    ),
    "deleted_at in words": (
        PLAIN.format(", status text"),
        {"profiles": '{ columns = ["photos"], deleted_at = "status" }'},
        "deleted_at: .*type text",
        "deleted_values",
    ),
    "deleted without its words": (
        PLAIN.format(", status text"),
        {"profiles": '{ columns = ["photos"], deleted = "status" }'},
        "deleted_values: .*type text",
        "Set deleted_values",
    ),
    "words for a boolean": (
        PLAIN.format(", gone boolean"),
        {"profiles": '{ columns = ["photos"], deleted = "gone", deleted_values = ["true"] }'},
        "deleted_values: ",
        "Leave deleted_values out",
    ),
    "both": (
        PLAIN.format(", gone boolean, deleted_at date"),
        {"profiles": '{ columns = ["photos"], deleted = "gone", deleted_at = "deleted_at" }'},
        "both",
        "the one",
    ),
    "deleted_at that is never NULL": (
        PLAIN.format(", deleted_at timestamptz NOT NULL DEFAULT 'epoch'") + "INSERT INTO profiles VALUES (1), (2);",
        {"profiles": '{ columns = ["photos"], deleted_at = "deleted_at" }'},
        "deleted_at: .*no profile that is not deleted",
        "deleted_values",
    ),
    "updated_at as a number": (
        PLAIN.format(", updated_at bigint"),
        {"profiles": '{ columns = ["photos"], updated_at = "updated_at" }'},
        "updated_at: .*type bigint",
        "timestamptz",
    ),
    "updated_at as a date": (
        PLAIN.format(", updated_at date"),
        {"profiles": '{ columns = ["photos"], updated_at = "updated_at" }'},
        "updated_at: .*type date",
        "timestamptz",
    ),
    "ids that are NULL": (
        PLAIN.format("").replace("id bigint PRIMARY KEY", "id bigint UNIQUE")
        + "INSERT INTO profiles VALUES (1), (NULL);",
        {},
        "id: .*rows without 'id'",
        "SET NOT NULL",
    ),
    "a flag that may not be NULL": (
        PLAIN.format("").replace("timestamptz", "timestamptz NOT NULL DEFAULT now()"),
        {},
        "migrated_at: .*NOT NULL",
        "DROP NOT NULL",
    ),
    "a flag that is a boolean": (
        PLAIN.format("").replace("timestamptz", "boolean"), {}, "migrated_at: .*type boolean", "nullable timestamptz"
    ),
    "a rule that writes elsewhere": (
        PLAIN.format("") + "CREATE RULE elsewhere AS ON UPDATE TO profiles DO INSTEAD NOTHING;",
        {},
        "rules for updates .elsewhere",
        "triggers",
    ),
    "another type": (PLAIN.format("").replace("photos text", "photos xml"), {}, "'photos' of type xml", "json, jsonb"),
}  # fmt: skip


@pytest.mark.parametrize("shape", REFUSED)
def test_what_does_not_hold_is_refused_by_name(make_app: MakeApp, shape: str) -> None:
    tables, settings, named, remedy = REFUSED[shape]
    app = make_app(tables, **({"profiles": '{ columns = ["photos"] }'} | settings))
    app.keys = ["0000000001-0000000009"]
    for act in (app.plan, app.run, app.sweep):
        with pytest.raises(Fatal, match=named) as refused:
            act()
        assert remedy in refused.value.remedy
    lines = [line for line in database(app.settings) if line.health == "failure"]
    assert any(remedy in line.remedy for line in lines), lines


@pytest.mark.parametrize(
    ("column", "setting", "alive", "gone"),
    [
        ("gone boolean", 'deleted = "gone"', "NULL", "true"),
        ("gone boolean NOT NULL", 'deleted = "gone"', "false", "true"),
        ("gone text", 'deleted = "gone", deleted_values = ["deleted", "100%% banned"]', "'active'", "'100%% banned'"),
        ("gone state", 'deleted = "gone", deleted_values = ["deleted"]', "NULL", "'deleted'"),
        ("gone timestamptz NOT NULL", 'deleted_at = "gone"', "'infinity'", "now()"),
        ("gone timestamp", 'deleted_at = "gone"', "NULL", "now()"),
        ("gone date", 'deleted_at = "gone"', "'infinity'", "now()"),
    ],
)
def test_an_app_says_in_its_own_way_who_is_deleted(
    make_app: MakeApp, column: str, setting: str, alive: str, gone: str
) -> None:
    app = make_app(
        "CREATE TYPE state AS ENUM ('active', 'deleted');" + PLAIN.format(f", {column}"),
        profiles=f'{{ columns = ["photos"], {setting.replace("%%", "%")} }}',
    )
    app.upload("1.jpg", "2.jpg", "3.jpg")
    for id_, said in ((1, alive), (2, gone), (3, alive)):
        app.execute(f"INSERT INTO profiles VALUES ({id_}, '{app.az(f'{id_}.jpg')}', NULL, {said})")
    before = app.dump()
    assert app.reasons() == {}
    assert app.flagged() == {"1", "3"}
    assert checker.changed(checker.with_urls(before, app.moved("1.jpg", "3.jpg")), app.dump()) == []


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_a_time_without_a_zone_hides_nothing_from_sweeps(make_app: MakeApp, zone: str) -> None:
    app = make_app(
        PLAIN.format(", updated_at timestamp NOT NULL"), profiles='{ columns = ["photos"], updated_at = "updated_at" }'
    )
    app.execute(f"ALTER DATABASE {app.name} SET timezone = '{zone}'")
    app.execute("INSERT INTO profiles VALUES (1, NULL, NULL, localtimestamp), (2, NULL, NULL, '2020-01-01')")
    with closing(open_profiles(app.settings)) as profiles:
        since = datetime.now(UTC) - timedelta(minutes=5)
        found = [profile.profile_id for batch in profiles.written_since(since) for profile in batch]
    assert found == [1]


def test_a_database_that_takes_no_writes_may_be_planned_and_is_waited_for_by_runs(make_app: MakeApp) -> None:
    app = make_app(PLAIN.format("") + "INSERT INTO profiles VALUES (1)", profiles='{ columns = ["photos"] }')
    app.plan()
    app.execute(f"ALTER DATABASE {app.name} SET default_transaction_read_only = on")
    with pytest.raises(Unreachable, match="DATABASE_URL: takes no writes"), closing(open_profiles(app.settings)):
        pass
    assert any(line.health == "failure" and "read-only" in line.said for line in database(app.settings))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cr/et@127.0.0.1:1/app",
        "postgresql://ann:s3cr@et@127.0.0.1:1/app",
        "postgresql://ann:s3cr?et@127.0.0.1:1/app",
        "postgres://ann:s3cr/e@t@127.0.0.1:1/app",
        "postgresql://ann:@s3cret@/app",
        "postgresql://ann:s3cret/@127.0.0.1:port/app?host=x@y",
    ],
)
def test_a_password_that_is_not_escaped_is_not_told(url: str) -> None:
    with pytest.raises(Fatal, match="DATABASE_URL") as refused:
        connect(url, setting="DATABASE_URL")
    assert "s3cr" not in str(refused.value)
    assert "et@" not in str(refused.value)
    assert "%40" in refused.value.remedy


def test_a_url_that_is_escaped_is_taken(make_app: MakeApp) -> None:
    app = make_app(PLAIN.format(""))
    for password in ("s3cr%2Fet", "s3%40cret", "plain:colon"):
        connect(app.database_url.replace("postgres@", f"postgres:{password}@"), setting="DATABASE_URL").close()


@pytest.fixture(scope="module")
def create_english() -> Iterator[Callable[[str], str]]:
    """Makes databases whose text is in a language's order, where `aB3` comes before `Ab9` and `bC1`."""
    compiler = shutil.which("localedef")
    if compiler is None or not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip("needs Debian's package locales, to make a locale of")
    folder = Path(tempfile.mkdtemp())  # a server's own user reaches it
    folder.chmod(0o755)
    subprocess.run([compiler, "-i", "en_US", "-f", "UTF-8", folder / "en_US.UTF-8"], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCPATH", str(folder))
        server = PostgresServer(folder / "postgres")
    try:

        def create(name: str) -> str:
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name} LOCALE 'en_US.UTF-8' TEMPLATE template0")
            return server.url(name)

        yield create
    finally:
        server.close()
        shutil.rmtree(folder)


def test_text_ids_in_a_languages_order(make_app: MakeApp, create_english: Callable[[str], str]) -> None:
    app = make_app(
        "CREATE TABLE profiles (id text PRIMARY KEY, photos text, photos_migrated_at timestamptz)",
        profiles='{ columns = ["photos"] }',
        per_range=3,
        create_database=create_english,
    )
    ids = ["aB3", "Ab9", "bC1", "B-2", "_x", "é1", "Zz", "a b", "A_b", "10", "9", "zZ"]
    app.upload("a.jpg")
    for id_ in ids:
        app.execute("INSERT INTO profiles VALUES (%s, %s)", id_, app.az("a.jpg"))
    ordered = [row[0] for row in app.ask("SELECT id FROM profiles ORDER BY id")]
    assert ordered != sorted(ids)
    app.plan()
    assert len(app.keys) == 4
    assert app.reasons() == {}
    assert app.flagged() == set(ids)
    # Everybody's reference comes back: each is of the range that planning gave the profile to.
    app.execute("UPDATE profiles SET photos = %s", app.az("a.jpg"))
    swept = app.sweep()
    assert (swept.late, swept.unplanned, swept.ranges) == (len(ids), 0, set(app.keys))
    assert app.flagged() == set()
    with closing(open_profiles(app.settings)) as profiles:
        bounds = [ordered[2], ordered[5], ordered[8], ordered[11]]
        assert profiles.below(ordered, bounds) == [n // 3 for n in range(12)]
        assert profiles.below(["zzz"], bounds) == [4]
    assert app.reasons() == {}
    assert all(done.complete for done in app.roll_back())


def test_ids_of_a_collation_under_which_different_ones_are_equal(make_app: MakeApp) -> None:
    app = make_app(PLAIN.format(""), profiles='{ columns = ["photos"] }')
    try:
        app.execute("CREATE COLLATION alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this Postgres is built without ICU")
    app.execute("ALTER TABLE profiles ALTER id TYPE text COLLATE alike")
    with pytest.raises(Fatal, match="different ids are equal"):
        app.plan()


@pytest.mark.parametrize(
    ("policy", "hides"),
    [
        ("", True),
        ("CREATE POLICY few ON profiles FOR SELECT USING (id < 5)", True),
        ("CREATE POLICY every ON profiles USING (true)", False),
        (
            "CREATE POLICY every ON profiles USING (true);CREATE POLICY less ON profiles AS RESTRICTIVE USING (id < 5)",
            True,
        ),
        ("CREATE POLICY every ON profiles FOR UPDATE USING (true)", True),
        ("CREATE POLICY every ON profiles TO pg_monitor USING (true)", True),
    ],
)
def test_rows_that_the_role_does_not_see_are_not_passed_over(make_app: MakeApp, policy: str, hides: bool) -> None:  # noqa: FBT001 - a parameter
    app = make_app(
        f"{PLAIN.format('')} INSERT INTO profiles VALUES (1); ALTER TABLE profiles ENABLE ROW LEVEL SECURITY; {policy}",
        profiles='{ columns = ["photos"] }',
    )
    role = f"r{uuid4().hex[:8]}"
    app.execute(f"CREATE ROLE {role} LOGIN; GRANT ALL ON profiles TO {role}")
    seen = app.with_urls(database=app.database_url.replace("postgres@", f"{role}@"), ledger=app.database_url)
    if not hides:
        open_profiles(seen.settings).close()
        return
    for act in (seen.plan, seen.sweep):
        with pytest.raises(Fatal, match="row-level security hides"):
            act()


def test_a_name_of_a_role_in_the_url_is_not_taken_for_more(make_app: MakeApp) -> None:
    app = make_app(PLAIN.format(""))
    name = f"r{uuid4().hex[:8]}"
    app.execute(f"CREATE ROLE {name} LOGIN")
    connect(app.database_url.replace("postgres@", f"{name}@"), setting="DATABASE_URL").close()
