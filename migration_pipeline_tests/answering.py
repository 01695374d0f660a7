"""Endpoints that answer as Azure and S3 do, byte by byte, so that single bytes of their answers can be other ones."""

import asyncio
import base64
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

DATE = b"Wed, 25 Nov 2026 10:00:00 GMT"


class Request(NamedTuple):
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def but(self, name: bytes, value: bytes | None) -> "Said":
        """The same with another header, or without it."""
        others = tuple(item for item in self.headers if item[0].lower() != name.lower())
        return replace(self, headers=others if value is None else (*others, (name, value)))


Change = Callable[[Request, Said], Said]
"""Makes another answer of one; the connection ends after it where it is another."""


def as_it_is(_: Request, said: Said) -> Said:
    return said


@dataclass
class Endpoint(ABC):
    """Something that answers on a port of its own."""

    change: Change = as_it_is
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def answer(self, asked: Request) -> Said:
        """What it says by itself, before `change`."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await _asked(reader, writer)
                honest = self.answer(asked)
                said = self.change(asked, honest)
                writer.write(_raw(said, asked.method))
                await writer.drain()
                if said != honest:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def answering(*endpoints: Endpoint) -> AsyncIterator[None]:
    """Have these listen."""
    servers = []
    for endpoint in endpoints:
        server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, limit=1024 * 1024)
        endpoint.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    if "100-continue" in headers.get("expect", ""):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    path, _, query = target.partition("?")
    asked = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    return Request(method, unquote(path), asked, headers, body)


def _raw(said: Said, method: str) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % item for item in said.headers)
    return b"HTTP/1.1 %d Said\r\n%b\r\n%b" % (said.status, lines, b"" if method == "HEAD" else said.body)


def _whole(status: int, body: bytes = b"", headers: Mapping[bytes, bytes] = {}) -> Said:
    return Said(status, (*headers.items(), (b"Content-Length", b"%d" % len(body))), body)


def _error(status: int, code: str, headers: Mapping[bytes, bytes] = {}) -> Said:
    body = f"<?xml version='1.0' encoding='utf-8'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return _whole(status, body, {b"Content-Type": b"application/xml", **headers})


@dataclass
class Azure(Endpoint):
    """Blobs by their path, all with the headers that a blob may have."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    headers: Mapping[bytes, bytes] = field(default_factory=dict)

    def answer(self, asked: Request) -> Said:
        body = self.blobs.get(asked.path)
        if body is None:
            return _error(404, "BlobNotFound", {b"x-ms-error-code": b"BlobNotFound"})
        etag = b'"0x%b"' % hashlib.sha256(body).hexdigest()[:15].upper().encode()
        if asked.headers.get("if-match", etag.decode()) != etag.decode():
            return _error(412, "ConditionNotMet", {b"x-ms-error-code": b"ConditionNotMet"})
        found = {
            b"Content-Type": b"image/jpeg",
            b"Content-MD5": base64.b64encode(_md5(body)),
            b"Cache-Control": b"max-age=60",
            b"Content-Disposition": b'attachment; filename="a.jpg"',
            b"Content-Language": b"de",
            b"Content-Encoding": b"identity",
            b"ETag": etag,
            b"Last-Modified": DATE,
            b"Date": DATE,
            b"x-ms-meta-owner": b"1",
            b"x-ms-request-id": b"1",
            b"x-ms-version": b"2024-11-04",
            b"x-ms-blob-type": b"BlockBlob",
            **self.headers,
        }
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if span:
            body = body[int(span[1]) : int(span[2]) + 1]
        return _whole(206 if span else 200, body, found)


@dataclass
class Upload:
    """Parts of an object to be."""

    path: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class S3(Endpoint):
    """Objects by their path, and uploads in parts; in an archive class where `archives` says so."""

    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, bytes] = field(default_factory=dict)
    told: dict[str, Mapping[str, str]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    archives: bool = False
    begun: int = 0

    def answer(self, asked: Request) -> Said:  # noqa: PLR0911 - an answer each
        if "uploads" in asked.query or "uploadId" in asked.query:
            return self._of_uploads(asked, asked.query.get("uploadId", ""))
        there = self.objects.get(asked.path)
        match asked.method:
            case "PUT" if self._taken(asked):
                return _error(412, "PreconditionFailed")
            case "PUT":
                return _whole(200, headers=_facts(self.put(asked.path, asked.body, asked.headers)))
            case "DELETE":
                self.objects.pop(asked.path, None)
                return Said(204, ((b"Date", DATE),))
            case _ if there is None:
                return _error(404, "NoSuchKey")
            case "GET" if self.archives:
                return _error(403, "InvalidObjectState")
            case _:
                return _whole(200, there, {**_facts(self.etags[asked.path]), b"Last-Modified": DATE})

    def put(self, path: str, body: bytes, told: Mapping[str, str], parts: int = 0) -> bytes:
        """Store an object, and return its ETag."""
        self.objects[path], self.told[path] = body, told
        self.etags[path] = f'"{_md5(body).hex()}{f"-{parts}" if parts else ""}"'.encode()
        return self.etags[path]

    def _taken(self, asked: Request) -> bool:
        if "if-match" in asked.headers:
            there = asked.path in self.objects
            return not there or asked.headers["if-match"].encode() != self.etags[asked.path]
        return asked.path in self.objects and asked.headers.get("if-none-match") == "*"

    def _of_uploads(self, asked: Request, upload_id: str) -> Said:  # noqa: PLR0911 - as above
        upload = self.uploads.get(upload_id)
        match asked.method:
            case "GET":
                items = "".join(
                    f"<Upload><Key>{escape(item.path.split('/', 2)[2])}</Key><UploadId>{id_}</UploadId>"
                    f"<Initiated>{_now()}</Initiated></Upload>"
                    for id_, item in self.uploads.items()
                )
                return _xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{items}")
            case "POST" if not upload_id:
                self.begun += 1
                self.uploads[f"u{self.begun}"] = Upload(asked.path)
                return _xml("InitiateMultipartUploadResult", f"<UploadId>u{self.begun}</UploadId>")
            case _ if upload is None:
                return _error(404, "NoSuchUpload")
            case "PUT":
                upload.parts[int(asked.query["partNumber"])] = asked.body
                return _whole(200, headers=_facts(f'"{_md5(asked.body).hex()}"'.encode()))
            case "DELETE":
                del self.uploads[upload_id]
                return Said(204, ((b"Date", DATE),))
            case _ if self._taken(asked):
                return _error(412, "PreconditionFailed")
            case _:
                parts = self.uploads.pop(upload_id).parts
                etag = self.put(asked.path, b"".join(parts[number] for number in sorted(parts)), {}, len(parts))
                return _xml("CompleteMultipartUploadResult", f"<ETag>{etag.decode()}</ETag>")


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def _facts(etag: bytes) -> dict[bytes, bytes]:
    return {b"ETag": etag, b"Date": DATE, b"x-amz-request-id": b"1"}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _xml(root: str, inner: str) -> Said:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    body = f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="{space}">{inner}</{root}>'.encode()
    return _whole(200, body, {b"Content-Type": b"application/xml", b"Date": DATE})
