"""What we rely on of the client that carries bytes, held against a server that looks at raw requests."""

import asyncio
import gzip
import hashlib
import re
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.plain import PlainClient
from migration_pipeline.adapters.http.wire import NoAnswer, OddHeader, Wire, carried_unchanged
from migration_pipeline.core.errors import SettingsError
from migration_pipeline_tests.certificates import Certificates, made_in
from migration_pipeline_tests.names import blob_names

STRAIGHT = Network(None, {})
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "e"\r\n\r\nok'


@dataclass
class Raw:
    """A server that keeps what it is sent, and answers with bytes as they are given."""

    answers: Callable[[bytes], bytes] = lambda _: OK
    hangs: bool = False
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [request.split(b" ", 2)[1].decode("latin-1") for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int((re.findall(rb"(?i)\r\ncontent-length: (\d+)", head) or [b"0"])[0])
                self.requests.append(head + await reader.readexactly(length))
                if self.hangs:
                    await asyncio.sleep(60)
                answer = self.answers(head)
                writer.write(answer)
                await writer.drain()
                if not answer or b"Cut: 1" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except asyncio.CancelledError:
            return  # the test is over
        finally:
            writer.close()


@asynccontextmanager
async def serving(raw: Raw, context: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=context)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()


def told(raw: Raw, story: Callable[[Wire, Raw], Awaitable[None]], *, timeout: float = 5) -> None:
    async def run() -> None:
        async with serving(raw), Wire(raw.url, STRAIGHT, timeout=timeout) as wire:
            await story(wire, raw)

    asyncio.run(run())


def test_every_odd_name_goes_out_as_it_is_written_or_is_known_not_to() -> None:
    names = [name for group in blob_names("photos").values() for name in group]
    paths = [f"/photos/{quote(name)}" for name in names] + ["/a/%2e%2E/b", "/a/.%2e", "/%2E/", "/a/.../b", "/a/.b./c"]

    async def story(wire: Wire, raw: Raw) -> None:
        for path in paths:
            await wire.send("PUT", raw.url + path, {}, b"x")
        changed = [path for path, seen in zip(paths, raw.paths, strict=True) if path != seen]
        assert changed == [path for path in paths if not carried_unchanged(path)]
        assert 3 < len(changed) < len(paths) / 10

    told(Raw(), story)


@pytest.mark.parametrize("value", [b"a\r\n b", b"a\x01b"], ids=["folds", "control"])
def test_a_header_that_is_not_parsed_is_told_and_the_other_client_reads_it(value: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-ms-meta-a: " + value + b"\r\nETag: e\r\n\r\nok"

    async def run() -> None:
        async with serving(Raw(lambda _: answer)) as raw, Wire(raw.url, STRAIGHT, timeout=5) as wire:
            with pytest.raises(OddHeader):
                await wire.open("GET", raw.url, {})
            plain = PlainClient(raw.url, STRAIGHT, timeout=5)
            headers = (await plain.ask("GET", raw.url, {})).headers()
            assert headers["etag"] == "e"
            assert headers["x-ms-meta-a"].startswith("a")
            plain.close()

    asyncio.run(run())


def test_the_other_client_sends_the_rest_as_it_is_written() -> None:
    paths = ["/a/../b", "/a/./b", "/a/%2E%2E/b", "/..", "/a//b/"]

    async def run() -> None:
        async with serving(Raw()) as raw:
            plain = PlainClient(raw.url, STRAIGHT, timeout=5)
            for path in paths:
                assert bytes(await (await plain.ask("GET", raw.url + path, {})).body()) == b"ok"
            assert raw.paths == paths
            plain.close()

    asyncio.run(run())


def test_nothing_is_added_followed_decoded_or_kept() -> None:
    packed = gzip.compress(b"text")
    head = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=1\r\nContent-Encoding: gzip\r\n"
    answer = f"{head}Content-Length: {len(packed)}\r\n\r\n".encode() + packed

    async def story(wire: Wire, raw: Raw) -> None:
        for _ in range(2):
            found = await wire.send("GET", f"{raw.url}/a?b=%20c&d", {"x-a": "ü", "authorization": "s"})
            assert (found.status, bytes(found.body)) == (302, packed)
        opened = await wire.open("GET", f"{raw.url}/a?b=%20c&d", {"x-a": "ü", "authorization": "s"})
        assert bytes(await opened.body()) == packed
        await opened.close()
        assert len(raw.requests) == 3
        names = {line.split(b":")[0].lower() for line in raw.requests[-1].split(b"\r\n")[1:] if line}
        assert names == {b"x-a", b"authorization", b"accept", b"user-agent", b"host"}
        assert raw.requests[-1].startswith(b"GET /a?b=%20c&d HTTP/1.1\r\n")
        assert "X-A: ü".encode() in raw.requests[-1].title().replace(b"\xc3\x9c", b"\xc3\xbc")
        assert raw.connections == 1

    told(Raw(lambda _: answer), story)


@pytest.mark.parametrize("value", [b"\xc3\xbc", b"\xfc"])
def test_a_header_above_ascii_is_told_and_the_other_client_reads_it(value: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-ms-meta-a: " + value + b"\r\nETag: e\r\n\r\nok"

    async def run() -> None:
        async with serving(Raw(lambda _: answer)) as raw, Wire(raw.url, STRAIGHT, timeout=5) as wire:
            found = await wire.send("GET", raw.url, {})
            assert found.header("etag") == "e"
            with pytest.raises(OddHeader):
                found.headers()
            plain = PlainClient(raw.url, STRAIGHT, timeout=5)
            assert (await plain.ask("GET", raw.url, {})).headers()["x-ms-meta-a"] == "ü"
            plain.close()

    asyncio.run(run())


@pytest.mark.parametrize("client", ["bytes", "plain"])
@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCut: 1\r\n\r\nshort", "broken"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCut: 1\r\n\r\n5\r\nshort\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nCon", "time-out"),
        (b"", "broken"),
    ],
)
def test_an_answer_that_ends_too_early_is_none(client: str, answer: bytes, trouble: str) -> None:
    async def run() -> None:
        async with serving(Raw(lambda _: answer)) as raw, Wire(raw.url, STRAIGHT, timeout=0.5) as wire:

            async def read() -> None:
                if client == "bytes":
                    opened = await wire.open("GET", raw.url, {})
                    await opened.body()
                else:
                    await (await PlainClient(raw.url, STRAIGHT, timeout=0.5).ask("GET", raw.url, {})).body()

            with pytest.raises(NoAnswer) as caught:
                await read()
            assert caught.value.trouble == trouble

    asyncio.run(run())


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("client", ["bytes", "plain"])
def test_why_there_is_no_answer_is_told_apart(client: str, certificates: Certificates) -> None:
    async def trouble(url: str) -> str:
        # A path that holds the words that tell the kinds apart, so that they are not looked for there.
        url = f"{url}/dns%20error/certificate/Connection%20refused/tunnel"
        async with Wire(url, STRAIGHT, timeout=0.5) as wire:
            plain = PlainClient(url, STRAIGHT, timeout=0.5)
            with pytest.raises(NoAnswer) as caught:
                await (wire.send("GET", url, {}) if client == "bytes" else plain.ask("GET", url, {}))
        assert url not in str(caught.value) + repr(caught.value)
        return caught.value.trouble

    async def run() -> None:
        async with (
            serving(Raw(), certificates.context) as tls,
            serving(Raw(hangs=True)) as slow,
            serving(Raw(lambda _: b"")) as cut,
        ):
            assert await trouble(tls.url.replace("http:", "https:")) == "certificate"
            assert await trouble(slow.url) == "time-out"
            assert await trouble(cut.url) == "broken"
        assert await trouble(f"http://127.0.0.1:{free_port()}") == "refused"
        assert await trouble("http://no-such-host.invalid") == "name"

    asyncio.run(run())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made_in(tmp_path_factory.mktemp("tls"))


