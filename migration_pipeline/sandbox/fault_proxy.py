"""A proxy that misbehaves on purpose: in front of a store, for tests of what happens then.

Bytes pass unchanged, so that signatures stay valid; HTTP/1.1 is read only as far as is needed to tell requests
apart. It runs in a thread of its own and listens on 127.0.0.1.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Kind = Literal["status", "reset", "hang", "cut_upload", "cut_body", "lost_reply", "delay"]
_CHUNK = 64 * 1024
_READ_LIMIT = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)")
_BODILESS = (204, 304)
_FINAL = 200  # statuses below only announce another


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with some requests.

    Attributes:
        kind: `status` answers in the store's place; `reset` drops the request unseen; `hang` never answers;
            `cut_upload` drops the connection within the request's body, `cut_body` within the answer's;
            `lost_reply` lets the store carry the request out and drops its answer; `delay` waits `seconds` first.
        rate: share of the requests concerned.
        match: of the request line (`PUT /bucket/key HTTP/1.1`), a regular expression.
        answer: status line's rest, further headers and body, for `status`.
        seconds: for `delay`.
        after_bytes: how much of a body passes before it is cut.
    """

    kind: Kind
    rate: float = 1.0
    match: str = ""
    answer: str = "503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    seconds: float = 0.0
    after_bytes: int = 1000


class FaultProxy:
    """The proxy in front of one port, for as long as the `with` block runs.

    Attributes:
        faults: in force now; may be set at any time. The first that hits a request is the one that happens.
        happened: how often, by kind.
        requests: seen so far.
        newest: the newest request's line.
    """

    def __init__(self, upstream_port: int, faults: Sequence[Fault] = (), *, seed: int = 0) -> None:
        self.faults = faults
        self.happened: Counter[str] = Counter()
        self.requests, self.newest = 0, ""
        self._upstream = upstream_port
        self._random = random.Random(seed)  # noqa: S311 - repeatable faults, not cryptography
        self._serving: set[asyncio.Task[None] | None] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_READ_LIMIT), self._loop
        )
        self._server = starting.result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # Who was just being let in, or let go, is a task only now.
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        store: asyncio.StreamWriter | None = None
        # The loop itself would let go of a connection whose client has hung up, while the store is still at work.
        self._serving.add(asyncio.current_task())
        try:
            answers, store = await asyncio.open_connection("127.0.0.1", self._upstream, limit=_READ_LIMIT)
            while await self._exchange(reader, writer, answers, store):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # either side hung up, as both may
        finally:
            self._serving.discard(asyncio.current_task())
            for one in (writer, store):
                if one is not None:
                    one.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        store: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection may serve another."""
        head = await _next_request(reader, answers)
        self.requests += 1
        self.newest = head.split(b"\r\n", 1)[0].decode("latin-1")
        fault = self._draw(self.newest)
        if fault is not None:
            over = await self._before(fault, head, reader, writer)
            if over is not None:
                return over
        store.write(head)
        # At the same time as the answer is read: a client may wait for "100 Continue" before it sends its body.
        sending = asyncio.create_task(_pass_on(reader, store, _body_of(head)))
        try:
            answer = await answers.readuntil(b"\r\n\r\n")
            while _status(answer) < _FINAL:
                writer.write(answer)
                answer = await answers.readuntil(b"\r\n\r\n")
            await sending
        finally:
            sending.cancel()
        return await self._after(fault, head, answer, answers, writer)

    async def _after(
        self,
        fault: Fault | None,
        head: bytes,
        answer: bytes,
        answers: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """What happens to the answer; whether the connection may serve another request."""
        if fault is not None and fault.kind == "lost_reply":
            _reset(writer)
            return False
        writer.write(answer)
        body = 0 if head.startswith(b"HEAD ") or _status(answer) in _BODILESS else _body_of(answer)
        if fault is not None and fault.kind == "cut_body" and body is not None and body > 0:
            await _pass_on(answers, writer, min(fault.after_bytes, body - 1))
            _reset(writer)
            return False
        await _pass_on(answers, writer, body)
        return b"connection: close" not in head.lower() + answer.lower()

    async def _before(
        self, fault: Fault, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool | None:
        """What happens before the store sees the request.

        `None` where the store is to see it; else whether the connection may serve another.
        """
        match fault.kind:
            case "reset":
                _reset(writer)
            case "hang":
                while await reader.read(_CHUNK):
                    pass  # until the client has had enough: its connection, and the one to the store, end with that
            case "delay":
                await asyncio.sleep(fault.seconds)
                return None
            case "cut_upload":
                await _ask_for_body(head, writer)
                await reader.readexactly(min(_body_of(head) or 0, fault.after_bytes))
                _reset(writer)
            case "status":
                await _ask_for_body(head, writer)
                await reader.readexactly(_body_of(head) or 0)
                writer.write(f"HTTP/1.1 {fault.answer}".encode())
                await writer.drain()
                return True
            case _:
                return None
        return False

    def _draw(self, line: str) -> Fault | None:
        for fault in self.faults:
            if re.search(fault.match, line) and self._random.random() < fault.rate:
                self.happened[fault.kind] += 1
                return fault
        return None


async def _next_request(reader: asyncio.StreamReader, answers: asyncio.StreamReader) -> bytes:
    """A request's head; a store that hangs up meanwhile, as it may between requests, ends the client's connection, too.

    Else the client would believe in a connection that leads nowhere, and lose its next request.
    """
    head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    hung_up = asyncio.create_task(answers.read(1))
    try:
        await asyncio.wait({head, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        if not head.done():
            raise EOFError
        return head.result()
    finally:
        head.cancel()
        hung_up.cancel()
        # Until they have ended, nobody else may read there.
        await asyncio.gather(head, hung_up, return_exceptions=True)


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _body_of(head: bytes) -> int | None:
    """Bytes that follow a head, `None` where they come in chunks."""
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        return None
    length = _LENGTH.search(lower)
    return int(length[1]) if length else 0


async def _ask_for_body(head: bytes, writer: asyncio.StreamWriter) -> None:
    if b"\r\nexpect: 100-continue" in head.lower():
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None) -> None:
    """Pass a body on, as it comes."""
    if length is None:
        chunk = -1
        while chunk != 0:
            line = await reader.readline()
            writer.write(line)
            chunk = int(line.split(b";")[0], 16)
            await _pass_on(reader, writer, chunk + 2)
        return
    while length:
        some = await reader.read(min(length, _CHUNK))
        if not some:
            raise EOFError
        length -= len(some)
        writer.write(some)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a crash would: with RST."""
    with contextlib.suppress(OSError):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
