"""Names that blobs of Azure and keys of S3 can have, and that clients, servers and URL parsers are known to break.

Everything comes from rules: characters by places, pairs that a careless client takes for one, lengths in bytes.
"""

import string
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, product
from urllib.parse import quote

MAX_KEY_BYTES = 1024
"""S3's own limit, said here again: what is tested must not be where the expectation comes from."""

_PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]
_C0 = [chr(code) for code in (*range(0x20), 0x7F)]
_C1 = [chr(code) for code in range(0x80, 0xA0)]

_INVISIBLE = {
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "zero width space": "\u200b",
    "zero width non-joiner": "\u200c",
    "zero width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "right-to-left mark": "\u200f",
    "right-to-left override": "\u202e",
    "pop directional isolate": "\u2069",
    "word joiner": "\u2060",
    "variation selector": "\ufe0f",
    "byte order mark": "\ufeff",
    "tag": "\U000e0041",
}
_SPACES = {
    "next line": "\u0085",
    "no-break space": "\u00a0",
    "ogham space": "\u1680",
    "en quad": "\u2000",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "ideographic space": "\u3000",
}
_EDGES_OF_UNICODE = {
    "first of two bytes": "\u0080",
    "last of two bytes": "\u07ff",
    "first of three bytes": "\u0800",
    "last before surrogates": "\ud7ff",
    "private use": "\ue000",
    "noncharacter in the middle": "\ufdd0",
    "replacement character": "\ufffd",
    "noncharacter fffe": "\ufffe",
    "noncharacter ffff": "\uffff",
    "first of four bytes": "\U00010000",
    "noncharacter 1fffe": "\U0001fffe",
    "plane of private use": "\U000f0000",
    "last of all": "\U0010ffff",
}
_LOOK_ALIKES = {
    "division slash": "\u2215",
    "fullwidth solidus": "\uff0f",
    "fullwidth backslash": "\uff3c",
    "one dot leader": "\u2024",
    "two dot leader": "\u2025",
    "fullwidth full stop": "\uff0e",
    "fullwidth percent": "\uff05",
    "fullwidth colon": "\uff1a",
    "fullwidth asterisk": "\uff0a",
    "fullwidth question mark": "\uff1f",
    "symbol for null": "\u2400",
    "symbol for delete": "\u2421",
    "quoting mark of file encoders": "\u201b",
}
_SCRIPTS = {
    "arabic": "صورة",
    "armenian": "նկար",
    "bengali": "ছবি",
    "chinese": "照片",
    "cyrillic": "фото",
    "devanagari": "फोटो",
    "georgian": "ფოტო",
    "greek": "φωτό",
    "hebrew": "תמונה",
    "japanese": "写真フォト",
    "korean": "사진",
    "latin": "Grüße-façade-øæå-ßſ",
    "tamil": "படம்",
    "thai": "รูปภาพ",
    "rare han": "\U00020bb7\U0002a6d6",
    "mathematical": "𝒫𝒽ℴ𝓉ℴ",
}
_EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🇺🇦", "❤️", "❤", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
_COMPOSED = ["é", "ñ", "Å", "ü", "ệ", "が", "한", "ΐ"]
_EQUAL_UNDER_SOME_FORM = [("Å", "\u212b"), ("Ω", "\u2126"), ("ﬁ", "fi"), ("²", "2"), ("Ａ", "A"), ("ſ", "s")]
_CASE_PAIRS = [("A.jpg", "a.jpg"), ("a.JPG", "A.JPG"), ("İ", "i̇"), ("ß", "ẞ"), ("Σς", "σσ"), ("K", "\u212a")]


def blob_names(container: str) -> dict[str, list[str]]:
    """All names by label, each once, in the order of the rules.

    Args:
        container: where the blobs are; its length counts in the keys, `{container}/{blob}`.
    """
    room = MAX_KEY_BYTES - len(f"{container}/".encode())
    groups = {
        "printable ASCII": _at_every_place("ascii", _PRINTABLE),
        "control characters": _at_every_place("c0", _C0),
        "control characters above ASCII": (f"c1/{ord(char):02x}-{char}-x" for char in _C1),
        "escapes": _escapes(),
        "reserved in URLs": _reserved(),
        "spaces and dots at the ends": _ends(),
        "slashes": _slashes(),
        "dot segments": _dot_segments(),
        "names beside their folders": _beside(),
        "URLs": _urls(),
        "special to servers": _special_to_servers(),
        "special to file systems": _special_to_file_systems(),
        "special to programs": _special_to_programs(),
        "invisible": _at_every_place("invisible", _INVISIBLE.values()),
        "spaces above ASCII": _at_every_place("space", _SPACES.values()),
        "edges of Unicode": _at_every_place("edge", _EDGES_OF_UNICODE.values()),
        "look-alikes": (f"alike/x{char}x" for char in _LOOK_ALIKES.values()),
        "scripts": (f"script/{text}.jpg" for text in _SCRIPTS.values()),
        "emoji": chain(_EMOJI, (f"emoji/{text}" for text in _EMOJI)),
        "forms of one text": _forms(),
        "cases": (f"case/{name}" for pair in _CASE_PAIRS for name in pair),
        "short": chain(string.ascii_letters, string.digits, ["-", "_"]),
        "long": _long(room),
        "too long": _too_long(room),
    }
    seen: set[str] = set()
    return {label: [name for name in names if not (name in seen or seen.add(name))] for label, names in groups.items()}


