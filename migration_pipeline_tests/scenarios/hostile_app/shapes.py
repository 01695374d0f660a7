# ruff: noqa: ARG005 - of all that is handed to them, shapes take what they need
"""Shapes of values that apps were seen to store, and what a migration may make of each. Shares no code with it.

AZ is a URL of the source up to its container's name, S3 that of the copies; `az.host` is the same without its scheme.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Places:
    """Where an app's files are, and where their copies."""

    az: str
    s3: str
    alias: str = "https://cdn.hostile.example/"

    @property
    def host(self) -> str:
        return self.az.partition("://")[2]

    @property
    def new_host(self) -> str:
        return self.s3.partition("://")[2]


@dataclass(frozen=True, slots=True)
class Shape:
    """A profile, as it is and as a run must leave it.

    Attributes:
        blobs: that it names.
        values: column → value; of columns that a run must not change.
        moved: column → value before and after.
        document: the field `photos` of its document, before and after.
        waits: why the profile waits, a part of the reason; empty where it is migrated, `None` where nothing moves.
    """

    name: str
    blobs: Sequence[str]
    values: dict[str, object] = field(default_factory=dict)
    moved: dict[str, tuple[object, object]] = field(default_factory=dict)
    document: tuple[object, object] | None = None
    waits: str | None = "not understood"


def shapes(places: Places) -> list[Shape]:
    """All of them; each names blobs that no other does."""
    return [
        _numbered(number, name, build, places)
        for number, (name, build) in enumerate([*_seen(), *_moved(), *_whole(), *_left()])
    ]


Build = Callable[[Callable[[str], str], Callable[[str], str], Places, str, str], Shape]
"""Makes a shape of AZ, S3, the places and two blobs' names."""


def _numbered(number: int, name: str, build: Build, places: Places) -> Shape:
    one, other = f"s{number:03}a.jpg", f"s{number:03}b.jpg"
    made = build(lambda blob: f"{places.az}/{blob}", lambda blob: f"{places.s3}/{blob}", places, one, other)
    text = json.dumps([made.values, made.moved, made.document], ensure_ascii=False)
    blobs = made.blobs or [blob for blob in (one, other) if blob[:5] in text]
    return Shape(name, blobs, made.values, made.moved, made.document, made.waits)


def _text(value: Callable[..., str], column: str = "cover") -> Build:
    """A value that names the source, and that a run may not touch."""
    return lambda az, s3, places, one, other: Shape("", [], {column: value(az, s3, places, one, other)})


