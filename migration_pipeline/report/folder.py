"""The folder that a report is kept in: files come to be whole, all of one report, or stay as they were."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from migration_pipeline.core.errors import Fatal

SUMS = "SHA256SUMS"


class Kept(NamedTuple):
    """A file of the report.

    Attributes:
        what: it holds, in words.
        rows: in it, where it is a table.
    """

    name: str
    what: str
    rows: int
    bytes: int
    sha256: str


class Folder:
    """Files under way have names of their own until `put_in_place`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: list[str] = []
        self.kept: list[Kept] = []

    def begin(self, name: str) -> Path:
        """Where to write a file of that name for now."""
        self._names.append(name)
        path = self._partial(name)
        # Left by a process that was killed, or a link that somebody laid there: neither is written through.
        path.unlink(missing_ok=True)
        path.touch(exist_ok=False)
        return path

    def ended(self, name: str, what: str, rows: int) -> Kept:
        """Take its digest, once it is written."""
        path = self._partial(name)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = Kept(name, what, rows, path.stat().st_size, digest)
        self.kept.append(kept)
        return kept

    def put_in_place(self, sums: str = SUMS) -> None:
        """Give all files their names, in the order in which they were begun, and theirs digests in one more."""
        lines = [f"{kept.sha256}  {kept.name}\n" for kept in self.kept if kept.name in self._names]
        self.begin(sums).write_text("".join(lines), encoding="utf-8")
        for name in self._names:
            self._partial(name).replace(self.path / name)
        self._names.clear()
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)  # their names as well outlive a machine that goes down now
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what is half written."""
        for name in self._names:
            self._partial(name).unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        return self.path / f".{name}.partial"


@contextmanager
def held(path: Path) -> Iterator[Folder]:
    """The folder, made where it is not there, and nobody else's meanwhile.

    Raises:
        Fatal: it cannot be written, or somebody else writes a report there now.
    """
    folder = Folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Ends with this process, however that ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            folder.clear()
            os.close(descriptor)
    except BlockingIOError:
        raise Fatal(
            f"somebody else writes a report to {path} now.", setting="folder", remedy="Let that end, or name another."
        ) from None
    except OSError as error:
        raise Fatal(
            f"{path} cannot be written: {error.strerror or error}.",
            setting="folder",
            remedy="Name a folder that this user may write to, on a disk with room.",
        ) from None