def _at_every_place(folder: str, characters: Iterable[str]) -> Iterator[str]:
    """Each alone, at the start, in the middle and at the end of a segment, and at the start and end of the name."""
    for char in characters:
        code = f"{ord(char):02x}"
        yield f"{folder}/{char}start-{code}"
        yield f"{folder}/mid{char}dle-{code}"
        yield f"{folder}/{code}-end{char}"
        yield f"{char}{folder}-{code}"


def _escapes() -> Iterator[str]:
    """Text that looks percent-encoded, beside what it would decode to: decoded twice, two names become one."""
    for code in (0x00, 0x0A, 0x20, 0x23, 0x25, 0x26, 0x2B, 0x2E, 0x2F, 0x3A, 0x3F, 0x40, 0x46, 0x5C, 0x7E, 0x7F):
        for escape in (f"%{code:02X}", f"%{code:02x}", f"%25{code:02X}", f"%2525{code:02X}"):
            yield f"escape/a{escape}b"
        if code >= 0x20:
            yield f"escape/a{chr(code)}b"
    yield from (
        f"escape/{text}" for text in ("%", "%%", "%4", "%zz", "100%", "50% off", "%u00e9", "%C3%A9", "%E9", "é")
    )
    yield from (f"escape/{text}" for text in ("%C3", "%FF", "%ED%A0%80", "%C0%AF", "%2e%2e%2fup", "..%2Fup", "%2F"))
    yield from ("%2Fescape", "%2E%2E", "%2e", "%", "%25", "escape%2F", "escape%20", "escape%00")
    yield from (f"escape/{text}" for text in ("&amp;", "&#x2F;", "\\u0041", "\\x41", "=?utf-8?q?a?=", "+AGE-"))


def _reserved() -> Iterator[str]:
    """Every pair of characters that mean something in a URL, and the readings of a blank."""
    for one, two in product("?#&=;:@+,$!*'()[]/", repeat=2):
        if one != two and "/" not in (one, two):
            continue
        yield f"reserved/a{one}{two}b"
    yield from (f"reserved/a{blank}b c" for blank in (" ", "+", "%20", "%2B", "_", "  ", " +"))
    yield from (f"reserved/a{query}" for query in ("?x=1&y=2", "?", "#", "?#", "#?", "#fragment", ";v=1", "?sig=x%3D"))


def _ends() -> Iterator[str]:
    for end in (".", "..", "...", " ", "  ", ". ", " .", "~", "\u00a0", "-", ".jpg."):
        yield f"ends/name{end}"
        yield f"ends/{end}name"
        yield f"ends/folder{end}/name"
        yield f"ends/{end}folder/name"
        yield f"{end}ends"
        yield f"ends-{len(end)}{end}"
    yield from (" ", "  ", "...", "....", ". .", "ends/ ", "ends/ /x", "ends/...", "ends/.../x")


def _slashes() -> Iterator[str]:
    for count in (1, 2, 3):
        slashes = "/" * count
        yield f"{slashes}slash-{count}"
        yield f"slash-{count}{slashes}"
        yield f"{slashes}slash-{count}{slashes}"
        yield f"slash-in-{count}{slashes}x"
        yield slashes
    yield from ("slash//a//b", "slash/a/b", "slash\\a\\b", "\\slash", "slash\\", "\\", "\\\\", "\\\\host\\share")


def _dot_segments() -> Iterator[str]:
    for dots in (".", ".."):
        yield dots
        yield f"{dots}/dots"
        yield f"/{dots}/dots"
        yield f"dots/{dots}"
        yield f"dots/{dots}/"
        yield f"dots/a/{dots}/b"
        yield f"dots/{dots}/{dots}/c"
        yield f"dots//{dots}//d"
    yield from ("../../../../etc/passwd", "dots\\..\\e", "dots/.hidden", "dots/..hidden", "dots/a..b", "dots/..;/f")


def _beside() -> Iterator[str]:
    """Keys are flat: a name may be another's folder, and a folder's name may stand for itself."""
    yield from ("x", "x/y", "x/y/z", "x.jpg", "x.jpg/x.jpg", "beside/", "beside/a", "beside/a/", "beside/a/b")
    yield from ("folder_$folder$", "folder/_$folder$", "folder/.keep", "folder/.")


