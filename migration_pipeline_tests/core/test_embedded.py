"""URLs in texts: found where they begin and end for sure, re-pointed alone, and brought back to the byte."""

import json
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from migration_pipeline.core.discover import Needs
from migration_pipeline.core.model import KnownFile, Outcome, Spelling
from migration_pipeline.core.queries import Query
from migration_pipeline.core.reading import read, references
from migration_pipeline.core.rewrite import moved
from migration_pipeline.core.spellings import edits_back
from migration_pipeline.core.texts import Form, Text
from migration_pipeline.core.urls import KeyTemplate, UrlKind, UrlRules
from migration_pipeline.core.values import edited, replace_in_json, texts_in_json

ACCOUNT = "https://acct.blob.core.windows.net"
HOST = "acct.blob.core.windows.net"
NEW = "https://cdn.example.com/files/photos"
EMBEDDED = Form(embedded=True)


def rules(query: Query = Query.KEEP) -> UrlRules:
    return UrlRules(
        account_url=ACCOUNT,
        containers=["photos"],
        alias_hosts={"img.example.com": "photos"},
        public_base_url="https://cdn.example.com/files",
        keys=KeyTemplate(),
        query=query,
    )


def rewritten(text: str, urls: UrlRules) -> str:
    """With every file copied that the text refers to."""
    value = Text(text, "t", EMBEDDED)
    known = {ref.file: KnownFile(Outcome.COPIED, waived=False) for ref in references([value], urls) if ref.file}
    (edits,) = moved(known, urls)([value])
    return edited(text, edits)


A, B = f"{ACCOUNT}/photos/a.jpg", f"{ACCOUNT}/photos/b%20c.jpg"
A_NEW, B_NEW = f"{NEW}/a.jpg", f"{NEW}/b%20c.jpg"


@pytest.mark.parametrize(
    ("text", "new"),
    [
        (f'<img src="{A}">', f'<img src="{A_NEW}">'),
        (f"<img src='{A}' alt=x>", f"<img src='{A_NEW}' alt=x>"),
        (f"<img src={A}>", f"<img src={A_NEW}>"),
        (f'<a href="{A}">{B}</a>', f'<a href="{A_NEW}">{B_NEW}</a>'),
        (f"![a]({A})", f"![a]({A_NEW})"),
        (f'[a]({A} "my photo"), and <{B}>.', f'[a]({A_NEW} "my photo"), and <{B_NEW}>.'),
        (f"background: url({A}) no-repeat, url('{B}')", f"background: url({A_NEW}) no-repeat, url('{B_NEW}')"),
        (f'<img srcset="{A} 1x, {B} 2x">', f'<img srcset="{A_NEW} 1x, {B_NEW} 2x">'),
        (f"{A} 480w,{B} 1.5x", f"{A_NEW} 480w,{B_NEW} 1.5x"),
        (f"{A},{B}", f"{A_NEW},{B_NEW}"),
        (f"{A}\n{B}\n", f"{A_NEW}\n{B_NEW}\n"),
        (f"Look: {A}, or ({B})!", f"Look: {A_NEW}, or ({B_NEW})!"),
        (f"**{A}**", f"**{A_NEW}**"),
        (f"a//{HOST} is no URL; //{HOST}/photos/a.jpg is", None),
        (f"see //{HOST}/photos/a.jpg", "see //cdn.example.com/files/photos/a.jpg"),
        (f"see {HOST}/photos/a.jpg.", "see cdn.example.com/files/photos/a.jpg."),
        (json.dumps({"u": A, "n": 1}), json.dumps({"u": A_NEW, "n": 1})),
        (json.dumps({"u": A}).replace("/", "\\/"), json.dumps({"u": A_NEW}).replace("/", "\\/")),
        (json.dumps(json.dumps({"u": A})), json.dumps(json.dumps({"u": A_NEW}))),
        (f'{{"u": "{A}"}}'.replace("/", "\\u002f"), f'{{"u": "{A_NEW}"}}'.replace("/", "\\u002f")),
        (f'<img src="{A}?w=1&amp;h=2">', f'<img src="{A_NEW}?w=1&amp;h=2">'),
        (f"&lt;img src=&quot;{A}&quot;&gt;", f"&lt;img src=&quot;{A_NEW}&quot;&gt;"),
        ("<img src='https:&#47;&#47;img.example.com&#47;a.jpg'>", None),
        (f"写真、{A} です", f"写真、{A_NEW} です"),
    ],
)
def test_urls_in_a_text_move_alone(text: str, new: str | None) -> None:
    urls = rules()
    if new is None:
        assert rewritten(text, urls) != text
    else:
        assert rewritten(text, urls) == new
    assert not any(ref.holds for ref in references([Text(text, "t", EMBEDDED)], urls)) or new is None


@pytest.mark.parametrize(
    "text",
    [
        f"https://proxy.example.com/w:200/plain/{A}@webp",
        f"https://proxy.example.com/?url={A}",
        "https://proxy.example.com/?url=" + A.replace(":", "%3A").replace("/", "%2F"),
        f"abfss://photos@{HOST}/a.jpg",
        f'"{ACCOUNT}/photos/my photo.jpg"',
        f"{ACCOUNT}/photos/{{size}}.jpg",
        f'{{"u": "{ACCOUNT}/photos/a\\ud83d\\ude00.jpg"}}',
        f"写真{ACCOUNT}/photos/写真.jpgです",
        f"x{A}",
        f"ftp://{HOST}/photos/a.jpg",
    ],
)
def test_where_there_is_a_doubt_nothing_moves_and_the_profile_waits(text: str) -> None:
    urls = rules()
    assert rewritten(text, urls) == text
    assert any(ref.holds for ref in references([Text(text, "t", EMBEDDED)], urls))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["\\" * 200_000 + A, "&" + "amp;" * 200_000 + A, "%" + "25" * 200_000 + A, A + "(" * 200_000, f'"{A}' * 2000,
     A + "\\" * 200_000, f"{HOST}/" + "/" * 200_000, f"{A}," * 2000],
    ids=["backslashes", "ampersands", "percents", "parentheses", "quotes", "after", "slashes", "many"],
)  # fmt: skip
def test_no_text_takes_long_to_look_through(text: str) -> None:
    urls = rules()
    began = time.process_time()
    assert list(references([Text(text, "t", EMBEDDED), Text(text, "t")], urls))
    assert time.process_time() - began < 3


