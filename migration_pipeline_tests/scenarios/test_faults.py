"""The copy engine on real stores behind a proxy that misbehaves: every file ends copied and equal, none wrong.

Every kind once, at a rate of 30 %; `make soak-faults` runs all at 1, 10 and 30 %, three times each.
"""

import asyncio
import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.each import make_sure
from migration_pipeline.core.errors import Unreachable
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.pace import Sleep
from migration_pipeline.core.transfer import Transferred, transfer
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy

LARGE = 20 * 1024 * 1024 + 1
TIMEOUT = 2.0
_SLOW_DOWN = "<?xml version='1.0' encoding='utf-8'?><Error><Code>SlowDown</Code></Error>"
BUSY = f"503 Slow Down\r\nContent-Length: {len(_SLOW_DOWN)}\r\nContent-Type: application/xml\r\n\r\n{_SLOW_DOWN}"


@dataclass(frozen=True, slots=True)
class Files:
    """Files in a container of their own."""

    container: str
    bodies: dict[str, bytes]

    @property
    def wanted(self) -> list[WantedFile]:
        return [WantedFile(SourceFile(self.container, name)) for name in self.bodies]


@pytest.fixture(scope="module")
def files(sandbox: Sandbox) -> Files:
    made = random.Random(7)
    bodies = {f"{n}.jpg": made.randbytes(made.randint(2_000, 60_000)) for n in range(60)}
    bodies["empty.jpg"] = b""
    bodies["large.mp4"] = made.randbytes(LARGE)
    return store_files(sandbox, bodies)


def store_files(sandbox: Sandbox, bodies: dict[str, bytes]) -> Files:
    """Put these into a container of their own."""
    container = f"faults{uuid4().hex[:12]}"
    key = sandbox.environment["AZURE_STORAGE_KEY"]
    with BlobServiceClient(sandbox.azure_account_url, credential=key) as azure:
        azure.create_container(container)
        for name, body in bodies.items():
            md5 = bytearray(hashlib.md5(body, usedforsecurity=False).digest())
            settings = ContentSettings(content_type="image/jpeg", content_md5=md5)
            azure.get_blob_client(container, name).upload_blob(body, content_settings=settings)
    return Files(container, bodies)


@contextmanager
def fresh_bucket(sandbox: Sandbox) -> Iterator[tuple[Any, str]]:
    """A client, and an empty bucket; removed at the end, for SeaweedFS has room for some dozens of them."""
    client = boto3.client("s3", endpoint_url=sandbox.s3_endpoint_url, region_name="us-east-1")
    bucket = f"f{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    yield client, bucket
    for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        client.delete_object(Bucket=bucket, Key=item["Key"])
    client.delete_bucket(Bucket=bucket)
    client.close()


async def soon(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.02))


def copy_all(  # noqa: PLR0913 - all but three by name
    sandbox: Sandbox,
    files: Files,
    bucket: str,
    *,
    source: Sequence[Fault] = (),
    target: Sequence[Fault] = (),
    max_attempts: int = 40,
    seed: int = 0,
    sleep: Sleep = soon,
    keys: KeyTemplate = KeyTemplate(),  # noqa: B008 - frozen
) -> tuple[Transferred, list[CopyResult], list[FaultProxy]]:
    """Copy all files with these faults before the stores."""
    azure_port, s3_port = (urlsplit(url).port or 0 for url in (sandbox.azure_account_url, sandbox.s3_endpoint_url))
    with FaultProxy(azure_port, source, seed=seed) as azure, FaultProxy(s3_port, target, seed=seed + 1) as s3:
        account = sandbox.azure_account_url.replace(f":{azure_port}", f":{azure.port}")
        endpoint = f"http://127.0.0.1:{s3.port}"
        rules = UrlRules(
            account_url=account,
            containers=[files.container],
            alias_hosts={},
            public_base_url="https://cdn.example.com",
            keys=keys,
        )
        recorded: list[CopyResult] = []

        async def work() -> Transferred:
            credentials = AzureCredentials(sandbox.environment["AZURE_STORAGE_KEY"])
            async with (
                AzureBlobSource(account, [files.container], credentials, timeout=TIMEOUT) as reading,
                S3Target(Bucket(bucket, "us-east-1", endpoint), timeout=TIMEOUT) as writing,
            ):
                copier = Copier(
                    reading, writing, rules, CopyLimits(in_flight=16, max_attempts=max_attempts, patience=0), sleep
                )
                return await transfer(files.wanted, copier, recorded.extend)

        done = asyncio.run(work())
        return done, recorded, [azure, s3]


