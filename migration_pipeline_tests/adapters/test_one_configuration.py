"""Whatever AWS's configuration says: every request of every kind goes to one host, signed by one set of credentials."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.adapters.s3.write_path import S3WritePath
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import FileHeaders
from migration_pipeline_tests.certificates import made_in
from migration_pipeline_tests.memory_stores import md5
from migration_pipeline_tests.recording import Asked, Recorder, recording

ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/files"
HEADERS = FileHeaders("image/jpeg", metadata={"owner": "1"})
_PROFILES = """
[default]
[profile accelerated]
s3 =
  use_accelerate_endpoint = true
[profile elsewhere]
endpoint_url = https://store.example.com:443
s3 =
  addressing_style = path
"""

CONFIGURATIONS: dict[str, tuple[str, str, dict[str, str], str, str]] = {
    # bucket, region, environment, host, what the signature is for
    "usual": ("files", "eu-central-1", {}, "files.s3.eu-central-1.amazonaws.com", "eu-central-1/s3"),
    "dots": ("files.example.com", "eu-central-1", {}, "s3.eu-central-1.amazonaws.com", "eu-central-1/s3"),
    "China": ("files", "cn-north-1", {}, "files.s3.cn-north-1.amazonaws.com.cn", "cn-north-1/s3"),
    "GovCloud and FIPS": (
        "files",
        "us-gov-west-1",
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        "files.s3-fips.us-gov-west-1.amazonaws.com",
        "us-gov-west-1/s3",
    ),
    "dual-stack": (
        "files",
        "eu-west-1",
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        "files.s3.dualstack.eu-west-1.amazonaws.com",
        "eu-west-1/s3",
    ),
    "accelerated": (
        "files",
        "eu-west-1",
        {"AWS_PROFILE": "accelerated"},
        "files.s3-accelerate.amazonaws.com",
        "eu-west-1/s3",
    ),
    "access point": (
        ACCESS_POINT,
        "eu-west-1",
        {},
        "files-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
        "eu-west-1/s3",
    ),
    "a profile's endpoint": ("files", "eu-west-1", {"AWS_PROFILE": "elsewhere"}, "store.example.com", "eu-west-1/s3"),
    "the environment's endpoint": (
        "files",
        "eu-west-1",
        {"AWS_ENDPOINT_URL": "https://any.example.com", "AWS_ENDPOINT_URL_S3": "https://s3.example.com"},
        "s3.example.com",
        "eu-west-1/s3",
    ),
}


@pytest.fixture(autouse=True)
def _only_what_a_test_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(_PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield
    boto3.DEFAULT_SESSION = None


async def every_kind(target: S3WritePath) -> None:
    """Every request that the migration, `doctor` and the write path make of a bucket."""
    await target.check()
    for key in ("a b+ü.jpg", "odd/./key", "folder//x"):
        receipt = await target.create(key, b"bytes", md5(b"bytes"), HEADERS)
        await target.create(key, b"bytes", md5(b"bytes"), HEADERS, replaces=receipt.etag)
        assert (await target.describe(key)) is not None
        there = await target.describe(key, read=True)
        assert there is not None
        assert there.md5 == md5(b"bytes")
        await target.remove(key, receipt)
        await target.erase(key, receipt.etag, [])
    for key in ("large", "odd/../large"):
        upload = await target.begin(key, HEADERS)
        await upload.put(1, b"part", md5(b"part"))
        await upload.complete()
        await upload.abort()
    await target.facts("")
    await target.stored("large")
    await target.set_up()


def run(bucket: Bucket, network: Network) -> None:
    async def story() -> None:
        async with S3WritePath(bucket, network=network, timeout=5) as target:
            await every_kind(target)

    asyncio.run(story())


@pytest.mark.parametrize("named", CONFIGURATIONS)
def test_one_host_one_signer_through_the_proxy(named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket, region, environment, host, scope = CONFIGURATIONS[named]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    certificates = made_in(tmp_path, host)
    with recording(Recorder(certificates.context)) as recorder:
        monkeypatch.setenv("HTTPS_PROXY", recorder.url)
        run(Bucket(bucket, region), Network.of_environment(certificates.authority))
    assert len(recorder.asked) > 40
    assert {asked.host for asked in recorder.asked} == {host}
    assert {asked.signer for asked in recorder.asked} == {f"AKID/{scope}"}
    assert all(asked.through_proxy for asked in recorder.asked)
    # Over TLS no client digests a body that its Content-MD5 proves.
    written = [asked for asked in recorder.asked if asked.method == "PUT" and asked.body]
    assert {asked.headers["x-amz-content-sha256"] for asked in written} == {"UNSIGNED-PAYLOAD"}
    assert all("content-md5" in asked.headers for asked in written)


def test_the_setting_overrules_every_other_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(Recorder()) as ours, recording(Recorder()) as other:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", other.url)
        run(Bucket("files", "us-east-1", ours.url), Network.of_environment())
        assert other.asked == []
        assert {asked.path.split("/")[1].partition("?")[0] for asked in ours.asked} == {"files"}
        assert {asked.host for asked in ours.asked} == {f"127.0.0.1:{ours.port}"}
    # Over plain HTTP every body is signed, as botocore does it.
    assert not {asked.headers["x-amz-content-sha256"] for asked in ours.asked} & {"UNSIGNED-PAYLOAD"}


def test_hosts_that_no_proxy_names_are_asked_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(Recorder()) as store, recording(Recorder()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        run(Bucket("files", "us-east-1", store.url), Network.of_environment())
        assert store.asked
        assert proxy.asked == []
        monkeypatch.setenv("no_proxy", "example.com")
        seen = len(store.asked)
        run(Bucket("files", "us-east-1", store.url), Network.of_environment())
        assert len(store.asked) == seen
        assert all(asked.through_proxy and asked.host == f"127.0.0.1:{store.port}" for asked in proxy.asked)


class Provider:
    """A container's provider of credentials, which gives others each time that it is asked."""

    def __init__(self, lasts: timedelta) -> None:
        self.given, self._lasts = 0, lasts

    def answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes] | None:
        if asked.path != "/credentials":
            return None
        self.given += 1
        end = (datetime.now(UTC) + self._lasts).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {
            "AccessKeyId": f"AKID{self.given}",
            "SecretAccessKey": "s",
            "Token": f"t{self.given}",
            "Expiration": end,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(provider: Provider, recorder: Recorder) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{recorder.url}/credentials")
        assert provider.given == 0

    return start


def test_credentials_are_those_of_the_moment_and_renewed_in_time(provided: Any) -> None:
    provider = Provider(timedelta(hours=1))
    with recording(Recorder(first=provider.answer)) as recorder:
        provided(provider, recorder)

        async def story() -> None:
            async with S3Target(Bucket("files", "us-east-1", recorder.url), timeout=5) as target:
                put = [target.create(f"{n}", b"x", md5(b"x"), HEADERS) for n in range(20)]
                await asyncio.gather(*put)
                assert provider.given == 1
                # Nine minutes before their end: botocore renews, once for all requests, and so do we.
                credentials = target._access._credentials  # noqa: SLF001 - there is no other way to make time pass
                credentials._expiry_time -= timedelta(minutes=51)  # noqa: SLF001 - as above
                await asyncio.gather(*(target.create(f"later{n}", b"x", md5(b"x"), HEADERS) for n in range(20)))

        asyncio.run(story())
    assert provider.given == 2
    signed = [asked for asked in recorder.asked if asked.signer]
    signers = {asked.path: (asked.signer, asked.headers["x-amz-security-token"]) for asked in signed}
    assert {who for path, who in signers.items() if "later" not in path} == {("AKID1/us-east-1/s3", "t1")}
    assert signers["/files/later19"] == ("AKID2/us-east-1/s3", "t2")


@pytest.mark.parametrize("code", ["ExpiredToken", "TokenRefreshRequired", "InvalidToken"])
def test_credentials_that_s3_calls_expired_are_asked_for_anew_once(provided: Any, code: str) -> None:
    provider = Provider(timedelta(hours=1))
    revoked = {"AKID1"}

    def first(asked: Asked) -> tuple[int, dict[str, str], bytes] | None:
        if asked.signer.split("/")[0] in revoked:
            return 400, {}, f"<Error><Code>{code}</Code></Error>".encode()
        return provider.answer(asked)

    with recording(Recorder(first=first)) as recorder:
        provided(provider, recorder)

        async def story() -> None:
            async with S3Target(Bucket("files", "us-east-1", recorder.url), timeout=5) as target:
                for n in range(20):
                    await target.create(f"{n}", b"x", md5(b"x"), HEADERS)
                assert provider.given == 2
                revoked.update(f"AKID{n}" for n in range(100))
                with pytest.raises(Fatal, match="AWS_ACCESS_KEY_ID"):
                    await target.create("last", b"x", md5(b"x"), HEADERS)

        asyncio.run(story())
