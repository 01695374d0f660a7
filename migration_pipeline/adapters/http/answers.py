"""What all stores' answers have in common."""

import time
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

_LONGEST = 64 * 1024  # bytes of an error's body that are looked at


def code_in(body: bytes | memoryview) -> str:
    """The code of an error's XML; empty where there is none."""
    try:
        root = ET.fromstring(bytes(body[:_LONGEST]))  # noqa: S314 - the store is trusted with all files
    except (ET.ParseError, ValueError):
        return ""
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Code":
            return (element.text or "").strip()
    return ""


def wait(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After asks for: it says seconds or a date (RFC 9110, section 10.2.3)."""
    if not retry_after:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
