"""`doctor --write-path` on real stores: what each line says where all is well, and where it is not.

SeaweedFS judges CORS, policies, signatures and versions; moto has block public access, lifecycle rules with every
element, and ownership, and lets anybody write.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from migration_pipeline.adapters.s3.write_path import BucketSetUp, Told, private
from migration_pipeline.cli.main import main
from migration_pipeline.commands.doctor import Finding, Health, mending, uploading
from migration_pipeline.commands.doctor.bucket import Way, bucket
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.commands.doctor.remedies import merged_cors, merged_lifecycle, merged_policy, put_lifecycle
from migration_pipeline.commands.doctor.write_path import checked, examine_write_path
from migration_pipeline.core.errors import Fatal, SettingsError
from migration_pipeline.cutover import WRITE_PATH, gather
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.settings import Settings, Target, load
from migration_pipeline.stores import open_ledger
from migration_pipeline.uploads.cors import s3_cors
from migration_pipeline_tests.moto_server import MotoServer

ORIGIN, SECOND = "https://app.example.com", "http://localhost:3000"
FOREIGN_RULE = {
    "ID": "reports",
    "AllowedOrigins": ["https://reports.example.com"],
    "AllowedMethods": ["GET"],
    "AllowedHeaders": ["range"],
    "MaxAgeSeconds": 60,
}
EXPIRES = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
DENIED = (
    "403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 44\r\n\r\n"
    "<Error><Code>AccessDenied</Code></Error>    "
)


@dataclass
class Place:
    """A bucket with a migration of its own that leads there, and a client that shares no code with the product."""

    name: str
    client: Any
    environment: dict[str, str]

    def settings(self, **changes: str) -> Settings:
        return load({**self.environment, **changes})

    def told(self, *origins: str, **changes: str) -> dict[str, list[Finding]]:
        by: dict[str, list[Finding]] = {}
        for finding in examine_write_path(self.settings(**changes), origins).findings:
            assert finding.remedy or finding.health is Health.OK
            by.setdefault(finding.what, []).append(finding)
        return by

    def health(self, what: WritePath, *origins: str, **changes: str) -> list[Health]:
        return [finding.health for finding in self.told(*origins, **changes)[what]]

    def run(self, *arguments: str, **changes: str) -> Result:
        return CliRunner().invoke(main, ["doctor", "--write-path", *arguments], env={**self.environment, **changes})

    def behind(self, proxy: FaultProxy) -> dict[str, str]:
        return {"MIGRATION_TARGET__ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}

    @property
    def port(self) -> int:
        return urlsplit(self.environment["MIGRATION_TARGET__ENDPOINT_URL"]).port or 0

    def allow(self, *origins: str) -> None:
        self.client.put_bucket_cors(Bucket=self.name, CORSConfiguration=s3_cors(origins))

    def open_to_all(self) -> None:
        allowed = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{self.name}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.client.put_bucket_policy(Bucket=self.name, Policy=policy)

    def held(self) -> list[str]:
        """Of all versions and delete markers."""
        page = self.client.list_object_versions(Bucket=self.name)
        return [item["Key"] for item in (*page.get("Versions", []), *page.get("DeleteMarkers", []))]

    def rules(self, call: str, name: str) -> Any:
        try:
            return getattr(self.client, call)(Bucket=self.name)[name]
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return None

    def cors(self) -> Any:
        return self.rules("get_bucket_cors", "CORSRules")

    def lifecycle(self) -> Any:
        return self.rules("get_bucket_lifecycle_configuration", "Rules")


def new_place(sandbox: Sandbox, endpoint_url: str, folder: Path, database: str) -> Place:
    name = f"p{uuid4().hex[:12]}"
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    config = folder / f"{name}.toml"
    config.write_text(
        f'[source]\naccount_url = "http://127.0.0.1:9/app"\ncontainers = ["photos"]\n'
        f'[target]\nbucket = "{name}"\nregion = "us-east-1"\npublic_base_url = "{endpoint_url}/{name}"\n'
        f'[firebase]\nkind = "none"\n[ledger]\nschema = "{name}"\n'
    )
    environment = {
        **sandbox.environment,
        "DATABASE_URL": database,
        "MIGRATION_CONFIG": str(config),
        "MIGRATION_TARGET__ENDPOINT_URL": endpoint_url,
        "MIGRATION_UPLOADS__ORIGINS": json.dumps([ORIGIN]),
    }
    return Place(name, client, environment)


@pytest.fixture(scope="module")
def database(sandbox: Sandbox) -> str:
    """For ledgers, each in a schema of its own."""
    return sandbox.create_database(f"d{uuid4().hex[:12]}")


@pytest.fixture
def weed(sandbox: Sandbox, database: str, tmp_path: Path) -> Iterator[Place]:
    place = new_place(sandbox, sandbox.s3_endpoint_url, tmp_path, database)
    with closing(place.client):
        yield place


@pytest.fixture
def moto_place(sandbox: Sandbox, moto: MotoServer, database: str, tmp_path: Path) -> Iterator[Place]:
    place = new_place(sandbox, moto.endpoint_url, tmp_path, database)
    with closing(place.client):
        yield place


def lines(told: dict[str, list[Finding]]) -> dict[str, list[str]]:
    return {what: [f"{finding.health}: {finding.said}" for finding in found] for what, found in told.items()}


def test_all_is_well_where_it_is(weed: Place) -> None:
    weed.allow(ORIGIN, SECOND)
    weed.open_to_all()
    weed.client.put_bucket_lifecycle_configuration(Bucket=weed.name, LifecycleConfiguration=merged_lifecycle({}, ""))
    weed.client.put_bucket_versioning(Bucket=weed.name, VersioningConfiguration={"Status": "Enabled"})
    both = {"MIGRATION_UPLOADS__ORIGINS": json.dumps([ORIGIN, SECOND])}
    told = weed.told(**both)
    # The only thing that SeaweedFS does not tell.
    unwell = {what for what, found in told.items() if any(finding.health is not Health.OK for finding in found)}
    assert unwell == {WritePath.PUBLIC_ACCESS}, lines(told)
    assert told[WritePath.PUBLIC_ACCESS][0].said == "the store does not know the question."
    assert set(told) == set(WritePath)
    assert [finding.said for finding in told[WritePath.FOREIGN]] == [
        "pages of https://app.example.com.invalid may not",
        "pages of http://localhost.invalid:3000 may not",
    ]
    assert weed.held() == []
    with closing(open_ledger(weed.settings())) as ledger:
        kept, now = ledger.remembered(WRITE_PATH), ledger.now()
        facts = gather(weed.settings(), ledger)
    assert kept["failures"] == 0
    assert now - timedelta(minutes=1) < datetime.fromisoformat(kept["at"]) <= now
    assert facts.examined is not None


def test_a_browser_is_refused_where_the_rules_do_not_name_its_origin(weed: Place) -> None:
    weed.allow("https://another.example.com")
    told = weed.told()
    (cors,) = told[WritePath.CORS]
    assert (cors.health, cors.said) == (
        Health.FAILURE,
        f"{ORIGIN}: asked whether a page may PUT, the answer is 403 AccessDenied.",
    )
    # The command to copy keeps what is there.
    configuration = json.loads(cors.remedy.split("'")[1])
    assert configuration["CORSRules"][0]["AllowedOrigins"] == ["https://another.example.com", ORIGIN]
    # Without a browser's rules, an upload works.
    assert [told[what][0].health for what in (WritePath.PUT, WritePath.FORM)] == [Health.OK] * 2
    # Rules for everybody do, and more than was meant.
    weed.allow("*")
    told = weed.told()
    assert (told[WritePath.CORS][0].health, told[WritePath.FOREIGN][0].health) == (Health.OK, Health.WARNING)
    assert weed.health(WritePath.CORS, MIGRATION_UPLOADS__ORIGINS="[]") == [Health.WARNING]


def test_rules_that_lack_a_header_and_names_that_begin_alike(moto_place: Place) -> None:
    """moto, unlike SeaweedFS, takes the beginning of an origin for the whole."""
    for headers, health in (["content-type"], Health.FAILURE), (["*"], Health.OK):
        rule = {"AllowedOrigins": [ORIGIN], "AllowedMethods": ["PUT", "POST"], "AllowedHeaders": headers}
        moto_place.client.put_bucket_cors(Bucket=moto_place.name, CORSConfiguration={"CORSRules": [rule]})
        told = moto_place.told()
        assert told[WritePath.CORS][0].health is health
        assert "x-amz-checksum-sha256" in told[WritePath.CORS][0].said or health is Health.OK
    assert told[WritePath.FOREIGN][0].health is Health.WARNING


def test_uploads_that_the_store_refuses_or_spoils(weed: Place) -> None:
    weed.allow(ORIGIN)
    with FaultProxy(weed.port) as proxy:
        # Reads go past the proxy, as they would through a CDN.
        behind = weed.behind(proxy)
        proxy.faults = [Fault("status", match=r"^PUT \S+u/", answer=DENIED)]
        told = weed.told(**behind)
        assert told[WritePath.PUT][0].said == ("the answer is 403 AccessDenied. The signer's role may not write there.")
        assert (told[WritePath.PUT][0].health, told[WritePath.FORM][0].health) == (Health.FAILURE, Health.OK)
        proxy.faults = [Fault("status", match=r"^POST", answer=DENIED)]
        told = weed.told(**behind)
        assert (told[WritePath.PUT][0].health, told[WritePath.FORM][0].health) == (Health.OK, Health.FAILURE)
        # A store that says yes and keeps nothing.
        proxy.faults = [Fault("status", match=r"^PUT \S+u/", answer="200 OK\r\nContent-Length: 0\r\n\r\n")]
        told = weed.told(**behind)
        assert told[WritePath.PUT][0].said == "an upload is taken, but cannot be confirmed: nothing was uploaded there."
        assert "hidden from its pages" in told[WritePath.CORS][0].said
        proxy.faults = [Fault("reset", match=r"^(PUT|POST) ")]
        told = weed.told(**behind)
        assert "there is no answer (ServerDisconnectedError)" in told[WritePath.PUT][0].said or (
            "there is no answer (ClientOSError)" in told[WritePath.PUT][0].said
        )
        assert told[WritePath.READ][0].said == "no upload worked, so that nothing could be read."
        # Bytes that turn out to be others.
        date = format_datetime(datetime.now(UTC), usegmt=True)
        other = f'200 OK\r\nETag: "0"\r\nLast-Modified: {date}\r\nContent-Length: 5\r\n\r\nother'
        proxy.faults = [Fault("status", match=r"^GET [^ ?]+/u/[^ ?]+ ", answer=other)]
        told = weed.told(**behind)
        for what in (WritePath.PUT, WritePath.FORM):
            assert told[what][0].said == "an upload is taken, and holds other bytes."
        # What another store would do, where the region is wrong.
        proxy.faults = [
            Fault(
                "status",
                match=r"^PUT \S+u/",
                answer="301 Moved Permanently\r\nContent-Length: 51\r\n\r\n"
                "<Error><Code>PermanentRedirect</Code></Error>      ",
            )
        ]
        assert "in another region than the URL was signed for" in weed.told(**behind)[WritePath.PUT][0].said
    encrypted = weed.told(MIGRATION_TARGET__ENCRYPTION="AES256")
    assert encrypted[WritePath.PUT][0].health is Health.OK
    assert weed.held() == []


def test_reading_what_was_uploaded(weed: Place) -> None:
    told = weed.told()
    (read,), (policy,) = told[WritePath.READ], told[WritePath.POLICY]
    assert (read.health, policy.health) == (Health.FAILURE, Health.FAILURE)
    assert "the answer is 403 AccessDenied" in read.said
    statement = {"Action": "s3:GetObject", "Resource": [f"arn:aws:s3:::{weed.name}/*"]}
    assert statement.items() <= json.loads(policy.remedy.split("'")[1])["Statement"][0].items()
    # Signed URLs are read; that nobody else may is right then.
    signed = weed.told(MIGRATION_UPLOADS__READS="signed")
    assert [signed[what][0].health for what in (WritePath.READ, WritePath.POLICY)] == [Health.OK] * 2
    weed.open_to_all()
    assert [told[0].health for what, told in weed.told().items() if what in (WritePath.READ, WritePath.POLICY)] == [
        Health.OK
    ] * 2
    signed = weed.told(MIGRATION_UPLOADS__READS="signed")
    assert [finding.health for finding in signed[WritePath.READ]] == [Health.OK, Health.WARNING]
    assert [finding.health for finding in signed[WritePath.POLICY]] == [Health.WARNING]
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    (read,) = weed.told(MIGRATION_TARGET__PUBLIC_BASE_URL=nobody)[WritePath.READ]
    assert (read.health, "there is no answer (ClientConnectorError)" in read.said) == (Health.FAILURE, True)
    assert "cloudfront.amazonaws.com" in read.remedy
    assert weed.held() == []


@pytest.mark.parametrize(
    ("headers", "body", "health", "said"),
    [
        ("Content-Type: image/png\r\nCache-Control: public, max-age=60", uploading.IMAGE, Health.OK, "is read"),
        ("Content-Type: image/png", uploading.IMAGE, Health.WARNING, "Cache-Control is None and not"),
        (
            "Content-Type: text/plain\r\nCache-Control: public, max-age=60",
            uploading.IMAGE,
            Health.WARNING,
            "text/plain",
        ),
        ("Content-Type: image/webp", b"smaller", Health.WARNING, "other bytes than were sent"),
        ("Content-Type: text/html", b"<html>", Health.FAILURE, "text/html in place of the image"),
    ],
)
def test_what_a_cdn_makes_of_it(weed: Place, headers: str, body: bytes, health: Health, said: str) -> None:
    answer = f"200 OK\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n"
    with Cdn(answer.encode() + body) as port:
        (read,) = weed.told(MIGRATION_TARGET__PUBLIC_BASE_URL=f"http://127.0.0.1:{port}")[WritePath.READ]
    assert (read.health, said in read.said) == (health, True), read


class Cdn:
    """Answers every request alike."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return int(self._socket.getsockname()[1])

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 " + self._answer)

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()


