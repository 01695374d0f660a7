"""Which strings are references, and where files go: nothing folded, nothing leaked, nothing shared."""

import json
import re
import time
from collections.abc import Sequence
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.errors import Permanent, SettingsError
from migration_pipeline.core.model import KnownFile, Outcome, SourceFile
from migration_pipeline.core.queries import Query, unsigned
from migration_pipeline.core.reading import named, read, references, spelled
from migration_pipeline.core.rewrite import moved
from migration_pipeline.core.seeing import HIDDEN, Names
from migration_pipeline.core.texts import Form, Text
from migration_pipeline.core.urls import MAX_KEY_BYTES, KeyTemplate, UrlKind, UrlRules
from migration_pipeline.core.values import edited, replace_in_json
from migration_pipeline_tests.names import blob_names

ACCOUNT = "https://acct.blob.core.windows.net"
CONTAINERS = ["photos", "photos-old"]

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
files = st.builds(SourceFile, st.sampled_from(CONTAINERS), names)


def rules(
    template: str = "{container}/{blob}",
    account: str = ACCOUNT,
    containers: Sequence[str] = CONTAINERS,
    query: Query = Query.WAIT,
) -> UrlRules:
    return UrlRules(
        account_url=account,
        containers=containers,
        query=query,
        alias_hosts={
            "img.example.com": "photos",
            "b\u00fccher.example": "*",
            "static.example.com/media": "photos",
        },
        public_base_url="https://cdn.example.com/files",
        keys=KeyTemplate("", template),
    )


@pytest.mark.parametrize(
    ("url", "blob"),
    [
        (f"{ACCOUNT}/photos/a.jpg", "a.jpg"),
        ("HTTP://ACCT.blob.core.windows.net:80/photos/a.jpg", "a.jpg"),
        ("https://acct.blob.core.windows.net./photos/a.jpg", "a.jpg"),
        (f"  {ACCOUNT}/photos/a.jpg\n", "a.jpg"),
        ("https://img.example.com/sub/a.jpg", "sub/a.jpg"),
        (f"{ACCOUNT}/photos/a.jpg?sv=1&sig=secret#x", "a.jpg"),
        (f"{ACCOUNT}/photos/a+b.jpg", "a+b.jpg"),
        (f"{ACCOUNT}/photos/a%2Fb.jpg", "a/b.jpg"),
        (f"{ACCOUNT}/photos/%2546.jpg", "%46.jpg"),
        (f"{ACCOUNT}/photos//../x. ", "/../x."),
        (f"{ACCOUNT}/ph%6ftos/a.jpg", "a.jpg"),
        ("https://acct-secondary.blob.core.windows.net/photos/a.jpg", "a.jpg"),
        ("https://acct.dfs.core.windows.net/photos/a.jpg", "a.jpg"),
        ("https://acct-microsoftrouting.blob.core.windows.net/photos/a.jpg", "a.jpg"),
        ("https://b\u00fccher.example/photos/a.jpg", "a.jpg"),
        ("https://xn--bcher-kva.example/photos/a.jpg", "a.jpg"),
        ("https://BU\u0308CHER.example/photos/a.jpg", "a.jpg"),
        ("https://static.example.com/media/sub/a.jpg", "sub/a.jpg"),
        ("https://\uff41cct\u3002blob.core.windows.net/photos/a.jpg", "a.jpg"),  # as browsers read it
        (f"{ACCOUNT}/photos/A.JPG", "A.JPG"),
        (f"{ACCOUNT}/photos/e\u0301", "e\u0301"),
    ],
)
def test_a_url_of_the_source_names_its_blob_exactly(url: str, blob: str) -> None:
    reference = rules().classify(url)
    assert reference is not None
    assert (reference.kind, reference.file) == (UrlKind.SOURCE, SourceFile("photos", blob))


