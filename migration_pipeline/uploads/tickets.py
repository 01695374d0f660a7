"""What a client gets to upload with, and what is known of an upload afterwards.

URLs and form fields carry signatures: whoever has them may upload. So they are left out of `repr`, and logs with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PutTicket:
    """One upload by PUT.

    Attributes:
        store: `s3` or `azure`.
        key: the object's or blob's name.
        reference: its URL, which the app stores once the upload is confirmed.
        url: where to PUT.
        headers: to be sent exactly so. Content-Length is not among them: every client sends it by itself.
        size: what Content-Length has to be.
        expires_at: after this the store refuses to begin.
    """

    store: str
    key: str
    reference: str
    url: str = field(repr=False)
    headers: Mapping[str, str]
    size: int
    expires_at: datetime
    method: str = "PUT"

    def as_json(self) -> dict[str, Any]:
        """For the client, and for nobody else."""
        return {
            "store": self.store,
            "method": self.method,
            "url": self.url,
            "headers": dict(self.headers),
            "reference": self.reference,
            "expires_at": self.expires_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FormTicket:
    """One upload by an HTML form.

    Attributes:
        url: where to POST, as `multipart/form-data`.
        fields: to be sent exactly so, before the field `file`.
        max_bytes: the store refuses more.
    """

    store: str
    key: str
    reference: str
    url: str
    fields: Mapping[str, str] = field(repr=False)
    max_bytes: int
    expires_at: datetime
    method: str = "POST"

    def as_json(self) -> dict[str, Any]:
        """For the client, and for nobody else."""
        return {
            "store": self.store,
            "method": self.method,
            "url": self.url,
            "fields": dict(self.fields),
            "reference": self.reference,
            "expires_at": self.expires_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store says of an object."""

    size: int
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """An upload that is there and is what was allowed: its reference may be stored."""

    store: str
    key: str
    reference: str
    size: int
    content_type: str
    etag: str
