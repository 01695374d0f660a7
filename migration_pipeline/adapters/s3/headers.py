"""How files' headers, and the operator's wishes for all of them, are said to S3."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from migration_pipeline.core.errors import Permanent
from migration_pipeline.core.model import FileHeaders, Outcome

_PARAMETER = re.compile(r"""(;\s*)([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)""", re.DOTALL)
"""RFC 9110, section 5.6.6."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNESCAPED = "!#$&+-.^_`|~"
"""RFC 8187 (once 5987), section 3.2.1, `attr-char`, beside letters and digits."""


@dataclass(frozen=True, slots=True)
class StoreAs:
    """What every object gets; the bucket's own defaults where nothing is set.

    Attributes:
        storage_class: as in S3's API, `INTELLIGENT_TIERING` for example.
        encryption: `AES256` or `aws:kms`.
        kms_key_id: key or alias, for `aws:kms`.
        tags: name and value; each costs a little every month.
    """

    storage_class: str | None = None
    encryption: str | None = None
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def etag_is_md5(self) -> bool:
        """Whether objects stored so have their MD5 as ETag: Amazon S3 API Reference, "Object"."""
        return self.encryption != "aws:kms"


def for_request(headers: FileHeaders, store_as: StoreAs) -> dict[str, str]:
    """Headers of a request that creates an object, to be signed and sent as they are."""
    named = {
        "content-type": _with_parameters(headers.content_type),
        "cache-control": _plain(headers.cache_control),
        "content-disposition": _with_parameters(headers.content_disposition),
        "content-encoding": _plain(headers.content_encoding),
        "content-language": _plain(headers.content_language),
        "x-amz-storage-class": store_as.storage_class,
        "x-amz-server-side-encryption": store_as.encryption,
        "x-amz-server-side-encryption-aws-kms-key-id": store_as.kms_key_id,
        "x-amz-tagging": urlencode(store_as.tags) or None,
    }
    sent = {name: value for name, value in named.items() if value is not None}
    if headers.metadata:
        sent.update((f"x-amz-meta-{name}", value) for name, value in _metadata(headers).items())
    return sent


def for_boto3(headers: FileHeaders, store_as: StoreAs) -> dict[str, Any]:
    """Parameters of `put_object` and `create_multipart_upload`."""
    named = {
        "ContentType": _with_parameters(headers.content_type),
        "CacheControl": _plain(headers.cache_control),
        "ContentDisposition": _with_parameters(headers.content_disposition),
        "ContentEncoding": _plain(headers.content_encoding),
        "ContentLanguage": _plain(headers.content_language),
        "StorageClass": store_as.storage_class,
        "ServerSideEncryption": store_as.encryption,
        "SSEKMSKeyId": store_as.kms_key_id,
        "Tagging": urlencode(store_as.tags) or None,
    }
    return {name: value for name, value in named.items() if value is not None} | {"Metadata": _metadata(headers)}


def _metadata(headers: FileHeaders) -> dict[str, str]:
    """User metadata as S3 stores it.

    S3 lower-cases names and holds ASCII values; it shows others in RFC 2047 form (Amazon S3 User Guide,
    "User-defined object metadata"), so that is how we send them, in one line however long.
    """
    if not all(map(_TOKEN.fullmatch, headers.metadata)):
        raise Permanent(Outcome.TARGET_REFUSED, "the blob has metadata whose name is none in HTTP")
    return {
        name.lower(): value
        if _may_be_sent(value)
        else f"=?utf-8?b?{base64.b64encode(value.encode(errors='replace')).decode()}?="
        for name, value in headers.metadata.items()
    }


def _may_be_sent(value: str) -> bool:
    """Whether every store, client and signature takes a header's value as it is."""
    return value.isascii() and (value.isprintable() or not value)


def _plain(value: str | None) -> str | None:
    """A header that consists of words, with all that is not ASCII, or is a control character, percent-encoded."""
    if value is None or _may_be_sent(value):
        return value
    return "".join(c if _may_be_sent(c) else quote(c, errors="replace") for c in value)


def _with_parameters(value: str | None) -> str | None:
    """The same of one with parameters: `filename="fö"` becomes `filename="f_"; filename*=UTF-8''f%C3%B6` (RFC 6266)."""
    if value is None or _may_be_sent(value):
        return value
    names = {match[2].lower() for match in _PARAMETER.finditer(value)}

    def said(match: re.Match[str]) -> str:
        before, name, given = match.groups()
        if _may_be_sent(given) or name.endswith("*"):
            return match[0]
        text = re.sub(r"\\(.)", r"\1", given[1:-1], flags=re.DOTALL) if given.startswith('"') else given.strip()
        ascii_only = "".join(c if _may_be_sent(c) else "_" for c in text)
        quoted = re.sub(r'(["\\])', r"\\\1", ascii_only)
        fallback = f'{before}{name}="{quoted}"'
        if f"{name}*".lower() in names:
            return fallback
        return f"{fallback}; {name}*=UTF-8''{quote(text, safe=_UNESCAPED, errors='replace')}"

    return _plain(_PARAMETER.sub(said, value))