@pytest.mark.parametrize(
    "url",
    [
        "https://acct.blob.core.windows.net.evil.com/photos/a.jpg",
        "https://acct.blob.core.windows.net@evil.com/photos/a.jpg",
        "https://acct.blob.core.windows.net:8443/photos/a.jpg",
        "https://static.example.com/mediamore/a.jpg",
        "https://sub.img.example.com/a.jpg",
        "https://other.blob.core.windows.net/photos/a.jpg",
    ],
)
def test_what_is_not_ours_is_foreign(url: str) -> None:
    reference = rules().classify(url)
    assert reference is not None
    assert reference.kind is UrlKind.FOREIGN


@pytest.mark.parametrize(
    "path", ["", "a%zz", "a%", "a%FF", "a%00", "a?snapshot=2020-01-01T00:00:00Z", "a?x=1&versionid=2"]
)
def test_what_names_no_blob_for_sure_is_unparsable_and_says_why(path: str) -> None:
    reference = rules().classify(f"{ACCOUNT}/photos/{path}")
    assert reference is not None
    assert reference.kind is UrlKind.UNPARSABLE
    assert reference.reason


@pytest.mark.parametrize("text", ["", "hello", "ftp://elsewhere.example.com/photos/a", "photos/a.jpg"])
def test_other_strings_are_no_references(text: str) -> None:
    assert rules().classify(text) is None


A, B = f"{ACCOUNT}/photos/a.jpg", f"{ACCOUNT}/photos/b.jpg"


@pytest.mark.parametrize(
    "text",
    [
        # more than one URL, or more than a URL
        f"{A}?sv=1&sig=x,{B}?sv=1&sig=x",
        f"{A}\n{B}",
        f"{A}?w=1 1x, {A}?w=2 2x",
        f"{A}?v=3\nand a sentence",
        f"{A}#1 and my whole biography",
        f"{A},{B}",
        f"{A};//acct.blob.core.windows.net/photos/b.jpg",
        f"{A}', 'https:b",
        f"{A}\tx",
        f"{A}\u00a0x",
        f"{A}\u2028x",
        f"{A}?next={B}",
        f"{A}?next=https%3A%2F%2Facct.blob.core.windows.net%2Fphotos%2Fb.jpg",
        # a URL in something larger
        f'<img src="{A}">',
        f"![a]({A})",
        f"url({A})",
        json.dumps({"url": A}),
        json.dumps(json.dumps({"url": A})),
        f"https://proxy.example.com/plain/{A}",
        f"https://proxy.example.com/?u={A.replace(':', '%3A').replace('/', '%2F')}",
        f"https://proxy.example.com/?u={A.replace(':', '%253A').replace('/', '%252F')}",
        "https://cdn.example.com/files/photos/a.jpg?was=acct.blob.core.windows.net/photos/a.jpg",
        # another spelling
        "//acct.blob.core.windows.net/photos/a.jpg",
        "acct.blob.core.windows.net/photos/a.jpg",
        "ACCT.BLOB.core.windows.net/photos/a.jpg",
        f"\ufeff{A}",
        f"\u00a0{A}",
        f"\u200b{A}",
        A.replace("acct", "acct\u200b"),
        A.replace("acct", "ac\u00adct"),
        A.replace("/", "\\/"),
        A.replace("/", "\\u002f"),
        A.replace("acct", "\\u0061cct"),
        A.replace("acct", "\\x61cct"),
        A.replace("acct", "\\61 cct"),  # CSS
        A.replace("acct", "%61cct"),
        A.replace("acct", "%2561cct"),
        A.replace("acct", "&#97;cct"),
        A.replace("acct", "&#x61;cct"),
        A.replace("acct", "&amp;#97;cct"),
        A.replace(".", "&period;"),
        A.replace("acct.blob", "acct\u3002blob").removeprefix("https:"),
        A.replace("acct", "\uff41\uff43\uff43\uff54").removeprefix("https:"),
        "b%C3%BCcher.example/photos/a.jpg",
        "//b\u00fccher.example/photos/a.jpg",
        "abfss://photos@acct.dfs.core.windows.net/a.jpg",
        "http:\\\\acct.blob.core.windows.net\\photos\\a.jpg",
        "http:/acct.blob.core.windows.net/photos/a.jpg",
    ],
)
def test_what_names_the_source_and_is_no_single_url_is_embedded(text: str) -> None:
    reference = rules().classify(text)
    assert reference is not None
    assert (reference.kind, reference.holds) == (UrlKind.EMBEDDED, True)
    # A database is searched for what may be such a text by a host in it, or by what may hide one.
    assert any(host in text.lower() for host in rules().source_hosts) or re.search(HIDDEN, text, re.IGNORECASE)
    blobs = named([Text(text)], Names([SourceFile("photos", "a.jpg"), SourceFile("photos", "z")], str), rules())
    assert blobs == {SourceFile("photos", "a.jpg")}


