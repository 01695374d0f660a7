"""The engines that are compared, each run in a process of its own: `python -m benchmarks.engines ENGINE TASK.json`.

All of them copy the same blobs under the same names with the same number in flight, and verify: what is read against
the source's Content-MD5, what is written by a checksum that S3 checks.
"""

import asyncio
import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Task:
    """What to copy. `names` are blobs of `container`; they go to `prefix` + name."""

    account_url: str
    account_key: str
    endpoint_url: str
    container: str
    bucket: str
    prefix: str
    names: list[str]
    in_flight: int


def ours(task: Task) -> None:
    """migration_pipeline's engine."""
    from migration_pipeline.adapters.azure.blob import AzureBlobSource  # noqa: PLC0415 - its cost is its own
    from migration_pipeline.adapters.azure.sign_in import AzureCredentials  # noqa: PLC0415 - its cost is its own
    from migration_pipeline.adapters.s3.access import Bucket  # noqa: PLC0415 - as above
    from migration_pipeline.adapters.s3.target import S3Target  # noqa: PLC0415 - as above
    from migration_pipeline.core.copy_file import Copier, CopyLimits  # noqa: PLC0415 - as above
    from migration_pipeline.core.model import SourceFile, WantedFile  # noqa: PLC0415 - as above
    from migration_pipeline.core.transfer import Transferred, transfer  # noqa: PLC0415 - as above
    from migration_pipeline.core.urls import KeyTemplate, UrlRules  # noqa: PLC0415 - as above
    from migration_pipeline.event_loop import run  # noqa: PLC0415 - as above

    rules = UrlRules(
        account_url=task.account_url,
        containers=[task.container],
        alias_hosts={},
        public_base_url="https://cdn.example.com",
        keys=KeyTemplate(task.prefix, "{blob}"),
    )

    async def work() -> Transferred:
        credentials = AzureCredentials(task.account_key)
        async with (
            AzureBlobSource(task.account_url, [task.container], credentials) as source,
            S3Target(Bucket(task.bucket, "us-east-1", task.endpoint_url)) as target,
        ):
            copier = Copier(source, target, rules, CopyLimits(in_flight=task.in_flight))
            wanted = [WantedFile(SourceFile(task.container, name)) for name in task.names]
            return await transfer(wanted, copier, lambda _: None)

    done = run(work())
    if done.copied != len(task.names):
        sys.exit(f"copied {done.copied} of {len(task.names)}: {dict(done.outcomes)}")


def rclone(task: Task) -> None:
    """rclone, the careful tool that people would take."""
    parts = urlsplit(task.account_url)
    environment = {
        **os.environ,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_AZ_TYPE": "azureblob",
        "RCLONE_CONFIG_AZ_ACCOUNT": parts.path.strip("/"),
        "RCLONE_CONFIG_AZ_KEY": task.account_key,
        "RCLONE_CONFIG_AZ_ENDPOINT": task.account_url,
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "SeaweedFS",
        "RCLONE_CONFIG_S3_ENDPOINT": task.endpoint_url,
        "RCLONE_CONFIG_S3_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        "RCLONE_CONFIG_S3_REGION": "us-east-1",
    }
    names = Path(os.environ["BENCH_FOLDER"], f"names-{os.getpid()}")
    names.write_text("\n".join(task.names), encoding="utf-8")
    command = [
        *(
            str(Path(sys.executable).with_name("rclone")),
            "copy",
            f"az:{task.container}",
            f"s3:{task.bucket}/{task.prefix.strip('/')}",
        ),
        *("--files-from-raw", str(names), "--transfers", str(task.in_flight), "--checkers", str(task.in_flight)),
        # Without these it would look for each file first, and set Azure's tier as the storage class.
        *("--s3-storage-class", "STANDARD", "--no-traverse", "--s3-no-check-bucket", "--retries", "1", "-q"),
    ]
    # In this process's place, so that what Python held is the least that can be in its way.
    os.execve(command[0], command, environment)  # noqa: S606 - the tool measured


def sdk_threads(task: Task) -> None:
    """azure-storage-blob and boto3 in a pool of threads: the script that one would write."""
    import boto3  # noqa: PLC0415 - as above
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - as above
    from botocore.config import Config  # noqa: PLC0415 - as above

    config = Config(max_pool_connections=task.in_flight, s3={"addressing_style": "path"})
    s3 = boto3.client("s3", endpoint_url=task.endpoint_url, region_name="us-east-1", config=config)
    with (
        ContainerClient(task.account_url, task.container, credential=task.account_key) as container,
        ThreadPoolExecutor(task.in_flight) as pool,
    ):

        def copy(name: str) -> None:
            blob = container.download_blob(name)
            body = blob.readall()
            _check(body, blob.properties.content_settings.content_md5)
            s3.put_object(**_put(task, name, body, blob.properties.content_settings.content_type))

        list(pool.map(copy, task.names))


def sdk_aio(task: Task) -> None:
    """azure-storage-blob's aio client and aiobotocore: the same script, written with care."""
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - as above
    from aiobotocore.session import get_session  # noqa: PLC0415 - as above
    from azure.storage.blob.aio import ContainerClient  # noqa: PLC0415 - as above

    config = AioConfig(max_pool_connections=task.in_flight, s3={"addressing_style": "path"})

    async def work() -> None:
        todo = iter(task.names)
        async with (
            ContainerClient(task.account_url, task.container, credential=task.account_key) as container,
            get_session().create_client(
                "s3", endpoint_url=task.endpoint_url, region_name="us-east-1", config=config
            ) as s3,
        ):

            async def place() -> None:
                for name in todo:
                    blob = await container.download_blob(name)
                    body = await blob.readall()
                    _check(body, blob.properties.content_settings.content_md5)
                    await s3.put_object(**_put(task, name, body, blob.properties.content_settings.content_type))

            async with asyncio.TaskGroup() as group:
                for _ in range(task.in_flight):
                    group.create_task(place())

    asyncio.run(work())


def _check(body: bytes, md5: bytearray | None) -> None:
    if md5 is None or hashlib.md5(body, usedforsecurity=False).digest() != bytes(md5):
        raise ValueError("the bytes are not those of the Content-MD5")


def _put(task: Task, name: str, body: bytes, content_type: str) -> dict[str, Any]:
    return {
        "Bucket": task.bucket,
        "Key": task.prefix + name,
        "Body": body,
        "ContentType": content_type,
        "IfNoneMatch": "*",
        "ChecksumSHA256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
    }


def bare(task: Task) -> None:
    """The least that a client can do; in benchmarks/limit.py alone, for it looks at nothing."""
    from benchmarks.limit import bare as run  # noqa: PLC0415 - as above

    run(task)


ENGINES: dict[str, Callable[[Task], None]] = {
    "migration_pipeline": ours,
    "rclone": rclone,
    "azure-storage-blob + boto3 threads": sdk_threads,
    "azure-storage-blob aio + aiobotocore": sdk_aio,
}

if __name__ == "__main__":
    (ENGINES | {"bare sockets": bare})[sys.argv[1]](Task(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))))
