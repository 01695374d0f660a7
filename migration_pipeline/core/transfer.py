"""Copying a range's files, each verified end to end, with one outcome per file."""

import asyncio
import contextlib
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from migration_pipeline.core.errors import Fatal, Permanent, Transient
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.ports import KeyTaken, Receipt, SourceBlob, SourceStore, TargetStore
from migration_pipeline.core.urls import UrlRules

PART_BYTES = 8 * 1024 * 1024
"""Files above this go in parts of this size. S3 allows 10,000 parts, Azure's largest block blob is about
190 TiB: `_part_bytes` grows the part for files that would need more."""
MAX_PARTS = 10_000
"""Amazon S3 User Guide, multipart upload limits."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 20.0  # seconds; doubled on each try, drawn with full jitter
_RECORD_EVERY = 1.0  # seconds; after a crash, the files of this time are compared again, not copied


@dataclass(slots=True)
class Transferred:
    """What the transfer stage did.

    Attributes:
        bytes: of the files copied now.
        retries: tries beyond each file's first.
        seconds: wall time of the stage.
        cpu_seconds: of this process meanwhile, all threads.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    bytes: int = 0
    retries: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def copied(self) -> int:
        """Files copied now."""
        return self.outcomes[Outcome.COPIED]

    @property
    def failed(self) -> int:
        """Files that ended as dead letters."""
        return sum(count for outcome, count in self.outcomes.items() if not outcome.verified)

    def plus(self, other: "Transferred") -> "Transferred":
        """The sum of two passes."""
        return Transferred(
            self.outcomes + other.outcomes,
            self.bytes + other.bytes,
            self.retries + other.retries,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
        )


Record = Callable[[Sequence[CopyResult]], None]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies single files from one store to the other."""

    source: SourceStore
    target: TargetStore
    urls: UrlRules
    max_attempts: int = 5
    sleep: Sleep = asyncio.sleep

    async def copy(self, wanted: WantedFile) -> CopyResult:
        """Copy one file, trying again after passing errors; only `Fatal` errors leave this function."""
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                result = await self._once(wanted.file)
            except Permanent as error:
                result = CopyResult(wanted.file, error.outcome, message=error.message)
            except Transient as error:
                if attempt < self.max_attempts:
                    await self.sleep(_pause(attempt, error.retry_after))
                    continue
                result = CopyResult(wanted.file, Outcome.GAVE_UP, message=error.message)
            if result.outcome is Outcome.DIGEST_MISMATCH and attempt < self.max_attempts:
                # Bytes damaged on the way heal on the next try; a wrong Content-MD5 at the source does not.
                await self.sleep(_pause(attempt, None))
                continue
            return replace(result, attempts=attempt, seconds=time.monotonic() - began)

    async def _once(self, file: SourceFile) -> CopyResult:
        key = self.urls.key_of(file)
        blob = await self.source.read(file, whole_up_to=PART_BYTES)
        if blob.body is None:
            return await self._in_parts(file, key, blob)
        md5 = hashlib.md5(blob.body, usedforsecurity=False).digest()
        _check_source(blob, len(blob.body), md5)
        try:
            receipt = await self.target.create(key, blob.body, blob.headers)
        except KeyTaken:
            return await self._compare(file, key, blob.size, md5)
        return await self._verified(file, key, receipt, blob.size, md5)

    async def _in_parts(self, file: SourceFile, key: str, blob: SourceBlob) -> CopyResult:
        digest = hashlib.md5(usedforsecurity=False)
        parts = self._parts(file, blob, digest.update)
        try:
            receipt = await self.target.create_from_parts(key, parts, blob.headers)
        except KeyTaken:
            # Found out before or after the upload: read what is missing of the source's digest.
            digest = hashlib.md5(usedforsecurity=False)
            async for _ in self._parts(file, blob, digest.update):
                pass
            return await self._compare(file, key, blob.size, digest.digest())
        return await self._verified(file, key, receipt, blob.size, digest.digest())

    async def _parts(self, file: SourceFile, blob: SourceBlob, update: Callable[[bytes], None]) -> AsyncIterator[bytes]:
        """The blob's parts in order, all of the version that `blob` describes.

        The last part is handed out only once the digest of all is found right: an upload that lacks it is
        aborted, so no object ever comes to be from bytes that fail the check.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        size = _part_bytes(blob.size)
        for start in range(0, blob.size, size):
            length = min(size, blob.size - start)
            part = await self.source.read_part(file, etag=blob.etag, start=start, length=length)
            update(part)
            md5.update(part)
            if start + length == blob.size:
                _check_source(blob, blob.size, md5.digest())
            yield part

    async def _verified(self, file: SourceFile, key: str, receipt: Receipt, size: int, md5: bytes) -> CopyResult:
        if receipt.md5 is not None and receipt.md5 != md5:
            await self.target.remove(key, receipt)
            raise Permanent(
                Outcome.DIGEST_MISMATCH, "S3 confirmed another digest than was sent; the object was removed"
            )
        return CopyResult(file, Outcome.COPIED, size, md5, receipt.etag)

    async def _compare(self, file: SourceFile, key: str, size: int, md5: bytes) -> CopyResult:
        """The key is taken: by an earlier try of ours whose reply was lost, or by somebody else."""
        there = await self.target.describe(key)
        if there is None:
            raise Transient("an object under the key vanished while it was compared")
        if (there.size, there.md5) == (size, md5):
            return CopyResult(file, Outcome.ALREADY_THERE, size, md5, there.etag)
        raise Permanent(
            Outcome.TARGET_CONFLICT,
            f"S3 holds {there.size} bytes with MD5 {there.md5.hex()}, the source {size} bytes with {md5.hex()}",
        )