@pytest.mark.parametrize(
    "url",
    [f"{ACCOUNT}/private/a.jpg", f"{ACCOUNT}/photosmore/a.jpg", f"{ACCOUNT}/", ACCOUNT, f"{ACCOUNT}/a.jpg",
     "https://b\u00fccher.example/private/a.jpg"],
)  # fmt: skip
def test_a_container_that_does_not_move_is_told_from_other_hosts(url: str) -> None:
    reference = rules().classify(url)
    assert reference is not None
    assert (reference.kind, reference.holds) == (UrlKind.OTHER_CONTAINER, False)


def test_blobs_of_the_root_container_may_be_named_without_it() -> None:
    urls = rules(containers=["photos", "$root"])
    for url in (f"{ACCOUNT}/a.jpg", f"{ACCOUNT}/$root/a.jpg", f"{ACCOUNT}/%24root/a.jpg"):
        found = urls.classify(url)
        assert found is not None
        assert found.file == SourceFile("$root", "a.jpg")
    for url in (f"{ACCOUNT}/private/a.jpg", f"{ACCOUNT}/photos"):
        found = urls.classify(url)
        assert found is not None
        assert found.kind in (UrlKind.OTHER_CONTAINER, UrlKind.UNPARSABLE)


SAS = "sv=2024-01-01&se=2030-01-01&sr=b&sp=r&sig=c2VjcmV0"


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ("", ""),
        ("?", ""),
        ("#", ""),
        (f"?{SAS}", ""),
        (f"?{SAS.replace('&', '&amp;')}", ""),
        (f"?w=200&{SAS}", "?w=200"),
        (f"?{SAS}&rscd=attachment#x", "?rscd=attachment#x"),
        ("?w=200&h=200", "?w=200&h=200"),
        ("?sv=1", "?sv=1"),  # no SAS without a signature
        ("#width=3", "#width=3"),
        ("?v=3#top", "?v=3#top"),
    ],
)
def test_a_sas_goes_and_the_rest_is_a_decision(tail: str, kept: str) -> None:
    file, text = SourceFile("photos", "a.jpg"), Text(f"{A}{tail}")
    known = {file: KnownFile(Outcome.COPIED, waived=False)}
    for query, end in ((Query.KEEP, kept), (Query.DROP, ""), (Query.WAIT, "" if not kept else None)):
        urls = rules(query=query)
        (found,) = read(text, urls)
        assert found.reference.file == file
        assert (found.reference.asks, found.reference.waits) == (bool(kept), bool(kept) and query is Query.WAIT)
        assert found.reference.had_query == ("sig=" in tail)
        ((*edits,),) = moved(known, urls)([text])
        new = f"https://cdn.example.com/files/photos/a.jpg{end}"
        assert edited(text.text, edits) == (text.text if end is None else new)


@pytest.mark.parametrize("mark", ["?", "&#63;", "\\u003f", "\\\\u003F"])
def test_a_sas_is_not_kept_however_it_is_escaped_in_a_text(mark: str) -> None:
    text = Text(f'<img src="{A}{mark}{SAS}&amp;w=1">', "bio", Form(embedded=True))
    (found,) = read(text, rules(query=Query.KEEP))
    assert found.reference.had_query
    assert spelled(found, text) == f"{A}?w=1"


