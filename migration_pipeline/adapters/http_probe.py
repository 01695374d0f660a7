"""What `doctor` asks of web servers without any credentials."""

import time
from email.utils import parsedate_to_datetime

import aiohttp

_SECONDS = 5.0
_FAILED = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


async def seconds_ahead(url: str) -> float | None:
    """How far the server's clock is ahead of ours, to about a second; `None` where it does not say."""
    began = time.time()
    try:
        async with _session() as session, session.get(url, allow_redirects=False) as response:
            # In whole seconds, the rest cut off.
            at = parsedate_to_datetime(response.headers.get("Date", "")).timestamp() + 0.5
    except _FAILED:
        return None
    return at - (began + time.time()) / 2


async def fetched(url: str) -> tuple[int | None, bytes]:
    """Status and body of what everybody may GET; `None` where there is no answer."""
    try:
        async with _session() as session, session.get(url) as response:
            return response.status, await response.content.read(1024)
    except _FAILED:
        return None, b""


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
