"""A source and a target in memory, for faults that no server makes on demand, and under the real ones' contracts."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from migration_pipeline.core.errors import Permanent
from migration_pipeline.core.model import FileHeaders, Outcome, SourceFile
from migration_pipeline.core.ports import Admit, Body, BytesRefused, KeyTaken, ObjectFacts, Receipt, SourceBlob
from migration_pipeline.core.removal_ports import How, SourceNow


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

    async def read(self, file: SourceFile, *, whole_up_to: int, admit: Admit) -> SourceBlob:
        self.reads += 1
        body = self._body(file)
        if len(body) <= whole_up_to:
            await admit(len(body))
        whole = self.fault(body) if len(body) <= whole_up_to else None
        return SourceBlob(len(body), md5(body), f'"{md5(body).hex()}"', FileHeaders(), whole)

    async def etag(self, file: SourceFile) -> str | None:
        body = self.blobs.get(file)
        return None if body is None else f'"{md5(body).hex()}"'

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
    """Objects by key, and uploads in parts that are under way.

    `fault` is called after each write and may raise: a reply that is lost. `part_fault` is called before each part.
    `remove_fault` is called before each removal. `confirms` makes the digest that the store claims, `reads_back` the
    bytes that it gives back.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, FileHeaders] = field(default_factory=dict)
    fault: Callable[[], None] = lambda: None
    confirms: Callable[[bytes], bytes] = md5
    part_fault: Callable[[], None] = lambda: None
    reads_back: Callable[[bytes], bytes] = lambda body: body
    remove_fault: Callable[[], None] = lambda: None
    uploads: list["MemoryUpload"] = field(default_factory=list)

    async def check(self) -> None:
        return

    async def create(
        self,
        key: str,
        body: Body,
        md5: bytes,
        headers: FileHeaders,
        *,
        replaces: str | None = None,
    ) -> Receipt:
        if self._taken(key, replaces):
            raise KeyTaken
        made = bytes(body)
        if hashlib.md5(made, usedforsecurity=False).digest() != md5:
            raise BytesRefused
        self.objects[key], self.headers[key] = made, headers
        self.fault()
        return Receipt(hashlib.md5(made, usedforsecurity=False).hexdigest(), self.confirms(made), None)

    async def begin(self, key: str, headers: FileHeaders, *, replaces: str | None = None) -> "MemoryUpload":
        if self._taken(key, replaces):
            raise KeyTaken
        upload = MemoryUpload(self, key, headers, replaces)
        self.uploads.append(upload)
        return upload

    async def describe(self, key: str, *, read: bool = False) -> ObjectFacts | None:
        body = self.objects.get(key)
        if body is None:
            return None
        return ObjectFacts(len(body), md5(self.reads_back(body) if read else body), md5(body).hex())

    async def remove(self, key: str, receipt: Receipt) -> None:
        self.remove_fault()
        await self.erase(key, receipt.etag, [])

    async def erase(self, key: str, etag: str, versions: Sequence[str]) -> int:
        assert not versions
        if key not in self.objects or md5(self.objects[key]).hex() != etag:
            return 0
        del self.objects[key]
        return 1

    def _taken(self, key: str, replaces: str | None) -> bool:
        return key in self.objects and md5(self.objects[key]).hex() != replaces


@dataclass
class MemoryUpload:
    """Parts, until they are an object or dropped."""

    target: MemoryTarget
    key: str
    headers: FileHeaders
    replaces: str | None = None
    parts: dict[int, bytes] = field(default_factory=dict)

    async def put(self, number: int, body: Body, md5: bytes) -> None:
        self.target.part_fault()
        if hashlib.md5(body, usedforsecurity=False).digest() != md5:
            raise BytesRefused
        self.parts[number] = bytes(body)

    async def complete(self) -> Receipt:
        body = b"".join(self.parts[number] for number in sorted(self.parts))
        receipt = await self.target.create(self.key, body, md5(body), self.headers, replaces=self.replaces)
        self.target.uploads.remove(self)
        return receipt._replace(md5=None)

    async def abort(self) -> None:
        if self in self.target.uploads:
            self.target.uploads.remove(self)


@dataclass
class MemoryRemoval:
    """A source in memory, with the right to remove from it; `leased` blobs are somebody else's to change."""

    source: MemorySource
    how: How = How.DELETE
    archived: set[SourceFile] = field(default_factory=set)
    leased: set[SourceFile] = field(default_factory=set)
    keeps: int | None = None

    async def kept_days(self) -> int | None:
        return self.keeps

    async def look(self, file: SourceFile) -> SourceNow | None:
        etag = await self.source.etag(file)
        if etag is None:
            return None
        body = self.source.blobs[file]
        return SourceNow(etag, len(body), md5(body), file in self.archived)

    async def remove(self, file: SourceFile, etag: str) -> None:
        now = await self.source.etag(file)
        if now is None:
            return
        if now != etag:
            raise Permanent(Outcome.SOURCE_CHANGED, "written since")
        if file in self.leased:
            raise Permanent(Outcome.SOURCE_UNREADABLE, "leased")
        if self.how is How.DELETE:
            del self.source.blobs[file]
        else:
            self.archived.add(file)