@pytest.mark.parametrize("tail", ["#sig=secret", "?x=%26sig%3Dsecret", "?a=1&amp;sig=secret", "?%73ig=secret"])
def test_a_signature_is_not_kept_wherever_it_stands(tail: str) -> None:
    (found,) = read(Text(f"{A}{tail}"), rules(query=Query.KEEP))
    assert "secret" not in spelled(found, Text(f"{A}{tail}")) + found.tail
    assert found.reference.had_query


def test_no_query_string_is_ever_shown() -> None:
    for url in (f"{ACCOUNT}/photos/a?sig=secret", "https://evil.com/a?sig=secret", f"{ACCOUNT}/photos/%zz?sig=secret"):
        assert "secret" not in repr(rules().classify(url))


@pytest.mark.parametrize(
    "tail",
    [
        "%3Fsv=2026&sig=hunter2",
        "%3fsv%3D2026%26sig%3Dhunter2",
        "%253Fsig%253Dhunter2%2526se%253D2027",
        "%3Fsv%3D1%26amp%3BSIG%3Dhunter2#a",
        "%3FX-Amz-Date%3D1%26X-Amz-Signature%3Dhunter2",
    ],
)
def test_a_sas_in_an_escaped_path_is_in_no_name_and_in_nothing_that_is_shown(tail: str) -> None:
    for base in (f"{ACCOUNT}/photos/1/a.jpg", f"{ACCOUNT}/photos/1/\u00fc.jpg", f"{ACCOUNT}/elsewhere/a.jpg",
        "https://cdn.example.com/photos/a.jpg", "https://evil.com/a.jpg"):  # fmt: skip
        reference = rules().classify(base + tail)
        assert reference is not None
        assert "hunter2" not in repr(reference)
        assert (reference.file, reference.key or None) == (None, None)
    reference = rules().classify(f"{ACCOUNT}/photos/1/a.jpg{tail}")
    assert reference is not None
    assert (reference.kind, reference.holds) == (UrlKind.UNPARSABLE, True)
    # A whole URL that is escaped, and one in a sentence.
    for text in (quote(f"{ACCOUNT}/photos/1/a.jpg", safe="") + tail, f"see {ACCOUNT}/photos/1/a.jpg{tail} there"):
        seen = rules().classify(text)
        assert seen is None or "hunter2" not in repr(seen)
        for form in (Form(), Form(embedded=True), Form(base=f"{ACCOUNT}/photos/")):
            found = list(references([Text(text, form=form)], rules()))
            assert found or not form.embedded
            assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    "name", ["design%3D2.jpg", "a%3Fb.jpg", "sig%3D2.jpg", "a%26sig%3D1.jpg", "a%3Fdesign%3D1.jpg"]
)
def test_a_name_that_only_looks_like_one_is_a_name(name: str) -> None:
    reference = rules().classify(f"{ACCOUNT}/photos/{name}")
    assert reference is not None
    assert reference.file == SourceFile("photos", unquote(name))


def test_a_signature_is_looked_for_in_linear_time() -> None:
    for text in ("%3F" * 100_000, "%25" * 100_000, "%3F" + "%26" * 100_000, "%3Fsi" * 50_000):
        began = time.perf_counter()
        assert unsigned(text) == text
        assert time.perf_counter() - began < 1


def test_an_account_may_stand_in_the_path() -> None:
    reference = rules(account="http://127.0.0.1:10000/devstoreaccount1").classify(
        "http://127.0.0.1:10000/devstoreaccount1/photos/a.jpg"
    )
    assert reference is not None
    assert reference.file == SourceFile("photos", "a.jpg")


