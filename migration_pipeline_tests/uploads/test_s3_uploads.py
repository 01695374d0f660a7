"""What S3 lets an upload URL's holder do; against SeaweedFS, which checks signatures, policies and digests.

AWS itself cannot be asked here. Where SeaweedFS is laxer than Amazon's documents say AWS is, the test says so.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import boto3
import pytest

from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.uploads import (
    ClockSkewed,
    Encryption,
    FormTicket,
    Misconfigured,
    NotConfirmed,
    PutTicket,
    S3Bucket,
    S3Uploads,
    StoreTrouble,
    UploadRules,
    Wish,
    explain,
)
from migration_pipeline.uploads.cors import s3_cors
from migration_pipeline_tests.moto_server import MotoServer
from migration_pipeline_tests.uploads.plain_http import Answer, post_form, send
from migration_pipeline_tests.uploads.time_travel import signed_at

BODY = b"\xff\xd8\xff" + bytes(497)
WISH = Wish(content_type="image/jpeg", size=len(BODY))
RULES = UploadRules(max_bytes=1000, min_bytes=100, cache_control="public, max-age=31536000, immutable")
ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Iterator[Any]:
    with closing(boto3.client("s3", endpoint_url=sandbox.s3_endpoint_url, region_name="us-east-1")) as opened:
        yield opened


@pytest.fixture(scope="module")
def bucket(sandbox: Sandbox, client: Any) -> S3Bucket:
    name = f"uploads-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    client.put_bucket_cors(Bucket=name, CORSConfiguration=s3_cors([ORIGIN]))
    return S3Bucket(
        name=name,
        region="us-east-1",
        public_base_url=f"{sandbox.s3_endpoint_url}/{name}",
        endpoint_url=sandbox.s3_endpoint_url,
    )


@pytest.fixture(scope="module")
def uploads(bucket: S3Bucket) -> S3Uploads:
    return S3Uploads(bucket, RULES)


def put(ticket: PutTicket, body: bytes = BODY, **headers: str) -> Answer:
    return send(ticket.method, ticket.url, {**ticket.headers, **headers}, body)


def form(uploads: S3Uploads, wish: Wish = WISH) -> FormTicket:
    ticket = uploads.form_ticket("7", wish)
    assert ticket is not None
    return ticket


def stored(client: Any, bucket: S3Bucket, key: str) -> bytes | None:
    """The object's bytes, by a client that shares no code with the issuer."""
    found = client.list_objects_v2(Bucket=bucket.name, Prefix=key).get("Contents", [])
    assert [each["Key"] for each in found] in ([], [key])
    return client.get_object(Bucket=bucket.name, Key=key)["Body"].read() if found else None


def test_an_upload_by_put_is_stored_confirmed_and_read(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    ticket = uploads.put_ticket("7", WISH)
    with pytest.raises(NotConfirmed, match="nothing"):
        uploads.confirm("7", ticket.reference)
    assert put(ticket).status == 200
    assert stored(client, bucket, ticket.key) == BODY
    confirmed = uploads.confirm("7", ticket.reference)
    assert (confirmed.key, confirmed.reference) == (ticket.key, ticket.reference)
    assert (confirmed.size, confirmed.content_type) == (500, "image/jpeg")
    assert confirmed.etag == hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    with urlopen(uploads.download_url(ticket.reference)) as answer:  # noqa: S310 - the sandbox
        assert answer.read() == BODY
        assert answer.headers["Cache-Control"] == RULES.cache_control
    assert send("GET", ticket.reference, {}).status == 403  # this bucket is private


def test_an_upload_by_form_is_stored_and_confirmed(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    ticket = form(uploads)
    assert post_form(ticket.url, ticket.fields, BODY).status == 201
    assert stored(client, bucket, ticket.key) == BODY
    assert uploads.confirm("7", ticket.reference).content_type == "image/jpeg"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, {"Content-Type": "text/html"}),
        (BODY, {"Content-Type": "image/png"}),
        (BODY + b"x", {}),
        (BODY[:-1], {}),
        (BODY, {"If-None-Match": "etag"}),
        (BODY, {"Cache-Control": "no-store"}),
        (BODY, {"x-amz-acl": "public-read"}),
        (BODY, {"x-amz-meta-owner": "8"}),
        (BODY, {"x-amz-storage-class": "GLACIER"}),
    ],
)
def test_a_put_of_anything_else_than_was_signed_is_refused(
    uploads: S3Uploads, client: Any, bucket: S3Bucket, body: bytes, headers: dict[str, str]
) -> None:
    ticket = uploads.put_ticket("7", WISH)
    answer = put(ticket, body, **headers)
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    assert "not what was signed" in explain(answer.body)
    assert stored(client, bucket, ticket.key) is None


