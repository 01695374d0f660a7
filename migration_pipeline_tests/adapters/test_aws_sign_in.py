"""Every way in which signing in to AWS fails ends as one message with its remedy, and not as dead letters."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.errors import by_code
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.errors import Fatal, Transient
from migration_pipeline.core.model import FileHeaders
from migration_pipeline_tests.memory_stores import md5
from migration_pipeline_tests.recording import Asked, Recorder, recording

KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
SSO = """
[profile sso]
sso_session = s
sso_account_id = 123456789012
sso_role_name = r
[sso-session s]
sso_region = eu-west-1
sso_start_url = https://d.awsapps.com/start
"""
ROLE = """
[profile role]
role_arn = arn:aws:iam::123456789012:role/migration
external_id = ours
source_profile = base
[profile base]
aws_access_key_id = BASE
aws_secret_access_key = secret
"""


class Failure(NamedTuple):
    """How signing in fails, and what is said."""

    environment: dict[str, str]
    config: str
    setting: str
    said: str
    remedy: str
    first: Callable[[Asked], Any] = lambda _: None


def refuses(status: int, code: str) -> Callable[[Asked], Any]:
    """An endpoint of STS or S3 that says this to everything."""
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    return lambda _: (status, {"Content-Type": "text/xml"}, body.encode())


def to_s3(status: int, code: str) -> Callable[[Asked], Any]:
    return lambda _: (status, {}, f"<Error><Code>{code}</Code></Error>".encode() if code else b"")


GIVEN = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
AS_ROLE = {"AWS_PROFILE": "role", "AWS_ENDPOINT_URL_STS": "{url}"}
FAILURES = {
    "no credentials at all": Failure({}, "", KEYS, "no credentials", "Give credentials"),
    "half of them": Failure({"AWS_ACCESS_KEY_ID": "A"}, "", KEYS, "one of two halves", "Set both"),
    "an unknown profile": Failure({"AWS_PROFILE": "nobody"}, "", "AWS_PROFILE", "in neither", "one that exists"),
    "a file that is none": Failure({}, "[profile", "AWS_CONFIG_FILE", "cannot be read", "~/.aws/config"),
    "a profile without its source": Failure(
        {"AWS_PROFILE": "p"},
        "[profile p]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = missing\n",
        "AWS_PROFILE",
        "does not hold together",
        "~/.aws/config",
    ),
    "profiles in a circle": Failure(
        {"AWS_PROFILE": "p"},
        "[profile p]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = q\n"
        "[profile q]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = p\n",
        "AWS_PROFILE",
        "in a circle",
        "~/.aws/config",
    ),
    "no SSO session": Failure({"AWS_PROFILE": "sso"}, SSO, "AWS_PROFILE", "SSO session", "aws sso login"),
    "a process that fails": Failure(
        {"AWS_PROFILE": "p"},
        f"[profile p]\ncredential_process = {sys.executable} -c raise(SystemExit(3))\n",
        KEYS,
        "a provider of credentials failed",
        "credential_process",
    ),
    "a role that is denied": Failure(
        AS_ROLE, ROLE, "AWS_PROFILE", "AccessDenied", "external id", refuses(403, "AccessDenied")
    ),
    "a role whose base has no rights any more": Failure(
        AS_ROLE, ROLE, "AWS_PROFILE", "InvalidClientTokenId", "trust policy", refuses(403, "InvalidClientTokenId")
    ),
    "a web identity whose token has ended": Failure(
        {
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "{token}",
            "AWS_ENDPOINT_URL_STS": "{url}",
        },
        "",
        "AWS_PROFILE",
        "ExpiredTokenException",
        "trust policy",
        refuses(400, "ExpiredTokenException"),
    ),
    "a container without a role": Failure(
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/credentials"},
        "",
        KEYS,
        "a provider of credentials failed",
        "task or instance role",
        lambda _: (404, {}, b"no"),
    ),
    "a key that is unknown": Failure(
        GIVEN, "", KEYS, "InvalidAccessKeyId", "Give credentials", to_s3(403, "InvalidAccessKeyId")
    ),
    "a secret that is wrong": Failure(
        GIVEN, "", KEYS, "SignatureDoesNotMatch", "check the clock", to_s3(403, "SignatureDoesNotMatch")
    ),
    "a clock that is wrong": Failure(
        GIVEN, "", KEYS, "RequestTimeTooSkewed", "check the clock", to_s3(403, "RequestTimeTooSkewed")
    ),
    "a session that is over": Failure(GIVEN, "", KEYS, "ExpiredToken", "Give credentials", to_s3(400, "ExpiredToken")),
    "a token to be refreshed": Failure(
        GIVEN, "", KEYS, "TokenRefreshRequired", "Give credentials", to_s3(400, "TokenRefreshRequired")
    ),
    "an account that is not signed up": Failure(
        GIVEN, "", KEYS, "NotSignedUp", "Give credentials", to_s3(403, "NotSignedUp")
    ),
    "a right that is missing": Failure(GIVEN, "", KEYS, "AccessDenied", "PutObject", to_s3(403, "AccessDenied")),
    "a key of KMS that may not be used": Failure(
        GIVEN, "", "target.kms_key_id", "KMS.DisabledException", "enabled key", to_s3(400, "KMS.DisabledException")
    ),
    "a key of KMS that is going": Failure(
        GIVEN,
        "",
        "target.kms_key_id",
        "KMS.KMSInvalidStateException",
        "enabled key",
        to_s3(400, "KMS.KMSInvalidStateException"),
    ),
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("token")


@pytest.mark.parametrize("named", FAILURES)
def test_a_failure_is_one_message(named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failure = FAILURES[named]
    (tmp_path / "config").write_text(failure.config)
    with recording(Recorder(first=failure.first)) as recorder:
        for name, value in failure.environment.items():
            monkeypatch.setenv(name, value.format(url=recorder.url, token=tmp_path / "token"))

        async def work() -> None:
            async with S3Target(Bucket("files", "eu-west-1", recorder.url), timeout=5) as target:
                await target.create("k", b"x", md5(b"x"), FileHeaders())

        with pytest.raises(Fatal) as fatal:
            asyncio.run(work())
    assert fatal.value.setting == failure.setting
    assert failure.said in fatal.value.message
    assert failure.remedy in fatal.value.remedy
    assert "secret" not in str(fatal.value)


@pytest.mark.parametrize("ends", ["refused", "away"])
def test_a_provider_that_fails_midway_stops_the_run_or_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    given: list[int] = []

    def first(asked: Asked) -> Any:
        if asked.path != "/credentials":
            return None
        given.append(1)
        if len(given) > 1 and ends == "refused":
            return 404, {}, b"no"
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"AccessKeyId": "AKID", "SecretAccessKey": "s", "Token": "t", "Expiration": end}
        return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()

    with recording(Recorder()) as store, recording(Recorder(first=first)) as provider:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{provider.url}/credentials")

        async def work() -> None:
            async with S3Target(Bucket("files", "eu-west-1", store.url), timeout=5) as target:
                await target.create("first", b"x", md5(b"x"), FileHeaders())
                target._access._credentials._expiry_time = datetime.now(UTC)  # noqa: SLF001 - makes time pass
                await target.create("second", b"x", md5(b"x"), FileHeaders())

        if ends == "refused":
            with pytest.raises(Fatal, match="task or instance role"):
                asyncio.run(work())
            return
        asyncio.run(work())
        assert len(given) == 2


def test_throttling_of_any_spelling_is_waited_out_and_slows_down() -> None:
    spelled = [
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "KMS.ThrottlingException",
        "RequestLimitExceeded",
    ]
    spelled += ["BandwidthLimitExceeded", "TooManyRequestsException", "SlowDown", "PriorRequestNotComplete"]
    for code in spelled:
        for status in (400, 429, 503):
            meaning = by_code(code, status, "7")
            assert isinstance(meaning, Transient), code
            assert (meaning.overload, meaning.retry_after) == (True, 7.0)
    later = (datetime.now(UTC) + timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    meaning = by_code("SlowDown", 503, later)
    assert isinstance(meaning, Transient)
    assert meaning.retry_after is not None
    assert 25 < meaning.retry_after <= 30
