"""What Azure lets the holder of a SAS do; against Azurite, which checks signatures, times, permissions and digests."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from azure.storage.blob import ContainerClient

from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.azurite import KEY
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.uploads import (
    AzureContainer,
    AzureUploads,
    ClockSkewed,
    Misconfigured,
    NotConfirmed,
    PutTicket,
    S3Bucket,
    S3Uploads,
    StoreTrouble,
    Switch,
    SwitchedUploads,
    UploadRules,
    Wish,
)
from migration_pipeline_tests.uploads.plain_http import Answer, send

BODY = b"\x89PNG\r\n\x1a\n" + bytes(492)
WISH = Wish(content_type="image/png", size=len(BODY))
RULES = UploadRules(max_bytes=1000, cache_control="public, max-age=31536000, immutable")


@pytest.fixture(scope="module")
def place(sandbox: Sandbox) -> AzureContainer:
    return AzureContainer(account_url=sandbox.azure_account_url, name=f"uploads-{uuid4().hex[:12]}", account_key=KEY)


@pytest.fixture(scope="module")
def container(place: AzureContainer) -> Iterator[ContainerClient]:
    with ContainerClient(place.account_url, place.name, credential=KEY) as client:
        client.create_container()
        yield client
        client.delete_container()


@pytest.fixture(scope="module")
def uploads(place: AzureContainer, container: ContainerClient) -> AzureUploads:  # noqa: ARG001 - must be there
    return AzureUploads(place, RULES)


def put(ticket: PutTicket, body: bytes = BODY, **headers: str) -> Answer:
    return send(ticket.method, ticket.url, {**ticket.headers, **headers}, body)


def stored(container: ContainerClient, key: str) -> bytes | None:
    """The blob's bytes, by a client that shares no code with the issuer."""
    found = [blob.name for blob in container.list_blobs(name_starts_with=key)]
    return container.download_blob(key).readall() if found else None


def test_an_upload_is_stored_confirmed_and_read(uploads: AzureUploads, container: ContainerClient) -> None:
    ticket = uploads.put_ticket("7", WISH)
    with pytest.raises(NotConfirmed, match="nothing"):
        uploads.confirm("7", ticket.reference)
    assert put(ticket).status == 201
    assert stored(container, ticket.key) == BODY
    confirmed = uploads.confirm("7", ticket.reference)
    assert (confirmed.store, confirmed.size, confirmed.content_type) == ("azure", 500, "image/png")
    answer = send("GET", uploads.download_url(ticket.reference), {})
    assert (answer.status, answer.headers["cache-control"]) == (200, RULES.cache_control)
    assert send("GET", ticket.reference, {}).status in {403, 404}  # this container is private; Azure says 404


def test_a_sas_creates_one_blob_once(uploads: AzureUploads, container: ContainerClient) -> None:
    ticket = uploads.put_ticket("7", WISH)
    assert "sp=c&" in ticket.url
    assert put(ticket).status == 201
    # Azurite names it so; Azure itself says UnauthorizedBlobOverwrite. A block list is a write, too.
    assert put(ticket, bytes(10)).status == 403
    part = replace(ticket, url=f"{ticket.url}&comp=block&blockid=AAAA")
    assert put(part, bytes(10)).status == 403
    for method in ("GET", "DELETE"):
        assert send(method, ticket.url, {}).status == 403
    other = ticket.key.replace("u/7/", "u/8/")
    assert put(replace(ticket, url=ticket.url.replace(ticket.key, other))).status == 403
    assert stored(container, ticket.key) == BODY
    assert stored(container, other) is None


@pytest.mark.parametrize(
    ("clock", "status"),
    [
        (timedelta(minutes=-11), 403),
        (timedelta(minutes=16), 403),
        # Signers that are a little off still issue URLs that work at once.
        (timedelta(minutes=-8), 201),
        (timedelta(minutes=14), 201),
    ],
)
def test_a_sas_ends_and_begins_early_enough(
    place: AzureContainer, container: ContainerClient, clock: timedelta, status: int
) -> None:
    ticket = AzureUploads(place, RULES, clock=lambda: datetime.now(UTC) + clock).put_ticket("7", WISH)
    assert put(ticket).status == status
    assert (stored(container, ticket.key) == BODY) == (status == 201)


