"""What `doctor` asks of web servers without any credentials."""

import asyncio
import time
from email.utils import parsedate_to_datetime

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.wire import NoAnswer, OddHeader, Wire

_SECONDS = 5.0
_FAILED = (NoAnswer, OddHeader, TimeoutError, ValueError)


async def seconds_ahead(url: str, network: Network) -> float | None:
    """How far the server's clock is ahead of ours, to about a second; `None` where it does not say."""
    began = time.time()
    try:
        async with Wire(url, network, timeout=_SECONDS) as wire, asyncio.timeout(_SECONDS):
            date = (await wire.send("GET", url, {})).header("date")
            # In whole seconds, the rest cut off.
            at = parsedate_to_datetime(date or "").timestamp() + 0.5
    except _FAILED:
        return None
    return at - (began + time.time()) / 2


async def fetched(url: str, network: Network) -> tuple[int | None, bytes]:
    """Status and body of what everybody may GET; `None` where there is no answer."""
    try:
        async with Wire(url, network, timeout=_SECONDS) as wire, asyncio.timeout(_SECONDS):
            answer = await wire.send("GET", url, {})
            return answer.status, bytes(answer.body[:1024])
    except _FAILED:
        return None, b""
