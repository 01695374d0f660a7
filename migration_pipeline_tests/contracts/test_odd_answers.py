"""Answers that no server should give: whatever is odd about one file's stays that file's, and proves nothing.

`ODD_ANSWERS=10000` has as many answers changed; `make test-all` does.
"""

import asyncio
import os
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.errors import Permanent
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline_tests.answering import S3, Azure, Request, Said, answering
from migration_pipeline_tests.memory_stores import md5

ANSWERS = int(os.environ.get("ODD_ANSWERS", "400"))
PART = 64
SMALL, LARGE = b"bytes", bytes(range(200))
KEYS = {"bytes": KeyTemplate(), "plain": KeyTemplate("", "{container}/./{blob}")}
"""Keys as the client that carries bytes writes them, and as botocore's does."""
FILE = SourceFile("photos", "a.jpg")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, and parts of a few bytes."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for module in ("copy_file", "large_file"):
        monkeypatch.setattr(f"migration_pipeline.core.{module}.PART_BYTES", PART)


async def at_once(_: float) -> None:
    return


class Desk:
    """Both endpoints, and a copier between them."""

    def __init__(self, azure: Azure, s3: S3, copier: Copier) -> None:
        self.azure, self.s3, self.copier = azure, s3, copier

    @property
    def path(self) -> str:
        """Where the copy goes."""
        return f"/files/{self.copier.urls.key_of(FILE)}"

    def start(self, body: bytes) -> None:
        """One blob, and nothing in S3."""
        self.azure.blobs = {f"/{FILE}": body}
        self.s3.objects.clear()
        self.s3.uploads.clear()
        self.azure.change = self.s3.change = lambda _, said: said
        self.copier.target._etag_is_md5 = True  # type: ignore[attr-defined] # noqa: SLF001 - a bucket that is not known yet

    async def copy(self, replaces: str | None = None) -> CopyResult:
        return await self.copier.copy(WantedFile(FILE, replaces=replaces))


def told(story: Callable[[Desk], Any], *, key: str = "bytes", **limits: Any) -> None:
    async def run() -> None:
        azure, s3 = Azure(), S3()
        async with answering(azure, s3):
            rules = UrlRules(
                account_url=azure.url,
                containers=["photos"],
                alias_hosts={},
                public_base_url="https://cdn.example.com",
                keys=KEYS[key],
            )
            credentials = AzureCredentials("a2V5", account_name="acct")
            async with (
                AzureBlobSource(azure.url, ["photos"], credentials, timeout=5) as source,
                S3Target(Bucket("files", "us-east-1", s3.url), timeout=5) as target,
            ):
                copier = Copier(source, target, rules, CopyLimits(max_attempts=3, patience=0, **limits), at_once)
                await story(Desk(azure, s3, copier))

    asyncio.run(run())


def change(method: str, name: bytes, value: bytes | None, query: str | None = None) -> Callable[[Request, Said], Said]:
    """Another header in each answer to such a request."""

    def changed(asked: Request, said: Said) -> Said:
        if asked.method != method or (query is not None and query not in asked.query):
            return said
        return said.but(name, value)

    return changed


