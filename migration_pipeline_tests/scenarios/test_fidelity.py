"""What travels with a file, on real stores: every byte at every boundary, every header, and the operator's wishes."""

import asyncio
import gzip
import hashlib
import random
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, ContentSettings, generate_container_sas

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.headers import StoreAs
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.large_file import PART_BYTES
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.transfer import transfer
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy

BOUNDARIES = [0, 1, *(n * PART_BYTES + more for n in (1, 2) for more in (-1, 0, 1))]

GUESS = CopyLimits(guess_content_type=True)


class Stores:
    """A container and a bucket of their own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.name = f"fid{uuid4().hex[:12]}"
        self._sandbox, self._key = sandbox, sandbox.environment["AZURE_STORAGE_KEY"]
        self.azure = BlobServiceClient(sandbox.azure_account_url, credential=self._key)
        self.azure.create_container(self.name)
        self.s3 = boto3.client("s3", endpoint_url=sandbox.s3_endpoint_url, region_name="us-east-1")
        self.s3.create_bucket(Bucket=self.name)

    def close(self) -> None:
        self.azure.close()
        self.s3.close()

    def upload(self, name: str, body: bytes, metadata: dict[str, str] | None = None, **settings: Any) -> None:
        self.azure.get_blob_client(self.name, name).upload_blob(
            body, metadata=metadata, content_settings=ContentSettings(**settings)
        )

    def upload_raw(self, name: str, body: bytes, headers: dict[str, str]) -> None:
        """With headers as UTF-8, which Azurite gives back as latin-1."""
        where = urlsplit(self._sandbox.azure_account_url)
        with closing(HTTPConnection(where.netloc, timeout=10)) as connection:
            as_utf_8 = {key: value.encode().decode("latin-1") for key, value in headers.items()}
            sent = {"x-ms-blob-type": "BlockBlob", **as_utf_8}
            connection.request("PUT", f"{where.path}/{self.name}/{quote(name)}?{self._sas()}", body, sent)
            assert connection.getresponse().status == 201

    def _sas(self) -> str:
        return generate_container_sas(
            urlsplit(self._sandbox.azure_account_url).path.strip("/"),
            self.name,
            account_key=self._key,
            permission=ContainerSasPermissions(read=True, write=True, create=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def answered(self, name: str) -> bytes:
        """The head of what the source answers, as it comes."""
        where = urlsplit(self._sandbox.azure_account_url)
        request = f"HEAD {where.path}/{self.name}/{quote(name)}?{self._sas()} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n"
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
            connection.sendall(request.encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
        return head

    def copy(self, *names: str, store_as: StoreAs | None = None, limits: CopyLimits | None = None) -> list[CopyResult]:
        rules = UrlRules(
            account_url=self._sandbox.azure_account_url,
            containers=[self.name],
            alias_hosts={},
            public_base_url="https://cdn.example.com",
            keys=KeyTemplate("", "{blob}"),
        )
        recorded: list[CopyResult] = []

        async def work() -> None:
            bucket = Bucket(self.name, "us-east-1", self._sandbox.s3_endpoint_url)
            async with (
                AzureBlobSource(self._sandbox.azure_account_url, [self.name], AzureCredentials(self._key)) as source,
                S3Target(bucket, store_as=store_as) as target,
            ):
                copier = Copier(source, target, rules, limits or CopyLimits())
                await transfer([WantedFile(SourceFile(self.name, name)) for name in names], copier, recorded.extend)

        asyncio.run(work())
        return recorded

    def get(self, key: str) -> Any:
        answer = self.s3.get_object(Bucket=self.name, Key=key)
        answer["Body"] = answer["Body"].read()
        return answer


@pytest.fixture
def stores(sandbox: Sandbox) -> Iterator[Stores]:
    opened = Stores(sandbox)
    yield opened
    opened.close()


def test_every_length_at_the_boundaries_of_parts(stores: Stores) -> None:
    block = random.Random(3).randbytes(2 * PART_BYTES + 1)
    for length in BOUNDARIES:
        stores.upload(f"{length}", block[:length], content_type="image/jpeg")
    recorded = stores.copy(*map(str, BOUNDARIES), limits=CopyLimits(read_back="always"))
    assert {result.outcome for result in recorded} == {Outcome.COPIED}
    for length in BOUNDARIES:
        assert stores.get(f"{length}")["Body"] == block[:length]
    digests = {int(result.file.blob): result.md5 for result in recorded}
    assert digests == {n: hashlib.md5(block[:n], usedforsecurity=False).digest() for n in BOUNDARIES}


@pytest.mark.parametrize("length", [1000, PART_BYTES + 1])
def test_every_header_and_metadata(stores: Stores, length: int) -> None:
    stores.upload(
        "a.jpg",
        bytes(length),
        metadata={"Owner_Id": "42", "note": "plain text"},
        content_type="image/jpeg; charset=x",
        cache_control="public, max-age=31536000, immutable",
        content_disposition='attachment; filename="a b.jpg"',
        content_language="de-AT",
    )
    assert stores.copy("a.jpg")[0].outcome is Outcome.COPIED
    copy = stores.get("a.jpg")
    assert (copy["ContentType"], copy["ContentLanguage"]) == ("image/jpeg; charset=x", "de-AT")
    assert copy["CacheControl"] == "public, max-age=31536000, immutable"
    assert copy["ContentDisposition"] == 'attachment; filename="a b.jpg"'
    assert copy["Metadata"] == {"owner_id": "42", "note": "plain text"}


@pytest.mark.parametrize("length", [1000, PART_BYTES + 1])
def test_headers_in_latin_1_travel_in_a_form_that_both_stores_take(stores: Stores, length: int) -> None:
    """One blob's among others: all are copied."""
    odd = {
        "x-ms-blob-content-disposition": 'attachment; filename="f\xf6\xdf.jpg"',
        "x-ms-blob-content-type": "image/jpeg; name=f\xf6",
        "x-ms-blob-cache-control": "max-age=60, \xfc",
        "x-ms-blob-content-language": "d\xeb",
        "x-ms-meta-owner": "J\xf6rg",
    }
    stores.upload_raw("odd.jpg", bytes(length), odd)
    assert b'filename="f\xf6\xdf.jpg"' in stores.answered("odd.jpg")
    others = [f"{n}.jpg" for n in range(20)]
    for name in others:
        stores.upload(name, b"plain", content_type="image/jpeg")
    recorded = stores.copy("odd.jpg", *others)
    assert {result.outcome for result in recorded} == {Outcome.COPIED}
    copy = stores.get("odd.jpg")
    assert copy["ContentDisposition"] == "attachment; filename=\"f__.jpg\"; filename*=UTF-8''f%C3%B6%C3%9F.jpg"
    assert copy["ContentType"] == "image/jpeg; name=\"f_\"; name*=UTF-8''f%C3%B6"
    assert (copy["CacheControl"], copy["ContentLanguage"]) == ("max-age=60, %C3%BC", "d%C3%AB")
    assert str(make_header(decode_header(copy["Metadata"]["owner"]))) == "J\xf6rg"


