"""Whatever a URL in the app's data says, requests go to the configured containers, and nowhere else."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.core.errors import MigrationError, Permanent
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.core.urls import KeyTemplate, UrlKind, UrlRules

HOST = "acct.blob.core.windows.net"
KEY = AzureCredentials(base64.b64encode(b"key").decode())


@contextmanager
def server(location: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """An HTTP server on a free port, which sends everybody elsewhere or gives three bytes; and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if location else 200)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "3")
            self.send_header("ETag", '"0x1"')
            self.end_headers()
            self.wfile.write(b"abc")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.server_address[1], asked
        running.shutdown()
        thread.join()


def read(port: int, blob: str) -> bytes | None:
    async def admit(_: int) -> None:
        return

    async def work() -> bytes | None:
        async with AzureBlobSource(f"http://127.0.0.1:{port}/acct", ["photos"], KEY) as source:
            return (await source.read(SourceFile("photos", blob), whole_up_to=1000, admit=admit)).body

    return asyncio.run(work())


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "http://127.0.0.1:5432/photos/a.jpg",
        "http://[::1]/photos/a.jpg",
        f"https://{HOST}:8443/photos/a.jpg",
        f"https://{HOST}.evil.example/photos/a.jpg",
        f"https://{HOST}\\@evil.example/photos/a.jpg",
        f"https://{HOST}%2eevil.example/photos/a.jpg",
        f"https://evil.example/{HOST}/photos/a.jpg",
        f"https://evil.example#@{HOST}/photos/a.jpg",
        "https://\u0430cct.blob.core.windows.net/photos/a.jpg",  # a Cyrillic letter
        "https://xn--cct-5cd.blob.core.windows.net/photos/a.jpg",
        f"https://{HOST}/private/a.jpg",
        f"https://{HOST}/photos%2Fa.jpg",
        f"https://{HOST}/PHOTOS/a.jpg",
    ],
)
def test_a_url_that_only_looks_like_ours_names_no_file(url: str) -> None:
    found = rules().classify(url)
    assert found is not None
    assert found.kind not in (UrlKind.SOURCE, UrlKind.TARGET)
    assert found.file is None


def test_a_full_stop_that_browsers_take_for_a_dot_is_one() -> None:
    found = rules().classify("https://acct\u3002blob.core.windows.net/photos/a.jpg")
    assert found is not None
    assert found.file == SourceFile("photos", "a.jpg")


@pytest.mark.parametrize(
    "text", ["file:///etc/passwd", "gopher://127.0.0.1/x", f"ftp://{HOST}/photos/a", f"//{HOST}/a"]
)
def test_other_schemes_are_no_references(text: str) -> None:
    found = rules().classify(text)
    assert found is None or (found.kind, found.file) == (UrlKind.EMBEDDED, None)


def rules() -> UrlRules:
    return UrlRules(
        account_url=f"https://{HOST}",
        containers=["photos"],
        alias_hosts={"img.example.com": "photos"},
        public_base_url="https://cdn.example.com",
        keys=KeyTemplate(),
    )


def test_a_redirect_of_the_source_is_not_followed() -> None:
    with (
        server() as (elsewhere, got),
        server(f"http://127.0.0.1:{elsewhere}/secret") as (port, asked),
        pytest.raises(MigrationError),
    ):
        read(port, "a.jpg")
    assert len(asked) == 1
    assert got == []


@pytest.mark.parametrize(
    "blob",
    [
        "../private/a",
        "..",
        "../../etc/passwd",
        "a/../../private/a",
        "./../private/a",
        "/../private/a",
        "..\\private\\a",
    ],
)
def test_a_name_that_leads_out_of_its_container_is_not_asked_for(blob: str) -> None:
    with server() as (port, asked):
        with pytest.raises(Permanent) as refused:
            read(port, blob)
        assert refused.value.outcome is Outcome.SOURCE_UNREADABLE
        assert asked == []


@pytest.mark.parametrize("blob", ["a/../b", "a..b", "...", "..a/b", "a/b/../../c", "%2e%2e/a", "a/.."])
def test_other_names_with_dots_are_read(blob: str) -> None:
    with server() as (port, asked):
        assert read(port, blob) == b"abc"
    assert all(path.startswith("/acct/photos/") for path in asked)