LATIN = {
    b"Content-Disposition": (
        b'attachment; filename="f\xf6.jpg"',
        "attachment; filename=\"f_.jpg\"; filename*=UTF-8''f%C3%B6.jpg",
    ),
    b"Content-Type": (b"image/jpeg; name=f\xf6", "image/jpeg; name=\"f_\"; name*=UTF-8''f%C3%B6"),
    b"Cache-Control": (b"max-age=60; \xfc", "max-age=60; %C3%BC"),
    b"Content-Language": (b"d\xeb", "d%C3%AB"),
    b"Content-Encoding": (b"b\xefnary", "b%C3%AFnary"),
    b"x-ms-meta-owner": (b"J\xf6rg", "=?utf-8?b?SsO2cmc=?="),
    b"Content-MD5": (b"\xff\xfe", None),
}  # fmt: skip


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", LATIN)
def test_a_header_above_ascii_travels_in_a_form_that_s3_takes(name: bytes, key: str, body: bytes) -> None:
    value, expected = LATIN[name]
    seen: list[str] = []

    async def story(desk: Desk) -> None:
        desk.start(body)
        desk.azure.headers = {name: value}

        def look(asked: Request, said: Said) -> Said:
            if asked.method in ("PUT", "POST"):
                header = name.decode().lower().replace("x-ms-", "x-amz-")
                seen.append(asked.headers.get(header, ""))
            return said

        desk.s3.change = look
        result = await desk.copy()
        assert (result.outcome, result.message) == (Outcome.COPIED, "")
        assert desk.s3.objects == {desk.path: body}

    told(story, key=key)
    if expected is not None:
        assert expected in seen


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("value", "expected"), [(b"a\r\n b", "a b"), (b"a\x01b", "=?utf-8?b?YQFi?=")], ids=["folds", "control"]
)
def test_metadata_that_no_modern_client_reads_travels(value: bytes, expected: str, body: bytes) -> None:
    seen: list[str] = []

    async def story(desk: Desk) -> None:
        desk.start(body)
        desk.azure.headers = {b"x-ms-meta-note": value}

        def look(asked: Request, said: Said) -> Said:
            seen.append(asked.headers.get("x-amz-meta-note", ""))
            return said

        desk.s3.change = look
        result = await desk.copy()
        assert (result.outcome, result.attempts, desk.s3.objects) == (Outcome.COPIED, 1, {desk.path: body})

    told(story)
    assert expected in seen


@pytest.mark.parametrize("key", KEYS)
def test_an_etag_that_is_no_digest_is_asked_for_again(key: str) -> None:
    """As of a bucket that KMS encrypts; one odd answer does not become the evidence."""

    async def story(desk: Desk) -> None:
        desk.start(SMALL)
        desk.s3.change = change("PUT", b"ETag", b'"another"')
        result = await desk.copy()
        assert (result.outcome, result.etag) == (Outcome.ALREADY_THERE, md5(SMALL).hex())

    told(story, key=key)


ODD_VALUES: tuple[bytes | None, ...] = (None, b"", b"\xfc\xff", b"\xe2\x82\xac")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ODD_VALUES)
def test_a_write_without_an_etag_is_not_taken_for_a_copy(value: bytes | None, key: str) -> None:
    """What is there is compared, once S3 says what it is; as long as it does not, nothing is proven."""

    async def story(desk: Desk) -> None:
        for body in (SMALL, LARGE):
            desk.start(body)
            desk.s3.change = change("PUT", b"ETag", value)
            result = await desk.copy()
            if body == SMALL:
                assert (result.outcome, result.md5, result.etag) == (Outcome.ALREADY_THERE, md5(body), md5(body).hex())
            else:
                assert (result.outcome, desk.s3.objects, desk.s3.uploads) == (Outcome.GAVE_UP, {}, {})
            desk.s3.change = change("HEAD", b"ETag", value)
            desk.s3.put(desk.path, body, {})
            assert (await desk.copy()).outcome is Outcome.GAVE_UP

    told(story, key=key)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [*ODD_VALUES, b"yesterday", b"Wed, 25 Nov 2026 10:00:00 -0000"])
def test_an_object_without_a_date_is_there_and_not_ours(value: bytes | None, key: str) -> None:
    async def story(desk: Desk) -> None:
        desk.start(SMALL)
        desk.s3.put(desk.path, SMALL, {})
        desk.s3.change = change("HEAD", b"Last-Modified", value)
        result = await desk.copy()
        # botocore's client does not hand over an answer with a date that is none.
        assert result.outcome is Outcome.ALREADY_THERE or (key == "plain" and result.outcome is Outcome.GAVE_UP)
        assert result.made_at is None or result.made_at.tzinfo is not None

    told(story, key=key)


