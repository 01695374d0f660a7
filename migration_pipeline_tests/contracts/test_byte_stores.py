"""What every source and every target has to keep: Azurite and SeaweedFS, and the stores in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.headers import StoreAs
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.errors import Fatal, Permanent
from migration_pipeline.core.model import FileHeaders, Outcome, SourceFile
from migration_pipeline.core.ports import BytesRefused, KeyTaken, Receipt, SourceStore, TargetStore
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.memory_stores import MemorySource, MemoryTarget, md5
from migration_pipeline_tests.moto_server import MotoServer

PART = 5 * 1024 * 1024  # the smallest that S3 takes, but for the last
HEADERS = FileHeaders("image/jpeg", "max-age=60", metadata={"owner": "1"})
WithTarget = Callable[[Callable[[TargetStore], Awaitable[None]]], None]


@pytest.fixture(scope="module")
def moto_bucket(moto: MotoServer) -> Bucket:
    client = boto3.client("s3", endpoint_url=moto.endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket="contracts")
    client.close()
    return Bucket("contracts", "us-east-1", moto.endpoint_url)


@pytest.fixture(scope="module")
def kms_key(moto: MotoServer) -> str:
    client = boto3.client("kms", endpoint_url=moto.endpoint_url, region_name="us-east-1")
    arn: str = client.create_key()["KeyMetadata"]["Arn"]
    client.close()
    return arn


@pytest.fixture(params=["seaweedfs", "moto", "moto with KMS", "memory"])
def on_target(request: pytest.FixtureRequest) -> WithTarget:
    bucket, store_as = None, None
    if request.param == "seaweedfs":
        sandbox: Sandbox = request.getfixturevalue("sandbox")
        bucket = Bucket(sandbox.bucket, "us-east-1", sandbox.s3_endpoint_url)
    elif request.param != "memory":
        bucket = request.getfixturevalue("moto_bucket")
    if request.param == "moto with KMS":
        store_as = StoreAs(encryption="aws:kms", kms_key_id=request.getfixturevalue("kms_key"))

    def run(story: Callable[[TargetStore], Awaitable[None]]) -> None:
        async def in_loop() -> None:
            async with AsyncExitStack() as stack:
                target: TargetStore = MemoryTarget()
                if bucket is not None:
                    target = await stack.enter_async_context(S3Target(bucket, store_as=store_as))
                await target.check()
                await story(target)

        asyncio.run(in_loop())

    return run


async def at_will(_: int) -> None:
    return


def key() -> str:
    return f"contract/{uuid4().hex}.jpg"


def test_an_object_is_created_once_and_never_replaced(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        name = key()
        receipt = await target.create(name, b"first", md5(b"first"), HEADERS)
        assert receipt.md5 in (None, md5(b"first"))
        with pytest.raises(KeyTaken):
            await target.create(name, b"second", md5(b"second"), HEADERS)
        with pytest.raises(KeyTaken):
            await target.begin(name, HEADERS)
        there = await target.describe(name)
        assert there is not None
        # A store that encrypts by KMS's keys knows no MD5 until the object is read.
        assert there.md5 in (receipt.md5, md5(b"first"))
        assert (there.size, there.etag) == (5, receipt.etag)
        assert await target.describe(name, read=True) == there._replace(md5=md5(b"first"))

    on_target(story)


# moto does not look at Content-MD5, which `doctor` finds out: such a store is refused.
@pytest.mark.parametrize("on_target", ["seaweedfs", "memory"], indirect=True)
def test_bytes_of_another_digest_are_refused_and_leave_nothing(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        name = key()
        with pytest.raises(BytesRefused):
            await target.create(name, b"damaged", md5(b"whole"), HEADERS)
        assert await target.describe(name) is None
        upload = await target.begin(name, HEADERS)
        with pytest.raises(BytesRefused):
            await upload.put(1, b"damaged", md5(b"whole"))
        await upload.abort()
        assert await target.describe(name) is None

    on_target(story)


def test_an_upload_dropped_leaves_nothing(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        name = key()
        upload = await target.begin(name, HEADERS)
        await upload.put(1, bytes(PART), md5(bytes(PART)))
        assert await target.describe(name) is None
        await upload.abort()
        await upload.abort()
        assert await target.describe(name) is None

    on_target(story)


def test_parts_become_one_object_in_their_order(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        name, first, last = key(), bytes(PART), b"end"
        upload = await target.begin(name, HEADERS)
        await upload.put(2, last, md5(last))
        await upload.put(1, b"!" * PART, md5(b"!" * PART))
        await upload.put(1, first, md5(first))
        assert (await upload.complete()).md5 is None
        there = await target.describe(name, read=True)
        assert there is not None
        assert (there.size, there.md5) == (PART + 3, md5(first + last))
        await upload.abort()
        assert await target.describe(name) is not None

    on_target(story)


def test_parts_do_not_replace_an_object_that_came_meanwhile(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        name = key()
        upload = await target.begin(name, HEADERS)
        await upload.put(1, b"ours", md5(b"ours"))
        await target.create(name, b"theirs", md5(b"theirs"), HEADERS)
        with pytest.raises(KeyTaken):
            await upload.complete()
        await upload.abort()
        there = await target.describe(name, read=True)
        assert there is not None
        assert there.md5 == md5(b"theirs")

    on_target(story)


def test_only_the_object_of_the_receipt_is_removed(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        ours, theirs = key(), key()
        receipt = await target.create(ours, b"ours", md5(b"ours"), HEADERS)
        await target.create(theirs, b"theirs", md5(b"theirs"), HEADERS)
        await target.remove(theirs, receipt)
        assert await target.describe(theirs) is not None
        await target.remove(ours, receipt)
        assert await target.describe(ours) is None
        await target.remove(ours, receipt)

    on_target(story)


@pytest.mark.parametrize("on_target", ["seaweedfs", "memory"], indirect=True)  # moto knows no If-Match on writes
def test_only_the_very_copy_that_is_named_is_replaced(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        for parts in (False, True):
            name = key()
            old = await target.create(name, b"old", md5(b"old"), HEADERS)
            new = await write(target, name, b"new", old.etag, parts=parts)
            # Somebody wrote meanwhile: what is there is not the copy that was named.
            with pytest.raises(KeyTaken):
                await write(target, name, b"newer", old.etag, parts=parts)
            there = await target.describe(name, read=True)
            assert there is not None
            assert (there.md5, there.etag) == (md5(b"new"), new.etag)
            # Where the copy is gone, it is made.
            gone = key()
            await write(target, gone, b"new", old.etag, parts=parts)
            assert await target.describe(gone) is not None

    on_target(story)


async def write(target: TargetStore, name: str, body: bytes, replaces: str, *, parts: bool) -> Receipt:
    if not parts:
        return await target.create(name, body, md5(body), HEADERS, replaces=replaces)
    upload = await target.begin(name, HEADERS, replaces=replaces)
    try:
        await upload.put(1, body, md5(body))
        return await upload.complete()
    except KeyTaken:
        await upload.abort()
        raise


def test_only_the_object_that_is_named_is_erased(on_target: WithTarget) -> None:
    async def story(target: TargetStore) -> None:
        name = key()
        receipt = await target.create(name, b"ours", md5(b"ours"), HEADERS)
        assert await target.erase(name, "another", []) == 0
        assert await target.describe(name) is not None
        assert await target.erase(name, receipt.etag, []) == 1
        assert await target.describe(name) is None
        assert await target.erase(name, receipt.etag, []) == 0

    on_target(story)


@pytest.mark.parametrize("store", ["seaweedfs", "moto"])
def test_on_a_bucket_with_versioning_our_versions_go_and_others_stay(
    request: pytest.FixtureRequest, sandbox: Sandbox, store: str
) -> None:
    endpoint_url = sandbox.s3_endpoint_url
    if store == "moto":
        endpoint_url = request.getfixturevalue("moto_bucket").endpoint_url
    bucket = Bucket(f"v{uuid4().hex[:12]}", "us-east-1", endpoint_url)
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=bucket.name)
    client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})

    async def story() -> None:
        async with S3Target(bucket) as target:
            first = await target.create("a", b"first", md5(b"first"), HEADERS)
            second = await target.create("a", b"second", md5(b"second"), HEADERS, replaces=first.etag)
            assert first.version
            assert second.version
            there = await target.describe("a")
            assert there is not None
            assert (there.version, there.etag) == (second.version, second.etag)
            assert (await target.describe("a", read=True)) == there._replace(md5=md5(b"second"))
            client.put_object(Bucket=bucket.name, Key="a", Body=b"the app's")
            # Without the versions' names nothing goes: a plain delete would only hide them all.
            assert await target.erase("a", second.etag, []) == 0
            assert await target.erase("a", second.etag, [first.version, second.version]) == 2

    asyncio.run(story())
    listed = client.list_object_versions(Bucket=bucket.name)
    assert len(listed["Versions"]) == 1
    assert "DeleteMarkers" not in listed
    client.delete_object(Bucket=bucket.name, Key="a", VersionId=listed["Versions"][0]["VersionId"])
    client.delete_bucket(Bucket=bucket.name)
    client.close()


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("store", ["seaweedfs", "moto"])
def test_what_was_made_before_the_bucket_had_versioning_goes_for_good(
    request: pytest.FixtureRequest, sandbox: Sandbox, store: str, *, above: bool
) -> None:
    endpoint_url = sandbox.s3_endpoint_url
    if store == "moto":
        endpoint_url = request.getfixturevalue("moto_bucket").endpoint_url
    bucket = Bucket(f"v{uuid4().hex[:12]}", "us-east-1", endpoint_url)
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=bucket.name)

    async def story() -> None:
        async with S3Target(bucket) as target:
            receipt = await target.create("a", b"ours", md5(b"ours"), HEADERS)
            assert receipt.version is None
            client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
            if above:
                client.put_object(Bucket=bucket.name, Key="a", Body=b"the app's")
            assert await target.erase("a", "another", []) == 0
            assert await target.erase("a", receipt.etag, []) == 1
            assert await target.erase("a", receipt.etag, []) == 0

    asyncio.run(story())
    listed = client.list_object_versions(Bucket=bucket.name)
    assert "DeleteMarkers" not in listed
    assert len(listed.get("Versions", [])) == above
    for version in listed.get("Versions", []):
        client.delete_object(Bucket=bucket.name, Key="a", VersionId=version["VersionId"])
    client.delete_bucket(Bucket=bucket.name)
    client.close()


def test_kms_encrypts_small_large_and_odd_objects(moto_bucket: Bucket, kms_key: str) -> None:
    store_as = StoreAs(encryption="aws:kms", kms_key_id=kms_key)
    small, odd, large = key(), f"{key()}/", key()

    async def story() -> None:
        async with S3Target(moto_bucket, store_as=store_as) as target:
            for name in (small, odd):
                await target.create(name, b"x", md5(b"x"), HEADERS)
            upload = await target.begin(large, HEADERS)
            await upload.put(1, bytes(PART), md5(bytes(PART)))
            await upload.complete()

    asyncio.run(story())
    client = boto3.client("s3", endpoint_url=moto_bucket.endpoint_url, region_name="us-east-1")
    for name in (small, odd, large):
        head = client.head_object(Bucket=moto_bucket.name, Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", kms_key)
    client.close()


@pytest.mark.parametrize(
    "name", ["plain.jpg", "a b+c%2Fd&e=ü.jpg", "e\u0301.jpg", "100%zz?x#y.jpg", "dots...", " space "]
)
def test_keys_are_written_as_they_are(sandbox: Sandbox, name: str) -> None:
    written = f"contract/{uuid4().hex}/{name}"

    async def story() -> None:
        async with S3Target(Bucket(sandbox.bucket, "us-east-1", sandbox.s3_endpoint_url)) as target:
            await target.create(written, b"x", md5(b"x"), HEADERS)
            assert await target.describe(written) is not None

    asyncio.run(story())


WithSource = Callable[[dict[str, bytes], Callable[[SourceStore, str], Awaitable[None]]], None]


@pytest.fixture(params=["azurite", "memory"])
def on_source(request: pytest.FixtureRequest) -> WithSource:
    sandbox: Sandbox | None = request.getfixturevalue("sandbox") if request.param == "azurite" else None

    def run(blobs: dict[str, bytes], story: Callable[[SourceStore, str], Awaitable[None]]) -> None:
        container = f"c{uuid4().hex}"

        async def in_loop() -> None:
            if sandbox is None:
                files = {SourceFile(container, name): body for name, body in blobs.items()}
                await story(MemorySource(files), container)
                return
            key = sandbox.environment["AZURE_STORAGE_KEY"]
            with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
                azure.create_container(container)
                for name, body in blobs.items():
                    settings = ContentSettings(content_type="image/jpeg", content_md5=bytearray(md5(body)))
                    azure.get_blob_client(container, name).upload_blob(body, content_settings=settings)
            async with AzureBlobSource(sandbox.azure_account_url, [container], AzureCredentials(key)) as source:
                await source.check()
                await story(source, container)

        asyncio.run(in_loop())

    return run


def test_a_blob_is_read_whole_with_its_digest(on_source: WithSource) -> None:
    async def story(source: SourceStore, container: str) -> None:
        asked: list[int] = []

        async def admit(size: int) -> None:
            asked.append(size)

        blob = await source.read(SourceFile(container, "a b.jpg"), whole_up_to=100, admit=admit)
        assert (blob.body, blob.size, blob.md5) == (b"bytes", 5, md5(b"bytes"))
        assert asked == [5]

    on_source({"a b.jpg": b"bytes"}, story)


def test_a_large_blob_is_read_in_parts_of_one_version(on_source: WithSource) -> None:
    async def story(source: SourceStore, container: str) -> None:
        file = SourceFile(container, "large")
        blob = await source.read(file, whole_up_to=4, admit=at_will)
        assert (blob.body, blob.size) == (None, 10)
        assert await source.read_part(file, etag=blob.etag, start=7, length=3) == b"789"
        with pytest.raises(Permanent) as caught:
            await source.read_part(file, etag='"0x0"', start=0, length=3)
        assert caught.value.outcome is Outcome.SOURCE_CHANGED

    on_source({"large": b"0123456789"}, story)


def test_the_etag_is_that_of_the_version_that_is_read(on_source: WithSource) -> None:
    async def story(source: SourceStore, container: str) -> None:
        file = SourceFile(container, "a b.jpg")
        blob = await source.read(file, whole_up_to=100, admit=at_will)
        assert await source.etag(file) == blob.etag
        assert await source.etag(SourceFile(container, "none")) is None

    on_source({"a b.jpg": b"bytes"}, story)


def test_a_missing_blob_is_missing(on_source: WithSource) -> None:
    async def story(source: SourceStore, container: str) -> None:
        with pytest.raises(Permanent) as caught:
            await source.read(SourceFile(container, "none"), whole_up_to=4, admit=at_will)
        assert caught.value.outcome is Outcome.SOURCE_MISSING

    on_source({}, story)


def test_a_wrong_key_and_a_missing_container_are_fatal_and_named(sandbox: Sandbox) -> None:
    async def check(containers: list[str], key: str) -> None:
        async with AzureBlobSource(sandbox.azure_account_url, containers, AzureCredentials(key)) as source:
            await source.check()

    with pytest.raises(Fatal, match="AZURE_STORAGE_KEY"):
        asyncio.run(check(["any"], "bm90IHRoZSBrZXk="))
    with pytest.raises(Fatal, match=r"source\.containers"):
        asyncio.run(check(["no-such-container"], sandbox.environment["AZURE_STORAGE_KEY"]))
