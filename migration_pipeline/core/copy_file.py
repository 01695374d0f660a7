"""Copying one file, verified end to end, with one true outcome."""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from migration_pipeline.core.content_type import guess
from migration_pipeline.core.control import Limits
from migration_pipeline.core.errors import MigrationError, Permanent, Transient, whereabouts
from migration_pipeline.core.large_file import PART_BYTES, Links, read_in_parts, upload_in_parts
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.pace import LONGEST_REST, Clock, Pace, Sleep
from migration_pipeline.core.ports import (
    Body,
    BytesRefused,
    KeyTaken,
    ObjectFacts,
    Receipt,
    SourceBlob,
    SourceStore,
    TargetStore,
)
from migration_pipeline.core.room import Room, Share
from migration_pipeline.core.urls import UrlRules

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds; doubled on each try, drawn with full jitter
_MAY_HEAL = frozenset({Outcome.DIGEST_MISMATCH, Outcome.SOURCE_CHANGED})
"""Outcomes of one try that the next need not have: damage on the way, and a blob written while it was read."""
_STILL_THERE = "S3 confirmed another digest than was sent, and the object could not be removed"
_LIGHT = 256 * 1024
"""Bodies up to this size say by their time how busy a store is, and not how large they are."""
_SAMPLED = 100
_SIGNATURE_BYTES = 16
_NO_TYPE = "application/octet-stream"
"""What Azure gives a blob for which none was told (Microsoft, "Put Blob")."""

_ODD_KEY = re.compile(r"[\x00-\x1f\x7f\\]|(?:^|/)\.{0,2}(?:/|$)")
"""Keys that stores which keep objects in files may alter: control characters, backslashes, empty and dot segments."""

ReadBack = Literal["never", "sampled", "always"]
"""Which copies are read again from S3 and compared: none, one in a hundred, all."""


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """How hard to copy.

    Attributes:
        in_flight: files copied at the same time.
        max_attempts: tries per file and run before it is given up.
        patience: seconds for which tries do not count that met an overloaded or unreachable store.
        memory: bytes of bodies held at the same time.
        requests_per_second: of each store, at most.
        bytes_per_second: read from the source, at most.
        read_back: which copies are read again and compared.
        guess_content_type: give a file that has no type the one that its first bytes say.
    """

    in_flight: int = 64
    max_attempts: int = 5
    patience: float = 120.0
    memory: int = 64 * 1024 * 1024
    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    read_back: ReadBack = "sampled"
    guess_content_type: bool = False


