"""The examination on real servers: nothing is wrong where nothing is, and each thing that goes wrong is told."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import grpc
import psycopg
import pytest
from click.testing import CliRunner

from migration_pipeline.cli.main import main
from migration_pipeline.commands.dagster_instance import instance
from migration_pipeline.commands.doctor import Finding, Health, What, examine
from migration_pipeline.commands.doctor.clocks import clocks
from migration_pipeline.commands.doctor.dagster_home import dagster_home
from migration_pipeline.commands.doctor.database import database
from migration_pipeline.commands.doctor.documents import documents
from migration_pipeline.commands.doctor.findings import Findings
from migration_pipeline.commands.doctor.ledger import ledger
from migration_pipeline.commands.doctor.set_up import set_up
from migration_pipeline.commands.doctor.source import source
from migration_pipeline.commands.doctor.target import lifecycle_rule, target
from migration_pipeline.core.errors import Fatal
from migration_pipeline.defs.ranges import POOL, set_workers
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import AppSize
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.moto_server import MotoServer
from migration_pipeline_tests.scenarios.conftest import World, new_world

REFUSED = "403 Forbidden\r\nx-ms-error-code: AuthorizationPermissionMismatch\r\nContent-Length: 0\r\n\r\n"
Check = Callable[[Settings], Findings]


@dataclass
class Patient:
    """A small world and its settings, in this process."""

    world: World
    patch: pytest.MonkeyPatch
    database_url: str

    def settings(self, **environment: str) -> Settings:
        return load({**self.world.environment, "DATABASE_URL": self.database_url, **environment})

    def told(self, check: Check, **environment: str) -> dict[str, list[Finding]]:
        """What a check says, by subject; where it stops, the setting that it names."""
        by: dict[str, list[Finding]] = {}
        try:
            for finding in check(self.settings(**environment)):
                assert finding.remedy or finding.health is Health.OK
                by.setdefault(finding.what, []).append(finding)
        except Fatal as error:
            by[error.setting] = [Finding(error.setting, Health.FAILURE, error.message, error.remedy)]
        return by

    def one(self, check: Check, what: str, **environment: str) -> tuple[Health, str]:
        (finding,) = self.told(check, **environment)[what]
        return finding.health, finding.said

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)

    def role(self) -> tuple[str, str]:
        """A role without any right, and its URL of the database."""
        name = f"r{uuid4().hex[:8]}"
        self.execute(f"CREATE ROLE {name} LOGIN")
        return name, self.database_url.replace("postgres@", f"{name}@")


@pytest.fixture(scope="module")
def world(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> World:
    size = AppSize(profiles=3, photos_per_profile=1, scale=0.002, bad_files=False)
    return new_world(sandbox, tmp_path_factory.mktemp("doctor"), size)


@pytest.fixture
def patient(world: World, monkeypatch: pytest.MonkeyPatch) -> Patient:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return Patient(world, monkeypatch, world.places.database_url)


@pytest.fixture
def bare(patient: Patient, sandbox: Sandbox) -> Patient:
    """With a database of its own, which holds nobody."""
    own = replace(patient, database_url=sandbox.create_database(f"d{uuid4().hex[:12]}"))
    own.execute(
        "CREATE TABLE profiles (id bigint PRIMARY KEY, username text, photos json, deleted_at timestamptz,"
        " updated_at timestamptz, photos_migrated_at timestamptz);"
        "CREATE TABLE verifications (id bigserial PRIMARY KEY, profile_id bigint REFERENCES profiles, photo_url text);"
        "CREATE INDEX of_profile ON verifications (profile_id)"
    )
    return own


@pytest.fixture
def s3(patient: Patient) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=patient.world.places.s3_endpoint_url, region_name="us-east-1")
    yield client
    client.close()


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # apprise looks for it
def test_nothing_is_wrong_where_nothing_is(patient: Patient, s3: Any) -> None:
    bucket = patient.world.places.bucket
    rules = {"Rules": [lifecycle_rule("")]}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    environment = {
        "ALERT_URLS": "json://127.0.0.1:9/",
        "MIGRATION_TARGET__TAGS": '{"from": "azure"}',
        "MIGRATION_TARGET__ENCRYPTION": "AES256",
        "MIGRATION_TARGET__STORAGE_CLASS": "STANDARD_IA",
        "MIGRATION_CONTROL__WINDOWS": '["00:00-24:00"]',
        "MIGRATION_CONTROL__PAUSE_WHILE": "SELECT count(*) > 100 FROM profiles",
        "MIGRATION_ALERTS__FREE_DISK_GIGABYTES": "0.001",
    }
    assert patient.world.command("plan", "--apply").returncode == 0
    done = patient.world.command("doctor", "--json", **environment)
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout)
    assert [line for line in said if line["health"] != "ok" and line["what"] != What.DAGSTER_DAEMON] == []
    assert {line["what"] for line in said} == set(What)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert patient.world.environment["AZURE_STORAGE_KEY"] not in done.stdout


def test_what_the_database_refuses(bare: Patient) -> None:
    role, url = bare.role()
    assert {finding.said for finding in bare.told(database, DATABASE_URL=url)[What.DATABASE_RIGHTS]} >= {
        'the role may not UPDATE "profiles".photos.',
        'the role may not SELECT "verifications".profile_id.',
        'the role may not UPDATE "profiles".photos_migrated_at.',
    }
    bare.execute(f"GRANT SELECT, UPDATE ON profiles, verifications TO {role}")
    assert bare.one(database, What.DATABASE_RIGHTS, DATABASE_URL=url)[0] is Health.OK
    assert bare.one(database, What.DATABASE_TABLES, DATABASE_URL=url)[0] is Health.OK
    bare.execute("ALTER TABLE profiles ENABLE ROW LEVEL SECURITY")
    found, said = bare.one(database, What.DATABASE_TABLES, DATABASE_URL=url)
    assert (found, "row-level security hides" in said) == (Health.FAILURE, True)
    stopped = f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/app"
    assert bare.one(database, "DATABASE_URL", DATABASE_URL=stopped)[0] is Health.FAILURE


TRIGGERS = """
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER other BEFORE UPDATE OF username ON profiles FOR EACH ROW EXECUTE FUNCTION noted();
CREATE TRIGGER fresh BEFORE INSERT ON profiles FOR EACH ROW EXECUTE FUNCTION noted();
CREATE TRIGGER ours BEFORE UPDATE OF photos ON profiles FOR EACH ROW EXECUTE FUNCTION noted()
"""
FLAG = "ALTER TABLE profiles ALTER photos_migrated_at"


@pytest.mark.parametrize(
    ("statement", "what", "health", "said"),
    [
        (f"{FLAG} TYPE timestamp", What.DATABASE_FLAG, Health.WARNING, "of type timestamp without time zone"),
        (f"{FLAG} TYPE boolean USING false", What.DATABASE_TABLES, Health.FAILURE, "of type boolean"),
        (f"{FLAG} SET NOT NULL", What.DATABASE_TABLES, Health.FAILURE, "NOT NULL, so it cannot be cleared"),
        ("DROP INDEX of_profile", What.DATABASE_INDEXES, Health.WARNING, '"verifications".profile_id has no index'),
        (TRIGGERS, What.DATABASE_TRIGGERS, Health.WARNING, 'each migrated profile fires ours on "profiles".'),
    ],
)
def test_what_the_tables_lack(bare: Patient, statement: str, what: What, health: Health, said: str) -> None:
    assert bare.one(database, what)[0] is Health.OK
    bare.execute(statement)
    found, text = bare.one(database, what)
    assert (found, said in text) == (health, True), text


def test_an_index_for_the_time_of_writing_is_missed(bare: Patient) -> None:
    table = '{"updated_at": "updated_at"}'
    assert bare.one(database, What.DATABASE_INDEXES, MIGRATION_DATABASE__PROFILES=table) == (
        Health.WARNING,
        '"profiles".updated_at has no index: every look-up by it would read the whole table.',
    )


def test_what_stands_against_the_ledger(bare: Patient) -> None:
    role, url = bare.role()
    assert bare.one(ledger, What.LEDGER_RIGHTS, LEDGER_URL=url)[0] is Health.FAILURE
    open_ledger(bare.settings(), create=True).close()
    bare.execute(f"GRANT USAGE ON SCHEMA migration TO {role}")
    bare.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA migration TO {role}")
    said = [finding.said for finding in bare.told(ledger, LEDGER_URL=url)[What.LEDGER_RIGHTS]]
    assert "LEDGER_URL: the role may not INSERT files." in said
    assert bare.one(ledger, What.LEDGER_RIGHTS)[0] is Health.OK
    bare.execute("INSERT INTO migration.schema_versions VALUES (999)")
    assert "is at version 999" in bare.one(ledger, "ledger.schema")[1]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # apprise looks for it
def test_what_is_wrong_with_the_settings(patient: Patient, capfd: pytest.CaptureFixture[str]) -> None:
    assert patient.one(set_up, What.HOURS, MIGRATION_CONTROL__WINDOWS='["at night"]')[0] is Health.FAILURE
    assert patient.one(set_up, What.HOURS, MIGRATION_CONTROL__TIME_ZONE="Mars/Crater")[0] is Health.FAILURE
    for query in ("SELECT count(*) FROM profiles", "SELECT true FROM nowhere", "DELETE FROM profiles RETURNING true"):
        assert patient.one(set_up, What.PAUSE, MIGRATION_CONTROL__PAUSE_WHILE=query)[0] is Health.FAILURE
    assert patient.one(set_up, What.ALERTS)[0] is Health.WARNING
    urls = "json://127.0.0.1/ nothing://secret-token@example.com"
    health, said = patient.one(set_up, What.ALERTS, ALERT_URLS=urls)
    assert (health, said.startswith("nothing ("), "secret-token" in said) == (Health.FAILURE, True, False)
    written = capfd.readouterr()
    assert "secret-token" not in written.out + written.err
    same = patient.world.places.account_url + "/photos"
    assert patient.one(set_up, What.SETTINGS, MIGRATION_TARGET__PUBLIC_BASE_URL=same)[0] is Health.FAILURE


def test_clocks_that_differ(patient: Patient) -> None:
    def answer(seconds: float) -> Fault:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        return Fault("status", answer=f"403 Forbidden\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n")

    port = urlsplit(patient.world.places.account_url).port or 0
    with FaultProxy(port, [answer(90)]) as ahead, FaultProxy(port, [answer(-1000)]) as behind:
        environment = {
            "MIGRATION_SOURCE__ACCOUNT_URL": f"http://127.0.0.1:{ahead.port}/account",
            "MIGRATION_TARGET__ENDPOINT_URL": f"http://127.0.0.1:{behind.port}",
        }
        told = patient.told(clocks, **environment)
    ((source_clock,), (target_clock,)) = told[What.SOURCE_CLOCK], told[What.TARGET_CLOCK]
    assert (source_clock.health, target_clock.health) == (Health.WARNING, Health.FAILURE)
    assert "90 s behind the store's" in source_clock.said or "89 s" in source_clock.said
    assert "ahead of the store's" in target_clock.said
    # Nobody is there any more.
    assert {patient.one(clocks, what, **environment)[0] for what in (What.SOURCE_CLOCK, What.TARGET_CLOCK)} == {
        Health.WARNING
    }


def test_what_the_source_refuses(patient: Patient) -> None:
    url = urlsplit(patient.world.places.account_url)
    with FaultProxy(url.port or 0) as proxy:
        behind = {"MIGRATION_SOURCE__ACCOUNT_URL": f"http://127.0.0.1:{proxy.port}{url.path}"}
        assert {finding.health for finding in patient.told(source, **behind)[What.SOURCE]} == {Health.OK}
        for match, may in (("comp=list", "list"), (r"^GET \S+/photos/", "read")):
            proxy.faults = [Fault("status", match=match, answer=REFUSED)]
            found = patient.told(source, **behind)[What.SOURCE]
            assert f"photos does not {may}: AZURE_STORAGE_KEY" in "\n".join(finding.said for finding in found)
    containers = patient.told(source, MIGRATION_SOURCE__CONTAINERS='["photos", "nowhere"]')[What.SOURCE]
    assert [finding.health for finding in containers] == [Health.OK, Health.FAILURE]
    wrong = patient.told(source, AZURE_STORAGE_KEY="c2VjcmV0")[What.SOURCE]
    assert {finding.health for finding in wrong} == {Health.FAILURE}


def test_one_store_that_is_down_does_not_hide_the_others(patient: Patient) -> None:
    (port,) = free_ports(1)
    settings = patient.settings(MIGRATION_SOURCE__ACCOUNT_URL=f"http://127.0.0.1:{port}/devstoreaccount1")
    found = {finding.what: finding.health for finding in examine(settings)}
    assert found[What.SOURCE] is Health.FAILURE
    after = (What.TARGET, What.FIREBASE, What.DAGSTER, What.DATABASE)
    assert {found[what] for what in after} == {Health.OK}
    patient.patch.setenv("MIGRATION_SOURCE__ACCOUNT_URL", f"http://127.0.0.1:{port}/devstoreaccount1")
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 2


def test_what_the_target_refuses(patient: Patient, s3: Any) -> None:
    bucket = patient.world.places.bucket
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert patient.one(target, What.TARGET_UPLOADS)[0] is Health.WARNING
    # One rule for other keys, and one that does something else.
    other = {"ID": "expire", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 3650}}
    rules = {"Rules": [lifecycle_rule("other/"), other]}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    assert patient.one(target, What.TARGET_UPLOADS)[0] is Health.WARNING
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert "erasing needs s3:DeleteObjectVersion" in patient.one(target, What.TARGET_VERSIONING)[1]
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert patient.one(target, What.TARGET_PUBLIC, MIGRATION_TARGET__PUBLIC_BASE_URL=nobody)[0] is Health.WARNING
    with FaultProxy(urlsplit(patient.world.places.s3_endpoint_url).port or 0) as proxy:
        behind = {"MIGRATION_TARGET__ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        proxy.faults = [Fault("status", match=r"^GET \S+\?(versioning|encryption|lifecycle)", answer=DENIED)]
        told = patient.told(target, **behind)
        for what in (What.TARGET_VERSIONING, What.TARGET_ENCRYPTION, What.TARGET_UPLOADS):
            assert (told[what][0].health, told[what][0].said) == (Health.WARNING, "the credentials may not ask.")
        # Read, and whatever comes after it, fails: the object is removed all the same.
        proxy.faults = [Fault("status", match=r"^GET \S+probe-", answer=DENIED)]
        assert patient.told(target, **behind)[What.TARGET][0].said.startswith("does not read")
        proxy.faults = [Fault("reset", match=r"^GET \S+probe-")]
        assert patient.told(lambda settings: iter(examine_target(settings)), **behind)
        assert "Versions" not in s3.list_object_versions(Bucket=bucket)
        proxy.faults = [Fault("status", match="^PUT", answer=DENIED)]
        assert patient.told(target, **behind).keys() == {"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"}
        proxy.faults = [Fault("status", match="^DELETE", answer=DENIED)]
        told = patient.told(target, **behind)
        found = told[What.TARGET] + told[What.TARGET_PARTS]
        assert {finding.health for finding in found} == {Health.FAILURE}
        assert "does not remove" in found[0].said
    left = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert [repr(item["Key"]) in found[0].said + found[1].said for item in left] == [True, True]


DENIED = (
    "403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 44\r\n\r\n"
    "<Error><Code>AccessDenied</Code></Error>    "
)


def examine_target(settings: Settings) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.what.startswith("target")]


def test_a_bucket_in_another_region_and_one_that_is_not_there(patient: Patient, moto: MotoServer) -> None:
    with closing(boto3.client("s3", endpoint_url=moto.endpoint_url, region_name="eu-central-1")) as client:
        name = patient.world.places.bucket
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        there = {"MIGRATION_TARGET__ENDPOINT_URL": moto.endpoint_url}
        assert patient.one(target, What.TARGET_REGION, **there) == (Health.FAILURE, "the bucket is in eu-central-1.")
        assert patient.one(target, What.TARGET_REGION, **there, MIGRATION_TARGET__REGION="eu-central-1")[0] is Health.OK
        assert "Contents" not in client.list_objects_v2(Bucket=name)
    assert patient.one(target, "target.bucket", MIGRATION_TARGET__BUCKET="nowhere")[0] is Health.FAILURE


def test_what_firebase_refuses(patient: Patient, sandbox: Sandbox) -> None:
    assert patient.one(documents, What.FIREBASE_RIGHTS)[0] is Health.OK
    assert patient.one(documents, What.FIREBASE, MIGRATION_FIREBASE__DOCUMENT="nobody/{id}")[0] is Health.WARNING
    with refusing_grpc() as port:
        patient.patch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{port}")
        assert patient.one(documents, "GOOGLE_APPLICATION_CREDENTIALS") == (
            Health.FAILURE,
            "Firestore answered PermissionDenied",
        )
    host = sandbox.environment["FIREBASE_DATABASE_EMULATOR_HOST"]
    realtime = {
        "MIGRATION_FIREBASE__KIND": "realtime_database",
        "MIGRATION_FIREBASE__DATABASE_URL": f"http://{host}?ns={patient.world.places.bucket}",
    }
    assert patient.one(documents, What.FIREBASE_RIGHTS, **realtime)[0] is Health.OK
    answer = "401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"
    with FaultProxy(int(host.rpartition(":")[2]), [Fault("status", match="^PUT", answer=answer)]) as proxy:
        patient.patch.setenv("FIREBASE_DATABASE_EMULATOR_HOST", f"127.0.0.1:{proxy.port}")
        realtime["MIGRATION_FIREBASE__DATABASE_URL"] = f"http://127.0.0.1:{proxy.port}?ns={patient.world.places.bucket}"
        assert patient.one(documents, "GOOGLE_APPLICATION_CREDENTIALS", **realtime)[0] is Health.FAILURE


class _Refusing(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Reads find nothing; writes are refused, before anything is looked for, as Google does."""

    def service(self, details: Any) -> Any:
        def refuse(_: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Missing or insufficient permissions.")
            raise AssertionError("unreachable")

        def find_nothing(_: bytes, __: Any) -> Iterator[bytes]:
            yield from ()

        if details.method.endswith("BatchGetDocuments"):
            return grpc.unary_stream_rpc_method_handler(find_nothing)
        return grpc.unary_unary_rpc_method_handler(refuse)


class refusing_grpc:  # noqa: N801 - used as a function
    """A Firestore that grants no write, for as long as the `with` block runs."""

    def __enter__(self) -> int:
        self._pool = ThreadPoolExecutor(2)
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers([_Refusing()])
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return int(port)

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


def test_what_dagster_lacks(patient: Patient) -> None:
    assert patient.one(dagster_home, What.DAGSTER_DAEMON)[0] is Health.WARNING
    with instance() as opened:
        set_workers(opened, 7)
    assert patient.one(dagster_home, What.DAGSTER_WORKERS) == (
        Health.WARNING,
        f"the pool {POOL!r} allows 7 ranges at a time; control.workers is 2.",
    )
    with instance() as opened:
        set_workers(opened, 2)
    assert patient.one(dagster_home, What.DAGSTER_WORKERS)[0] is Health.OK


def test_a_dagster_home_as_it_comes_out_of_the_box(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "file").touch()
    configuration = tmp_path / "home" / "dagster.yaml"
    logs = "{module: dagster.core.storage.local_compute_log_manager, class: LocalComputeLogManager,"
    configuration.write_text(
        "run_retries: {enabled: false}\n"
        "concurrency: {runs: {max_concurrent_runs: 1}}\n"
        f"compute_logs: {logs} config: {{base_dir: {tmp_path}/file/logs}}}}\n"
    )
    patient.patch.setenv("DAGSTER_HOME", str(configuration.parent))
    told = patient.told(dagster_home, MIGRATION_ALERTS__FREE_DISK_GIGABYTES="1000000")
    healths = {what: {finding.health for finding in found} for what, found in told.items()}
    for what in (What.DAGSTER, What.DAGSTER_WORKERS, What.DAGSTER_MONITORING, What.DAGSTER_RETRIES, What.DISK):
        assert healths[what] == {Health.WARNING}, told[what]
    assert healths[What.DAGSTER_LOGS] == {Health.FAILURE}
    configuration.unlink()
    assert patient.one(dagster_home, "DAGSTER_HOME")[0] is Health.FAILURE