def faults(rate: float) -> dict[str, tuple[Sequence[Fault], Sequence[Fault]]]:
    """Kind → what happens before the source, and before the target, to this share of the requests."""
    oops = "500 Oops\r\nContent-Length: 0\r\n\r\n"
    third = rate / 3
    return {
        "source 503": ([Fault("status", rate, "^GET")], []),
        "source 500": ([Fault("status", rate, "^GET", oops)], []),
        "source reset": ([Fault("reset", rate, "^GET")], []),
        "source hangs": ([Fault("hang", rate / 4, "^GET")], []),
        "source cuts bodies": ([Fault("cut_body", rate, "^GET")], []),
        "source is slow at times": ([Fault("delay", rate, "^GET", seconds=0.3)], []),
        "target slow down": ([], [Fault("status", rate, "^(PUT|POST)", BUSY)]),
        "target reset": ([], [Fault("reset", rate)]),
        "target hangs": ([], [Fault("hang", rate / 4, "^PUT")]),
        "target cuts uploads": ([], [Fault("cut_upload", rate, "^PUT")]),
        "target loses replies": ([], [Fault("lost_reply", rate, "^(PUT|POST)")]),
        "target loses every kind of reply": ([], [Fault("lost_reply", third)]),
        "both in every way": (
            [Fault("status", third), Fault("reset", third), Fault("cut_body", third)],
            [Fault("status", third, answer=BUSY), Fault("cut_upload", third, "^PUT"), Fault("lost_reply", third)],
        ),
    }


RATES = [float(rate) for rate in os.environ.get("FAULT_RATES", "0.3").split(",")]
CASES = [(kind, rate, seed) for rate in RATES for kind in faults(rate) for seed in range(len(RATES))]


@pytest.mark.parametrize(("kind", "rate", "seed"), CASES)
def test_every_file_ends_copied_and_equal(sandbox: Sandbox, files: Files, kind: str, rate: float, seed: int) -> None:
    on_source, on_target = faults(rate)[kind]
    with fresh_bucket(sandbox) as (s3, bucket):
        done, recorded, proxies = copy_all(sandbox, files, bucket, source=on_source, target=on_target, seed=seed)
        if rate >= 0.1:
            assert sum(proxy.happened.total() for proxy in proxies) > 0
        check(s3, files, bucket, recorded)
        assert done.failed == 0


def check(s3: Any, files: Files, bucket: str, recorded: Sequence[CopyResult]) -> None:
    """What was recorded and what is in S3 agree exactly, byte for byte, and no part of an upload is left."""
    assert sorted(result.file.blob for result in recorded) == sorted(files.bodies)
    assert {result.outcome for result in recorded} <= {Outcome.COPIED, Outcome.ALREADY_THERE}
    listed = {item["Key"]: item["Size"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert listed == {f"{files.container}/{name}": len(body) for name, body in files.bodies.items()}
    for result in recorded:
        key = f"{files.container}/{result.file.blob}"
        body = files.bodies[result.file.blob]
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
        assert (result.size, result.md5) == (len(body), hashlib.md5(body, usedforsecurity=False).digest())
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_after_a_burst_the_old_pace_comes_back(sandbox: Sandbox, files: Files) -> None:
    answers = iter(range(1_000_000))

    class Ending(list[Fault]):
        """Thirty requests are too many, then none is."""

        def __iter__(self) -> Iterator[Fault]:
            return iter([Fault("status", 1.0, "^PUT", BUSY)] if next(answers) < 30 else [])

    with fresh_bucket(sandbox) as (s3, bucket):
        done, recorded, _ = copy_all(sandbox, files, bucket, target=Ending())
        check(s3, files, bucket, recorded)
    assert done.target_pace.overloads >= 16
    assert done.target_pace.lowest < 16
    assert done.target_pace.limit > done.target_pace.lowest


class FirstOnes(list[Fault]):
    """The first few requests fail, each in its own way; then none does."""

    def __iter__(self) -> Iterator[Fault]:
        return iter([self.pop(0)] if self else [])


def test_a_store_that_stumbles_at_the_beginning_is_asked_again(sandbox: Sandbox, files: Files) -> None:
    oops = Fault("status", answer="500 Oops\r\nContent-Length: 0\r\n\r\n")
    make_sure_of(sandbox, files, [FirstOnes([Fault("status"), Fault("reset")]), FirstOnes([Fault("lost_reply"), oops])])


def test_a_store_that_never_answers_is_unreachable_and_named(sandbox: Sandbox, files: Files) -> None:
    with pytest.raises(Unreachable, match=r"source\.account_url"):
        make_sure_of(sandbox, files, [[Fault("reset")], []])
    with pytest.raises(Unreachable, match=r"target\.endpoint_url"):
        make_sure_of(sandbox, files, [[], [Fault("status")]])


def make_sure_of(sandbox: Sandbox, files: Files, faults_of: Sequence[Sequence[Fault]]) -> None:
    """Ask both stores whether they can be used, with these faults before source and target."""
    ports = [urlsplit(url).port or 0 for url in (sandbox.azure_account_url, sandbox.s3_endpoint_url)]
    with FaultProxy(ports[0], faults_of[0]) as azure, FaultProxy(ports[1], faults_of[1]) as s3:
        account = sandbox.azure_account_url.replace(f":{ports[0]}", f":{azure.port}")
        bucket = Bucket(sandbox.bucket, "us-east-1", f"http://127.0.0.1:{s3.port}")

        async def work() -> None:
            credentials = AzureCredentials(sandbox.environment["AZURE_STORAGE_KEY"])
            async with (
                AzureBlobSource(account, [files.container], credentials, timeout=TIMEOUT) as source,
                S3Target(bucket, timeout=TIMEOUT) as target,
            ):
                await make_sure(source, target)

        asyncio.run(work())