@dataclass(slots=True)
class Copier:
    """Copies single files from one store to the other. For one event loop."""

    source: SourceStore
    target: TargetStore
    urls: UrlRules
    limits: CopyLimits = field(default_factory=CopyLimits)
    sleep: Sleep = asyncio.sleep
    clock: Clock = time.monotonic
    source_pace: Pace = field(init=False)
    target_pace: Pace = field(init=False)
    _links: Links = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        self.source_pace = Pace(
            limits.in_flight, limits.requests_per_second, limits.bytes_per_second, self.clock, self.sleep
        )
        self.target_pace = Pace(limits.in_flight, limits.requests_per_second, None, self.clock, self.sleep)
        self._links = Links(self.source, self.target, self.source_pace, self.target_pace, Room(limits.memory))

    def obey(self, limits: Limits) -> None:
        """Other bounds from now on, for all that is not under way; those given at the start hold where none is said."""
        most = limits.in_flight or self.limits.in_flight
        self.source_pace.adjust(most, limits.requests_per_second, limits.bytes_per_second)
        self.target_pace.adjust(most, limits.requests_per_second, None)

    async def copy(self, wanted: WantedFile) -> CopyResult:
        """Copy one file, trying again after passing errors; only `Fatal` errors leave this function."""
        began, tries = time.monotonic(), self._tries()
        renewed: bool | None = None
        while True:
            tries.made += 1
            try:
                if (seen := await self._seen_again(wanted)) is not None:
                    result, renewed = seen, True
                else:
                    if wanted.proven is not None:
                        wanted, renewed = replace(wanted, proven=None), False
                    result = await self._once(wanted, tries)
            except Transient as error:
                if tries.another(overload=error.overload):
                    await self.sleep(pause(tries.made, error.retry_after))
                    continue
                result = _ended(wanted.file, error, tries)
            except Exception as error:  # noqa: BLE001 - whatever is odd about one file stays that file's
                result = _ended(wanted.file, error, tries)
            if result.outcome in _MAY_HEAL and tries.another():
                await self.sleep(pause(tries.made, None))
                continue
            return replace(result, attempts=tries.made, seconds=time.monotonic() - began, renewed=renewed)

    async def _seen_again(self, wanted: WantedFile) -> CopyResult | None:
        """The copy that an earlier run proved, if it is as it was: somebody may have removed or replaced it since."""
        proven = wanted.proven
        there = await self._describe(self.urls.key_of(wanted.file)) if proven is not None else None
        if proven is None or there is None or there.archived or not proven.is_of(there.size, there.md5, there.etag):
            return None
        return CopyResult(
            wanted.file,
            Outcome.ALREADY_THERE,
            proven.size,
            proven.md5,
            there.etag,
            source_etag=proven.source_etag,
            version=there.version,
            made_at=there.made_at,
        )

    async def _once(self, wanted: WantedFile, tries: "_Tries") -> CopyResult:
        key = self.urls.key_of(wanted.file)
        await self._remove_damaged(key, tries)
        async with self._links.room.share() as share:
            blob = await self._read(wanted.file, share)
            stated = blob.md5
            if wanted.accepted:
                blob = replace(blob, md5=None)
            result = await self._whole(wanted, key, blob, blob.body, tries) if blob.body is not None else None
        if result is None:
            result = await self._in_parts(wanted, key, blob, tries)
        return replace(result, source_etag=blob.etag, accepted=stated not in (None, result.md5))

    async def _read(self, file: SourceFile, share: Share) -> SourceBlob:
        async with self.source_pace.request() as request:

            async def admit(size: int) -> None:
                request.answered()
                await share.take(size)
                await self.source_pace.pass_bytes(size)

            return await self.source.read(file, whole_up_to=PART_BYTES, admit=admit)

    async def _whole(self, wanted: WantedFile, key: str, blob: SourceBlob, body: Body, tries: "_Tries") -> CopyResult:
        file = wanted.file
        _check_length(blob, len(body))
        # The source's own digest is handed on: the target refuses other bytes, so that none is computed here.
        md5 = blob.md5 or _digest_of(body)
        guessed = self._guessed_type(blob, body)
        if guessed is not None:
            blob = replace(blob, headers=replace(blob.headers, content_type=guessed))
        try:
            async with self.target_pace.request(reads=0, writes=1) as request:
                receipt = await self.target.create(key, body, md5, blob.headers, replaces=wanted.replaces)
                if len(body) <= _LIGHT:
                    request.answered()
        except KeyTaken:
            # The object that is there is compared with the very bytes, not with what was said of them.
            _check_digest(blob, md5 := _digest_of(body))
            return await self._compare(file, key, blob.size, md5)
        except BytesRefused:
            _check_digest(blob, _digest_of(body))
            raise Transient("the bytes were damaged on their way to S3") from None
        result = await self._verified(file, key, receipt, blob.size, md5, tries)
        return replace(result, guessed_type=True) if guessed is not None else result

    def _guessed_type(self, blob: SourceBlob, body: Body) -> str | None:
        return guess(bytes(body[:_SIGNATURE_BYTES])) if self._lacks_type(blob) else None

    def _lacks_type(self, blob: SourceBlob) -> bool:
        return self.limits.guess_content_type and (blob.headers.content_type or _NO_TYPE) == _NO_TYPE

    async def _in_parts(self, wanted: WantedFile, key: str, blob: SourceBlob, tries: "_Tries") -> CopyResult:
        file = wanted.file

        def check(md5: bytes) -> None:
            _check_digest(blob, md5)

        guessed = None
        if self._lacks_type(blob):
            async with self.source_pace.request():
                start = await self.source.read_part(file, etag=blob.etag, start=0, length=_SIGNATURE_BYTES)
            guessed = guess(bytes(start))
        if guessed is not None:
            blob = replace(blob, headers=replace(blob.headers, content_type=guessed))
        try:
            receipt, md5 = await upload_in_parts(self._links, wanted, key, blob, check=check, retry=self._retry)
        except KeyTaken:
            return await self._compare(file, key, blob.size, await self._digest(file, blob))
        if receipt is None:
            return await self._compare(file, key, blob.size, md5)
        result = await self._verified(file, key, receipt, blob.size, md5, tries)
        return replace(result, guessed_type=guessed is not None)

    async def _digest(self, file: SourceFile, blob: SourceBlob) -> bytes:
        """The source's digest, of bytes read."""
        md5 = await read_in_parts(self._links, file, blob, retry=self._retry)
        _check_digest(blob, md5)
        return md5

    async def _verified(
        self, file: SourceFile, key: str, receipt: Receipt, size: int, md5: bytes, tries: "_Tries"
    ) -> CopyResult:
        confirmed = receipt.md5
        if self._reads_back(file, key):
            there = await self._describe(key, read=True)
            if there is None or there.etag != receipt.etag:
                raise Permanent(Outcome.DIGEST_MISMATCH, "the object was gone, or another, when it was read back")
            # In an archive class it cannot be read back, and has no digest where its ETag is none.
            confirmed = (there.md5 or confirmed) if there.size == size else b""
        if confirmed is not None and confirmed != md5:
            tries.damaged = receipt
            await self._remove_damaged(key, tries)
            raise Permanent(
                Outcome.DIGEST_MISMATCH, "S3 confirmed another digest than was sent; the object was removed"
            )
        return CopyResult(file, Outcome.COPIED, size, md5, receipt.etag, version=receipt.version)

    async def _remove_damaged(self, key: str, tries: "_Tries") -> None:
        """Remove what was found damaged; a removal that fails comes first in the next try."""
        if tries.damaged is not None:
            async with self.target_pace.request():
                await self.target.remove(key, tries.damaged)
            tries.damaged = None

    async def _compare(self, file: SourceFile, key: str, size: int, md5: bytes) -> CopyResult:
        """The key is taken: by an earlier try of ours whose reply was lost, or by somebody else.

        What would have been read back is read here: an earlier try, or run, may not have got that far.
        """
        there = await self._describe(key, read=self._reads_back(file, key))
        if there is not None and there.md5 is None and there.size == size:
            there = await self._describe(key, read=True)
        if there is None:
            raise Transient("an object under the key vanished while it was compared")
        if (there.size, there.md5) == (size, md5):
            if there.archived:
                raise Permanent(Outcome.TARGET_ARCHIVED, "S3 holds it in a class from which nobody reads it at once")
            found = there.version, there.made_at
            return CopyResult(file, Outcome.ALREADY_THERE, size, md5, there.etag, version=found[0], made_at=found[1])
        held = f" with MD5 {there.md5.hex()}" if there.md5 else ""
        raise Permanent(
            Outcome.TARGET_CONFLICT, f"S3 holds {there.size} bytes{held}, the source {size} bytes with {md5.hex()}"
        )

    async def _describe(self, key: str, *, read: bool = False) -> ObjectFacts | None:
        async with self.target_pace.request():
            return await self.target.describe(key, read=read)

    def _reads_back(self, file: SourceFile, key: str) -> bool:
        """By policy; and always where a store other than AWS's might have taken the key for another one."""
        policy = self.limits.read_back
        return (
            policy == "always"
            or _ODD_KEY.search(key) is not None
            or (policy == "sampled" and file.file_id.int % _SAMPLED == 0)
        )

    async def _retry(self, call: Callable[[], Awaitable[None]]) -> None:
        tries = self._tries()
        while True:
            tries.made += 1
            try:
                return await call()
            except Transient as error:
                if not tries.another(overload=error.overload):
                    raise
                await self.sleep(pause(tries.made, error.retry_after))

    def _tries(self) -> "_Tries":
        return _Tries(self.limits, self.clock, self.clock())