def test_a_bundle_is_trusted_by_both_clients(certificates: Certificates, tmp_path: Path) -> None:
    other, bundle = tmp_path / "other.pem", tmp_path / "bundle.pem"
    own = certificates.authority.read_bytes()
    # Several certificates, with words between, as bundles are.
    bundle.write_bytes(b"# first\n" + own + b"\n# second\n" + own)
    network = Network.of_environment(bundle)
    assert len(network.certificates()) == 2

    async def run() -> None:
        async with serving(Raw(), certificates.context) as raw:
            url = raw.url.replace("http:", "https:")
            async with Wire(url, network, timeout=5) as wire:
                assert (await wire.send("GET", url, {})).status == 200
            plain = PlainClient(url, network, timeout=5)
            assert (await plain.ask("GET", url, {})).status == 200
            plain.close()

    asyncio.run(run())
    other.write_text("nothing")
    for path in (other, tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=r"network\.ca_bundle"):
            Network.of_environment(path)


def test_a_body_is_not_read_far_before_it_is_asked_for() -> None:
    size = 64 * 1024 * 1024
    sent = 0

    async def run() -> None:
        nonlocal sent

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size // 65536):
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Wire(url, STRAIGHT, timeout=5) as wire:
            opened = await wire.open("GET", url, {})
            before = -1
            while before != sent:  # until nothing more is taken
                before = sent
                await asyncio.sleep(0.3)
            assert sent < size / 2  # most of it the system's buffers
            digest = hashlib.md5(usedforsecurity=False)
            async for chunk in opened.chunks():
                digest.update(chunk)
            await opened.close()
        assert digest.digest() == hashlib.md5(bytes(size), usedforsecurity=False).digest()
        server.close()

    asyncio.run(run())


