"""A connection pooler in transaction mode, as far as this project's clients need one: sessions go to transactions.

PostgreSQL documentation, "Message Formats": each message but the first has a type, then its length.
"""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

_ENCRYPTION = (80877103, 80877104)  # SSLRequest, GSSENCRequest
_ENDS = (b"Q", b"S")  # Query, Sync: each is answered by a ReadyForQuery


@dataclass
class _Session:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes


class Pooler:
    """Gives the session that was used last to whoever begins a transaction; opens another where none is free."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._free: list[_Session] = []
        self._clients: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await self._client(reader, writer)
        self._clients.discard(task)

    async def close(self) -> None:
        for task in list(self._clients):
            task.cancel()
            await asyncio.wait([task])
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            startup = await reader.readexactly(length - 4)
            if struct.unpack("!i", startup[:4])[0] not in _ENCRYPTION:
                break
            writer.write(b"N")
        session = await self._take(startup)
        self._free.append(session)
        writer.write(session.greeting)
        client = asyncio.ensure_future(_message(reader))
        while True:
            await asyncio.wait([client])
            session = await self._take(startup)
            client = await self._transaction(client, session, reader, writer)
            self._free.append(session)

    async def _transaction(
        self,
        client: "asyncio.Future[bytes]",
        session: _Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> "asyncio.Future[bytes]":
        """Hand on messages until the session is between transactions; returns the client's next one."""
        asked, answer = 0, asyncio.ensure_future(_message(session.reader))
        while True:
            await asyncio.wait([client, answer], return_when=asyncio.FIRST_COMPLETED)
            if client.done():
                message = client.result()
                if message[:1] == b"X":
                    answer.cancel()
                    raise ConnectionResetError
                asked += message[:1] in _ENDS
                session.writer.write(message)
                client = asyncio.ensure_future(_message(reader))
            if answer.done():
                message = answer.result()
                writer.write(message)
                if message[:1] == b"Z":
                    asked -= 1
                    if not asked and message[5:] == b"I" and not client.done():
                        return client
                answer = asyncio.ensure_future(_message(session.reader))

    async def _take(self, startup: bytes) -> _Session:
        if self._free:
            return self._free.pop()
        reader, writer = await asyncio.open_connection(self._host, self._port)
        self._writers.append(writer)
        writer.write(struct.pack("!i", len(startup) + 4) + startup)
        greeting = message = b""
        while message[:1] != b"Z":
            message = await _message(reader)
            greeting += message
        return _Session(reader, writer, greeting)


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One message, whole."""
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


@contextmanager
def pooled(database_url: str) -> Iterator[str]:
    """The URL of a database behind a pooler."""
    parts = urlsplit(database_url)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    pooler = Pooler(parts.hostname or "", parts.port or 0)
    ports: list[int] = []

    async def run(stop: asyncio.Event) -> None:
        server = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        await pooler.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run(stop)))
    thread.start()
    ready.wait()
    try:
        yield database_url.replace(f":{parts.port}/", f":{ports[0]}/")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
