"""What everything that removes blobs from the source has to keep: Azurite, and a source in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ResourceTypes,
    RetentionPolicy,
    generate_account_sas,
    generate_container_sas,
)

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.removal import AzureBlobRemoval
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.core.errors import Fatal, Permanent
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.core.removal_ports import How, SourceRemoval
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.memory_stores import MemoryRemoval, MemorySource, md5
from migration_pipeline_tests.names import blob_names
from migration_pipeline_tests.scenarios.test_names import leads_out, upload

ACCOUNT = "devstoreaccount1"
Story = Callable[[SourceRemoval], Awaitable[None]]


@dataclass
class Place:
    """A container of its own, or a source in memory."""

    container: str
    how: How
    url: str
    key: str
    azure: BlobServiceClient | None
    memory: MemorySource

    def file(self, name: str = "a.jpg") -> SourceFile:
        return SourceFile(self.container, name)

    def put(self, file: SourceFile, body: bytes) -> None:
        if self.azure is None:
            self.memory.blobs[file] = body
        else:
            self.azure.get_blob_client(*file).upload_blob(body, overwrite=True)

    def run(self, story: Story, *, leased: SourceFile | None = None) -> None:
        if self.azure is None:
            asyncio.run(story(MemoryRemoval(self.memory, self.how, leased={leased} if leased else set())))  # type: ignore[arg-type] # stories are coroutines
            return

        async def opened() -> None:
            async with AzureBlobRemoval(self.url, [self.container], AzureCredentials(self.key), self.how) as removal:
                await story(removal)

        if leased:
            self.azure.get_blob_client(*leased).acquire_lease(15)
        asyncio.run(opened())


@pytest.fixture(params=["azurite", "memory"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(How))
def place(where: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    name = f"removal{uuid4().hex[:12]}"
    if where == "memory":
        yield Place(name, request.param, "", "", None, MemorySource())
        return
    sandbox: Sandbox = request.getfixturevalue("sandbox")
    key = sandbox.environment["AZURE_STORAGE_KEY"]
    with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
        azure.create_container(name)
        yield Place(name, request.param, sandbox.azure_account_url, key, azure, MemorySource())


def is_gone(now: object, how: How) -> bool:
    return now is None if how is How.DELETE else bool(getattr(now, "archived", False))


def test_a_blob_goes_if_it_is_the_one_that_is_meant(place: Place) -> None:
    file = place.file()
    place.put(file, b"first")

    async def story(removal: SourceRemoval) -> None:
        now = await removal.look(file)
        assert now is not None
        assert (now.size, now.md5 or md5(b"first"), now.archived) == (5, md5(b"first"), False)
        await removal.remove(file, now.etag)
        assert is_gone(await removal.look(file), place.how)
        # As after an answer that was lost.
        await removal.remove(file, now.etag)

    place.run(story)


def test_one_that_was_written_since_stays(place: Place) -> None:
    file = place.file()
    place.put(file, b"first")

    async def story(removal: SourceRemoval) -> None:
        then = await removal.look(file)
        assert then is not None
        place.put(file, b"second")
        with pytest.raises(Permanent) as refused:
            await removal.remove(file, then.etag)
        assert refused.value.outcome is Outcome.SOURCE_CHANGED
        now = await removal.look(file)
        assert now is not None
        assert (now.size, now.archived) == (6, False)

    place.run(story)


def test_one_that_somebody_else_leased_stays(place: Place) -> None:
    file = place.file()
    place.put(file, b"first")

    async def story(removal: SourceRemoval) -> None:
        now = await removal.look(file)
        assert now is not None
        with pytest.raises(Permanent) as refused:
            await removal.remove(file, now.etag)
        assert refused.value.outcome is Outcome.SOURCE_UNREADABLE
        assert await removal.look(file) == now

    place.run(story, leased=file)


def test_one_that_is_not_there_is_gone(place: Place) -> None:
    async def story(removal: SourceRemoval) -> None:
        assert await removal.look(place.file()) is None
        await removal.remove(place.file(), '"0x8D"')

    place.run(story)


@pytest.mark.parametrize("where", ["azurite"])
@pytest.mark.parametrize("place", [How.DELETE], indirect=True)
def test_odd_names_are_the_blobs_that_they_name(place: Place) -> None:
    container = f"{place.container}odd"
    some = [name for group in blob_names(container).values() for name in group[:: max(1, len(group) // 6)]]
    there = upload(place.url, place.key, container, some)
    files = [SourceFile(container, name) for name in there if not leads_out(name)]
    assert len(files) > 40
    to_go, to_stay = files[::2], files[1::2]

    async def story(removal: SourceRemoval) -> None:
        for file in to_go:
            now = await removal.look(file)
            assert now is not None
            await removal.remove(file, now.etag)
        assert [await removal.look(file) for file in to_go] == [None] * len(to_go)
        assert None not in [await removal.look(file) for file in to_stay]

    place.run(story)


@pytest.mark.parametrize("where", ["azurite"])
@pytest.mark.parametrize("place", [How.DELETE], indirect=True)
def test_a_blob_with_snapshots_stays(place: Place) -> None:
    file = place.file()
    place.put(file, b"first")
    assert place.azure is not None
    place.azure.get_blob_client(*file).create_snapshot()

    async def story(removal: SourceRemoval) -> None:
        now = await removal.look(file)
        assert now is not None
        with pytest.raises(Permanent, match="SnapshotsPresent"):
            await removal.remove(file, now.etag)

    place.run(story)


def test_the_migration_itself_may_not_delete(sandbox: Sandbox) -> None:
    """Its SAS is not good for that, whatever it asks for."""
    container, key = f"removal{uuid4().hex[:12]}", sandbox.environment["AZURE_STORAGE_KEY"]

    async def story() -> None:
        async with AzureBlobSource(sandbox.azure_account_url, [container], AzureCredentials(key)) as source:
            await source._asked(SourceFile(container, "a.jpg"), "DELETE")  # noqa: SLF001 - asks on purpose

    with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
        azure.create_container(container).upload_blob("a.jpg", b"first")
        with pytest.raises(Fatal, match="AuthorizationPermissionMismatch"):
            asyncio.run(story())


def test_a_sas_without_the_right_is_refused_with_what_would_be_right(sandbox: Sandbox) -> None:
    container, key = f"removal{uuid4().hex[:12]}", sandbox.environment["AZURE_STORAGE_KEY"]
    soon = datetime.now(UTC) + timedelta(hours=1)
    sas = generate_container_sas(
        ACCOUNT, container, account_key=key, permission=ContainerSasPermissions(read=True, list=True), expiry=soon
    )

    async def story(removal: AzureBlobRemoval, file: SourceFile) -> None:
        async with removal:
            now = await removal.look(file)
            assert now is not None
            with pytest.raises(Fatal, match="rights to read, list and delete") as refused:
                await removal.remove(file, now.etag)
            assert "sig=" not in str(refused.value)
            with pytest.raises(Fatal, match="require_soft_delete") as refused:
                await removal.kept_days()
            assert "sig=" not in str(refused.value)

    with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
        azure.create_container(container).upload_blob("a.jpg", b"first")
        removal = AzureBlobRemoval(
            sandbox.azure_account_url, [container], AzureCredentials(sas_token=f"?{sas}"), How.DELETE
        )
        asyncio.run(story(removal, SourceFile(container, "a.jpg")))
        assert azure.get_blob_client(container, "a.jpg").exists()


def test_the_account_says_for_how_long_it_keeps_what_is_deleted(sandbox: Sandbox) -> None:
    key = sandbox.environment["AZURE_STORAGE_KEY"]
    sas = generate_account_sas(
        ACCOUNT,
        account_key=key,
        resource_types=ResourceTypes(service=True),
        permission=AccountSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )

    async def asked(credentials: AzureCredentials) -> int | None:
        async with AzureBlobRemoval(sandbox.azure_account_url, ["photos"], credentials, How.DELETE) as removal:
            return await removal.kept_days()

    with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
        azure.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))
        assert asyncio.run(asked(AzureCredentials(key))) is None
        azure.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=7))
        try:
            assert asyncio.run(asked(AzureCredentials(key))) == 7
            assert asyncio.run(asked(AzureCredentials(sas_token=sas))) == 7
        finally:
            azure.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))
