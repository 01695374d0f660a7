"""Every answer that docs/copying.md lists is given to the engine, which then does what the page says."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.wire import NoAnswer, Wire
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.large_file import PART_BYTES
from migration_pipeline.core.model import SourceFile, WantedFile
from migration_pipeline.core.urls import KeyTemplate
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault
from migration_pipeline_tests.scenarios.test_faults import Files, copy_all, fresh_bucket, store_files

PAGE = Path(__file__).parents[2] / "docs" / "copying.md"


def rows(heading: str) -> list[tuple[str, str, str]]:
    """Status, code and consequence of each row of the table under a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\d{3}) ([\w.-]+)` \| (.+) \|$", section, re.MULTILINE)


AZURE, S3 = rows("What Azure says"), rows("What S3 says")


@pytest.fixture(scope="module")
def one_file(sandbox: Sandbox) -> Files:
    return store_files(sandbox, {"a.jpg": b"bytes"})


KEYS = {"bytes": KeyTemplate(), "plain": KeyTemplate("", "{container}/./{blob}")}
"""Keys as the client that carries bytes writes them, and as botocore's does."""


@pytest.fixture
def bucket(sandbox: Sandbox) -> Iterator[str]:
    with fresh_bucket(sandbox) as (_, name):
        yield name


def test_the_page_has_both_tables() -> None:
    assert len(AZURE) > 20
    assert len(S3) > 20


@pytest.mark.parametrize(("status", "code", "then"), AZURE)
def test_azure(sandbox: Sandbox, one_file: Files, bucket: str, status: str, code: str, then: str) -> None:
    named = "" if code == "-" else f"x-ms-error-code: {code}\r\n"
    answer = f"{status} Said\r\n{named}Content-Length: 0\r\n\r\n"
    check(sandbox, one_file, bucket, then, source=Fault("status", match="^GET", answer=answer))


@pytest.mark.parametrize("client", KEYS)
@pytest.mark.parametrize(("status", "code", "then"), S3)
def test_s3(sandbox: Sandbox, one_file: Files, bucket: str, status: str, code: str, then: str, client: str) -> None:
    body = "" if code == "-" else f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"
    answer = f"{status} Said\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    check(sandbox, one_file, bucket, then, target=Fault("status", match="^PUT", answer=answer), keys=KEYS[client])


def test_a_body_of_unknown_length_is_not_taken(sandbox: Sandbox, one_file: Files) -> None:
    answer = '200 OK\r\nETag: "x"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n'
    with fresh_bucket(sandbox) as (s3, bucket):
        source = [Fault("status", match="^GET", answer=answer)]
        _, (result,), _ = copy_all(sandbox, one_file, bucket, source=source, max_attempts=2)
        assert (result.outcome, result.attempts) == ("source_unreadable", 1)
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


class Once(list[Fault]):
    """Each happens to the first request that it matches, and to no other."""

    def __iter__(self) -> Iterator[Fault]:
        for fault in self[:]:
            try:
                yield fault
            except GeneratorExit:  # whoever asked stopped here: it happens
                self.remove(fault)
                raise


@dataclass(frozen=True, slots=True)
class Rewritten(Files):
    """A large file that was written anew at the source: its older copy is to be replaced."""

    etag: str = ""

    @property
    def wanted(self) -> list[WantedFile]:
        return [WantedFile(SourceFile(self.container, name), replaces=self.etag) for name in self.bodies]


@pytest.fixture(scope="module")
def large(sandbox: Sandbox) -> Files:
    return store_files(sandbox, {"large.mp4": bytes(range(256)) * (PART_BYTES // 256 + 1)})


BUSY_AT_THE_END = Fault("status", match="^POST .*uploadId=", answer="503 Busy\r\nContent-Length: 0\r\n\r\n")
LOST_AT_THE_END = Fault("lost_reply", match="^POST .*uploadId=")
_TAKEN = "<?xml version='1.0'?><Error><Code>PreconditionFailed</Code></Error>"
TAKEN_AT_THE_END = Fault(
    "status",
    match="^POST .*uploadId=",
    answer=f"412 Said\r\nContent-Type: application/xml\r\nContent-Length: {len(_TAKEN)}\r\n\r\n{_TAKEN}",
)


@pytest.mark.parametrize(("fault", "outcome"), [(BUSY_AT_THE_END, "copied"), (LOST_AT_THE_END, "already_there")])
def test_one_fault_at_the_end_of_an_upload_leaves_the_new_bytes(
    sandbox: Sandbox, large: Files, fault: Fault, outcome: str
) -> None:
    with fresh_bucket(sandbox) as (s3, bucket):
        key = f"{large.container}/large.mp4"
        etag = s3.put_object(Bucket=bucket, Key=key, Body=b"older")["ETag"].strip('"')
        files = Rewritten(large.container, large.bodies, etag)
        _, (result,), (_, proxy) = copy_all(sandbox, files, bucket, target=Once([fault]), max_attempts=3)
        assert proxy.happened.total() == 1
        assert (result.outcome, result.attempts) == (outcome, 1)
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == large.bodies["large.mp4"]
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_key_that_is_taken_at_the_end_of_an_upload_leaves_no_parts(sandbox: Sandbox, large: Files) -> None:
    with fresh_bucket(sandbox) as (s3, bucket):
        _, (result,), _ = copy_all(sandbox, large, bucket, target=[TAKEN_AT_THE_END], max_attempts=2)
        assert result.outcome == "gave_up"  # the server says that it is taken, and then that nothing is there
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


TELLING = [
    "1/status code: 403 <Code>AccessDenied</Code>.jpg",
    "1/certificate tunnel dns error Connection refused 403 AuthenticationFailed.jpg",
    "1/NoSuchBucket 404/SlowDown 503/./ExpiredToken.jpg",
]
"""Names that read like errors."""


@pytest.fixture(scope="module")
def telling(sandbox: Sandbox) -> Files:
    return store_files(sandbox, dict.fromkeys(TELLING[:2], b"bytes"))


def test_a_name_decides_nothing(sandbox: Sandbox, telling: Files) -> None:
    """The keys are taken, nobody answers, connections break, the stores are busy: each is told as what it is."""
    broken = {"reset": Fault("reset"), "cut": Fault("cut_body", match="^GET", after_bytes=1)}
    with fresh_bucket(sandbox) as (s3, bucket):
        for kind, fault in broken.items():
            for store in ("source", "target"):
                if (kind, store) == ("cut", "target"):
                    continue
                _, recorded, _ = copy_all(sandbox, telling, bucket, max_attempts=2, **{store: [fault]})
                assert {result.outcome for result in recorded} == {"gave_up"}, (kind, store)
        for name in telling.bodies:
            s3.put_object(Bucket=bucket, Key=f"{telling.container}/{name}", Body=b"theirs")
        _, recorded, _ = copy_all(sandbox, telling, bucket, max_attempts=2)
        assert {result.outcome for result in recorded} == {"target_conflict"}
        assert not [result for result in recorded if "AccessDenied" in result.message]


def test_what_nobody_answers_is_told_alike_whatever_its_name_is() -> None:
    """Even where nothing listens, no certificate or name of a host is found at fault."""
    assert {asyncio.run(unanswered(f"http://127.0.0.1:9/{quote(name)}")) for name in TELLING} == {"refused"}


async def unanswered(url: str) -> str:
    async with Wire("http://127.0.0.1:9", Network(None, {}), timeout=2) as wire:
        with pytest.raises(NoAnswer) as caught:
            await wire.send("GET", url, {})
        return caught.value.trouble


class OnlyTheFirst(list[Fault]):
    """Happens once."""

    def __iter__(self) -> Iterator[Fault]:
        return iter([self.pop()] if self else [])


@pytest.mark.parametrize(("store", "client"), [("source", "bytes"), ("target", "bytes"), ("target", "plain")])
def test_a_retry_after_is_waited_out(sandbox: Sandbox, one_file: Files, bucket: str, store: str, client: str) -> None:
    answer = "503 Said\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    faults = {store: OnlyTheFirst([Fault("status", match="^(GET|PUT)", answer=answer)])}
    _, (result,), _ = copy_all(sandbox, one_file, bucket, **faults, sleep=asyncio.sleep, keys=KEYS[client])
    # SeaweedFS takes no key with a dot for a segment: what counts is that it was asked again, and when.
    assert result.attempts == 2
    assert result.outcome == ("copied" if client == "bytes" else "target_refused")
    assert 1 <= result.seconds < 10


def check(
    sandbox: Sandbox,
    files: Files,
    bucket: str,
    then: str,
    *,
    source: Fault | None = None,
    target: Fault | None = None,
    keys: KeyTemplate = KEYS["bytes"],
) -> None:
    faults = {"source": [source] if source else [], "target": [target] if target else []}
    stops = re.fullmatch(r"the run stops: `(.+)`", then)
    if stops:
        with pytest.raises(Fatal) as fatal:
            copy_all(sandbox, files, bucket, max_attempts=2, keys=keys, **faults)
        assert fatal.value.setting == stops[1]
        assert fatal.value.remedy
        return
    done, recorded, _ = copy_all(sandbox, files, bucket, max_attempts=2, keys=keys, **faults)
    (result,) = recorded
    again = then.startswith("tried again")
    assert result.outcome == ("gave_up" if again else then.strip("`"))
    assert result.attempts == (2 if again or result.outcome == "source_changed" else 1)
    assert ((done.source_pace.overloads + done.target_pace.overloads) > 0) == then.endswith("fewer at once")