# -- there and back: what stands around a URL, how it is spelled, and what follows it

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
SECONDARY = ACCOUNT.replace("acct.", "acct-secondary.")
starts = st.sampled_from([ACCOUNT, f"https://{HOST.upper()}", f"//{HOST}", HOST, SECONDARY])
tails_ = st.sampled_from(["", "", "?w=1", "?w=1&h=2", "#x", "?v=3#top", "?"])
around = st.text(st.sampled_from("ab ,.;:!?()[]{}<>\"'`*_~|/\\&%=#@-\n\u00a0é写。\u200b"), max_size=8)
wrapped: Sequence[Callable[[str], str]] = (
    lambda url: url,
    lambda url: f'<img src="{url}">',
    lambda url: f"({url})",
    lambda url: f" {url} ",
    lambda url: f"<{url}>",
    lambda url: json.dumps({"u": url}),
    lambda url: json.dumps({"u": url}).replace("/", "\\/"),
    lambda url: f'"{url.replace("&", "&amp;")}"',
    lambda url: url.replace("/", "\\u002f"),
    lambda url: f"url('{url}')",
    lambda url: f'srcset="{url} 1x, {url} 2x"',
    lambda url: quote(url, safe=""),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        raw = draw(st.sampled_from(["a.jpg", "a", "b(1).jpg", "a.", "c~", "d_", "e,f"]) | names.map(quote) | names)
        url = f"{draw(starts)}/photos/{raw}{draw(tails_)}"
        pieces += [draw(around), draw(st.sampled_from(wrapped))(url), draw(around)]
    return "".join(pieces)


def there_and_back(value: str, form: Form, query: Query, *, as_json: bool) -> tuple[str, str]:
    """The value as a run leaves it, with every file copied, and as a rollback does after that."""
    urls = rules(query)
    read_texts = list(texts_in_json(value, "t", form)) if as_json else [Text(value, "t", form)]
    needs, known = Needs(), {}
    for text in read_texts:
        for found in read(text, urls):
            if found.reference.file is not None:
                needs.add(found.reference.file, found, text)
                known[found.reference.file] = KnownFile(Outcome.COPIED, waived=False)
    spellings = {wish.file: Spelling(wish.spelling, wish.had_query, wish.places) for wish in needs.wishes(1)}
    replace, back = moved(known, urls), lambda now: edits_back(now, spellings.get, urls)
    if as_json:
        new, _ = replace_in_json(value, replace, "t", form)
        return new, replace_in_json(new, back, "t", form)[0]
    new = edited(value, replace([Text(value, "t", form)])[0])
    return new, edited(new, back([Text(new, "t", form)])[0])


@settings(deadline=None)
@given(texts(), st.sampled_from([EMBEDDED, Form()]), st.sampled_from(Query))
def test_a_text_that_moved_comes_back_to_the_byte(text: str, form: Form, query: Query) -> None:
    assert there_and_back(text, form, query, as_json=False)[1] == text


@settings(deadline=None)
@given(
    st.recursive(texts(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3)),
    st.sampled_from([EMBEDDED, Form()]),
    st.sampled_from(Query),
    st.booleans(),
    st.sampled_from(["/", "\\/", "\\u002f", "\\u002F"]),
)
def test_json_that_moved_comes_back_to_the_byte(
    value: object,
    form: Form,
    query: Query,
    ascii_: bool,  # noqa: FBT001 - hypothesis's form
    slash: str,
) -> None:
    written = json.dumps(value, ensure_ascii=ascii_, indent=1).replace("/", slash)
    new, back = there_and_back(written, form, query, as_json=True)
    assert back == written
    json.loads(new)


@settings(deadline=None)
@given(texts(), st.sampled_from([EMBEDDED, Form()]))
def test_what_names_the_source_is_a_reference_or_holds_its_profile(text: str, form: Form) -> None:
    urls = rules()
    assume(HOST in text.lower())
    found = list(references([Text(text, "t", form)], urls))
    # A name beside the host's own makes it another host: acct.blob.core.windows.net.b, for example.
    assert found or not urls.source.sees(text)
    if not urls.source.sees(text):
        assert all(neighbours(text))
    if form.embedded and all(ref.kind is UrlKind.SOURCE for ref in found):
        new = there_and_back(text, form, Query.DROP, as_json=False)[0]
        assert not urls.source.sees(new)


def neighbours(text: str) -> list[bool]:
    """Whether each host in the text is a part of another, or has another port or a user's name before it."""
    lowered = text.lower()
    places = [n for n in range(len(text)) if lowered.startswith(HOST, n)]
    return [
        lowered[max(0, n - 1) : n].isalnum()
        or lowered[max(0, n - 1) : n] in (".", "-")
        or lowered[n + len(HOST) : n + len(HOST) + 1] in ("@", "-", ":", ".")
        or lowered[n + len(HOST) : n + len(HOST) + 1].isalnum()
        for n in places
    ]
