"""The app's files: their names, sizes, headers and bytes, all drawn from a seed."""

import gzip
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

PHOTOS, VERIFICATIONS = "photos", "verifications"
CONTAINERS = (PHOTOS, VERIFICATIONS)

JPEG_START = bytes.fromhex("ffd8ffe000104a46494600010100000100010000")
"""SOI and the JFIF segment: enough for `file` and for browsers that look at a file's start."""

_KB = 1000
_SIZES = {
    "original": (100 * _KB, 3000 * _KB),
    "large": (60 * _KB, 150 * _KB),
    "medium": (20 * _KB, 60 * _KB),
    "small": (5 * _KB, 20 * _KB),
    "large_blurred": (60 * _KB, 150 * _KB),
    "small_blurred": (5 * _KB, 20 * _KB),
}
VERSIONS = tuple(_SIZES)
"""Every photo is stored once in each of these."""
_SELFIE = "large"  # what a verification photo is like
_MEDIAN_ORIGINAL_EXPONENT = 1.892
"""Originals spread from 100 kB to 3 MB on a log scale, most of them small: with this the median is 250 kB."""

NASTY_NAMES = (
    "two words.jpg",
    "  leading spaces.jpg",
    "a+b=c.jpg",
    "#1.jpg",
    "what?.jpg",
    "100%.jpg",
    "%46oo.jpg",  # a literal %46, which decoding twice would make an F
    "a%2Fb.jpg",  # the same with a slash: decoding twice would name another folder
    "a%252Fb.jpg",
    'say "cheese".jpg',
    "it's me.jpg",
    "\U0001f642 \U0001f469\u200d\U0001f4bb.jpg",  # emoji, one of them of three code points
    "Zo\u00eb.jpg",  # NFC
    "Zoe\u0308.jpg",  # NFD: looks the same, is another blob
    "trailing dots...",
    "[brackets] {braces} (more).jpg",
    "a&b;c,d@e:f$g!h*i~j.jpg",
    "UPPER.JPG",
    "upper.jpg",
    "\u65e5\u672c\u8a9e.jpg",
    "<angle> ^ `tick` |.jpg",
    ".hidden",
    "no-extension",
    "\u202eright to left.jpg",
)
"""Names as users' files have them.

Left out, because SeaweedFS cannot tell them from other names: empty, `.` and `..` segments, backslashes and
control characters.
"""


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of the app.

    Attributes:
        size: bytes; of a gzip-encoded file those before compression.
        seed: of its bytes; files with the same name are the same in every run with the same seed.
        stored: false for a file that the app refers to and that is not there.
        md5: which Content-MD5 the store shows: the right one, a wrong one, or none.
    """

    container: str
    name: str
    size: int
    seed: str
    content_type: str | None = "image/jpeg"
    cache_control: str | None = "public, max-age=31536000, immutable"
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    stored: bool = True
    md5: str = "right"

    def __str__(self) -> str:
        return f"{self.container}/{self.name}"

    def contents(self) -> bytes:
        """Its bytes, as they are stored."""
        plain = JPEG_START[: self.size] + self._generator().randbytes(max(0, self.size - len(JPEG_START)))
        # Without the time, which gzip would write into its header, equal files stay equal.
        return gzip.compress(plain, mtime=0) if self.content_encoding == "gzip" else plain

    def _generator(self) -> random.Random:
        return random.Random(f"{self.seed}/{self}")  # noqa: S311 - test data, not cryptography


def size_of(version: str, rng: random.Random, scale: float) -> int:
    """A believable size in bytes of one version of a photo."""
    smallest, largest = _SIZES[version]
    draw, size = rng.random(), 0.0
    if version == "original":
        size = smallest * (largest / smallest) ** (draw**_MEDIAN_ORIGINAL_EXPONENT)
    else:
        size = smallest + (largest - smallest) * draw
    # No two files may become equal by shrinking, so some random bytes stay.
    return max(len(JPEG_START) + 32, round(size * scale))


def selfie_size(rng: random.Random, scale: float) -> int:
    """A believable size in bytes of a verification photo."""
    return size_of(_SELFIE, rng, scale)
