"""Listing containers: every name, every page, whatever the store answers."""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from migration_pipeline.adapters.azure.listing import AzureListing, MarkerRefused
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.inventory import Listed
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline_tests.names import blob_names
from migration_pipeline_tests.scenarios.test_names import upload

NOT_IN_XML = re.compile("[\x00-\x1f\ufffe\uffff]")
"""Azure escapes such names in its listings, and Azurite breaks on them: how they are read is tried by Azure's form."""


@pytest.fixture(scope="module")
def key(sandbox: Sandbox) -> str:
    return sandbox.environment["AZURE_STORAGE_KEY"]


@pytest.fixture(scope="module")
def odd(sandbox: Sandbox, key: str) -> tuple[str, dict[str, bytes]]:
    """A container with a blob under every name that a listing of Azurite's can hold."""
    container = f"listed{uuid4().hex[:8]}"
    # Of each kind the half: all of them are tried where they are copied.
    names = [name for group in blob_names(container).values() for name in group[::2] if not NOT_IN_XML.search(name)]
    # Azurite takes a backslash for a slash, and such names for others.
    names = [name for name in names if "\\" not in name]
    return container, upload(sandbox.azure_account_url, key, container, names)


@contextmanager
def faulty(sandbox: Sandbox, *faults: Fault) -> Iterator[tuple[FaultProxy, str]]:
    parts = urlsplit(sandbox.azure_account_url)
    with FaultProxy(int(parts.port or 0), faults) as proxy:
        yield proxy, f"http://127.0.0.1:{proxy.port}{parts.path}"


def listed(listing: AzureListing, container: str, marker: str | None = None) -> list[Listed]:
    return [blob for page in listing.pages(container, marker) for blob in page.blobs]


def test_every_blob_is_listed_once_with_its_properties(
    sandbox: Sandbox, key: str, odd: tuple[str, dict[str, bytes]]
) -> None:
    container, bodies = odd
    listing = AzureListing(sandbox.azure_account_url, AzureCredentials(key), blobs_a_page=97)
    found = listed(listing, container)
    assert len(found) == len(bodies) > 500
    assert {blob.file.blob: (blob.size, blob.md5) for blob in found} == {
        name: (len(body), hashlib.md5(body, usedforsecurity=False).digest()) for name, body in bodies.items()
    }
    with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
        # Of plain names: the SDK signs requests for others otherwise than Azurite does.
        for blob in [blob for blob in found if re.fullmatch("[a-z0-9]+", blob.file.blob)]:
            said = azure.get_blob_client(container, blob.file.blob).get_blob_properties()
            assert (blob.etag, blob.tier, blob.written_at) == (said.etag, said.blob_tier, said.last_modified)


def test_a_listing_goes_on_after_any_page(sandbox: Sandbox, key: str, odd: tuple[str, dict[str, bytes]]) -> None:
    container, _ = odd
    listing = AzureListing(sandbox.azure_account_url, AzureCredentials(key), blobs_a_page=150)
    pages = list(listing.pages(container))
    assert len(pages) > 3
    for number, page in enumerate(pages[:-1], start=1):
        rest = [blob for later in pages[number:] for blob in later.blobs]
        assert listed(listing, container, page.marker) == rest


def test_passing_errors_are_tried_again(sandbox: Sandbox, key: str, odd: tuple[str, dict[str, bytes]]) -> None:
    container, bodies = odd
    faults = [
        Fault("status", rate=0.15, answer="503 Busy\r\nx-ms-error-code: ServerBusy\r\nContent-Length: 0\r\n\r\n"),
        Fault("reset", rate=0.15),
        Fault("lost_reply", rate=0.15),
        # An answer that ends in the middle, of a store that says it is all.
        Fault("status", rate=0.05, answer=answer(entry("a"), cut=60)),
    ]
    with faulty(sandbox, *faults) as (proxy, account_url):
        found = listed(
            AzureListing(account_url, AzureCredentials(key), blobs_a_page=20, sleep=lambda _: None), container
        )
        assert {blob.file.blob for blob in found} == set(bodies)
        assert len(found) == len(bodies)
        assert set(proxy.happened) == {"status", "reset", "lost_reply"}