def test_compressed_bodies_stay_compressed(stores: Stores) -> None:
    packed = gzip.compress(b"text " * 1000)
    stores.upload("a.svg", packed, content_type="image/svg+xml", content_encoding="gzip")
    assert stores.copy("a.svg")[0].md5 == hashlib.md5(packed, usedforsecurity=False).digest()
    copy = stores.get("a.svg")
    assert (copy["Body"], copy["ContentEncoding"]) == (packed, "gzip")


@pytest.mark.parametrize("length", [100, PART_BYTES + 1])
def test_files_uploaded_without_a_type_get_the_one_of_their_bytes_if_wished(stores: Stores, length: int) -> None:
    jpeg = b"\xff\xd8\xff\xe0" + bytes(length)
    stores.upload("a", jpeg)
    stores.upload("words", b"words" + bytes(length))
    stores.upload("text", jpeg, content_type="text/plain")
    guessed = {result.file.blob for result in stores.copy("a", "words", "text", limits=GUESS) if result.guessed_type}
    types = {name: stores.get(name)["ContentType"] for name in ("a", "words", "text")}
    assert types == {"a": "image/jpeg", "words": "application/octet-stream", "text": "text/plain"}
    assert guessed == {"a"}


@pytest.mark.parametrize("name", ["small", "folder//odd", "large"])
def test_tags_storage_class_and_encryption(stores: Stores, name: str) -> None:
    stores.upload(name, bytes(PART_BYTES + 1 if name == "large" else 100))
    wishes = StoreAs(storage_class="STANDARD_IA", encryption="AES256", tags={"origin": "azure & co", "run": "1"})
    assert stores.copy(name, store_as=wishes)[0].outcome is Outcome.COPIED
    head = stores.s3.head_object(Bucket=stores.name, Key=name)
    assert (head["ServerSideEncryption"], head["StorageClass"]) == ("AES256", "STANDARD_IA")
    tags = stores.s3.get_object_tagging(Bucket=stores.name, Key=name)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"origin": "azure & co", "run": "1"}


