"""What kind of file it is, by its first bytes: the kinds that apps of users' photos hold."""

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypheix", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftypisom", "video/mp4"),
    (4, b"ftypmp42", "video/mp4"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
)
"""Offset, bytes, type; as in WHATWG's "MIME Sniffing", and ISO 14496-12's brands for the `ftyp` ones."""


def guess(body: bytes) -> str | None:
    """The type that the first bytes say, `None` where they say none that we know."""
    for offset, signature, content_type in _SIGNATURES:
        if body.startswith(signature, offset):
            return content_type
    return None
