"""What S3 is told, and which uploads are taken for abandoned."""

import re
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from pathlib import Path

import pytest

from migration_pipeline.adapters.s3.headers import StoreAs, for_boto3, for_request
from migration_pipeline.adapters.s3.upload import stale
from migration_pipeline.core.model import FileHeaders

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


def test_an_upload_is_abandoned_only_when_no_run_can_be_at_it_any_more() -> None:
    longest = re.search(r"max_runtime_seconds: (\d+)", DAGSTER_YAML.read_text(encoding="utf-8"))
    assert longest
    alive = datetime.now(UTC) - timedelta(seconds=int(longest[1]))
    assert stale({"alive": alive, "abandoned": alive - timedelta(days=2)}) == ["abandoned"]
