"""What follows a URL's path: a SAS, which gives access and may go, and all else, which may mean something."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote

# Microsoft Learn, "Create a service SAS", "Create an account SAS" and "Create a user delegation SAS". What changes the
# headers of the answer (rscc, rscd, rsce, rscl, rsct) is none of these: it means something to whoever fetches.
_SAS = frozenset({
    "sv", "ss", "srt", "sp", "st", "se", "spr", "sig", "sr", "si", "sip", "ses", "sdd", "scid", "skoid", "sktid", "skt",
    "ske", "sks", "skv", "saoid", "suoid", "skdutid", "sduoid",
})  # fmt: skip
# These name other bytes than the blob itself.
_NOT_THE_BLOB = frozenset({"snapshot", "versionid"})
_ESCAPED_SIGNATURE = re.compile(
    r"(?:[?&;]|%(?:25)*(?:3f|26|3b))(?:x-amz-)?sig(?:nature)?(?:=|%(?:25)*3d)", re.IGNORECASE
)
"""In a query string that is escaped once or several times."""
_ESCAPED_COMPANION = re.compile(
    r"(?:[?&;]|%(?:25)*(?:3f|26|3b))(?:s[veipr]|expires|key-pair-id|x-amz-(?:date|credential))(?:=|%(?:25)*3d)",
    re.IGNORECASE,
)
"""No signature goes without one of these; a name that holds `?sig=` alone is a name."""
_QUESTION_MARK = re.compile(r"\?|%(?:25)*3f", re.IGNORECASE)
_SIGNATURE = re.compile(r"(?<![a-z])sig(?:=|%3d)", re.IGNORECASE)


class Query(StrEnum):
    """What becomes of a query string, or a fragment, that is no SAS, when its reference is re-pointed."""

    KEEP = "keep"
    DROP = "drop"
    WAIT = "wait"


class Tail(NamedTuple):
    """What follows a path.

    Attributes:
        kept: query string and fragment, with their marks, without a SAS.
        had_sas: there was one.
        other_bytes: it names a snapshot or an old version of the blob.
    """

    kept: str = ""
    had_sas: bool = False
    other_bytes: bool = False


def tail_of(query: str | None, fragment: str | None) -> Tail:
    """Take a SAS out of what follows a path."""
    if not query and not fragment:
        return Tail()
    parts = query.split("&") if query else []
    names = [_name(part) for part in parts]
    signed = "sig" in names
    if signed:
        parts = [part for part, name in zip(parts, names, strict=True) if name not in _SAS]
    # Without a SAS all of it is kept, an empty part too.
    asked = query is not None if not signed else bool(parts)
    kept = ("?" + "&".join(parts) if asked else "") + (f"#{fragment}" if fragment is not None else "")
    kept = "" if kept in ("?", "#", "?#") else kept
    if _SIGNATURE.search(unquote(kept)):
        # A signature where none belongs is not kept either.
        kept, signed = "", True
    return Tail(kept, signed, bool(_NOT_THE_BLOB & set(names)))


def signed(name: str) -> bool:
    """Whether a name, or a URL without its query string, holds another query string, escaped, with a signature."""
    mark = _QUESTION_MARK.search(name) if "%" in name or "?" in name else None
    if mark is None or not _ESCAPED_SIGNATURE.search(name, mark.start()):
        return False
    return _ESCAPED_COMPANION.search(name, mark.start()) is not None


def unsigned(shown: str) -> str:
    """The same without that query string: fit for logs."""
    if not signed(shown):
        return shown
    return _QUESTION_MARK.split(shown, maxsplit=1)[0]


def split(url: str) -> tuple[str, str]:
    """A URL's part up to its path's end, and what follows."""
    end = min((place for mark in "?#" if (place := url.find(mark)) >= 0), default=len(url))
    return url[:end], url[end:]


def same(tails: Sequence[str]) -> str | None:
    """What all of these are; `None` where they differ."""
    return tails[0] if len(set(tails)) == 1 else None if tails else ""


def _name(part: str) -> str:
    # Stored in HTML, an ampersand is often its entity.
    return unquote(part.partition("=")[0]).strip().lower().removeprefix("amp;")