def test_a_store_that_stays_silent_is_given_up(sandbox: Sandbox, key: str) -> None:
    with faulty(sandbox, Fault("hang")) as (proxy, account_url):
        listing = AzureListing(account_url, AzureCredentials(key), timeout=0.2, patience=0, sleep=lambda _: None)
        with pytest.raises(Transient):
            listed(listing, "photos")
        assert proxy.happened["hang"] == 5


def test_what_is_refused_is_said_without_the_sas(
    sandbox: Sandbox, key: str, odd: tuple[str, dict[str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    account_url = sandbox.azure_account_url
    with pytest.raises(Fatal) as missing:
        listed(AzureListing(account_url, AzureCredentials(key)), f"no{uuid4().hex[:8]}")
    assert missing.value.setting == "source.containers"
    expired = generate_container_sas(
        account_url.rpartition("/")[2],
        odd[0],
        account_key=key,
        permission=ContainerSasPermissions(list=True),
        expiry=datetime.now(UTC) - timedelta(hours=1),
    )
    with pytest.raises(Fatal) as refused:
        listed(AzureListing(account_url, AzureCredentials(sas_token=f"?{expired}")), odd[0])
    assert refused.value.setting == "AZURE_STORAGE_SAS_TOKEN"
    signature = expired.partition("sig=")[2].partition("&")[0]
    assert signature
    assert signature not in str(refused.value) + repr(refused.value) + caplog.text


def answer(entries: str, marker: str = "", cut: int = 0) -> str:
    """As Azure lists (Microsoft, "List Blobs"), perhaps with so much of the end cut off."""
    body = (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://a/" ContainerName="photos">'
        f"<Blobs>{entries}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    )
    body = body[: len(body) - cut]
    return f"200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}"


def entry(name: str, *, size: int = 5, encoded: bool = False, metadata: str = "") -> str:
    how = ' Encoded="true"' if encoded else ""
    return (
        f"<Blob><Name{how}>{name}</Name><Properties>"
        "<Last-Modified>Wed, 09 Sep 2026 09:20:02 GMT</Last-Modified><Etag>0x8CBFF45D8A29A19</Etag>"
        f"<Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType><AccessTier>Archive</AccessTier>"
        f"</Properties><Metadata>{metadata}</Metadata></Blob>"
    )


def test_names_that_xml_cannot_hold_and_directories(sandbox: Sandbox, key: str) -> None:
    entries = (
        entry("a%01b%25.jpg", encoded=True)
        + entry("folder", size=0, metadata="<hdi_isfolder>true</hdi_isfolder>")
        + entry("100%25&amp;.jpg")
    )
    with faulty(sandbox, Fault("status", answer=answer(entries))) as (_, account_url):
        (page,) = AzureListing(account_url, AzureCredentials(key)).pages("photos")
    assert [blob.file.blob for blob in page.blobs] == ["a\x01b%.jpg", "100%25&.jpg"]
    assert page.skipped == {"directories": 1}
    (first, _) = page.blobs
    assert first[1:] == (5, None, '"0x8CBFF45D8A29A19"', "Archive", datetime(2026, 9, 9, 9, 20, 2, tzinfo=UTC))


def test_a_store_that_repeats_itself_is_noticed(sandbox: Sandbox, key: str) -> None:
    with (
        faulty(sandbox, Fault("status", answer=answer(entry("a"), marker="m"))) as (proxy, account_url),
        pytest.raises(Transient, match="twice"),
    ):
        listed(AzureListing(account_url, AzureCredentials(key)), "photos")
    assert proxy.requests == 2


def test_a_marker_that_the_store_forgot(sandbox: Sandbox, key: str) -> None:
    refused = "400 Bad\r\nx-ms-error-code: OutOfRangeQueryParameterValue\r\nContent-Length: 0\r\n\r\n"
    with faulty(sandbox, Fault("status", answer=refused)) as (_, account_url):
        listing = AzureListing(account_url, AzureCredentials(key))
        with pytest.raises(MarkerRefused):
            listed(listing, "photos", "old")
        with pytest.raises(Fatal):
            listed(listing, "photos")
