"""A proxy, and a server, that answers as S3 does and keeps every request: to which host it went, and signed by whom.

TLS is ended here, with a certificate of the tests' own authority: so what is asked of AWS's real names is seen.
"""

import asyncio
import contextlib
import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit


class Asked(NamedTuple):
    """One request. `through_proxy`: it came by CONNECT, or with a whole URL."""

    host: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    through_proxy: bool

    @property
    def signer(self) -> str:
        """Access key, region and service of the signature."""
        found = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request", self.headers.get("authorization", ""))
        return "/".join(found.groups()) if found else ""


Answer = Callable[[Asked], tuple[int, dict[str, str], bytes] | None]


@dataclass
class Recorder:
    """What was asked, and a bucket in memory; `first` may answer instead. `context` is for TLS through CONNECT."""

    context: ssl.SSLContext | None = None
    first: Answer = lambda _: None
    asked: list[Asked] = field(default_factory=list)
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    port: int = 0
    _transports: list[asyncio.WriteTransport] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, proxied = "", False
        self._transports.append(writer.transport)  # below TLS, where that is begun later
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.rstrip().split("\r\n")
                method, target, _ = line.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
                if method == "CONNECT":
                    host, proxied = target.removesuffix(":443"), True
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await writer.drain()
                    assert self.context is not None
                    await writer.start_tls(self.context)
                    continue
                if "expect" in headers:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                whole = urlsplit(target) if target.startswith("http") else None
                path = target if whole is None else target[len(f"{whole.scheme}://{whole.netloc}") :]
                asked = Asked(host or headers["host"], method, path, headers, body, proxied or whole is not None)
                self.asked.append(asked)
                status, more, said = self.first(asked) or self.answer(asked)
                length = more.pop("content-length", str(len(said)))
                lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {length}"]
                lines += [f"{name}: {value}" for name, value in more.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else said))
                await writer.drain()
        writer.close()

    def answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:  # noqa: PLR0911 - a store's
        """As S3 answers."""
        path, _, query = asked.path.partition("?")
        place, held = (asked.host, path), self.objects.get((asked.host, path))
        if asked.method == "POST":
            done = "uploadId" in query
            if done:
                self.objects[place] = b"parts"
            said = b'<R><ETag>"e-1"</ETag></R>' if done else b"<R><UploadId>u</UploadId></R>"
            return 200, {"Content-Type": "application/xml"}, said
        if asked.method == "PUT":
            if "uploadId" not in query:
                if held is not None and "if-none-match" in asked.headers:
                    return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
                self.objects[place] = asked.body
            return 200, {"ETag": f'"{hashlib.md5(asked.body, usedforsecurity=False).hexdigest()}"'}, b""
        if asked.method == "DELETE":
            self.objects.pop(place, None)
            return 204, {}, b""
        if held is not None and not query:
            etag = hashlib.md5(held, usedforsecurity=False).hexdigest()
            made = "Wed, 09 Sep 2026 09:20:02 GMT"
            return 200, {"ETag": f'"{etag}"', "Last-Modified": made, "content-length": str(len(held))}, held
        if asked.method == "GET" and query:
            return 200, {"Content-Type": "application/xml"}, b"<R></R>"
        return (200 if path.count("/") <= 1 and self._is_bucket(asked, path) else 404), {}, b""

    async def close(self) -> None:
        """Drop every connection."""
        for transport in self._transports:
            transport.abort()
        await asyncio.sleep(0.01)

    @staticmethod
    def _is_bucket(asked: Asked, path: str) -> bool:
        return path in {"", "/"} or not asked.host.startswith("files")


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Serve in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(recorder.serve, "127.0.0.1", 0, ssl=recorder.tls)

    def work() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(start())
        recorder.port = server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(recorder.close())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    try:
        yield recorder
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