PAGES = {
    "nothing": b"",
    "a page": b"<html><body>Welcome</body></html>",
    "no xml": b"Welcome & hello",
    "an error": b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>again</Message></Error>",
    "another answer": b"<?xml version='1.0'?><Other><Thing>1</Thing></Other>",
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("step", ["uploads", "uploadId"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_an_upload_that_answers_a_page_is_not_taken_for_a_copy(step: str, page: str, key: str, *, done: bool) -> None:
    """CreateMultipartUpload and CompleteMultipartUpload answer 200 with something else, carried out or not."""

    async def story(desk: Desk) -> None:
        desk.start(LARGE)
        honest = desk.s3.answer

        def answer(asked: Request) -> Said:
            if asked.method != "POST" or step not in asked.query:
                return honest(asked)
            if done:
                honest(asked)
            return Said(200, ((b"Content-Length", b"%d" % len(PAGES[page])),), PAGES[page])

        desk.s3.answer = answer  # type: ignore[method-assign] # a server that went mad
        result = await desk.copy()
        # One that was carried out is found to be there.
        there = step == "uploadId" and done
        assert result.outcome is (Outcome.ALREADY_THERE if there else Outcome.GAVE_UP)
        assert desk.s3.objects == ({desk.path: LARGE} if there else {})
        assert desk.s3.uploads == {}

    told(story, key=key)


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_blob_without_an_etag_is_not_read(value: bytes | None, body: bytes) -> None:
    """Nothing would pin its parts to one version, and no evidence would say which was copied."""

    async def story(desk: Desk) -> None:
        desk.start(body)
        desk.azure.change = lambda _, said: said.but(b"ETag", value)
        result = await desk.copy()
        assert (result.outcome, desk.s3.objects) == (Outcome.SOURCE_UNREADABLE, {})
        # It is there: whoever asks for its version is not told that it is gone.
        with pytest.raises(Permanent, match="version"):
            await desk.copier.source.etag(FILE)

    told(story)


class Case(NamedTuple):
    """One copy: of what, with what in S3 before, by which client."""

    body: bytes
    there: bytes | None
    replaces: bool
    read_back: str


CASES = [
    Case(SMALL, None, False, "never"),
    Case(SMALL, None, False, "always"),
    Case(SMALL, SMALL, False, "never"),
    Case(SMALL, b"other", False, "never"),
    Case(SMALL, b"older", True, "never"),
    Case(LARGE, None, False, "never"),
    Case(LARGE, None, False, "always"),
    Case(LARGE, LARGE, False, "never"),
    Case(LARGE, b"older", True, "never"),
]
NAMES = (b"ETag", b"Content-Length", b"Last-Modified", b"Date", b"Content-Type", b"x-amz-version-id", b"Retry-After",
    b"x-amz-server-side-encryption", b"Content-Encoding", b"Transfer-Encoding", b"x-ms-error-code")  # fmt: skip
VALUES: tuple[bytes | None, ...] = (
    None, b"", b" ", b"\xfc\xff", b"\x01\x02", b"x" * 8192, b"9" * 30, b"-1", b"1.5", b"NaN", b"<x>&y;",
    b"\xe2\x82\xac", b'"', b'""', b"null", b"0", b"true", b"aws:kms", b"chunked", b"gzip",
    b"Thu, 32 Foo 9999 99:99:99 GMT", b"Wed, 25 Nov 0001 10:00:00 -0000", b"a\r\n b", b"=?utf-8?q?=FC?=",
    b"2026-13-45T99:99:99Z",
    b"\xd9\xa3",
)  # fmt: skip


def odd(drawn: random.Random, said: Said) -> Said:
    """One header, or one element of XML, that is another, or the status."""
    if said.body.startswith(b"<") and drawn.random() < 0.6:
        return _odd_xml(drawn, said)
    names = [name for name, _ in said.headers] * 2 + list(NAMES)
    return said.but(drawn.choice(names), drawn.choice(VALUES))


def _odd_xml(drawn: random.Random, said: Said) -> Said:
    value = drawn.choice(VALUES) or b""
    fields = list(re.finditer(rb"<(\w+)>([^<]*)</\1>", said.body))
    if not fields or drawn.random() < 0.2:
        body = drawn.choice([*PAGES.values(), said.body[: len(said.body) // 2], b"<?xml version='1.0'?>", value])
    else:
        one = drawn.choice(fields)
        new = drawn.choice(
            [b"", b"<%b>%b</%b>" % (one[1], value, one[1]), one[0] * 2, b"<%b><x>1</x></%b>" % (one[1], one[1])]
        )
        body = said.body[: one.start()] + new + said.body[one.end() :]
    return Said(said.status, said.headers, body).but(b"Content-Length", b"%d" % len(body))


@pytest.mark.scaled
@pytest.mark.parametrize("key", KEYS)
def test_no_answer_however_odd_leaves_its_file(key: str) -> None:
    """Each ends with an outcome that was foreseen; what is called copied is in S3, and equal."""
    drawn = random.Random(f"{key} 16")
    outcomes = dict[Outcome, int]()

    async def story(desk: Desk) -> None:
        changed = 0
        while changed < ANSWERS // len(KEYS):
            case = drawn.choice(CASES)
            desk.start(case.body)
            before = {} if case.there is None else {desk.path: case.there}
            replaces = None
            if case.there is not None:
                etag = desk.s3.put(desk.path, case.there, {}).decode().strip('"')
                replaces = etag if case.replaces else None
            # The nth answer of either store alone, or all from there on.
            store, nth, on = drawn.choice([desk.azure, desk.s3]), drawn.randrange(6), drawn.random() < 0.3
            seed, seen = drawn.random(), iter(range(1000))
            happened = 0

            def twisted(_: Request, said: Said) -> Said:
                nonlocal happened
                number = next(seen)  # noqa: B023 - within this round
                if number < nth or (number > nth and not on):  # noqa: B023 - as above
                    return said
                happened += 1
                return odd(random.Random(seed), said)  # noqa: B023 - as above

            store.change = twisted
            desk.copier.limits = CopyLimits(max_attempts=3, patience=0, read_back=case.read_back)  # type: ignore[arg-type] # one of three
            result = await desk.copy(replaces)
            changed += happened
            outcomes[result.outcome] = outcomes.get(result.outcome, 0) + bool(happened)
            said = f"{result.message} {case}"
            assert result.outcome is not Outcome.UNFORESEEN, said
            if result.outcome.verified:
                assert desk.s3.objects == {desk.path: case.body}, said
                assert (result.md5, result.size) == (md5(case.body), len(case.body)), said
                # What S3 calls an object of parts, or always calls one, nobody can check.
                opaque = on or len(case.body) > PART or result.outcome is Outcome.ALREADY_THERE
                assert opaque or result.etag == desk.s3.etags[desk.path].decode().strip('"'), said
            elif not case.replaces:
                assert desk.s3.objects in (before, {desk.path: case.body}), said

    told(story, key=key)
    assert outcomes.keys() >= {Outcome.COPIED, Outcome.ALREADY_THERE, Outcome.GAVE_UP}


def test_every_header_and_field_is_among_those_changed() -> None:
    """Drawn by chance: but each of them, with each kind of oddness, within ten thousand."""
    drawn = random.Random(1)
    said = Said(200, ((b"ETag", b"x"), (b"Content-Length", b"9")), b"<A><Code>a</Code><ETag>b</ETag></A>")
    seen = [odd(drawn, said) for _ in range(10_000)]
    headers = {item for one in seen for item in one.headers}
    assert {(name, value) for name in NAMES for value in VALUES if value is not None} <= headers
    assert any(b"<Code>" not in item.body and b"<ETag>" in item.body for item in seen)
