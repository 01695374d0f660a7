"""What may be uploaded: types, sizes, for how long, and with which headers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from migration_pipeline.uploads.errors import Misconfigured, Refused

SHORTEST = timedelta(minutes=1)
"""Less than this is eaten by ordinary differences between clocks and by slow phones."""
LONGEST = timedelta(days=7)
"""AWS: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", `X-Amz-Expires`."""
LARGEST_PUT = 5 * 1024**3
"""Amazon S3 User Guide, "Uploading objects": one PUT or POST holds up to 5 GB."""

IMAGES: Mapping[str, str] = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/gif": ".gif",
}
"""Types of photos, and the ends of their names. No SVG: a browser runs scripts in it."""

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_EXTENSION = re.compile(r"(?:\.[a-z0-9]{1,10})?")
_DIGEST_BYTES = {"sha256": 32, "md5": 16}


@dataclass(frozen=True, slots=True)
class Encryption:
    """Encryption at rest that every upload must ask for; without it, the bucket does what it does by itself.

    Attributes:
        algorithm: SSE-S3 or SSE-KMS.
        kms_key_id: for SSE-KMS; the client sees it. Without it, the account's own key for S3.
    """

    algorithm: Literal["AES256", "aws:kms"]
    kms_key_id: str | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ("AES256", "aws:kms"):
            raise Misconfigured(f"encryption {self.algorithm!r} is neither AES256 nor aws:kms")
        if self.kms_key_id and self.algorithm != "aws:kms":
            raise Misconfigured("a KMS key goes with aws:kms only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client says it will upload, before it does.

    Attributes:
        size: in bytes.
        sha256: digest of the body; S3 refuses other bytes.
        md5: digest of the body; Azure refuses other bytes from a client that sends the header.
    """

    content_type: str
    size: int
    sha256: bytes | None = None
    md5: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRules:
    """What is allowed.

    Attributes:
        types: exact content type → the end of the file's name.
        max_bytes: the largest file.
        min_bytes: the smallest; 1 refuses empty ones.
        expires_in: how long an upload URL is good for.
        download_expires_in: how long a download URL is good for.
        cache_control: stored with every file. Names are never used twice, so that caches may keep them.
        encryption: of S3.
        digest_required: whether a client must say the digest beforehand: SHA-256 for S3, MD5 for Azure.
    """

    max_bytes: int
    min_bytes: int = 1
    types: Mapping[str, str] = field(default_factory=lambda: dict(IMAGES))
    expires_in: timedelta = timedelta(minutes=10)
    download_expires_in: timedelta = timedelta(hours=1)
    cache_control: str | None = None
    encryption: Encryption | None = None
    digest_required: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_bytes <= self.max_bytes <= LARGEST_PUT:
            raise Misconfigured(f"sizes from {self.min_bytes} to {self.max_bytes}: must ascend, up to {LARGEST_PUT}")
        if not self.types:
            raise Misconfigured("no content type is allowed")
        for content_type, extension in self.types.items():
            if not _TYPE.fullmatch(content_type):
                raise Misconfigured(f"{content_type!r} is no content type: lower case, without parameters")
            if not _EXTENSION.fullmatch(extension):
                raise Misconfigured(f"{extension!r} is no end of a name, as .jpg is")
        if self.cache_control is not None and not re.fullmatch(r"[ -~]+", self.cache_control):
            raise Misconfigured("cache_control must be printable ASCII")
        for name, period in (("expires_in", self.expires_in), ("download_expires_in", self.download_expires_in)):
            check_period(name, period)

    def check(self, wish: Wish, digest: Literal["sha256", "md5"]) -> None:
        """Whether a client may upload this.

        Args:
            wish: what it says.
            digest: the one that the store checks.

        Raises:
            Refused: with the reason.
        """
        self.check_type(wish.content_type)
        self.check_size(wish.size)
        for name, length in _DIGEST_BYTES.items():
            given = getattr(wish, name)
            if given is not None and len(given) != length:
                raise Refused(f"{name} must have {length} bytes")
        if self.digest_required and getattr(wish, digest) is None:
            raise Refused(f"{digest} of the file must be said beforehand")

    def check_type(self, content_type: str) -> str:
        """The end of the name for this type; raises `Refused` for types that are not allowed."""
        try:
            return self.types[content_type]
        except KeyError:
            raise Refused(f"{content_type!r} is not allowed; allowed are {', '.join(self.types)}") from None

    def check_size(self, size: int) -> None:
        """Raise `Refused` where the size is out of range."""
        if not self.min_bytes <= size <= self.max_bytes:
            raise Refused(f"{size} bytes: a file must have from {self.min_bytes} to {self.max_bytes}")


def check_period(name: str, period: timedelta) -> None:
    """Raise `Misconfigured` where a URL would be good for too short or too long."""
    if not SHORTEST <= period <= LONGEST:
        seconds, least, most = (int(each.total_seconds()) for each in (period, SHORTEST, LONGEST))
        raise Misconfigured(
            f"{name} of {seconds} s: must be from {least} s, which clocks that differ would otherwise eat up, "
            f"to {most} s, which is all that S3 allows"
        )