def test_a_digest_that_is_sent_is_checked(uploads: AzureUploads, container: ContainerClient) -> None:
    ticket = uploads.put_ticket("7", replace(WISH, md5=hashlib.md5(BODY, usedforsecurity=False).digest()))
    assert put(ticket, BODY[:-1] + b"x").status == 400
    assert stored(container, ticket.key) is None
    assert put(ticket).status == 201


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (BODY, {"Content-Type": "text/html"}, "text/html"),
        (BODY, {"Content-Type": "image/jpeg"}, "not what this name was given for"),
        (bytes(1001), {}, "1001 bytes"),
        (b"", {}, "0 bytes"),
    ],
)
def test_what_a_sas_cannot_forbid_is_not_confirmed(
    uploads: AzureUploads, container: ContainerClient, body: bytes, headers: dict[str, str], said: str
) -> None:
    """A limit of Azure's: a SAS signs neither type nor size."""
    ticket = uploads.put_ticket("7", WISH)
    assert put(ticket, body, **headers).status == 201
    with pytest.raises(NotConfirmed, match=said):
        uploads.confirm("7", ticket.reference)
    uploads.discard("7", ticket.reference)
    assert stored(container, ticket.key) is None


def test_only_https_is_good_where_the_store_has_it() -> None:
    account = AzureContainer(account_url="https://acct.blob.core.windows.net", name="photos", account_key=KEY)
    assert "spr=https&" in AzureUploads(account, RULES).put_ticket("7", WISH).url


def test_trouble_is_not_an_absence(place: AzureContainer, uploads: AzureUploads) -> None:
    reference = uploads.put_ticket("7", WISH).reference
    wrong_key = AzureUploads(replace(place, account_key="c2VjcmV0"), RULES)
    with pytest.raises(StoreTrouble, match="403"):
        wrong_key.confirm("7", reference)
    missing = AzureUploads(replace(place, name="not-there"), RULES)
    with pytest.raises(Misconfigured, match="not-there"):
        missing.confirm("7", missing.put_ticket("7", WISH).reference)
    away = AzureUploads(replace(place, account_url=f"http://127.0.0.1:{free_ports(1)[0]}/devstoreaccount1"), RULES)
    with pytest.raises(StoreTrouble):
        away.check_clock()


def test_a_clock_that_is_wrong_is_told(place: AzureContainer, uploads: AzureUploads) -> None:
    uploads.check_clock()
    with pytest.raises(ClockSkewed, match="behind"):
        AzureUploads(place, RULES, clock=lambda: datetime.now(UTC) - timedelta(minutes=3)).check_clock()


def test_uploads_begun_before_the_switch_are_confirmed_after_it(
    sandbox: Sandbox, uploads: AzureUploads, container: ContainerClient
) -> None:
    bucket = S3Bucket(
        name=sandbox.bucket,
        region="us-east-1",
        public_base_url=sandbox.public_base_url,
        endpoint_url=sandbox.s3_endpoint_url,
    )
    moment = datetime.now(UTC)
    clock = {"now": moment - timedelta(seconds=1)}
    both: Any = SwitchedUploads(uploads, S3Uploads(bucket, RULES), Switch(moment), clock=lambda: clock["now"])
    late = both.put_ticket("7", WISH)
    clock["now"] = moment
    new = both.put_ticket("7", WISH)
    assert (late.store, new.store) == ("azure", "s3")
    assert put(late).status == 201
    assert put(new).status == 200
    assert both.confirm("7", late.reference).store == "azure"
    assert both.confirm("7", new.reference).store == "s3"
    for ticket in (late, new):
        assert send("GET", both.download_url(ticket.reference), {}).status == 200
        both.discard("7", ticket.reference)
    assert stored(container, late.key) is None
