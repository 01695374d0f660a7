"""Requests as a client would send them, byte for byte: nothing is added, followed or tried again."""

import http.client
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

BOUNDARY = "----------sixteen-dashes-and-more"


class Answer(NamedTuple):
    status: int
    body: str
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The error's code in an XML document."""
        return self.body.partition("<Code>")[2].partition("</Code>")[0]


def send(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    """One request."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        return Answer(answer.status, text, {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


def post_form(url: str, fields: Mapping[str, str], body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """One HTML form with a file."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="me.jpg"\r\n'
    parts += [head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + body + b"\r\n", f"--{BOUNDARY}--\r\n".encode()]
    whole = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **(headers or {})}
    return send("POST", url, whole, b"".join(parts))
