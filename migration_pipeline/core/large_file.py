"""Copying a large file in parts: pinned to one version of the blob, no object before every byte is proven."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from migration_pipeline.core.errors import MigrationError, Transient, worst
from migration_pipeline.core.model import SourceFile, WantedFile
from migration_pipeline.core.pace import Pace
from migration_pipeline.core.ports import (
    Body,
    BytesRefused,
    KeyTaken,
    Receipt,
    SourceBlob,
    SourceStore,
    TargetStore,
    Upload,
)
from migration_pipeline.core.room import Room

PART_BYTES = 8 * 1024 * 1024
"""Files above this go in parts of this size. S3 allows 10,000 parts, Azure's largest block blob is about
190 TiB: `part_bytes` grows the part for files that would need more."""
MAX_PARTS = 10_000
"""Amazon S3 User Guide, multipart upload limits."""
PARTS_AT_ONCE = 3
"""Parts of one file under way, if there is room for them."""

Retry = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Calls again after passing errors, with pauses."""
Check = Callable[[bytes], None]
"""Raises where the digest of all bytes is not what it must be."""


@dataclass(frozen=True, slots=True)
class Links:
    """Both stores, how hard they may be pressed, and the room for parts."""

    source: SourceStore
    target: TargetStore
    source_pace: Pace
    target_pace: Pace
    room: Room


async def upload_in_parts(
    links: Links, wanted: WantedFile, key: str, blob: SourceBlob, *, check: Check, retry: Retry
) -> tuple[Receipt | None, bytes]:
    """Upload the version of the blob that `blob` describes; any error leaves neither an object nor parts.

    Args:
        links: the stores.
        wanted: what to read, and which older copy it may replace.
        key: where it goes.
        blob: its size, ETag and headers.
        check: asked before the object comes to be.
        retry: for single parts, so that a fault costs a part and not the file.

    Returns:
        What S3 confirmed, `None` where the key is taken, and the MD5 of the bytes read.
    """
    # Charged as what it is: a look at the key, a list of uploads left behind, and the upload's beginning.
    async with links.target_pace.request(reads=1, writes=2):
        upload = await links.target.begin(key, blob.headers, replaces=wanted.replaces)
    try:
        digest = await read_in_parts(links, wanted.file, blob, retry=retry, put=upload.put)
        check(digest)
        receipt = await _complete(links, upload, key, wanted.replaces, retry)
    except BaseException:
        # Left alone, the parts would be kept, and billed, for ever.
        await asyncio.shield(_abort(upload, retry))
        raise
    if receipt is None:
        await _abort(upload, retry)
    return receipt, digest


async def read_in_parts(
    links: Links,
    file: SourceFile,
    blob: SourceBlob,
    *,
    retry: Retry,
    put: Callable[[int, Body, bytes], Awaitable[None]] | None = None,
) -> bytes:
    """Read all parts, some at once, hand each to `put`, and return the MD5 of them all in order."""
    md5 = hashlib.md5(usedforsecurity=False)
    size = part_bytes(blob.size)
    starts = range(0, blob.size, size)
    gate, hashed = asyncio.Semaphore(PARTS_AT_ONCE), [asyncio.Event() for _ in range(len(starts) + 1)]
    hashed[0].set()

    def digested(body: Body) -> bytes:
        """Count the part in; and its own digest, if it goes on to where that is verified."""
        md5.update(body)
        return hashlib.md5(body, usedforsecurity=False).digest() if put is not None else b""

    async def one(number: int, start: int) -> None:
        length = min(size, blob.size - start)
        body: Body = b""
        part_md5 = b""

        async def read() -> None:
            nonlocal body
            async with links.source_pace.request():
                await links.source_pace.pass_bytes(length)
                body = await links.source.read_part(file, etag=blob.etag, start=start, length=length)

        async def write() -> None:
            if put is None:
                return
            try:
                async with links.target_pace.request(reads=0, writes=1):
                    await put(number, body, part_md5)
            except BytesRefused:
                raise Transient("a part was damaged on its way to S3") from None

        try:
            async with links.room.share() as share:
                await share.take(length)
                await retry(read)
                # The digest needs the parts in order. Hashing a part takes long enough to leave the event loop for.
                await hashed[number - 1].wait()
                part_md5 = await asyncio.to_thread(digested, body)
                hashed[number].set()
                await retry(write)
        finally:
            gate.release()

    try:
        async with asyncio.TaskGroup() as group:
            for number, start in enumerate(starts, start=1):
                await gate.acquire()
                group.create_task(one(number, start))
    except* MigrationError as errors:
        raise worst(errors) from None
    return md5.digest()


def part_bytes(size: int) -> int:
    """The size of a file's parts."""
    return max(PART_BYTES, -(-size // MAX_PARTS))


async def _complete(links: Links, upload: Upload, key: str, replaces: str | None, retry: Retry) -> Receipt | None:
    """What S3 confirmed; `None` where there is an object that has to be compared."""
    receipt: Receipt | None = None

    async def once() -> None:
        nonlocal receipt
        try:
            async with links.target_pace.request(reads=0, writes=1):
                receipt = await upload.complete()
        except KeyTaken:
            return
        except Transient:
            # Perhaps the object was made and only the answer got lost: what is there now tells. The older copy that was
            # to be replaced tells nothing.
            async with links.target_pace.request():
                there = await links.target.describe(key)
            if there is None or there.etag == replaces:
                raise

    await retry(once)
    return receipt


async def _abort(upload: Upload, retry: Retry) -> None:
    try:
        await retry(upload.abort)
    except MigrationError:
        # The error that led here says more; a bucket rule for abandoned uploads takes care of the parts.
        return
