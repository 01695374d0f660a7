"""What S3 is told, and which uploads are taken for abandoned."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from pathlib import Path

import pytest

from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.headers import StoreAs, for_boto3, for_request
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.adapters.s3.upload import stale
from migration_pipeline.core.model import FileHeaders
from migration_pipeline_tests.memory_stores import md5
from migration_pipeline_tests.recording import Asked, Recorder, recording

DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"


@pytest.mark.parametrize("client", ["ours", "boto3"])
def test_metadata_above_ascii_goes_in_one_line_of_rfc_2047(client: str) -> None:
    long = "Grüße ✓ " * 60
    headers = FileHeaders(metadata={"Greeting": "Grüße ✓", "long": long, "plain": "a=?b"})
    asked = {name.removeprefix("x-amz-meta-"): value for name, value in for_request(headers, StoreAs()).items()}
    sent = asked if client == "ours" else for_boto3(headers, StoreAs())["Metadata"]
    assert set(sent) == {"greeting", "long", "plain"}
    assert all(value.isascii() and value.isprintable() for value in sent.values())
    assert sent["plain"] == "a=?b"
    assert sent["greeting"].startswith("=?utf-8?")
    read = {name: str(make_header(decode_header(value))) for name, value in sent.items()}
    assert read == {"greeting": "Grüße ✓", "long": long, "plain": "a=?b"}


@pytest.mark.parametrize("key", ["k", "a/./k"])
def test_what_lies_in_an_archive_is_taken_at_its_etag(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """It cannot be read back at once, which says nothing against it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def first(asked: Asked) -> tuple[int, dict[str, str], bytes] | None:
        return (403, {}, b"<Error><Code>InvalidObjectState</Code></Error>") if asked.method == "GET" else None

    with recording(Recorder(first=first)) as recorder:

        async def story() -> None:
            async with S3Target(Bucket("files", "eu-west-1", recorder.url), timeout=5) as target:
                receipt = await target.create(key, b"x", md5(b"x"), FileHeaders())
                there = await target.describe(key, read=True)
                assert there is not None
                assert (there.md5, there.etag) == (md5(b"x"), receipt.etag)

        asyncio.run(story())


def test_an_upload_is_abandoned_only_when_no_run_can_be_at_it_any_more() -> None:
    longest = re.search(r"max_runtime_seconds: (\d+)", DAGSTER_YAML.read_text(encoding="utf-8"))
    assert longest
    alive = datetime.now(UTC) - timedelta(seconds=int(longest[1]))
    assert stale({"alive": alive, "abandoned": alive - timedelta(days=2)}) == ["abandoned"]