def test_a_put_under_another_key_is_refused(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    ticket = uploads.put_ticket("7", WISH)
    for other in (ticket.key.replace("u/7/", "u/8/"), "photos/7/original.jpg"):
        moved = replace(ticket, url=ticket.url.replace(ticket.key, other))
        assert put(moved).status == 403
        assert stored(client, bucket, other) is None


def test_a_put_url_is_good_for_one_upload(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    ticket = uploads.put_ticket("7", WISH)
    assert put(ticket).status == 200
    again = put(ticket, bytes(len(BODY)))
    assert (again.status, again.code) == (412, "PreconditionFailed")
    assert "one upload" in explain(again.body)
    assert stored(client, bucket, ticket.key) == BODY


@pytest.mark.parametrize(
    ("fields", "body", "status", "code"),
    [
        ({"Content-Type": "text/html"}, BODY, 403, "AccessDenied"),
        ({"Content-Type": None}, BODY, 403, "AccessDenied"),
        ({"key": "u/8/a.jpg"}, BODY, 403, "AccessDenied"),
        ({"x-amz-meta-owner": "8"}, BODY, 403, "AccessDenied"),
        ({"Cache-Control": "no-store"}, BODY, 403, "AccessDenied"),
        ({}, bytes(1001), 400, "EntityTooLarge"),
        ({}, bytes(99), 400, "EntityTooSmall"),
        ({}, b"", 400, "EntityTooSmall"),
    ],
)
def test_a_form_with_anything_else_than_its_policy_is_refused(
    uploads: S3Uploads,
    client: Any,
    bucket: S3Bucket,
    fields: dict[str, str | None],
    body: bytes,
    status: int,
    code: str,
) -> None:
    ticket = form(uploads)
    sent = {name: value for name, value in {**ticket.fields, **fields}.items() if value is not None}
    answer = post_form(ticket.url, sent, body)
    assert (answer.status, answer.code) == (status, code)
    assert stored(client, bucket, ticket.key) is None
    assert stored(client, bucket, "u/8/a.jpg") is None


def test_a_form_can_replace_its_own_upload_until_it_ends(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    """A limit of S3's forms, which know no conditions; docs/uploads.md names it."""
    ticket = form(uploads)
    for body in (BODY, bytes(500)):
        assert post_form(ticket.url, ticket.fields, body).status == 201
    assert stored(client, bucket, ticket.key) == bytes(500)


def test_urls_end(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    with signed_at(RULES.expires_in + timedelta(seconds=2)):
        ticket, by_form = uploads.put_ticket("7", WISH), form(uploads)
    for answer in (put(ticket), post_form(by_form.url, by_form.fields, BODY)):
        assert (answer.status, answer.code) == (403, "AccessDenied")
        assert "time is over" in explain(answer.body)
    assert stored(client, bucket, ticket.key) is None
    assert stored(client, bucket, by_form.key) is None
    # Longer by one character: the end is signed, too.
    stretched = replace(ticket, url=ticket.url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"))
    assert put(stretched).code == "SignatureDoesNotMatch"


def test_downloads_end(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    client.put_object(Bucket=bucket.name, Key="photos/7/a b.jpg", Body=BODY)
    reference = f"{_base(bucket)}/photos/7/a%20b.jpg"
    assert send("GET", uploads.download_url(reference), {}).status == 200
    with signed_at(RULES.download_expires_in + timedelta(seconds=2)):
        assert send("GET", uploads.download_url(reference), {}).status == 403


def _base(bucket: S3Bucket) -> str:
    return bucket.public_base_url


def test_a_digest_said_beforehand_is_checked(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    wish = replace(WISH, sha256=hashlib.sha256(BODY).digest())
    ticket, by_form = uploads.put_ticket("7", wish), form(uploads, wish)
    wrong = BODY[:-1] + b"x"
    for answer in (put(ticket, wrong), post_form(by_form.url, by_form.fields, wrong)):
        assert (answer.status, answer.code) == (400, "BadDigest")
    assert stored(client, bucket, ticket.key) is stored(client, bucket, by_form.key) is None
    # The client cannot leave the digest out either.
    bare = {name: value for name, value in ticket.headers.items() if "checksum" not in name}
    assert send("PUT", ticket.url, bare, wrong).status == 403
    assert put(ticket).status == 200
    assert post_form(by_form.url, by_form.fields, BODY).status == 201
    assert stored(client, bucket, ticket.key) == stored(client, bucket, by_form.key) == BODY


def test_encryption_asked_for_cannot_be_left_out(bucket: S3Bucket, client: Any) -> None:
    uploads = S3Uploads(bucket, replace(RULES, encryption=Encryption("AES256")))
    ticket, by_form = uploads.put_ticket("7", WISH), form(uploads)
    bare = {name: value for name, value in ticket.headers.items() if "encryption" not in name}
    assert send("PUT", ticket.url, bare, BODY).status == 403
    assert put(ticket).status == 200
    assert post_form(by_form.url, by_form.fields, BODY).status == 201
    for key in (ticket.key, by_form.key):
        assert client.head_object(Bucket=bucket.name, Key=key)["ServerSideEncryption"] == "AES256"


def test_kms_keys_are_named(moto: MotoServer) -> None:
    """On moto: SeaweedFS has no KMS here. It checks no signature, so this shows what is sent, not what is enforced."""
    with closing(boto3.client("s3", endpoint_url=moto.endpoint_url, region_name="us-east-1")) as client:
        client.create_bucket(Bucket="uploads-kms")
        bucket = S3Bucket(
            name="uploads-kms", region="us-east-1", public_base_url=moto.endpoint_url, endpoint_url=moto.endpoint_url
        )
        ticket = S3Uploads(bucket, replace(RULES, encryption=Encryption("aws:kms", "some-key"))).put_ticket("7", WISH)
        assert put(ticket).status == 200
        head = client.head_object(Bucket="uploads-kms", Key=ticket.key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "some-key")
    assert "server-side-encryption-aws-kms-key-id" in ticket.url


def test_only_the_apps_origin_may_put_from_a_page(uploads: S3Uploads) -> None:
    ticket = uploads.put_ticket("7", WISH)
    asked = {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in ticket.headers)),
    }
    allowed = send("OPTIONS", ticket.url, {**asked, "Origin": ORIGIN})
    assert (allowed.status, allowed.headers.get("access-control-allow-origin")) == (200, ORIGIN)
    foreign = send("OPTIONS", ticket.url, {**asked, "Origin": "https://evil.example"})
    assert foreign.status == 403
    assert "access-control-allow-origin" not in foreign.headers


def test_nothing_but_what_was_allowed_is_confirmed(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    """Whatever got there, by a laxer store or another way: confirming looks at what is stored."""
    for body, content_type, said in (
        (bytes(1001), "image/jpeg", "1001 bytes"),
        (b"", "image/jpeg", "0 bytes"),
        (BODY, "text/html", "text/html"),
        (BODY, "image/png", "not what this name was given for"),
    ):
        ticket = uploads.put_ticket("7", WISH)
        client.put_object(Bucket=bucket.name, Key=ticket.key, Body=body, ContentType=content_type)
        with pytest.raises(NotConfirmed, match=said):
            uploads.confirm("7", ticket.reference)
        uploads.discard("7", ticket.reference)
        assert stored(client, bucket, ticket.key) is None


def test_a_profile_confirms_and_discards_its_own_uploads_alone(
    uploads: S3Uploads, client: Any, bucket: S3Bucket
) -> None:
    ticket = uploads.put_ticket("7", WISH)
    assert put(ticket).status == 200
    client.put_object(Bucket=bucket.name, Key="photos/8/original.jpg", Body=BODY, ContentType="image/jpeg")
    base = _base(bucket)
    for profile, reference in (
        ("8", ticket.reference),
        ("7", f"{base}/photos/8/original.jpg"),
        ("7", f"{base}/u/7/../../photos/8/original.jpg"),
        ("7", f"{base}/u/7/{'0' * 31}.jpg"),
        ("7", f"{base}/u%2F8/{'0' * 32}.jpg"),
    ):
        with pytest.raises(NotConfirmed):
            uploads.confirm(profile, reference)
        with pytest.raises(NotConfirmed):
            uploads.discard(profile, reference)
    assert stored(client, bucket, ticket.key) == stored(client, bucket, "photos/8/original.jpg") == BODY


def test_a_store_that_is_away_confirms_nothing_and_denies_nothing(bucket: S3Bucket) -> None:
    away = S3Uploads(replace(bucket, endpoint_url=f"http://127.0.0.1:{free_ports(1)[0]}"), RULES)
    ticket = away.put_ticket("7", WISH)
    for ask in (lambda: away.confirm("7", ticket.reference), away.check_clock):
        with pytest.raises(StoreTrouble) as trouble:
            ask()
        assert "?" not in str(trouble.value)


def test_a_busy_store_is_asked_again_and_then_told(bucket: S3Bucket, sandbox: Sandbox) -> None:
    with FaultProxy(urlsplit(sandbox.s3_endpoint_url).port or 0) as proxy:
        uploads = S3Uploads(replace(bucket, endpoint_url=f"http://127.0.0.1:{proxy.port}"), RULES)
        ticket = uploads.put_ticket("7", WISH)
        assert put(ticket).status == 200
        proxy.faults = [Fault("status", match="HEAD")]
        with pytest.raises(StoreTrouble, match="503"):
            uploads.confirm("7", ticket.reference)
        assert proxy.happened["status"] == 3
        proxy.faults = [Fault("reset", match="HEAD")]
        with pytest.raises(StoreTrouble):
            uploads.confirm("7", ticket.reference)
        proxy.faults = []
        assert uploads.confirm("7", ticket.reference).size == len(BODY)


def test_a_url_used_twice_at_once_stores_one_of_both(uploads: S3Uploads, client: Any, bucket: S3Bucket) -> None:
    bodies = [bytes([number]) * len(BODY) for number in range(4)]
    with ThreadPoolExecutor(len(bodies)) as threads:
        for _ in range(10):
            ticket = uploads.put_ticket("7", WISH)
            statuses = list(threads.map(lambda body: put(ticket, body).status, bodies))  # noqa: B023 - all end here
            assert sorted(statuses) == [200, 412, 412, 412]
            assert stored(client, bucket, ticket.key) == bodies[statuses.index(200)]


def test_a_role_that_may_not_look_is_trouble_and_not_an_absence(bucket: S3Bucket, uploads: S3Uploads) -> None:
    stranger = boto3.Session(aws_access_key_id="stranger", aws_secret_access_key="wrong")
    reference = uploads.put_ticket("7", WISH).reference
    with pytest.raises(StoreTrouble, match="403"):
        S3Uploads(bucket, RULES, session=stranger).confirm("7", reference)


def test_without_credentials_nothing_is_issued(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(Misconfigured, match="credentials"):
        S3Uploads(bucket, RULES).put_ticket("7", WISH)


@pytest.mark.parametrize(("minutes", "said"), [(20, "ahead of"), (-20, "behind")])
def test_a_clock_that_is_wrong_is_told(bucket: S3Bucket, uploads: S3Uploads, minutes: int, said: str) -> None:
    uploads.check_clock()
    wrong = S3Uploads(bucket, RULES, clock=lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    with pytest.raises(ClockSkewed, match=said):
        wrong.check_clock()
