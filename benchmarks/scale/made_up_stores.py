"""The contract suites' stores in memory, for more files than servers of one machine copy in an evening.

The code is theirs, which passes the suite that Azure's and S3's adapters pass. Only what they keep differs: a blob's
bytes are made from its name, and of an object only that it is there is remembered, or a million files would not fit.
"""

import hashlib
import sys
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager

from migration_pipeline.core.model import SourceFile
from migration_pipeline.core.ports import SourceStore, TargetStore
from migration_pipeline_tests.memory_stores import MemorySource, MemoryTarget

_BODY = bytes(range(256)) * 78  # some 20 KB, as a thumbnail


def body_of(file: SourceFile) -> bytes:
    """Different for each file, and always the same."""
    return hashlib.sha256(str(file).encode()).digest() + _BODY


def _file_of(key: str) -> SourceFile:
    """By the key template that nobody changed: container and blob."""
    container, blob = key.split("/", 1)
    return SourceFile(container, blob)


class MadeUpSource(MemorySource):
    """Holds a blob of every name."""

    def _body(self, file: SourceFile) -> bytes:
        return body_of(file)


class _Objects(MutableMapping[str, bytes]):
    """Which keys were written, in eight bytes each; what was written is made again from the key."""

    def __init__(self) -> None:
        self._there = set[int]()

    def __contains__(self, key: object) -> bool:
        return hash(key) in self._there

    def __getitem__(self, key: str) -> bytes:
        if key not in self:
            raise KeyError(key)
        return body_of(_file_of(key))

    def __setitem__(self, key: str, body: bytes) -> None:
        if body != body_of(_file_of(key)):
            raise AssertionError(f"{key} gets bytes that are not its blob's")
        self._there.add(hash(key))

    def __delitem__(self, key: str) -> None:
        self._there.remove(hash(key))

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError("keys themselves are not kept")

    def __len__(self) -> int:
        return len(self._there)

    def megabytes(self) -> float:
        """What remembering takes."""
        return (sys.getsizeof(self._there) + 36 * len(self._there)) / 1e6


class _Forgotten(MutableMapping[str, object]):
    """Takes everything and keeps nothing."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __setitem__(self, key: str, value: object) -> None:
        return

    def __delitem__(self, key: str) -> None:
        return

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class MadeUpStores:
    """A source and a target for one process."""

    def __init__(self) -> None:
        self.objects = _Objects()
        self._source = MadeUpSource()
        self._target = MemoryTarget(objects=self.objects, headers=_Forgotten())  # type: ignore[arg-type] # as dictionaries

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[SourceStore, TargetStore]]:
        """Both, within the running event loop."""
        yield self._source, self._target
