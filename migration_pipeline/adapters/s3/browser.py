"""Requests to a store as a browser sends them from a page of some origin, and what it would make of the answers.

Nothing is followed or tried again, and no error repeats a URL: upload URLs carry signatures.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
from yarl import URL

_SECONDS = 10.0
_MOST_BYTES = 64 * 1024
_FAILED = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
_OK = range(200, 300)


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: `None` where nothing did.
        headers: by lower-case name.
        trouble: why nothing came back, without any URL.
    """

    status: int | None
    headers: Mapping[str, str] = {}
    body: bytes = b""
    trouble: str = ""

    @property
    def good(self) -> bool:
        """Whether the store did what it was asked."""
        return self.status in _OK

    @property
    def said(self) -> str:
        """Status and error code, in words; nothing else of an error document, which may repeat what was signed."""
        if self.status is None:
            return f"there is no answer ({self.trouble})"
        code = re.search(rb"<Code>(\w+)</Code>", self.body)
        return f"the answer is {self.status}" + (f" {code[1].decode()}" if code and not self.good else "")

    def readable_from(self, origin: str) -> bool:
        """Whether a page of the origin gets to see the answer: Fetch standard, "CORS check"."""
        return self.headers.get("access-control-allow-origin") in (origin, "*")

    def allows(self, origin: str, method: str, headers: Sequence[str]) -> str:
        """What a preflight's answer lacks, in words; nothing where a page of the origin may send the request.

        Fetch standard, "CORS-preflight fetch", for requests without cookies.
        """
        if not self.good:
            return self.said
        if not self.readable_from(origin):
            return "the answer does not name the origin"
        methods, named = (self._listed(f"access-control-allow-{what}") for what in ("methods", "headers"))
        # POST, GET and HEAD need no leave by name.
        if not {method.lower(), "*"} & methods and method not in ("POST", "GET", "HEAD"):
            return f"the answer does not allow {method}"
        missing = [] if "*" in named else sorted({name.lower() for name in headers} - named)
        return f"the answer does not allow {', '.join(missing)}" if missing else ""

    def _listed(self, name: str) -> set[str]:
        return {each.strip().lower() for each in self.headers.get(name, "").split(",") if each.strip()}


class Browser:
    """Sends requests; open it with `async with`."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            # A cookie that a store sets must not reach it again: browsers send none across origins.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=["Content-Type"],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def preflight(self, url: str, origin: str, method: str, headers: Sequence[str]) -> Answer:
        """Ask whether a page of the origin may send such a request."""
        asked = {"Origin": origin, "Access-Control-Request-Method": method}
        if headers:
            asked["Access-Control-Request-Headers"] = ",".join(sorted(name.lower() for name in headers))
        return await self.send("OPTIONS", url, asked)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """One request."""
        return await self._send(method, url, headers, body, follow=False)

    async def get(self, url: str) -> Answer:
        """Read as an image tag of a page does: without credentials, and wherever the answer leads."""
        return await self._send("GET", url, {}, None, follow=True)

    async def post_form(
        self, url: str, fields: Mapping[str, str], file: bytes, file_type: str, headers: Mapping[str, str]
    ) -> Answer:
        """An HTML form with a file at its end."""
        boundary = f"----{secrets.token_hex(16)}"
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="probe"\r\n'
        parts += [f"{head}Content-Type: {file_type}\r\n\r\n".encode(), file, f"\r\n--{boundary}--\r\n".encode()]
        typed = {"Content-Type": f"multipart/form-data; boundary={boundary}", **headers}
        return await self.send("POST", url, typed, b"".join(parts))

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, follow: bool
    ) -> Answer:
        try:
            async with self._session.request(
                method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=follow
            ) as response:
                seen = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, seen, await response.content.read(_MOST_BYTES))
        except _FAILED as error:
            return Answer(None, trouble=type(error).__name__)