def _seen() -> Iterator[tuple[str, Build]]:
    """What names the source, and is more, or less, than one URL."""
    sas = "?sv=2024-01-01&sr=b&sp=r&se=2040-01-01&sig=c2ln"
    for name, value in {
        "two URLs, a comma between": lambda az, _, __, a, b: f"{az(a)}{sas},{az(b)}{sas}",
        "two URLs, one a line": lambda az, _, __, a, b: f"{az(a)}\n{az(b)}",
        "two URLs, a blank between": lambda az, _, __, a, b: f"{az(a)} {az(b)}",
        "two URLs, a semicolon between": lambda az, _, __, a, b: f"{az(a)};{az(b)}",
        "srcset": lambda az, _, __, a, b: f"{az(a)}?w=1 1x, {az(b)}?w=2 2x",
        "a version, a line end and a sentence": lambda az, _, __, a, b: f"{az(a)}?v=3\nThis is me.",
        "a biography in the fragment": lambda az, _, __, a, b: f"{az(a)}#1 and my whole biography",
        "a tab and a word": lambda az, _, __, a, b: f"{az(a)}\tme",
        "a no-break space and a word": lambda az, _, __, a, b: f"{az(a)}\u00a0me",
        "HTML": lambda az, _, __, a, b: f'<img src="{az(a)}">',
        "HTML in entities": lambda az, _, __, a, b: f"&lt;img src=&quot;{az(a)}&quot;&gt;",
        "Markdown": lambda az, _, __, a, b: f"![me]({az(a)})",
        "CSS": lambda az, _, __, a, b: f"background: url({az(a)})",
        "JSON in a text": lambda az, _, __, a, b: json.dumps({"u": az(a)}),
        "JSON in a text, slashes escaped": lambda az, _, __, a, b: json.dumps({"u": az(a)}).replace("/", "\\/"),
        "JSON in a text, slashes by number": lambda az, _, __, a, b: json.dumps({"u": az(a)}).replace("/", "\\u002f"),
        "JSON in JSON in a text": lambda az, _, __, a, b: json.dumps(json.dumps({"u": az(a)})),
        "without a scheme, two slashes": lambda _, __, p, a, b: f"//{p.host}/{a}",
        "without a scheme": lambda _, __, p, a, b: f"{p.host}/{a}",
        "a byte order mark in front": lambda az, _, __, a, b: f"\ufeff{az(a)}",
        "a no-break space in front": lambda az, _, __, a, b: f"\u00a0{az(a)}",
        "a zero-width space in front": lambda az, _, __, a, b: f"\u200b{az(a)}",
        "a zero-width space at the end": lambda az, _, __, a, b: f"{az(a)}\u200b",
        "an image proxy's path": lambda az, _, __, a, b: f"https://proxy.example/fit:200/plain/{az(a)}@webp",
        "an image proxy's query": lambda az, _, __, a, b: f"https://proxy.example/?u={quote(az(a), safe='')}",
        "escaped twice": lambda az, _, __, a, b: f"https://proxy.example/?u={quote(quote(az(a), safe=''), safe='')}",
        "an S3 URL that tells where it came from": lambda az, s3, _, a, b: f"{s3('x.jpg')}?was={az(a)}",
        "a broken escape": lambda az, _, __, a, b: f"{az(a)}%zz",
        "another version of the blob": lambda az, _, __, a, b: f"{az(a)}?versionid=2024-01-01T00:00:00.0000000Z",
        "a name in the user's part": lambda _, __, p, a, b: f"http://me@{p.host}/{a}",
        "another scheme": lambda _, __, p, a, b: f"ftp://{p.host}/{a}",
        "one slash after the scheme": lambda _, __, p, a, b: f"http:/{p.host}/{a}",
        "backslashes": lambda _, __, p, a, b: f"http:\\\\{p.host.replace('/', chr(92))}\\{a}",
        "the secondary endpoint in HTML": lambda az, _, __, a, b: (
            f'<img src="{az(a).replace("devstoreaccount1", "devstoreaccount1-secondary")}">'
        ),
        "an alias in HTML": lambda _, __, p, a, b: f"<img src='{p.alias}{p.az.rpartition('/')[2]}/{a}'>",
        "an alias in full-width letters": lambda _, __, p, a, b: (
            f"\uff43dn.hostile\u3002example/{p.az.rpartition('/')[2]}/{a}"
        ),
        "an alias, each letter escaped": lambda _, __, p, a, b: (
            "//" + "".join(f"%{ord(c):02x}" for c in "cdn.hostile.example") + f"/{p.az.rpartition('/')[2]}/{a}"
        ),
        "an alias in CSS's escapes": lambda _, __, p, a, b: f"\\63 dn.hostile.example/{p.az.rpartition('/')[2]}/{a}",
        "an alias in entities": lambda _, __, p, a, b: f"&#99;dn.hostile.example/{p.az.rpartition('/')[2]}/{a}",
        "an alias in JSON's escapes": lambda _, __, p, a, b: f"\\u0063dn.hostile.example/{p.az.rpartition('/')[2]}/{a}",
    }.items():
        yield name, _text(value)
    yield "a key of jsonb", lambda az, _, __, a, b: Shape("", [], {"photos": {az(a): 1}})
    yield (
        "a key of json, and a value",
        lambda az, s3, _, a, b: Shape("", [], moved={"raw": ([[{az(a): [az(b)]}]], [[{az(a): [s3(b)]}]])}),
    )
    yield "HTML in jsonb", lambda az, _, __, a, b: Shape("", [], {"photos": {"html": f'<img src="{az(a)}">'}})
    yield "HTML in an array of texts", lambda az, _, __, a, b: Shape("", [], {"extra": ["x", f'<i src="{az(a)}">']})
    yield "a key of a document", lambda az, _, __, a, b: Shape("", [], document=({az(a): 1}, {az(a): 1}))
    yield "HTML in a document", lambda az, _, __, a, b: Shape("", [], document=([f"<{az(a)}>"], [f"<{az(a)}>"]))
    yield "in another URL in a text column", _text(lambda az, _, __, a, b: f"https://p.example/{az(a)}", "bio")
    yield (
        "a blank in a name in a text column",
        lambda az, _, __, a, b: Shape("", [f"my {a}"], {"bio": f'"{az("my " + a)}"'}),
    )
    yield "a template in a text column", _text(lambda az, _, __, a, b: f"{az(a)}{{size}}", "bio")


