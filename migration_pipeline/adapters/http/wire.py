"""The HTTP client that carries bytes: pyreqwest (Rust's reqwest), behind the little of it that we rely on.

What it must do, and what it cannot, is held by contracts/test_wire.py: docs/decisions/0011-one-client.md.
"""

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, cast

from migration_pipeline.adapters.http.network import Network

if TYPE_CHECKING:
    from pyreqwest.client import SyncClient
    from pyreqwest.request import RequestBuilder, StreamRequest
    from pyreqwest.response import BaseResponse, Response

Body = bytes | memoryview
Trouble = Literal["time-out", "name", "certificate", "refused", "broken", "proxy"]
"""Why no answer came: nobody answered in time, the host's name leads nowhere, its certificate is not trusted, nobody
listens there, the connection broke, the proxy refuses."""

_CONNECT_SECONDS = 10
_WRITES = {"PUT", "POST"}
_READ_AHEAD = 128 * 1024
"""Bytes of a body read before its headers are handed over, and again each time that its reader waits for more: a small
body comes with one change of threads. Several of these may be held for each request beside what is admitted."""


class NoAnswer(Exception):  # noqa: N818 - named, as those of core are, by what happened
    """The request has no answer, or one that ends before its time; without the client's text, which has URLs in it."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble)
        self.trouble = trouble

    @property
    def overload(self) -> bool:
        """Whether a store that has too much to do could be the reason."""
        return self.trouble in {"time-out", "refused"}

    def __str__(self) -> str:
        return _SAID[self.trouble]


_SAID: Mapping[Trouble, str] = {
    "time-out": "no answer in time",
    "name": "the host's name cannot be resolved",
    "certificate": "the certificate is not trusted",
    "refused": "the connection was refused",
    "broken": "the connection broke",
    "proxy": "the proxy refuses the connection",
}


class OddHeader(Exception):  # noqa: N818 - an answer, not a failure
    """A header holds bytes above ASCII, or others that this client does not hand over."""


class Answer:
    """What a server said."""

    __slots__ = ("_response", "status")

    def __init__(self, response: "BaseResponse") -> None:
        self._response, self.status = response, response.status

    def header(self, name: str) -> str | None:
        """One header; raises `OddHeader`."""
        try:
            return self._response.get_header(name)
        except ValueError:
            raise OddHeader from None

    def headers(self) -> dict[str, str]:
        """All headers by lower-case names; raises `OddHeader`."""
        try:
            found = self._response.headers.dict_multi_value()
        except ValueError:
            raise OddHeader from None
        for name, value in found.items():
            if not isinstance(value, str):
                found[name] = ", ".join(value)
        return cast("dict[str, str]", found)


class Open(Answer):
    """An answer whose body is still to be read."""

    __slots__ = ("_request", "_streamed")

    def __init__(self, request: "StreamRequest", response: "Response") -> None:
        super().__init__(response)
        self._request, self._streamed = request, response

    async def close(self) -> None:
        """Drop what is left of the body, and with it the connection."""
        await self._request.__aexit__(None, None, None)

    async def body(self) -> memoryview:
        """All of the body; raises `NoAnswer` where it ends too early."""
        try:
            return memoryview(await self._streamed.bytes())
        except _failures() as error:
            raise _no_answer(error) from None

    async def chunks(self) -> AsyncIterator[memoryview]:
        """The body in pieces; raises `NoAnswer` where it ends too early."""
        reader = self._streamed.body_reader
        try:
            while (chunk := await reader.read_chunk()) is not None:
                yield memoryview(chunk)
        except _failures() as error:
            raise _no_answer(error) from None


class Whole(Answer):
    """An answer that is here with its body."""

    __slots__ = ("body",)

    def __init__(self, response: "BaseResponse", body: memoryview) -> None:
        super().__init__(response)
        self.body = body


class Wire:
    """A client for one server. Open it, with `async with`, in the event loop that uses it.

    Nothing is followed, tried again, decoded or kept: what is asked is what goes out, and what comes is what is given.
    Paths go out as they are written, but for `.` and `..` segments, which it folds: see `carried_unchanged`.
    """

    def __init__(self, url: str, network: Network, *, timeout: float) -> None:
        """Set up.

        Args:
            url: of the server, which says whether there is a proxy before it.
            network: the way to it.
            timeout: seconds without an answer, or without a further byte of it.
        """
        self._url, self._network, self._timeout = url, network, timeout

    async def __aenter__(self) -> Self:
        from pyreqwest.client import ClientBuilder  # noqa: PLC0415 - imported where bytes are moved
        from pyreqwest.exceptions import BuilderError  # noqa: PLC0415 - as above
        from pyreqwest.proxy import ProxyBuilder  # noqa: PLC0415 - as above

        builder = (
            ClientBuilder()
            .follow_redirects(enable=False)
            .gzip(enable=False)
            .brotli(enable=False)
            .zstd(enable=False)
            .deflate(enable=False)
            .referer(enable=False)
            .user_agent("migration-pipeline")
            .connect_timeout(timedelta(seconds=_CONNECT_SECONDS))
            .read_timeout(timedelta(seconds=self._timeout))
            .no_proxy()
        )
        if proxy := self._network.proxy_for(self._url):
            builder = builder.proxy(ProxyBuilder.all(proxy))
        for certificate in self._network.certificates():
            builder = builder.add_root_certificate_pem(certificate)
        try:
            self._client = builder.build()
        except BuilderError:
            raise NoAnswer("certificate") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
        _wait_for_its_thread()

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Whole:
        """Send a request, and take its answer whole; raises `NoAnswer`."""
        request = self._request(method, url, headers, body)
        try:
            response = await request.build().send()
            return Whole(response, memoryview(await response.bytes()))
        except _failures() as error:
            raise _no_answer(error) from None

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> "RequestBuilder":
        request = self._client.request(method, url).headers(headers)
        if body:
            return request.body_bytes(body)
        # It does not say that there is no body, which stores want to know of a write.
        return request.header("content-length", "0") if method in _WRITES else request

    async def open(self, method: str, url: str, headers: Mapping[str, str]) -> Open:
        """Send a request, and have its answer before its body; whoever has it closes it.

        Raises `NoAnswer`, and `OddHeader` where the answer has a header that folds, or holds control characters.
        """
        streamed = self._request(method, url, headers).streamed_read_buffer_limit(_READ_AHEAD).build_streamed()
        try:
            return Open(streamed, await streamed.__aenter__())
        except _failures() as error:
            if _ODD_HEADER in _innermost(error):
                raise OddHeader from None
            raise _no_answer(error) from None


def carried_unchanged(path: str) -> bool:
    """Whether a percent-encoded path goes out as it is written.

    Seen with pyreqwest 0.15.1, whose URLs are those of the WHATWG: `.` and `..` segments are folded, percent-encoded
    ones too. A contract test compares this with what a server gets.
    """
    return _DOTS.search(path) is None


_DOTS = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")


@functools.cache
def _waiting_client() -> "SyncClient":
    from pyreqwest.client import SyncClientBuilder  # noqa: PLC0415 - as above

    # It speaks to nobody; without this it would read the machine's authorities first.
    return SyncClientBuilder().no_proxy().danger_accept_invalid_certs(enable=True).build()


def _wait_for_its_thread() -> None:
    """Wait until the client's thread is through with what it had to tell this one.

    It calls into Python when an answer is there. If the interpreter ends meanwhile, the process is aborted: seen in
    one of twenty that ended right after their last request, on a busy machine. All clients share that one thread, which
    does one thing after the other; so a request that blocks, and fails at once, returns after all of that.
    """
    with contextlib.suppress(*_failures()):
        _waiting_client().get("http://127.0.0.1:9/").timeout(timedelta(microseconds=1)).build().send()


def _failures() -> tuple[type[Exception], ...]:
    from pyreqwest.exceptions import RequestError  # noqa: PLC0415 - as above

    return (RequestError,)


def _no_answer(error: Exception) -> NoAnswer:
    """By the class of the error; where that tells nothing, by its innermost causes, which name no URL."""
    if isinstance(error, TimeoutError):
        return NoAnswer("time-out")
    innermost = _innermost(error)
    for words, trouble in _CAUSES.items():
        if words in innermost:
            return NoAnswer(trouble)
    return NoAnswer("broken")


def _innermost(error: Exception) -> str:
    details: Mapping[str, object] = getattr(error, "details", None) or {}
    causes = details.get("causes")
    return " ".join(str(one.get("message", "")) for one in (causes if isinstance(causes, list) else [])[1:])


_ODD_HEADER = "invalid HTTP header parsed"
_CAUSES: Mapping[str, Trouble] = {
    "dns error": "name",
    "certificate": "certificate",
    "tunnel": "proxy",
    "Connection refused": "refused",
}
"""Words of the client's own errors, of the pinned version."""
