"""Temporary folders of sandboxes whose process was killed: nobody else would remove them, and each holds databases."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "migration-sandbox-"
_LOCK = ".in-use"


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Have the folder count as used until the block ends, or the process does, however that comes."""
    handle, name = tempfile.mkstemp(prefix=f"{_LOCK}-", dir=folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # It gets its name once it is locked, so that nobody finds one that is not yet.
        Path(name).rename(folder / _LOCK)
        yield
    finally:
        os.close(handle)


def remove_abandoned(within: Path | None = None) -> list[Path]:
    """Remove folders of ours that nobody uses any more, and say which; those without a mark are left alone."""
    removed = []
    for folder in (within or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is gone, in use, or somebody else's
            if folder.lstat().st_uid == os.getuid() and _abandoned(folder):
                removed.append(folder)
    return removed


def _abandoned(folder: Path) -> bool:
    within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW, dir_fd=within)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(lock)
    finally:
        os.close(within)
    return True
