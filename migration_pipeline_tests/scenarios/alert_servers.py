"""Where alerts arrive in tests: a webhook and a mail server, which can be away."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from migration_pipeline.sandbox.processes import free_ports

SECRET = "t0ken"
"""In the path of the webhook, as its secret is."""


class Webhook:
    """Takes JSON, or answers `status` if that is none of success; `close` and `open` take it off its port and back."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.port = free_ports(1)[0]
        self.url = f"json://user:{SECRET}@127.0.0.1:{self.port}/{SECRET}"
        self.open()

    def open(self) -> None:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if webhook.status == 200:
                    webhook.got.append(json.loads(body))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class names it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def titles(self) -> list[str]:
        """Of what came since this was last asked."""
        got, self.got = self.got, []
        return [item["title"] for item in got]


class Mailbox:
    """Takes mail."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=free_ports(1)[0])
        self._controller.start()
        self.url = (
            f"mailto://127.0.0.1:{self._controller.port}?smtp=127.0.0.1&mode=insecure"
            "&from=migration@example.com&to=operators@example.com"
        )

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802, ARG002 - the server's form
        self.got.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def close(self) -> None:
        self._controller.stop()

    def titles(self) -> list[str]:
        """Of what came since this was last asked."""
        got, self.got = self.got, []
        return [str(mail["Subject"]) for mail in got]


@contextmanager
def servers() -> Iterator[tuple[Webhook, Mailbox]]:
    """Both, for as long as the block runs."""
    webhook, mailbox = Webhook(), Mailbox()
    try:
        yield webhook, mailbox
    finally:
        webhook.close()
        mailbox.close()