def test_what_a_bucket_is_set_up_like(moto_place: Place) -> None:
    """Each line in a state that is well, and in others."""
    place, client, where = moto_place, moto_place.client, {"Bucket": moto_place.name}
    place.open_to_all()
    told = place.told()
    healths = {what: told[what][0].health for what in WritePath}
    assert healths[WritePath.UNSIGNED] is Health.FAILURE  # moto lets anybody write
    assert (healths[WritePath.PUBLIC_ACCESS], healths[WritePath.POLICY]) == (Health.OK, Health.OK)
    assert (healths[WritePath.OWNERSHIP], healths[WritePath.LIFECYCLE]) == (Health.WARNING, Health.WARNING)
    assert place.held() == []

    client.put_bucket_ownership_controls(
        **where, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration={"Rules": [EXPIRES]})
    behind_cdn = {"MIGRATION_TARGET__PUBLIC_BASE_URL": "http://127.0.0.1:9"}
    told = place.told(**behind_cdn, MIGRATION_TARGET__ENCRYPTION="AES256")
    assert told[WritePath.OWNERSHIP][0].health is Health.OK
    assert [finding.health for finding in told[WritePath.LIFECYCLE]] == [Health.WARNING]  # for logs alone
    assert told[WritePath.PUBLIC_ACCESS][0].health is Health.WARNING
    assert told[WritePath.POLICY][0].health is Health.WARNING
    assert told[WritePath.ENCRYPTION][0].health is Health.WARNING

    blocks = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    client.put_public_access_block(**where, PublicAccessBlockConfiguration=blocks)
    everything = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(**where, ServerSideEncryptionConfiguration={"Rules": [everything]})
    whole = {**EXPIRES, "Filter": {"Prefix": "u/"}}
    rules = merged_lifecycle({"Rules": [whole]}, "")
    client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration={"Rules": rules["Rules"]})
    client.delete_bucket_policy(**where)
    told = place.told(**behind_cdn, MIGRATION_TARGET__ENCRYPTION="AES256")
    for what in (WritePath.PUBLIC_ACCESS, WritePath.ENCRYPTION, WritePath.POLICY):
        assert told[what][0].health is Health.OK, what
    assert [finding.health for finding in told[WritePath.LIFECYCLE]] == [Health.OK, Health.WARNING]  # uploads expire

    # Everybody is to read from the bucket itself, which is closed.
    told = place.told()
    assert (told[WritePath.READ][0].health, told[WritePath.PUBLIC_ACCESS][0].health) == (Health.FAILURE, Health.FAILURE)
    assert '"BlockPublicPolicy": false, "RestrictPublicBuckets": false' in told[WritePath.PUBLIC_ACCESS][0].remedy

    short = {**rules["Rules"][1], "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration={"Rules": [short]})
    assert place.health(WritePath.LIFECYCLE) == [Health.WARNING]


def test_the_wrong_region(sandbox: Sandbox, moto: MotoServer, database: str, tmp_path: Path) -> None:
    place = new_place(sandbox, moto.endpoint_url, tmp_path, database)
    name = f"{place.name}eu"
    with (
        closing(place.client),
        closing(boto3.client("s3", endpoint_url=moto.endpoint_url, region_name="eu-west-3")) as eu,
    ):
        eu.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
        there = {"MIGRATION_TARGET__BUCKET": name}
        assert place.health(WritePath.REGION, **there) == [Health.FAILURE]
        assert place.health(WritePath.REGION, **there, MIGRATION_TARGET__REGION="eu-west-3") == [Health.OK]


def nothing_set(**changes: Any) -> BucketSetUp:
    told = {name: Told({}) for name in BucketSetUp.__dataclass_fields__ if name not in ("region", "host", "addresses")}
    here = {"region": "us-east-1", "host": "s3.us-east-1.amazonaws.com", "addresses": ["52.216.1.1"]}
    return BucketSetUp(**{**told, **here, **changes})


@pytest.mark.parametrize(
    ("what", "changes", "health", "said"),
    [
        (WritePath.NETWORK, {}, Health.OK, "whether a gateway endpoint is on the way cannot be told"),
        (WritePath.NETWORK, {"addresses": ["10.0.3.7", "10.0.4.9"]}, Health.OK, "a VPC interface endpoint"),
        (WritePath.NETWORK, {"addresses": []}, Health.WARNING, "does not resolve"),
        (
            WritePath.NETWORK,
            {"host": "bucket.vpce-0a1b.s3.us-east-1.vpce.amazonaws.com"},
            Health.FAILURE,
            "work within its networks alone",
        ),
        (WritePath.NETWORK, {"host": "storage.example.com"}, Health.OK, "not AWS's"),
        (WritePath.REGION, {"host": "s3.eu-west-1.amazonaws.com"}, Health.FAILURE, "the endpoint says eu-west-1"),
        (WritePath.REGION, {"host": "s3.dualstack.us-east-1.amazonaws.com"}, Health.OK, "us-east-1"),
        (WritePath.REGION, {"region": None, "host": "s3.eu-west-1.amazonaws.com"}, Health.FAILURE, "is of eu-west-1"),
        (WritePath.REGION, {"region": None, "host": "127.0.0.1"}, Health.OK, "does not say"),
    ],
)
def test_names_and_addresses(weed: Place, what: WritePath, changes: Any, health: Health, said: str) -> None:
    way = Way(weed.settings(), "u/", readable=True)
    (found,) = [finding for finding in bucket(nothing_set(**changes), way) if finding.what is what]
    assert (found.health, said in found.said) == (health, True), found


def test_a_policy_that_looks_where_a_request_comes_from(weed: Place) -> None:
    refused = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    by_place = {**refused, "Condition": {"StringNotEquals": {"aws:SourceVpce": "vpce-0a1b"}}}
    by_transport = {**refused, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    for statement, healths in ((by_place, [Health.OK, Health.WARNING]), (by_transport, [Health.OK])):
        policy = Told({"Policy": json.dumps({"Statement": [statement]})})
        found = bucket(nothing_set(policy=policy), Way(weed.settings(), "u/", readable=True))
        assert [finding.health for finding in found if finding.what is WritePath.POLICY] == healths
    assert private(["fd00::1"])
    assert not private(["10.0.0.1", "52.216.1.1"])


def test_what_the_credentials_may_not_ask(weed: Place) -> None:
    with FaultProxy(weed.port, [Fault("status", match=r"^GET \S+\?[a-zA-Z]+ ", answer=DENIED)]) as proxy:
        told = weed.told(**weed.behind(proxy))
        for what in (
            WritePath.PUBLIC_ACCESS, WritePath.POLICY, WritePath.ENCRYPTION, WritePath.VERSIONING, WritePath.LIFECYCLE,
            WritePath.OWNERSHIP,
        ):  # fmt: skip
            assert {(finding.health, finding.said) for finding in told[what]} == {
                (Health.WARNING, "the credentials may not ask.")
            }
            assert "Grant s3:Get" in told[what][0].remedy
        assert examine_write_path(weed.settings(**weed.behind(proxy))).changes == []
        proxy.faults = [Fault("status", match=r"^GET \S+\?[a-zA-Z]+ ")]
        assert "S3 answered 503" in weed.told(**weed.behind(proxy))[WritePath.OWNERSHIP][0].said


def test_fix_shows_first_and_adds_to_what_is_there(moto_place: Place, weed: Place) -> None:
    """CORS on SeaweedFS, which enforces it; a lifecycle with every kind of rule on moto."""
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": [FOREIGN_RULE]})
    weed.client.put_bucket_lifecycle_configuration(Bucket=weed.name, LifecycleConfiguration={"Rules": [EXPIRES]})
    weed.open_to_all()
    before = weed.cors(), weed.lifecycle()
    shown = weed.run("--fix")
    assert shown.exit_code == 2, shown.output
    assert (weed.cors(), weed.lifecycle()) == before
    assert f'+        "{ORIGIN}"' in shown.output
    assert '+      "AbortIncompleteMultipartUpload": {' in shown.output
    assert "Nothing was written" in shown.output
    assert not any(line.startswith("-") and not line.startswith("---") for line in shown.output.splitlines())
    plain = json.loads(weed.run("--json").output)
    assert {line["what"] for line in plain} == set(WritePath)

    applied = weed.run("--fix", "--apply", "--by", "ines@laptop")
    assert applied.exit_code == 0, applied.output
    assert applied.output.index("+++ cors then") < applied.output.index("pages of https://app.example.com may upload")
    rules = weed.cors()
    assert (rules[0], rules[1]["AllowedOrigins"], len(rules)) == (FOREIGN_RULE, [ORIGIN], 2)
    assert weed.lifecycle()[0] == before[1][0]
    assert len(weed.lifecycle()) == 2
    with closing(open_ledger(weed.settings())) as ledger:
        acts = ledger.overview.acts(limit=10)
        assert ledger.remembered(WRITE_PATH)["failures"] == 0
    assert [(act.who, act.what, act.details["kind"]) for act in reversed(acts)] == [
        ("ines@laptop", "write path", "cors"),
        ("ines@laptop", "write path", "lifecycle"),
    ]
    # Nothing is left to do, and a second origin goes into the rule that is ours.
    again = json.loads(weed.run("--fix", "--apply", "--json").output)
    assert (again["changes"], weed.cors()) == ([], rules)
    weed.run("--fix", "--apply", MIGRATION_UPLOADS__ORIGINS=json.dumps([ORIGIN, SECOND]))
    assert [rule["AllowedOrigins"] for rule in weed.cors()] == [FOREIGN_RULE["AllowedOrigins"], [ORIGIN, SECOND]]

    place = moto_place
    tagged = {"And": {"Prefix": "x/", "Tags": [{"Key": "kind", "Value": "draft"}]}}
    ends = {"Date": datetime(2030, 1, 1, tzinfo=UTC)}
    colder = [{"Days": 9, "StorageClass": "GLACIER"}]
    all_kinds = [
        EXPIRES,
        {"ID": "drafts", "Status": "Disabled", "Filter": tagged, "Expiration": ends},
        {**EXPIRES, "ID": "old", "NoncurrentVersionExpiration": {"NoncurrentDays": 9}},
        {"ID": "cold", "Status": "Enabled", "Filter": {"Prefix": "z/"}, "Transitions": colder},
    ]
    place.client.put_bucket_lifecycle_configuration(Bucket=place.name, LifecycleConfiguration={"Rules": all_kinds})
    kept = place.lifecycle()
    place.run("--fix", "--apply")
    assert place.lifecycle()[: len(kept)] == kept
    assert place.lifecycle()[len(kept)]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_what_is_set_for_small_objects_is_sent_again(weed: Place) -> None:
    """Neither of the servers keeps it: so it is looked at in the request."""
    header, sent = "x-amz-transition-default-minimum-object-size", []
    document = "<LifecycleConfiguration/>"
    answer = f"200 OK\r\n{header}: varies_by_storage_class\r\nContent-Length: {len(document)}\r\n\r\n{document}"

    def look(request: Any, **_: object) -> None:
        sent.append(request.headers[header])

    events, name = boto3.DEFAULT_SESSION.events, "before-send.s3.PutBucketLifecycleConfiguration"
    events.register(name, look)
    try:
        with FaultProxy(weed.port, [Fault("status", match=r"^GET \S+\?lifecycle ", answer=answer)]) as proxy:
            settings = weed.settings(**weed.behind(proxy))
            examined = examine_write_path(settings)
            mending.apply(settings, examined.changes, "ines@laptop")
    finally:
        events.unregister(name, look)
    assert sent == [b"varies_by_storage_class"]
    assert len(weed.lifecycle()) == 1


def test_fix_leaves_alone_what_it_cannot_write_back(weed: Place) -> None:
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": [FOREIGN_RULE]})
    newer = (
        "<CORSConfiguration><CORSRule><AllowedOrigin>https://a.example.com</AllowedOrigin><AllowedMethod>GET"
        "</AllowedMethod><OnlyOnSundays>true</OnlyOnSundays></CORSRule></CORSConfiguration>"
    )
    answer = f"200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(newer)}\r\n\r\n{newer}"
    with FaultProxy(weed.port, [Fault("status", match=r"^GET \S+\?cors ", answer=answer)]) as proxy:
        examined = examine_write_path(weed.settings(**weed.behind(proxy)))
        assert [change.kind for change in examined.changes] == ["lifecycle"]
        proxy.faults = []
        assert [change.kind for change in examine_write_path(weed.settings(**weed.behind(proxy))).changes] == [
            "cors",
            "lifecycle",
        ]
        # The store refuses the new rules: said so, noted so, and nothing else is tried.
        proxy.faults = [Fault("status", match=r"^PUT \S+\?cors ", answer=DENIED)]
        done = weed.run("--fix", "--apply", **weed.behind(proxy))
        assert (done.exit_code, "Grant s3:PutBucketCORS." in done.output) == (2, True), done.output
    assert (weed.cors(), weed.lifecycle()) == ([FOREIGN_RULE], None)
    with closing(open_ledger(weed.settings())) as ledger:
        newest = ledger.overview.acts(limit=10)[0]
    assert newest.why.startswith("cors was not written: ")


def test_rules_that_changed_meanwhile_are_not_overwritten(weed: Place) -> None:
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": [FOREIGN_RULE]})
    examined = examine_write_path(weed.settings())
    newer = [{**FOREIGN_RULE, "ID": "others"}]
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": newer})
    with pytest.raises(Fatal, match="changed meanwhile"):
        mending.apply(weed.settings(), examined.changes, "ines@laptop")
    assert weed.cors() == newer


def test_rules_are_merged() -> None:
    ours = s3_cors([ORIGIN])["CORSRules"][0]
    # One of ours by name alone is somebody else's.
    named_alike = {**FOREIGN_RULE, "ID": "uploads"}
    merged = merged_cors({"CORSRules": [named_alike]}, [ORIGIN])["CORSRules"]
    assert merged == [named_alike, {**ours, "ID": "uploads-2"}]
    assert merged_cors({"CORSRules": merged}, [ORIGIN]) == {"CORSRules": merged}
    # The older form of rules, which S3 does not take beside the newer.
    older = {"ID": "logs", "Status": "Enabled", "Prefix": "logs/", "Expiration": {"Days": 30}}
    added = merged_lifecycle({"Rules": [older]}, "files/")["Rules"][1]
    assert (added["Prefix"], "Filter" in added) == ("files/", False)
    sized = merged_lifecycle({"Rules": [], "TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}, "")
    command = put_lifecycle(Target(bucket="b", region="us-east-1", public_base_url="https://b.example.com"), sized)
    assert "--transition-default-minimum-object-size varies_by_storage_class" in command
    policy = {"Policy": json.dumps({"Version": "2012-10-17", "Statement": {"Sid": "one"}})}
    assert merged_policy(policy, {"Sid": "two"})["Statement"] == [{"Sid": "one"}, {"Sid": "two"}]


def test_probes_go_wherever_it_ends(weed: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    weed.client.put_bucket_versioning(Bucket=weed.name, VersioningConfiguration={"Status": "Enabled"})
    with FaultProxy(weed.port) as proxy:
        # The answer got lost, and the object is there.
        proxy.faults = [Fault("lost_reply", match=r"^(PUT|POST) ")]
        told = weed.told(**weed.behind(proxy))
        assert (told[WritePath.PUT][0].health, told[WritePath.PROBES][0].health) == (Health.FAILURE, Health.OK)
        assert weed.held() == []
        for number in (signal.SIGTERM, signal.SIGINT):
            with hung(weed, proxy) as process:
                assert weed.held()
                process.send_signal(number)
                # Nothing hangs any more, or a removal would wait for it.
                proxy.faults = []
                process.communicate(timeout=60)
            assert weed.held() == []
        with hung(weed, proxy) as process:
            process.kill()
            process.communicate(timeout=60)
        (left,) = weed.held()
        proxy.faults = []
        # Young ones may be those of an examination at work; a user's file is nobody's to remove.
        theirs = f"u/{uploading.PROFILE}/theirs.png"
        weed.client.put_object(Bucket=weed.name, Key=theirs, Body=b"x" * len(uploading.IMAGE))
        weed.told(**weed.behind(proxy))
        assert sorted(weed.held()) == sorted([left, theirs])
        monkeypatch.setattr(uploading, "LEFT_BEHIND", timedelta(0))
        weed.told(**weed.behind(proxy))
        assert weed.held() == [theirs]
        # Where they cannot be removed, they are named.
        proxy.faults = [Fault("status", match=r"^DELETE ", answer=DENIED)]
        (probes,) = weed.told(**weed.behind(proxy))[WritePath.PROBES]
        assert probes.health is Health.FAILURE
        assert all(key in probes.said for key in weed.held() if key != theirs)


class hung:  # noqa: N801 - used as a function
    """The command, as it waits for a store that took an upload and then answers nothing."""

    def __init__(self, place: Place, proxy: FaultProxy) -> None:
        self._place, self._proxy = place, proxy

    def __enter__(self) -> "subprocess.Popen[str]":
        self._proxy.faults = [Fault("hang", match=r"^POST ")]
        before = self._proxy.happened["hang"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "migration_pipeline.cli", "doctor", "--write-path"],
            env={**os.environ, **self._place.environment, **self._place.behind(self._proxy)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 60
        while self._proxy.happened["hang"] == before:
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def test_no_secret_is_shown_and_refusals_count(weed: Place, caplog: pytest.LogCaptureFixture) -> None:
    with FaultProxy(weed.port) as proxy, caplog.at_level("DEBUG", logger="migration_pipeline"):
        outputs = []
        for faults in (
            [],
            [Fault("status", match=r"^(PUT|POST|OPTIONS) ", answer=DENIED)],
            [Fault("reset", match=r"^(PUT|POST|OPTIONS) ")],
            [Fault("status", match=r"^GET ", answer=DENIED)],
        ):
            proxy.faults = faults
            outputs.append(weed.run("--json", "--fix", **weed.behind(proxy)).output)
    with closing(open_ledger(weed.settings())) as ledger:
        outputs += [json.dumps(ledger.remembered(WRITE_PATH)), caplog.text]
    for text in outputs:
        for secret in ("X-Amz-", "Signature=", weed.environment["AWS_SECRET_ACCESS_KEY"], 'Policy":"ey'):
            assert secret not in text
    missing = {"MIGRATION_TARGET__BUCKET": "nowhere"}
    done = weed.run("--json", **missing)
    assert done.exit_code == 2
    assert {"target: target.bucket", str(WritePath.KEPT)} <= {line["what"] for line in json.loads(done.output)}
    with closing(open_ledger(weed.settings())) as ledger:
        assert ledger.remembered(WRITE_PATH)["failures"] == 1


def test_what_is_kept_for_the_cut_over(weed: Place) -> None:
    weed.allow(SECOND)
    weed.open_to_all()
    told = weed.told(SECOND)
    assert told[WritePath.KEPT][0].said == f"no: {ORIGIN} of uploads.origins was not tried."
    with closing(open_ledger(weed.settings(), create=True)) as ledger:
        assert ledger.remembered(WRITE_PATH) is None
    assert weed.health(WritePath.KEPT, SECOND, ORIGIN) == [Health.OK]
    with closing(open_ledger(weed.settings())) as ledger:
        assert ledger.remembered(WRITE_PATH)["failures"] == 1
    stopped = f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/app"
    assert weed.health(WritePath.KEPT, SECOND, ORIGIN, LEDGER_URL=stopped) == [Health.FAILURE]


def test_names_that_could_be_those_of_migrated_files(weed: Place) -> None:
    assert weed.health(WritePath.KEYS) == [Health.OK]
    template = "photos/{profile}/{name}{extension}"
    told = weed.told(MIGRATION_UPLOADS__KEY_TEMPLATE=template)
    assert told[WritePath.KEYS][0].health is Health.WARNING
    assert told[WritePath.PUT][0].health is Health.OK
    assert "target: uploads.key_template" in weed.told(MIGRATION_UPLOADS__KEY_TEMPLATE="u/{name}{extension}")


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com/page", "https://App.example.com", "https://app.example.com:443", "app.example.com"],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(SettingsError, match="no origin as browsers send it"):
        checked([origin])


def test_options_that_go_together(weed: Place) -> None:
    for arguments in (["--fix"], ["--origin", ORIGIN], ["--write-path", "--apply"]):
        done = CliRunner().invoke(main, ["doctor", *arguments], env=weed.environment)
        assert (done.exit_code, "goes with" in done.output or "go with" in done.output) == (2, True)