@pytest.mark.parametrize(
    "text",
    [
        "http%3A%2F%2F127.0.0.1%3A10000%2Fdevstoreaccount1%2Fphotos%2Fa.jpg",
        "//127.0.0.1&#58;10000/devstoreaccount1/photos/a.jpg",
        "127.0.0.1:10000//devstoreaccount1-secondary/photos/a.jpg",
    ],
)
def test_a_port_may_be_escaped(text: str) -> None:
    urls = UrlRules(
        account_url="http://127.0.0.1:10000/devstoreaccount1",
        containers=["photos"],
        alias_hosts={},
        public_base_url="http://127.0.0.1:8333/b",
        keys=KeyTemplate(),
    )
    found = urls.classify(text)
    assert found is not None
    assert found.kind is UrlKind.EMBEDDED
    assert any(needle in text for needle in urls.source_hosts) or re.search(HIDDEN, text, re.IGNORECASE)
    for other in ("127.0.0.1:100000/devstoreaccount1/photos/a", "//127.0.0.1:10000/other/photos/a", "127.0.0.1:8333/b"):
        assert urls.classify(other) is None


@given(files)
def test_source_urls_come_back_as_their_file(file: SourceFile) -> None:
    reference = rules().classify(rules().source_url(file))
    assert reference is not None
    assert reference.file == file


@given(files)
def test_target_urls_come_back_as_their_key(file: SourceFile) -> None:
    reference = rules().classify(rules().target_url(file))
    assert reference is not None
    assert (reference.kind, reference.key) == (UrlKind.TARGET, rules().key_of(file))


@given(files, files, st.sampled_from(["{container}/{blob}", "{blob}/{container}", "x{container}-y/{blob}.z"]))
def test_two_files_never_share_a_key(one: SourceFile, other: SourceFile, template: str) -> None:
    KeyTemplate("", template).check(CONTAINERS)
    same = rules(template).key_of(one) == rules(template).key_of(other)
    assert same == (one == other)


@pytest.mark.parametrize("template", ["{blob}", "{container}-{blob}", "{container}", "{blob}{blob}", "{x}/{blob}"])
def test_templates_that_could_mix_files_up_are_refused(template: str) -> None:
    with pytest.raises(SettingsError, match="key_template"):
        KeyTemplate("", template).check(CONTAINERS)


def test_every_odd_name_keeps_its_reference_and_its_key() -> None:
    """From the source's URL in a row to the key in S3 and back out of the rewritten row, no two names meet."""
    urls, keys = rules(), set[str]()
    blobs = [name for label, group in blob_names("photos").items() if label != "too long" for name in group]
    for name in blobs:
        file = SourceFile("photos", name)
        found = urls.classify(urls.source_url(file))
        assert found is not None
        if "\0" in name:
            assert found.kind is UrlKind.UNPARSABLE
            continue
        assert (found.kind, found.file) == (UrlKind.SOURCE, file)
        known = {file: KnownFile(Outcome.COPIED, waived=False)}
        text, count = replace_in_json(json.dumps([urls.source_url(file)]), moved(known, urls))
        assert count == 1
        (url,) = json.loads(text)
        there = urls.classify(url)
        assert there is not None
        assert (there.kind, there.key) == (UrlKind.TARGET, f"photos/{name}")
        keys.add(there.key or "")
    assert len(keys) == sum("\0" not in name for name in blobs) > 1000


def test_names_too_long_for_a_key_are_told_as_such() -> None:
    for name in blob_names("photos")["too long"]:
        file = SourceFile("photos", name)
        found = rules().classify(rules().source_url(file))
        assert found is not None
        assert found.file == file
        with pytest.raises(Permanent) as refused:
            rules().key_of(file)
        assert refused.value.outcome is Outcome.TOO_LONG_KEY


def test_a_key_may_have_1024_bytes_and_no_more() -> None:
    fits = MAX_KEY_BYTES - len("photos/")
    assert len(rules().key_of(SourceFile("photos", "ü" * (fits // 2) + "a" * (fits % 2))).encode()) == MAX_KEY_BYTES
    with pytest.raises(Permanent) as refused:
        rules().key_of(SourceFile("photos", "a" * (fits + 1)))
    assert refused.value.outcome is Outcome.TOO_LONG_KEY
