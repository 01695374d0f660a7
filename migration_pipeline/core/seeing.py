"""Whether a text names a store, however it is spelled: a look at raw text that decides nothing and rewrites nothing.

What guards (the flag, sweeps, audits, erasing, removing from the source) asks this, and never the recogniser that
rewrites: a URL that is not understood is still a URL that a client may follow. It errs on the side of seeing.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from migration_pipeline.core.model import SourceFile

_PLAIN = re.compile(r"[a-z0-9._-]+")
"""Of a host, what stands for itself in a URL: the colon before a port may be escaped."""
_ROUNDS = 6
"""Escapes within escapes that are undone; JSON in JSON in a proxy's query string has three."""
_HIDING = re.compile(r"[%\\&]|[^\x20-\x7e]")
"""What a text must hold for a host to be spelled otherwise than by its letters."""
_BACKSLASHED = re.compile(r"\\+(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_CSS = re.compile(r"\\([0-9A-Fa-f]{1,6})[ \t\n]?")
_BY_LETTER = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_UNSEEN = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
# UTS 46 maps these: ideographic and half-width full stops separate labels, and full-width ASCII is ASCII.
_FOLDED = str.maketrans({
    **dict.fromkeys(_UNSEEN, ""),
    **dict.fromkeys("\u3002\uff61", "."),
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
})  # fmt: skip

_UNRESERVED_HEX = "(2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])"
HIDDEN = "|".join((
    rf"%(25)*{_UNRESERVED_HEX}", "%25", "%5c", "%26(#|[a-z]+;)",
    rf"\\u00{_UNRESERVED_HEX}", r"\\u00(25|5c)", r"\\u0026(#|[a-z]+;)", rf"\\x{_UNRESERVED_HEX}",
    rf"\\0{{0,4}}{_UNRESERVED_HEX}", r"\\u(00ad|200[bcd]|2060|feff|3002|ff[0-9a-f]{2})",
    "&#", "&(period|hyphen|dash|lowbar|colon|percnt|bsol|shy|zwj|zwnj|amp);",
    "[\u00ad\u200b-\u200d\u2060\u3002\ufeff\uff01-\uff61]",
))  # fmt: skip
"""A regular expression, in Postgres's dialect and without case: what text must match that spells a name of unreserved
characters otherwise than by these. Whoever searches a database for a name looks for this beside it."""
_HIDDEN = re.compile(HIDDEN, re.IGNORECASE)


class Place(NamedTuple):
    """Where URLs of a store begin.

    Attributes:
        host: in lower case, a port that is not the scheme's with it; unicode labels in their ASCII form.
        path: before the names, without a slash at its end.
        container: that it serves; `None` where the first segment of what follows names it.
        is_target: it is the target, and what follows is a key.
    """

    host: str
    path: str = ""
    container: str | None = None
    is_target: bool = False


class Seeing:
    """Looks for some places in texts."""

    def __init__(self, places: Iterable[Place]) -> None:
        """Set up for these."""
        self.places = sorted(set(places), key=lambda place: (-len(place.path), place.host))
        self.hosts = sorted({form for place in self.places for form in _forms(place.host)})
        """Every spelling of the places' hosts in plain text, in lower case."""
        self.needles = sorted({max(_PLAIN.findall(host), key=len, default="") for host in self.hosts})
        """A part of each host: a text that names one holds one of these in some case, or something `HIDDEN`."""
        self.patterns = [(place, _pattern(place)) for place in self.places]
        self._beginnings = sorted({re.match(r"[^.-]*", host)[0] for host in self.hosts})  # type: ignore[index] # matches always
        self._in_unicode = not all(host.isascii() for host in self.hosts)

    def sees(self, text: str) -> bool:
        """Whether the text names one of the places."""
        there = self._holds(text)
        if there and self._matches(text):
            return True
        if not _HIDING.search(text):
            return False
        # A host that stands there may have an escape before it; one that does not must be escaped itself.
        hidden = there or self._in_unicode or _HIDDEN.search(text)
        return bool(hidden) and any(self._holds(each) and self._matches(each) for each in _decoded(text))

    def named(self, text: str) -> Iterator[tuple[Place, str]]:
        """Each place that the text names, with what follows it there, in each way to undo escapes."""
        if not self.sees(text):
            return
        spellings = [text, *_decoded(text), *_each_alone(text)] if _HIDING.search(text) else [text]
        for spelling in dict.fromkeys(spellings):
            for place, pattern in self.patterns:
                for match in pattern.finditer(spelling):
                    yield place, spelling[match.end() :]

    def first(self, text: str) -> str:
        """What the first place that the text names reads like, without query string: fit for logs."""
        for spelling in (text, *_decoded(text)):
            for _, pattern in self.patterns:
                match = pattern.search(spelling)
                if match is not None:
                    return match[0] + re.match(r"[A-Za-z0-9._~/%+-]{0,200}", spelling[match.end() :])[0]  # type: ignore[index] # matches always
        return ""

    def _holds(self, text: str) -> bool:
        """Whether one of the hosts is a part of the text; made of loops, for every string of every value comes by."""
        lowered = text.lower()
        for beginning in self._beginnings:
            if beginning in lowered:
                break
        else:
            return False
        return any(needle in lowered for needle in self.needles)

    def _matches(self, text: str) -> bool:
        return any(pattern.search(text) for _, pattern in self.patterns)


class Names:
    """Finds which of some files a text may name, by prefixes of what follows a place: where a URL ends nobody knows."""

    def __init__(self, files: Collection[SourceFile], key_of: Callable[[SourceFile], str]) -> None:
        self._files = frozenset(files)
        self._keys = {key_of(file): file for file in files}
        self._key_lengths = sorted({len(key) for key in self._keys})
        self._lengths: dict[str, list[int]] = {}
        for container in {file.container for file in files}:
            self._lengths[container] = sorted({len(file.blob) for file in files if file.container == container})

    def __contains__(self, file: SourceFile) -> bool:
        return file in self._files

    def at(self, place: Place, rest: str) -> Iterator[SourceFile]:
        """Files that may be meant by what follows a place."""
        rest = rest.lstrip("/\\") if not place.is_target else rest
        if place.is_target:
            rest = rest.removeprefix("/")
            yield from (self._keys[rest[:n]] for n in self._key_lengths if n <= len(rest) and rest[:n] in self._keys)
            return
        if place.container is not None:
            yield from self._in(place.container, rest)
            return
        for container in self._lengths:
            if rest.lower().startswith(container) and rest[len(container) : len(container) + 1] in ("/", "\\"):
                yield from self._in(container, rest[len(container) + 1 :])
            # The root container's, and others' where the container is named before the host (abfss://photos@host/…).
            yield from self._in(container, rest)

    def _in(self, container: str, rest: str) -> Iterator[SourceFile]:
        for length in self._lengths.get(container, ()):
            file = SourceFile(container, rest[:length])
            if length <= len(rest) and file in self._files:
                yield file


def account_places(host: str, path: str) -> list[Place]:
    """Every endpoint of a storage account that serves the same blobs.

    Microsoft Learn, "Storage account overview" (endpoints), "Azure storage redundancy" (secondary endpoints),
    "Network routing preference" (route-specific endpoints), "Introduction to Azure Data Lake Storage" (dfs).
    """
    if path:  # emulators have the account in the path, and the secondary beside it
        return [Place(host, path), Place(host, f"{path}-secondary")]
    found = re.fullmatch(r"([a-z0-9]{3,24})((?:\.z\d\d)?)\.(?:blob|dfs)\.(.+)", host)
    if found is None:
        return [Place(host)]
    name, zone, rest = found.groups()
    routes = ("", "-secondary", "-microsoftrouting", "-internetrouting")
    services = ("blob", "dfs", "privatelink.blob", "privatelink.dfs")
    return [Place(f"{name}{route}{zone}.{service}.{rest}") for route in routes for service in services]


def ascii_host(host: str) -> str:
    """A host with its unicode labels in their ASCII form (RFC 3492), as it is compared; in lower case."""
    if host.isascii():
        return host.lower()
    folded = unicodedata.normalize("NFC", host.translate(_FOLDED).lower())
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in folded.split(".")
    )


