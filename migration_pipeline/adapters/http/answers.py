"""What all stores' answers have in common, and how much of them is believed: nothing that is not of its form."""

import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

_LONGEST = 64 * 1024  # bytes of an error's body that are looked at
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_LENGTH = re.compile(r"[0-9]{1,18}")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,1024}")


def code_in(body: bytes | memoryview) -> str:
    """The code of an error's XML; empty where there is none."""
    try:
        root = ET.fromstring(bytes(body[:_LONGEST]))  # noqa: S314 - the store is trusted with all files
    except (ET.ParseError, ValueError, LookupError):
        return ""
    if _local(root) != "Error":
        return ""
    return next((code_of(element.text) for element in root if _local(element) == "Code"), "")


def code_of(given: object) -> str:
    """A store's error code; empty for what cannot be one."""
    code = given.strip() if isinstance(given, str) else ""
    return code if _CODE.fullmatch(code) else ""


def length_of(text: str | None) -> int | None:
    """Bytes that a Content-Length says; `None` where it says none."""
    return int(text) if text and _LENGTH.fullmatch(text) else None


def etag_in(given: object) -> str | None:
    """An ETag as it was sent; `None` where it cannot be sent back as a condition."""
    etag = name_in(given)
    return etag if etag and etag.strip('"') else None


def name_in(given: object) -> str | None:
    """An identifier that a store made up; `None` for what cannot be sent back, a list of several for example."""
    return given if isinstance(given, str) and _PRINTABLE.fullmatch(given) else None


def moment_of(text: str | None) -> datetime | None:
    """The time that an HTTP date says; `None` where it says none."""
    try:
        moment = parsedate_to_datetime(text or "")
        # "-0000" says that the zone is not known; HTTP's dates are in UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def wait(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After asks for: it says seconds or a date (RFC 9110, section 10.2.3)."""
    if length_of(retry_after) is not None:
        return float(retry_after or 0)
    until = moment_of(retry_after)
    return max(0.0, until.timestamp() - time.time()) if until is not None else None


def _local(element: "ET.Element") -> str:
    return str(element.tag).rpartition("}")[2]
