"""A source and a target in memory, for faults that no server makes on demand, and under the real ones' contracts."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from migration_pipeline.core.errors import Permanent
from migration_pipeline.core.model import FileHeaders, Outcome, SourceFile
from migration_pipeline.core.ports import KeyTaken, ObjectFacts, Receipt, SourceBlob


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


@dataclass
class MemorySource:
    """Blobs by file; `fault` is called with each read and may raise, or damage the bytes."""

    blobs: dict[SourceFile, bytes] = field(default_factory=dict)
    fault: Callable[[bytes], bytes] = lambda body: body
    reads: int = 0

    async def check(self) -> None:
        return

    async def read(self, file: SourceFile, *, whole_up_to: int) -> SourceBlob:
        self.reads += 1
        body = self._body(file)
        whole = self.fault(body) if len(body) <= whole_up_to else None
        return SourceBlob(len(body), md5(body), f'"{md5(body).hex()}"', FileHeaders(), whole)

    async def read_part(self, file: SourceFile, *, etag: str, start: int, length: int) -> bytes:
        body = self._body(file)
        if etag != f'"{md5(body).hex()}"':
            raise Permanent(Outcome.SOURCE_CHANGED, "written since")
        return self.fault(body[start : start + length])

    def _body(self, file: SourceFile) -> bytes:
        if file not in self.blobs:
            raise Permanent(Outcome.SOURCE_MISSING, "no such blob")
        return self.blobs[file]


@dataclass
class MemoryTarget:
    """Objects by key; `fault` is called after each write and may raise: a reply that is lost."""

    objects: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[], None] = lambda: None
    confirms: Callable[[bytes], bytes] = md5

    async def check(self) -> None:
        return

    async def create(self, key: str, body: bytes, headers: FileHeaders) -> Receipt:  # noqa: ARG002 - the port's form
        if key in self.objects:
            raise KeyTaken
        self.objects[key] = body
        self.fault()
        return Receipt(md5(body).hex(), self.confirms(body), None)

    async def create_from_parts(self, key: str, parts: AsyncIterator[bytes], headers: FileHeaders) -> Receipt:
        if key in self.objects:
            raise KeyTaken
        body = b"".join([part async for part in parts])
        return (await self.create(key, body, headers))._replace(md5=None)

    async def describe(self, key: str) -> ObjectFacts | None:
        body = self.objects.get(key)
        return None if body is None else ObjectFacts(len(body), md5(body), md5(body).hex())

    async def remove(self, key: str, receipt: Receipt) -> None:
        if key in self.objects and md5(self.objects[key]).hex() == receipt.etag:
            del self.objects[key]
