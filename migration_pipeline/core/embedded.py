"""URLs inside texts: HTML, Markdown, CSS, srcset, JSON in a text, plain sentences.

A URL is found by its host. Where it begins and ends is said by what stands around it; where that leaves a doubt, it is
no occurrence, and whoever asked sees that the text names a host all the same. Entities and the escapes of JSON, also
within each other, are undone for the look, and kept for the rest.
"""

import html
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from migration_pipeline.core.seeing import Seeing

_ESCAPE = re.compile(
    r"(?<!\\)\\++(?:u([0-9A-Fa-f]{4})|([/\"'ntr]))|&(?:amp;)*(?:#[xX]?[0-9A-Fa-f]+|[A-Za-z]+);", re.DOTALL
)
_HALVES = (0xD800, 0xDFFF)  # of characters that JSON escapes in two parts
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}
_SCHEME = re.compile(r"(?:(https?):)?//$", re.IGNORECASE)
_LOOKED_BACK = 2000
_UNSEEN = "\u00ad\u200b\u2060\ufeff"
_BLANK = re.compile(rf"[\s\x00-\x1f\x7f{_UNSEEN}]")
_ENDS = re.compile(rf"[\s\x00-\x1f\x7f{_UNSEEN}\"<>`\\^{{}}|]")
"""None of these is in a URL: RFC 3986, appendix C, and what browsers escape."""
_UNSURE = "\\{^"
"""Where one of these stands, what follows may belong to a name: an escape that is not known, a template."""
_RUN_ENDS = re.compile(rf"[\s\x00-\x1f\x7f{_UNSEEN}\"'<>()\[\]{{}}`,;|\u201c\u2018\u00ab\u300c\uff08]")
_IN_ANOTHER = re.compile(r"[/?&%@#\\]|[A-Za-z0-9+.-]$")
_NEXT = re.compile(r"[,;|'](?=[ ]*(?:https?:|//|$))", re.IGNORECASE)
_NEXT_BLANK = re.compile(r"[,;|](?=\s|$)")
_DESCRIPTOR = re.compile(r"\s+(?:\d+(?:\.\d+)?[wxh]\s*)?(?:,|$)")
"""HTML Standard, srcset attributes: a URL, a width or density, a comma."""
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u00ab": "\u00bb", "<": ">"}
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_PUNCTUATION = ".,;:!?'\u2026\u3001\u3002\uff0c\uff0e\uff01\uff1f\uff1b\uff1a\u201d\u2019\u300d\u300f\uff09"
_EMPHASIS = "*_~"
_FULL_STOPS = re.compile("[\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a\u201d\u300d\u300f\uff09]")
_SLASH = re.compile(r"(?<!\\)\\++(?:/|u002[fF])|&(?:amp;)*(?:#0*47|#[xX]0*2[fF]|sol);")
_AMPERSAND = re.compile(r"(?<!\\)\\++u0026|&(?:amp;)+(?!#|[A-Za-z]+;)|&#0*38;|&#[xX]0*26;")


class Occurrence(NamedTuple):
    """A URL in a text.

    Attributes:
        start, end: where it stands, escapes and all.
        written: as it is written, without escapes: `https://host/path`, `//host/path` or `host/path`.
        url: the same with a scheme.
    """

    start: int
    end: int
    written: str
    url: str


def occurrences(text: str, seeing: Seeing) -> Iterator[Occurrence]:
    """Every URL of the places that begins and ends for sure, in order; none is part of another."""
    view, offsets = _view(text)
    after = 0
    for match in sorted(
        (found for _, pattern in seeing.patterns for found in pattern.finditer(view)),
        key=lambda found: (found.start(), -found.end()),
    ):
        if match.start() < after:
            continue
        scheme, start = _beginning(view, match.start())
        end = None if start is None or start < after else _end(view, start, match.end())
        if start is None or end is None:
            continue
        written = view[start:end]
        url = written if scheme else f"https://{written.removeprefix('//')}"
        yield Occurrence(offsets[start], offsets[end], written, url)
        after = end


def written_like(raw: str, written: str, new: str) -> str:
    """A URL in the form and the escapes of the one that it replaces.

    Args:
        raw: that one, as it stands in the text.
        written: the same without escapes.
        new: an absolute URL.
    """
    if not re.match(r"https?:", written, re.IGNORECASE):
        new = new.partition(":")[2]
        new = new if written.startswith("//") else new.removeprefix("//")
    ampersand, slash = _AMPERSAND.search(raw), _SLASH.search(raw)
    if ampersand is not None:
        new = new.replace("&", ampersand[0])
    return new.replace("/", slash[0]) if slash is not None else new


