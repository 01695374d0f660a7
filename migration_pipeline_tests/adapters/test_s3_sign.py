"""Our signatures are botocore's, whatever the key, the headers and the credentials."""

import datetime as dt
import random
from collections.abc import Callable
from unittest import mock
from urllib.parse import quote

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from migration_pipeline.adapters.s3.sign import UNSIGNED, Keys, Signer

REQUESTS = 4000
ALPHABET = "abcXYZ019-_.~/ +%&=?#:;,@!$'()*\"<>[]{}|\\^`äß\u00e9e\u0301漢字🎈\u200b\u00a0"
HEADERS = ["content-md5", "content-type", "content-disposition", "cache-control", "if-match", "x-amz-tagging"]
HOSTS = [
    "https://b.s3.eu-central-1.amazonaws.com",
    "https://s3.cn-north-1.amazonaws.com.cn/files.example.com",
    "http://127.0.0.1:8333/bucket",
    "https://s3.example.com:443",
    "http://s3.example.com:80/b",
]
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def text(made: random.Random, most: int, alphabet: str = ALPHABET) -> str:
    return "".join(made.choices(alphabet, k=made.randint(1, most)))


def request(made: random.Random) -> tuple[str, str, dict[str, str]]:
    pairs = [(text(made, 12), text(made, 12) if made.random() < 0.7 else "") for _ in range(made.choice([0, 0, 1, 4]))]
    # The same name several times, and values that sort otherwise than names do.
    pairs += pairs[:1]
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    if made.random() < 0.1:
        query = "uploads"
    headers = {name: text(made, 40) for name in made.sample(HEADERS, made.randint(0, 6))}
    headers |= {f"x-amz-meta-{text(made, 12, 'abcz019-_')}": text(made, 60) for _ in range(made.randint(0, 4))}
    url = f"{made.choice(HOSTS)}/{quote(text(made, 60), safe='/~')}" + (f"?{query}" if query else "")
    return made.choice(["GET", "PUT", "HEAD", "DELETE", "POST"]), url, headers


def test_signatures_are_those_of_botocore() -> None:
    for seed in range(REQUESTS):
        made = random.Random(seed)
        method, url, headers = request(made)
        token = text(made, 200, "abcXYZ019/+=") if made.random() < 0.5 else None
        secret = text(made, 40, "abcXYZ019/+=")
        region = made.choice(["eu-central-1", "us-gov-west-1", "cn-north-1"])
        service = made.choice(["s3", "s3-object-lambda", "s3-outposts"])
        payload = made.choice([UNSIGNED, EMPTY])
        moment = dt.datetime.fromtimestamp(made.randint(1_577_836_800, 2_200_000_000), dt.UTC)
        ours = Signer(region, service).signed(
            method, url, headers, Keys("AKID", secret, token), payload=payload, at=moment
        )
        theirs = AWSRequest(method, url, headers=dict(headers))
        signer = auth.S3SigV4Auth(Credentials("AKID", secret, token), service, region)
        with (
            mock.patch.object(auth, "get_current_datetime", lambda at=moment: at),
            mock.patch.object(signer, "payload", lambda _, said=payload: said),
        ):
            signer.add_auth(theirs)
        sent = {name.lower(): value for name, value in theirs.headers.items()}
        assert {name.lower(): value for name, value in ours.items()} == sent, f"seed {seed}: {method} {url}"


def test_the_derived_key_is_that_of_the_day_and_of_the_credentials() -> None:
    signer = Signer("eu-central-1", "s3")
    evening = dt.datetime(2026, 11, 28, 23, 59, 59, tzinfo=dt.UTC)
    keys = [Keys("AKID", "one" * 10, None), Keys("AKID", "two" * 10, None)]
    for moment in (evening, evening + dt.timedelta(seconds=1), evening):
        for each in keys:
            kept = signer.signed("GET", "https://b.s3.amazonaws.com/k", {}, each, at=moment)
            fresh = Signer("eu-central-1", "s3").signed("GET", "https://b.s3.amazonaws.com/k", {}, each, at=moment)
            assert kept == fresh


@pytest.mark.parametrize("show", [repr, str])
def test_keys_are_never_shown(show: Callable[[object], str]) -> None:
    signer = Signer("r", "s")
    signer.signed("GET", "https://b.s3.amazonaws.com/k", {}, Keys("AKID", "hidden", "hidden"))
    assert "hidden" not in show(Keys("AKID", "hidden", "hidden")) + show(signer)