@dataclass(slots=True)
class _Tries:
    """Tries of one thing. A store in trouble is nobody's fault: for a while, tries that meet it so do not count.

    `damaged` is an object of ours that was found damaged and is still there.
    """

    limits: CopyLimits
    clock: Clock
    began: float
    made: int = 0
    counted: int = 0
    damaged: Receipt | None = None

    def another(self, *, overload: bool = False) -> bool:
        """Whether to try again after a try that failed."""
        self.counted += not overload or self.clock() - self.began >= self.limits.patience
        return self.counted < self.limits.max_attempts


def _ended(file: SourceFile, error: Exception, tries: _Tries) -> CopyResult:
    """How an error ends a file; raises those that end more than that."""
    if isinstance(error, Permanent | Transient):
        outcome = error.outcome if isinstance(error, Permanent) else Outcome.GAVE_UP
        said = error.message
    elif isinstance(error, MigrationError):
        raise error
    else:
        outcome, said = Outcome.UNFORESEEN, whereabouts(error)
    if tries.damaged is not None:
        outcome, said = Outcome.GAVE_UP, f"{_STILL_THERE}: {said}"
    return CopyResult(file, outcome, message=said)


def pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next try: full jitter under a doubling bound, never less than the store asked for."""
    bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1))
    jitter = random.uniform(0, bound)  # noqa: S311 - spreads load, guards nothing
    return jitter if retry_after is None else min(retry_after, LONGEST_REST) + jitter


def _digest_of(body: Body) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def _check_length(blob: SourceBlob, length: int) -> None:
    if length != blob.size:
        raise Transient(f"the source sent {length} of {blob.size} bytes")


def _check_digest(blob: SourceBlob, md5: bytes) -> None:
    if blob.md5 is not None and blob.md5 != md5:
        raise Permanent(
            Outcome.DIGEST_MISMATCH,
            f"the bytes have MD5 {md5.hex()}, the blob's Content-MD5 says {blob.md5.hex()}",
        )