def _moved() -> Iterator[tuple[str, Build]]:
    """Columns of texts: the URLs move alone."""
    for name, value in {
        "HTML that moves": lambda u, h, a, b: f'<p><img src="{u(a)}" alt="é&nbsp;">\n<a href=\'{u(b)}\'>{u(a)}</a></p>',
        "Markdown that moves": lambda u, h, a, b: f'![a]({u(a)} "me"), <{u(b)}>, [{u(a)}]({u(a)}).',
        "CSS that moves": lambda u, h, a, b: f'a {{ background: url({u(a)}), url("{u(b)}") }}',
        "srcset that moves": lambda u, h, a, b: f'<img srcset="{u(a)} 1x, {u(b)} 2x">',
        "a list that moves": lambda u, h, a, b: f"{u(a)}, {u(b)};{u(a)}|{u(b)}",
        "JSON that moves": lambda u, h, a, b: json.dumps({"u": u(a), "n": 1.10}).replace("/", "\\/"),
        "JSON in JSON that moves": lambda u, h, a, b: json.dumps(json.dumps([u(a), "é"])),
        "entities that move": lambda u, h, a, b: f"&lt;img src=&quot;{u(a)}&quot;&gt;",
        "without a scheme that moves": lambda u, h, a, b: f"see //{h}/{a} and {h}/{b}.",
        "a sentence that moves": lambda u, h, a, b: f"(That is me: {u(a)}!) そして、{u(b)} です。",
    }.items():
        yield name, _moves(value)


def _moves(value: Callable[..., str]) -> Build:
    def build(az: Callable[[str], str], s3: Callable[[str], str], places: Places, one: str, other: str) -> Shape:
        before, after = (value(u, h, one, other) for u, h in ((az, places.host), (s3, places.new_host)))
        return Shape("", [], moved={"bio": (before, after)}, waits="")

    return build


def _whole() -> Iterator[tuple[str, Build]]:
    """Strings that are one URL."""
    yield (
        "white space around",
        lambda az, s3, _, a, b: Shape("", [], moved={"cover": (f" \n{az(a)}\t", f" \n{s3(a)}\t")}, waits=""),
    )
    yield (
        "a SAS",
        lambda az, s3, _, a, b: Shape(
            "", [], moved={"cover": (f"{az(a)}?sv=1&sig=c2ln", s3(a))}, waits="", values={"extra": None}
        ),
    )
    yield (
        "the secondary endpoint",
        lambda az, s3, _, a, b: Shape(
            "", [], moved={"cover": (az(a).replace("devstoreaccount1", "devstoreaccount1-secondary"), s3(a))}, waits=""
        ),
    )
    yield (
        "an alias of the whole account",
        lambda _, s3, p, a, b: Shape(
            "", [], moved={"cover": (f"{p.alias}{p.az.rpartition('/')[2]}/{a}", s3(a))}, waits=""
        ),
    )
    yield (
        "an alias of a container under a path",
        lambda _, s3, p, a, b: Shape(
            "", [], moved={"cover": (f"https://static.hostile.example/media/{a}", s3(a))}, waits=""
        ),
    )
    yield "an alias in unicode", lambda _, s3, p, a, b: Shape(
        "", [], moved={"extra": ([f"https://b\u00fccher.example/{a}", f"https://xn--bcher-kva.example/{b}"],
                                 [s3(a), s3(b)])}, waits=""
    )  # fmt: skip
    yield (
        "the container's name escaped",
        lambda az, s3, p, a, b: Shape(
            "", [], moved={"cover": (f"{p.az.replace('hostile', '%68ostile')}/{a}", s3(a))}, waits=""
        ),
    )
    yield "a document and jsonb", lambda az, s3, _, a, b: Shape(
        "", [], moved={"photos": ([{"u": az(a)}], [{"u": s3(a)}])},
        document=([az(a), {"x": az(b)}], [s3(a), {"x": s3(b)}]),
        waits="",
    )  # fmt: skip


def _left() -> Iterator[tuple[str, Build]]:
    """What stays: a question to the operator, another's URL, a name that the app makes a URL of."""
    for name, tail in {"a size": "?w=200&h=200", "a blur": "?blur=80", "a fragment": "#width=3"}.items():
        yield name, lambda az, _, __, a, b, tail=tail: Shape("", [], {"cover": az(a) + tail}, waits="query string")
    yield (
        "a SAS and a size",
        lambda az, _, __, a, b: Shape("", [], {"cover": f"{az(a)}?w=200&sv=1&sig=c2ln"}, waits="query string"),
    )
    yield (
        "another container",
        lambda _, __, p, a, b: Shape("", [], {"cover": f"{p.az.rpartition('/')[0]}/private/x.jpg"}, waits=None),
    )
    yield (
        "a host that ends like ours",
        lambda _, __, p, a, b: Shape(
            "", [], {"cover": "https://my-cdn.hostile.example.evil.example/x.jpg"}, waits=None
        ),
    )
    yield "a name without a URL", lambda _, __, p, a, b: Shape("", [], {"avatar": a}, waits="")
    yield (
        "names without a URL that move",
        lambda _, s3, p, a, b: Shape("", [], moved={"names": ([a, b], [s3(a), s3(b)])}, waits=""),
    )
