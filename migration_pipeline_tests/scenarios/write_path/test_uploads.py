"""Uploads and reads as a browser makes them: what each line says where all is well, and where it is not."""

import json
import socket
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from migration_pipeline.commands.doctor import Health, uploading
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.commands.doctor.remedies import merged_lifecycle
from migration_pipeline.cutover import WRITE_PATH, gather
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.scenarios.write_path.conftest import DENIED, ORIGIN, SECOND, Place, lines


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
        assert "there is no answer (the connection broke)" in told[WritePath.PUT][0].said
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
    assert (read.health, "there is no answer (the connection was refused)" in read.said) == (Health.FAILURE, True)
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