def test_a_body_goes_out_as_it_is_and_an_empty_one_says_so() -> None:
    async def story(wire: Wire, raw: Raw) -> None:
        for body in (b"", b"a\0b", memoryview(b"xyz")[1:]):
            await wire.send("PUT", f"{raw.url}/k", {}, body)
        sent = [request.partition(b"\r\n\r\n") for request in raw.requests]
        assert [body for _, _, body in sent] == [b"", b"a\0b", b"yz"]
        lengths = [re.findall(rb"(?i)\r\ncontent-length: (\d+)", head) for head, _, _ in sent]
        assert lengths == [[b"0"], [b"3"], [b"2"]]

    told(Raw(), story)


def test_requests_that_are_cancelled_leave_a_client_that_works() -> None:
    async def run() -> None:
        async with serving(Raw(hangs=True)) as slow, serving(Raw()) as raw, Wire(raw.url, STRAIGHT, timeout=5) as wire:
            asked = [asyncio.create_task(wire.send("GET", slow.url, {})) for _ in range(20)]
            await asyncio.sleep(0.1)
            for each in asked:
                each.cancel()
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in ended} == {asyncio.CancelledError}
            assert (await wire.send("GET", raw.url, {})).status == 200

    asyncio.run(run())


def test_a_process_that_used_it_ends_as_it_should() -> None:
    """Its threads end before the interpreter does, though requests are cancelled and bodies left unread."""
    script = textwrap.dedent("""
        import asyncio
        from migration_pipeline.adapters.http.network import Network
        from migration_pipeline.adapters.http.wire import Wire

        async def serve(reader, writer):
            try:
                await reader.readuntil(b"\\r\\n\\r\\n")
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 900000\\r\\n\\r\\n" + bytes(900000))
                await writer.drain()
            except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
                pass

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with Wire(url, Network(None, {}), timeout=5) as wire:
                await (await wire.open("GET", url, {})).close()
                asked = [asyncio.create_task(wire.send("GET", url, {})) for _ in range(8)]
                await asyncio.sleep(0.02)
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

        asyncio.run(main())
    """)
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("no_proxy", "url", "straight"),
    [
        ("", "https://a.blob.core.windows.net", False),
        ("*", "https://a.blob.core.windows.net", True),
        ("blob.core.windows.net", "https://a.blob.core.windows.net", True),
        (".core.windows.net", "https://a.blob.core.windows.net", True),
        ("*.core.windows.net", "https://a.blob.core.windows.net", True),
        ("windows.net", "https://a.notwindows.net", False),
        ("a.example.com, b.example.com", "https://b.example.com/x", True),
        ("127.0.0.1:9000", "https://127.0.0.1:9000", True),
        ("127.0.0.1:9000", "https://127.0.0.1:9001", False),
        ("10.0.0.0/8", "https://10.20.30.40", True),
        ("10.0.0.0/8", "https://11.20.30.40", False),
        ("::1", "https://[::1]:9", True),
    ],
)
def test_which_hosts_go_past_the_proxy(no_proxy: str, url: str, straight: bool) -> None:  # noqa: FBT001 - a table
    network = Network(None, {"https": "http://proxy:3128", "no": no_proxy})
    assert network.proxy_for(url) == (None if straight else "http://proxy:3128")
    assert network.proxies_for(url) == ({} if straight else {"https": "http://proxy:3128"})
    assert network.proxy_for("http://a.example.com") is None