def test_snapshots_and_older_versions_are_not_copied(stores: Stores) -> None:
    stores.upload("a.jpg", b"old")
    stores.azure.get_blob_client(stores.name, "a.jpg").create_snapshot()
    stores.azure.get_blob_client(stores.name, "a.jpg").upload_blob(b"new", overwrite=True)
    lease = stores.azure.get_blob_client(stores.name, "a.jpg").acquire_lease()
    assert stores.copy("a.jpg")[0].outcome is Outcome.COPIED
    lease.release()
    assert stores.get("a.jpg")["Body"] == b"new"


def test_a_refused_sas_is_renewed_once_for_all_and_a_fresh_one_is_not(sandbox: Sandbox, stores: Stores) -> None:
    stores.upload("a.jpg", b"bytes")
    file, now = SourceFile(stores.name, "a.jpg"), 0.0
    port = urlsplit(sandbox.azure_account_url).port or 0

    async def admit(_: int) -> None:
        return

    async def story(proxy: FaultProxy) -> None:
        nonlocal now
        account_url = sandbox.azure_account_url.replace(f":{port}", f":{proxy.port}")
        credentials = AzureCredentials(sandbox.environment["AZURE_STORAGE_KEY"])
        async with AzureBlobSource(account_url, [stores.name], credentials, clock=lambda: now) as source:

            async def read(times: int) -> list[bytes | BaseException | None]:
                reads = (source.read(file, whole_up_to=10, admit=admit) for _ in range(times))
                ended = await asyncio.gather(*reads, return_exceptions=True)
                return [one if isinstance(one, BaseException) else one.body for one in ended]

            assert await read(5) == [b"bytes"] * 5
            old = refusal_of_token_in(proxy.newest)
            proxy.faults = [old]
            assert {type(error) for error in await read(5)} == {Fatal}
            now = 61.0
            await asyncio.sleep(1.1)  # a SAS tells whole seconds: made within one, two are the same
            assert await read(5) == [b"bytes"] * 5
            # That made one token for all of them. It is a fresh one, so its refusal counts.
            proxy.faults = [old, refusal_of_token_in(proxy.newest)]
            assert {type(error) for error in await read(5)} == {Fatal}

    with FaultProxy(port) as proxy:
        asyncio.run(story(proxy))


def refusal_of_token_in(line: str) -> Fault:
    """What Azure says to a SAS that has run out, for the one in this request."""
    token = line.split("?", 1)[1].split(" ", 1)[0]
    answer = "403 Said\r\nx-ms-error-code: AuthenticationFailed\r\nContent-Length: 0\r\n\r\n"
    return Fault("status", match=re.escape(token), answer=answer)
