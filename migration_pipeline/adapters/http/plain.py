"""The slower client, botocore's own, for the few requests that the one for bytes cannot carry as they are.

Those are paths with `.` and `..` segments, and answers with headers above ASCII.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.wire import NoAnswer, Trouble

_CONNECT_SECONDS = 10
_CONNECTIONS = 8

_TROUBLE: Mapping[str, Trouble] = {
    "ConnectTimeoutError": "time-out",
    "ReadTimeoutError": "time-out",
    "EndpointConnectionError": "refused",
    "SSLError": "certificate",
    "ProxyConnectionError": "proxy",
    "ConnectionClosedError": "broken",
}
"""What botocore's client raises, by the classes of its errors."""


def trouble_of(error: BaseException) -> Trouble | None:
    """Why there is no answer, by the error's class; `None` for errors that are of something else."""
    for kind in [each.__name__ for each in type(error).__mro__]:
        if kind == "EndpointConnectionError" and _is_of_the_name(error):
            return "name"
        if kind in _TROUBLE:
            return _TROUBLE[kind]
    return None


def _is_of_the_name(error: BaseException) -> bool:
    wrapped = getattr(error, "kwargs", {}).get("error")
    return "NameResolutionError" in [each.__name__ for each in type(getattr(wrapped, "reason", wrapped)).__mro__]


class PlainAnswer:
    """What a server said; its body is read on demand."""

    def __init__(self, response: Any) -> None:  # noqa: ANN401 - urllib3's, by way of botocore
        self._response, self.status = response, int(response.status_code)

    def headers(self) -> dict[str, str]:
        """All headers by lower-case names."""
        found: dict[str, str] = {}
        for name, value in self._response.raw.headers.items():
            key, text = name.lower(), _text(value)
            found[key] = f"{found[key]}, {text}" if key in found else text
        return found

    async def body(self) -> memoryview:
        """All of the body; raises `NoAnswer` where it ends too early."""

        def read() -> bytes:
            return bytes(self._response.raw.read(decode_content=False))

        try:
            return memoryview(await asyncio.to_thread(read))
        except Exception as error:  # noqa: BLE001 - sorted by the next line
            raise _no_answer(error) from None

    async def close(self) -> None:
        """Drop what is left of the body."""
        await asyncio.to_thread(self._response.raw.close)


class PlainClient:
    """Sends requests as they are written, each in a thread."""

    def __init__(self, url: str, network: Network, *, timeout: float) -> None:
        """Set up, for one server."""
        self._url, self._network, self._timeout = url, network, timeout
        self._session: Any = None

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> PlainAnswer:
        """Send a request, and have its answer before its body; raises `NoAnswer`."""

        def send() -> PlainAnswer:
            from botocore.awsrequest import AWSPreparedRequest  # noqa: PLC0415 - 0.15 s that few runs need
            from botocore.httpsession import URLLib3Session  # noqa: PLC0415 - as above

            self._session = self._session or URLLib3Session(
                verify=self._network.verify,
                proxies=self._network.proxies_for(self._url),
                timeout=(_CONNECT_SECONDS, self._timeout),
                max_pool_connections=_CONNECTIONS,
            )
            return PlainAnswer(self._session.send(AWSPreparedRequest(method, url, dict(headers), b"", True)))

        try:
            return await asyncio.to_thread(send)
        except Exception as error:  # noqa: BLE001 - as above
            raise _no_answer(error) from None

    def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            self._session.close()


def _no_answer(error: Exception) -> BaseException:
    from botocore.exceptions import BotoCoreError, HTTPClientError  # noqa: PLC0415 - as above
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

    if isinstance(error, BotoCoreError | HTTPClientError | HTTPError | OSError):
        return NoAnswer(trouble_of(error) or "broken")
    return error


def _text(value: str) -> str:
    """A header's value: UTF-8 where its bytes are that, else the latin-1 that HTTP's headers used to be."""
    raw = value.encode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return value
