"""Which strings are references, and where files go: nothing folded, nothing leaked, nothing shared."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.errors import Permanent, SettingsError
from migration_pipeline.core.model import KnownFile, Outcome, SourceFile
from migration_pipeline.core.rewrite import moved
from migration_pipeline.core.urls import MAX_KEY_BYTES, KeyTemplate, UrlKind, UrlRules
from migration_pipeline.core.values import replace_in_json
from migration_pipeline_tests.names import blob_names

ACCOUNT = "https://acct.blob.core.windows.net"
CONTAINERS = ["photos", "photos-old"]

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
files = st.builds(SourceFile, st.sampled_from(CONTAINERS), names)


def rules(template: str = "{container}/{blob}", account: str = ACCOUNT) -> UrlRules:
    return UrlRules(
        account_url=account,
        containers=CONTAINERS,
        alias_hosts={"img.example.com": "photos"},
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
        f"{ACCOUNT}/private/a.jpg",
        f"{ACCOUNT}/photosmore/a.jpg",
        "https://other.blob.core.windows.net/photos/a.jpg",
    ],
)
def test_what_is_not_ours_is_foreign(url: str) -> None:
    reference = rules().classify(url)
    assert reference is not None
    assert reference.kind is UrlKind.FOREIGN


@pytest.mark.parametrize(
    "path", ["", "a%zz", "a%", "a%FF", "a%00", "a\tb", "a?snapshot=2020-01-01T00:00:00Z", "a?x=1&versionid=2"]
)
def test_what_names_no_blob_for_sure_is_unparsable_and_says_why(path: str) -> None:
    reference = rules().classify(f"{ACCOUNT}/photos/{path}")
    assert reference is not None
    assert reference.kind is UrlKind.UNPARSABLE
    assert reference.reason


@pytest.mark.parametrize("text", ["", "hello", "ftp://acct.blob.core.windows.net/photos/a", "photos/a.jpg"])
def test_other_strings_are_no_references(text: str) -> None:
    assert rules().classify(text) is None


def test_no_query_string_is_ever_shown() -> None:
    for url in (f"{ACCOUNT}/photos/a?sig=secret", "https://evil.com/a?sig=secret", f"{ACCOUNT}/photos/%zz?sig=secret"):
        assert "secret" not in repr(rules().classify(url))


def test_an_account_may_stand_in_the_path() -> None:
    reference = rules(account="http://127.0.0.1:10000/devstoreaccount1").classify(
        "http://127.0.0.1:10000/devstoreaccount1/photos/a.jpg"
    )
    assert reference is not None
    assert reference.file == SourceFile("photos", "a.jpg")


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
