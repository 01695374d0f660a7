"""How files' headers, and the operator's wishes for all of them, are said to S3."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.header import Header
from typing import Any
from urllib.parse import urlencode

from migration_pipeline.core.model import FileHeaders


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
        "content-type": headers.content_type,
        "cache-control": headers.cache_control,
        "content-disposition": headers.content_disposition,
        "content-encoding": headers.content_encoding,
        "content-language": headers.content_language,
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
        "ContentType": headers.content_type,
        "CacheControl": headers.cache_control,
        "ContentDisposition": headers.content_disposition,
        "ContentEncoding": headers.content_encoding,
        "ContentLanguage": headers.content_language,
        "StorageClass": store_as.storage_class,
        "ServerSideEncryption": store_as.encryption,
        "SSEKMSKeyId": store_as.kms_key_id,
        "Tagging": urlencode(store_as.tags) or None,
    }
    return {name: value for name, value in named.items() if value is not None} | {"Metadata": _metadata(headers)}


def _metadata(headers: FileHeaders) -> dict[str, str]:
    """User metadata as S3 stores it.

    S3 lower-cases names and holds ASCII values; it shows others in RFC 2047 form (Amazon S3 User Guide,
    "User-defined object metadata"), so that is how we send them.
    """
    return {
        name.lower(): value if value.isascii() else Header(value, "utf-8", maxlinelen=10_000).encode()
        for name, value in headers.metadata.items()
    }
