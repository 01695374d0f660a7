"""Both stores in one light process, so that on two cores an engine is seen and not its servers.

It answers as Azure and as S3 do to what the engines ask, from memory: every blob has the same bytes, and what is put is
counted and forgotten. So it proves nothing of what is copied; benchmarks/copy_engine.py does, on real servers.
`python -m benchmarks.stub SIZE LATENCY_MS [CHAIN.pem]` prints its port, and ends with its standard input.
"""

import asyncio
import base64
import hashlib
import random
import re
import ssl
import sys
from typing import Any

import uvloop

ACCOUNT, CONTAINER, BUCKET, LARGE = "account", "photos", "files", "large"
LARGE_BYTES = 5_000_000_000
_DATE = b"Wed, 09 Sep 2026 09:20:02 GMT"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_RANGE = re.compile(rb"(?i)\r\nrange: *bytes=(\d+)-(\d+)")
_BLOCK = bytes(8 * 1024 * 1024)


class Store:
    """What all connections share."""

    def __init__(self, size: int, latency: float) -> None:
        """Blobs of so many bytes; so many seconds before each answer."""
        self.latency = latency
        self.body = random.Random(size).randbytes(size)  # noqa: S311 - bytes
        md5 = hashlib.md5(self.body, usedforsecurity=False)
        self.etag = md5.hexdigest().encode()
        self.put: set[bytes] = set()
        common = b"Date: %b\r\nLast-Modified: %b\r\nContent-Type: image/jpeg\r\n" % (_DATE, _DATE)
        azure = b"x-ms-version: 2021-08-06\r\nx-ms-blob-type: BlockBlob\r\nx-ms-creation-time: %b\r\n" % _DATE
        azure += b'ETag: "0x8D"\r\nAccept-Ranges: bytes\r\n' + common
        digest = b"Content-MD5: %b\r\n" % base64.b64encode(md5.digest())
        self.azure_head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % size + azure + digest + b"\r\n"
        self.azure_get = self.azure_head + self.body
        self.azure_large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % LARGE_BYTES + azure + b"\r\n"
        self.azure_part = b"HTTP/1.1 206 Partial Content\r\n" + azure + b"Content-Length: %d\r\n\r\n"
        self.s3_put = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "%b"\r\n\r\n' % self.etag
        self.s3_head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%b"\r\n' % (size, self.etag) + common + b"\r\n"
        self.missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    def answer(self, head: bytes) -> tuple[bytes, bytes]:
        """What to say to a request, and a body to it that is large."""
        method, target = head.split(b" ", 2)[:2]
        path, _, query = target.partition(b"?")
        if path.startswith(b"/account"):
            return self._azure(method, path, query, head)
        if path.count(b"/") == 1 or b"upload" in query:
            return self._upload(method, query), b""
        if method == b"PUT":
            self.put.add(path)
            return self.s3_put, b""
        if path not in self.put:
            return self.missing, b""
        return self.s3_head, self.body if method == b"GET" else b""

    def _azure(self, method: bytes, path: bytes, query: bytes, head: bytes) -> tuple[bytes, bytes]:
        if b"restype=container" in query:
            return _xml(b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"), b""
        asked = _RANGE.search(head)
        if asked:
            length = int(asked[2]) - int(asked[1]) + 1
            return self.azure_part % length, _BLOCK[:length]
        if path.endswith(b"/large"):
            return self.azure_large, _BLOCK if method == b"GET" else b""
        return (self.azure_head, b"") if method == b"HEAD" else (self.azure_get, b"")

    @staticmethod
    def _upload(method: bytes, query: bytes) -> bytes:
        if method == b"POST" and query.startswith(b"uploads"):
            return _xml(b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        if method == b"POST":
            return _xml(b'<CompleteMultipartUploadResult><ETag>"e-1"</ETag></CompleteMultipartUploadResult>')
        if method == b"GET":
            return _xml(b"<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        return b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "p"\r\n\r\n'


def _xml(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Connection(asyncio.Protocol):
    """One connection; requests are taken one after the other."""

    def __init__(self, store: Store) -> None:
        """Answer from this store."""
        self._store, self._held, self._skip = store, b"", 0
        self._answer = (b"", b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport  # uvloop's

    def data_received(self, data: bytes) -> None:
        """Take a request's head, pass over its body, answer."""
        while data:
            if self._skip:
                if len(data) < self._skip:
                    self._skip -= len(data)
                    return
                data, self._skip = data[self._skip :], 0
                self._say()
                continue
            self._held += data
            head, end, data = self._held.partition(b"\r\n\r\n")
            if not end:
                return
            self._held = b""
            if b"100-continue" in head:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._answer = self._store.answer(head)
            length = _LENGTH.search(head)
            self._skip = int(length[1]) if length else 0
            if not self._skip:
                self._say()

    def _say(self) -> None:
        if self._store.latency:
            asyncio.get_running_loop().call_later(self._store.latency, self._write, *self._answer)
        else:
            self._write(*self._answer)

    def _write(self, head: bytes, body: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(head)
            if body:
                self._transport.write(body)


async def main() -> None:
    """Serve until the standard input ends."""
    store = Store(int(sys.argv[1]), float(sys.argv[2]) / 1000)
    context = None
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(store), "127.0.0.1", 0, ssl=context, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