async def transfer(wanted: Sequence[WantedFile], copier: Copier, *, in_flight: int, record: Record) -> Transferred:
    """Copy every wanted file, `in_flight` at a time, each place refilled as soon as a file ends.

    Args:
        wanted: the files.
        copier: copies one file.
        in_flight: files at the same time.
        record: keeps a batch of results; called from a worker thread, one call at a time.

    Raises:
        Fatal: a whole store refuses us; files that ended before are recorded.
    """
    done, began, cpu_began = Transferred(), time.monotonic(), time.process_time()
    todo, ended, over = iter(wanted), list[CopyResult](), asyncio.Event()
    refused: BaseExceptionGroup[Fatal] | None = None

    async def place() -> None:
        for item in todo:
            ended.append(await copier.copy(item))

    async with asyncio.TaskGroup() as group:
        # If recording fails, its error cancels the copying too: nothing is copied that nobody would know of.
        group.create_task(_record_all(ended, over, record, done))
        try:
            async with asyncio.TaskGroup() as places:
                for _ in range(min(in_flight, len(wanted))):
                    places.create_task(place())
        except* Fatal as errors:
            refused = errors
        over.set()
    if refused is not None:
        raise refused.exceptions[0]
    done.seconds, done.cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    return done


async def _record_all(ended: list[CopyResult], over: asyncio.Event, record: Record, done: Transferred) -> None:
    """Hand over what has ended every second, and the rest once copying is over."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _RECORD_EVERY)
        last = over.is_set()
        batch, ended[:] = ended[:], []
        if batch:
            await asyncio.to_thread(record, batch)
            _count(batch, done)
        if last:
            return


def _count(batch: Sequence[CopyResult], done: Transferred) -> None:
    for result in batch:
        done.outcomes[result.outcome] += 1
        done.retries += result.attempts - 1
        if result.outcome is Outcome.COPIED:
            done.bytes += result.size


def _check_source(blob: SourceBlob, length: int, md5: bytes) -> None:
    if length != blob.size:
        raise Transient(f"the source sent {length} of {blob.size} bytes")
    if blob.md5 is not None and blob.md5 != md5:
        raise Permanent(
            Outcome.DIGEST_MISMATCH,
            f"the bytes have MD5 {md5.hex()}, the blob's Content-MD5 says {blob.md5.hex()}",
        )


def _part_bytes(size: int) -> int:
    return max(PART_BYTES, -(-size // MAX_PARTS))


def _pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next try: full jitter under a doubling bound, never less than the store asked for."""
    bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1))
    jitter = random.uniform(0, bound)  # noqa: S311 - spreads load, guards nothing
    return jitter if retry_after is None else min(retry_after, 10 * _LONGEST_PAUSE) + jitter