def surely_ended(url: str) -> str:
    """The URL with its last character escaped, where that may be taken for the end of a sentence or of an emphasis."""
    return f"{url[:-1]}%{ord(url[-1]):02X}" if url.endswith((".", "_", "~")) else url


def unescaped(raw: str) -> str:
    """A part of a text without its escapes."""
    return _view(raw)[0]


def _view(text: str) -> tuple[str, Sequence[int]]:
    """The text without escapes, and where each character of it begins; and the end."""
    if "\\" not in text and "&" not in text:
        return text, range(len(text) + 1)
    pieces, offsets, end = list[str](), list[int](), 0
    for match in _ESCAPE.finditer(text):
        meant = _meant(match)
        if len(meant) != 1:
            continue
        pieces += [text[end : match.start()], meant]
        offsets += [*range(end, match.start()), match.start()]
        end = match.end()
    pieces.append(text[end:])
    return "".join(pieces), [*offsets, *range(end, len(text) + 1)]


def _meant(match: re.Match[str]) -> str:
    if match[0].startswith("\\"):
        code = int(match[1], 16) if match[1] else None
        if code is None:
            return _LETTERS.get(match[2], match[2])
        return "" if _HALVES[0] <= code <= _HALVES[1] else chr(code)
    # An ampersand may be escaped any number of times; what is meant is the last name.
    return html.unescape("&" + match[0][1:].rpartition("amp;")[2])


def _beginning(view: str, host: int) -> tuple[bool, int | None]:
    """Whether a URL whose host stands there has a scheme, and where it begins; `None` where that is not sure."""
    found = _SCHEME.search(view[max(0, host - 8) : host])
    start = host - len(found[0]) if found else host
    scheme = bool(found and found[1])
    before = view[max(0, start - _LOOKED_BACK) : start]
    another = _IN_ANOTHER.search(_RUN_ENDS.split(before)[-1]) or (found and not scheme and before.endswith(":"))
    return scheme, None if another else start


def _end(view: str, start: int, host_end: int) -> int | None:
    """Where a URL ends whose host ends at `host_end`; `None` where that is not sure."""
    opened = view[start - 1] if start else ""
    closed = view.find(_QUOTES[opened], host_end) if opened in _QUOTES else -1
    if closed >= 0 and not _quoted_over(view, host_end, closed, opened):
        return _end_in_quotes(view, start, closed)
    stop = _ENDS.search(view, host_end)
    end = stop.start() if stop else len(view)
    if stop and stop[0] in _UNSURE:
        return None
    for sign in (_NEXT, _NEXT_BLANK, _FULL_STOPS):
        found = sign.search(view, host_end, end + 1 if sign is _NEXT_BLANK else end)
        end = found.start() if found else end
    # Where a parenthesis was opened before the URL, or none at all, it is closed after it: CommonMark, links.
    for closer, opener in _CLOSERS.items():
        depth = 0
        for place in range(host_end, end):
            depth += (view[place] == opener) - (view[place] == closer)
            if depth < 0:
                end = place
                break
    while end > host_end and (view[end - 1] in _PUNCTUATION or (view[end - 1] == opened and opened in _EMPHASIS)):
        end -= 1
    candidate = view[start:end]
    if "'" in candidate or not candidate.isascii() or candidate.count("://") > 1:
        return None
    return end


def _quoted_over(view: str, host_end: int, closed: int, opened: str) -> bool:
    """Whether what looks like the closing mark is one of another pair: a line end stands before it."""
    return opened != "<" and ("\n" in view[host_end:closed] or "\r" in view[host_end:closed])


def _end_in_quotes(view: str, start: int, closed: int) -> int | None:
    content = view[start:closed]
    comma = _NEXT.search(content)
    first = content[: comma.start()] if comma else content
    blank = _BLANK.search(first)
    if blank is not None:
        # A list of URLs with descriptors; anything else may be a name with a blank, or a sentence.
        rest = _DESCRIPTOR.match(content, blank.start())
        if rest is None:
            return None
        first = first[: blank.start()].rstrip(",")
    if first.count("://") > 1 or _ENDS.search(first):
        return None
    return start + len(first)
