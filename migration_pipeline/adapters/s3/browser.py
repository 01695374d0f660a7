"""Requests to a store as a browser sends them from a page of some origin, and what it would make of the answers.

Nothing is followed or tried again, and no error repeats a URL: upload URLs carry signatures.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urljoin

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.wire import NoAnswer, OddHeader, Wire

_SECONDS = 10.0
_MOST_BYTES = 64 * 1024
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
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
    """Sends requests."""

    def __init__(self, network: Network | None = None) -> None:
        """Go the way that every client goes, unless another is given."""
        self._network = network or Network.of_environment()

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
        answer = await self._once(method, url, headers, body)
        for _ in range(_MOST_REDIRECTS if follow else 0):
            where = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not where:
                break
            url = urljoin(url, where)
            answer = await self._once(method, url, headers, body)
        return answer

    async def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        # A client of its own for each request: no cookie and no connection of one reaches another.
        try:
            async with Wire(url, self._network, timeout=_SECONDS) as wire, asyncio.timeout(_SECONDS):
                answer = await wire.send(method, url, headers, body)
                return Answer(answer.status, answer.headers(), bytes(answer.body[:_MOST_BYTES]))
        except NoAnswer as error:
            return Answer(None, trouble=str(error))
        except (OddHeader, TimeoutError, ValueError) as error:
            return Answer(None, trouble=type(error).__name__)