def _urls() -> Iterator[str]:
    yield from (f"{scheme}://example.com/a.jpg" for scheme in ("http", "https", "ftp", "s3", "wasbs", "HTTPS"))
    yield from ("//example.com/a.jpg", "http:/a", "http:", "data:,a", "file:///etc/passwd", "javascript:alert(1)")
    yield from ("user:pass@example.com/a", "mailto:a@example.com", "urls/http://a?b#c", "https%3A%2F%2Fexample.com")
    yield quote("urls/https://example.com/ä b", safe="")


def _special_to_servers() -> Iterator[str]:
    yield from (
        "$root",
        "$root/a",
        "$web",
        "$web/index.html",
        "$logs",
        "index.html",
        "folder/index.html",
        "favicon.ico",
    )
    yield from ("robots.txt", "soap", "admin", "_admin", ".well-known/acme", "crossdomain.xml", "health", "healthz")
    yield from (
        f"server{query}" for query in ("?acl", "?uploads", "?versionId=null", "?comp=list", "?restype=container")
    )
    yield from (
        f"server{query}" for query in ("?snapshot=2020-01-01T00:00:00Z", "?delete", "?list-type=2", "?partNumber=1")
    )
    yield from (".uploads/a", "uploads/.uploads/a", ".versions", "a.versions/b", ".system/a", ".minio.sys/a", "xl.meta")
    yield from ("__azurite_db", "__blobstorage__", "_multipart_x", "bucket.index", "_/leading", "null", "undefined")


def _special_to_file_systems() -> Iterator[str]:
    for device in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "CLOCK$"):
        yield device
        yield f"{device.lower()}.jpg"
        yield f"device/{device}/a"
    yield from ("C:\\a.jpg", "C:/a.jpg", "a.jpg:stream", "a.jpg::$DATA", "~", "~root/a", "~$a.docx", ".~lock.a#")
    yield from (
        ".DS_Store",
        "._a.jpg",
        "Thumbs.db",
        "desktop.ini",
        ".git/config",
        ".htaccess",
        "lost+found",
        ".nfs0001",
    )
    yield from ("a.tmp", "a.part", "a.azDownload", "name.lnk", "PROGRA~1", "-rf", "--help", "-")


def _special_to_programs() -> Iterator[str]:
    yield from ("{container}", "{blob}", "{container}/{blob}", "{}", "{0}", "{{}}", "${HOME}", "$HOME", "$(id)", "`id`")
    yield from (
        "%s",
        "%n%n",
        "%(name)s",
        "'; DROP TABLE files; --",
        '"quoted"',
        "'quoted'",
        "<b>&lt;</b>",
        "]]>",
        "<!--",
    )
    yield from ("a|b", "a;b", "a&&b", "a>b", "a<b", "*", "?", "*.jpg", "[a-z]", "!a", "^a", "a\\", "a\\nb", "#", "##")
    yield from ("0", "-1", "1e9", "NaN", "true", "None", "1.0", "0x10", "2024-01-01T00:00:00Z", "a,b", "a\tb", "a=b")
    yield from ("\r\nX-Injected: 1", "a\r\nb", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))


def _forms() -> Iterator[str]:
    """Composed and decomposed side by side: normalised, two names become one."""
    for text in _COMPOSED:
        yield from (f"form/{unicodedata.normalize(form, text)}" for form in ("NFC", "NFD"))
    yield from (f"form/{text}" for pair in _EQUAL_UNDER_SOME_FORM for text in pair)
    # Marks in an order that normalisation would change, and a mark with nothing to stand on.
    yield from ("form/a\u0323\u0307", "form/a\u0307\u0323", "form/\u0301", "\u0301form", "form/" + "a" + "\u0301" * 40)


def _long(room: int) -> Iterator[str]:
    """Around the limits of file systems for one segment, and up to S3's for the key."""
    yield from ("s" * length for length in (100, 254, 255, 256, 257, 512, room - 1, room))
    yield from ("long/" + "é" * count for count in (127, 128, 200))
    yield from ("long/" + "字" * count for count in (85, 86, 200))
    yield _filled("d/", room)
    yield _filled("a/" * 100 + "x" * 50 + "/", room)
    for char in ("é", "字", "😀", "%", " ", "/x", "e\u0301", "%2F"):
        yield _filled(char, room)
        yield _filled(char, room - 1)


def _too_long(room: int) -> Iterator[str]:
    yield "t" * (room + 1)
    yield "t" * (room + 2)
    yield "t" * MAX_KEY_BYTES
    for char in ("é", "字", "😀"):
        yield _filled(char, room - 1) + char
        yield char * (MAX_KEY_BYTES // len(char.encode("utf-16-le")) * 2 // 2)


def _filled(unit: str, length: int) -> str:
    """`unit` over and over, after as many plain letters as it takes to have exactly so many bytes."""
    count, rest = divmod(length, len(unit.encode()))
    return "f" * rest + unit * count