def _forms(host: str) -> list[str]:
    """A host in ASCII, and as people write it."""
    labels = [
        label.removeprefix("xn--").encode().decode("punycode") if label.startswith("xn--") else label
        for label in host.split(".")
    ]
    return [host] if labels == host.split(".") else [host, ".".join(labels)]


def _pattern(place: Place) -> re.Pattern[str]:
    """The host, not as a part of another; then the path before the names, with any number of slashes between."""
    names = "|".join(re.escape(form) for form in _forms(place.host))
    port = r"(?!:\d)" if re.search(r":\d+$", place.host) else r"\.?(?::(?:80|443))?(?!:\d)"
    path = "".join(rf"[/\\]+{re.escape(part)}" for part in place.path.split("/") if part)
    return re.compile(
        rf"(?<![a-z0-9])(?<![a-z0-9][.-])(?:{names}){port}(?![a-z0-9@-])(?!\.[a-z0-9]){path}(?![a-z0-9_-])",
        re.IGNORECASE,
    )


def _decoded(text: str) -> list[str]:
    """What a text becomes as its escapes are undone, one kind after the other, again and again."""
    found = _chain(text)
    # In CSS, digits may follow a backslash, which mean something else in JSON.
    by_css = _css(text)
    return found if by_css == text else [*found, by_css, *_chain(by_css)]


def _chain(text: str) -> list[str]:
    found, now = [], text
    for _ in range(_ROUNDS):
        before = now
        for decode in _DECODERS:
            then = decode(now)
            if then != now:
                found.append(then)
                now = then
        if now == before:
            break
    return found


def _each_alone(text: str) -> list[str]:
    """What a text becomes as one kind of escapes is undone alone, as often as there is one: names may hold others."""
    found = []
    for decode in _DECODERS:
        now = text
        for _ in range(_ROUNDS):
            then = decode(now)
            if then == now:
                break
            found.append(then)
            now = then
    return found


def _percent(text: str) -> str:
    return unquote(text, errors="replace") if "%" in text else text


def _backslashes(text: str) -> str:
    def meant(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else _BY_LETTER.get(match[3], match[3])

    if "\\" not in text:
        return text
    # Two escapes may make one character of JSON.
    return _BACKSLASHED.sub(meant, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _css(text: str) -> str:
    def meant(match: re.Match[str]) -> str:
        code = int(match[1], 16)
        return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"  # noqa: PLR2004 - Unicode's

    return _CSS.sub(meant, text) if "\\" in text else text


def _entities(text: str) -> str:
    return html.unescape(text) if "&" in text else text


def _folded(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_FOLDED))


_DECODERS: Sequence[Callable[[str], str]] = (_percent, _backslashes, _entities, _folded)
