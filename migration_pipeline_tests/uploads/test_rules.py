"""What may be uploaded, under which names, and when to which store; no server is needed."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_pipeline.core.urls import KeyTemplate, UrlKind, UrlRules
from migration_pipeline.uploads import (
    AzureContainer,
    AzureUploads,
    Encryption,
    KeyRules,
    Misconfigured,
    NotConfirmed,
    Refused,
    S3Bucket,
    S3Uploads,
    Switch,
    SwitchedUploads,
    UploadRules,
    Uploads,
    Wish,
    configuration,
    explain,
    from_environment,
)

RULES = UploadRules(max_bytes=1000)
PHOTO = Wish(content_type="image/jpeg", size=500)
ACCOUNT = "https://acct.blob.core.windows.net"
SIGNED_ELSEWHERE = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}

profiles = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SIGNED_ELSEWHERE.items():
        monkeypatch.setenv(name, value)


def s3(rules: UploadRules = RULES, **bucket: str | None) -> S3Uploads:
    places = {"name": "user-files", "region": "eu-central-1", "public_base_url": "https://cdn.example.com/files"}
    return S3Uploads(S3Bucket(**(places | bucket)), rules)  # type: ignore[arg-type]


@cache
def shared_s3() -> S3Uploads:
    """For tests of many examples: a client takes its time to be made."""
    return s3()


def azure(rules: UploadRules = RULES) -> AzureUploads:
    container = AzureContainer(
        account_url=ACCOUNT,
        name="photos",
        account_key="c2VjcmV0",
        others=["verifications"],
        aliases={"https://img.example.com": "photos"},
    )
    return AzureUploads(container, rules)


def test_issuing_needs_nothing_but_the_sdk_of_the_store_that_is_used() -> None:
    """An app that uses one store installs one SDK, and none of what the migration needs."""
    script = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not installed")

BLOCKED = set(sys.argv[2].split(","))
sys.meta_path.insert(0, Absent())
from migration_pipeline import uploads as up

rules, wish = up.UploadRules(max_bytes=9), up.Wish(content_type="image/png", size=9)
if sys.argv[1] == "s3":
    bucket = up.S3Bucket(name="b", region="eu-central-1", public_base_url="https://cdn.example.com")
    issuer = up.S3Uploads(bucket, rules)
else:
    container = up.AzureContainer(account_url="https://a.blob.core.windows.net", name="c", account_key="c2VjcmV0")
    issuer = up.AzureUploads(container, rules)
print(issuer.put_ticket("7", wish).url)
print([name for name in sys.modules if name.startswith("migration_pipeline.") and "uploads" not in name])
"""
    ours = "dagster,dagster_aws,pandas,pydantic,aiohttp,pyreqwest,psycopg,firebase_admin,google,click,rich,apprise,grpc"
    for store, other in (("s3", "azure"), ("azure", "boto3,botocore")):
        done = subprocess.run(
            [sys.executable, "-c", script, store, f"{ours},{other}"],
            capture_output=True,
            text=True,
            check=False,
            env={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
        )
        assert done.returncode == 0, done.stderr
        url, loaded = done.stdout.splitlines()
        assert "Signature=" in url or "sig=" in url
        assert loaded == "[]"


@pytest.mark.parametrize(
    ("region", "bucket", "host"),
    [
        ("eu-central-1", "user-files", "user-files.s3.eu-central-1.amazonaws.com"),
        ("us-east-1", "user-files", "user-files.s3.us-east-1.amazonaws.com"),
        ("cn-north-1", "user-files", "user-files.s3.cn-north-1.amazonaws.com.cn"),
        ("eu-central-1", "user.files", "s3.eu-central-1.amazonaws.com/user.files"),
    ],
)
def test_urls_name_the_endpoint_of_the_region(
    region: str, bucket: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example.com")
    monkeypatch.setenv("AWS_REGION", "ap-southeast-2")
    uploads = s3(region=region, name=bucket)
    form = uploads.form_ticket("7", PHOTO)
    assert uploads.put_ticket("7", PHOTO).url.startswith(f"https://{host}/u/7/")
    assert form is not None
    assert form.url.removesuffix("/") == f"https://{host}"


def test_type_size_once_and_name_are_signed() -> None:
    url = s3().put_ticket("7", PHOTO).url
    assert "X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost%3Bif-none-match&" in url


def test_a_url_ends_with_the_temporary_credentials_that_signed_it() -> None:
    soon = datetime.now(UTC) + timedelta(minutes=20)
    session = boto3.Session()
    session._session._credentials = RefreshableCredentials(  # noqa: SLF001 - boto3 takes only fixed ones
        "key", "secret", "token", expiry_time=soon, refresh_using=dict, method="test"
    )
    bucket = S3Bucket(name="b", region="eu-central-1", public_base_url="https://cdn.example.com")
    ticket = S3Uploads(bucket, UploadRules(max_bytes=1000, expires_in=timedelta(hours=6)), session=session)
    assert ticket.put_ticket("7", PHOTO).expires_at == soon


def test_tickets_and_stores_keep_their_secrets_out_of_logs() -> None:
    form = s3().form_ticket("7", PHOTO)
    assert form is not None
    for ticket in (s3().put_ticket("7", PHOTO), azure().put_ticket("7", PHOTO), form):
        assert "ignature" not in repr(ticket)
        assert "sig=" not in repr(ticket)
        assert "?" not in ticket.reference
    assert "c2VjcmV0" not in repr(AzureContainer(account_url=ACCOUNT, name="photos", account_key="c2VjcmV0"))


@pytest.mark.parametrize(
    "wish",
    [
        Wish(content_type="text/html", size=500),
        Wish(content_type="image/jpeg; charset=utf-8", size=500),
        Wish(content_type="IMAGE/JPEG", size=500),
        Wish(content_type="image/svg+xml", size=500),
        Wish(content_type="image/jpeg", size=1001),
        Wish(content_type="image/jpeg", size=0),
        Wish(content_type="image/jpeg", size=-1),
        Wish(content_type="image/jpeg", size=500, sha256=b"short"),
    ],
)
def test_what_the_rules_do_not_allow_gets_no_ticket(wish: Wish) -> None:
    for uploads in (s3(), azure()):
        with pytest.raises(Refused):
            uploads.put_ticket("7", wish)
        with pytest.raises(Refused):
            uploads.form_ticket("7", wish)


def test_a_digest_may_be_required() -> None:
    strict = UploadRules(max_bytes=1000, digest_required=True)
    with pytest.raises(Refused, match="sha256"):
        s3(strict).put_ticket("7", PHOTO)
    with pytest.raises(Refused, match="md5"):
        azure(strict).put_ticket("7", PHOTO)
    told = Wish(content_type="image/jpeg", size=500, sha256=bytes(32), md5=bytes(16))
    assert "x-amz-checksum-sha256" in s3(strict).put_ticket("7", told).headers
    assert "Content-MD5" in azure(strict).put_ticket("7", told).headers


@pytest.mark.parametrize(
    "profile",
    ["", "..", ".", "a/b", "a\\b", "../7", "7/../8", "a b", "a\n", "a\0", "%2e%2e", "-a", "é", "a" * 65, "7?x"],
)
def test_a_profile_id_cannot_leave_its_folder(profile: str) -> None:
    for uploads in (s3(), azure()):
        with pytest.raises(Refused, match="profile id"):
            uploads.put_ticket(profile, PHOTO)
        with pytest.raises(Refused):
            uploads.confirm(profile, f"https://cdn.example.com/files/u/{profile}/{'0' * 32}.jpg")


@given(profiles)
def test_keys_are_under_their_profile_and_random(profile: str) -> None:
    keys = KeyRules()
    one, other = keys.new(profile, ".jpg"), keys.new(profile, ".jpg")
    assert one != other
    assert re.fullmatch(rf"u/{profile}/[0-9a-f]{{32}}\.jpg", one)
    assert keys.belongs_to(one, profile, ".jpg")
    assert not keys.belongs_to(one, profile + "0", ".jpg")
    assert not keys.belongs_to(one, profile, ".png")
    assert not keys.belongs_to(one + "/x", profile, ".jpg")
    assert not keys.belongs_to(one + "\n", profile, ".jpg")


@pytest.mark.parametrize(
    "template",
    [
        "u/{profile}/{name}",
        "u/{name}{extension}",
        "u/{profile}{name}{extension}",
        "u/x{profile}/{name}{extension}",
        "u/{profile}/{profile}/{name}{extension}",
        "u/../{profile}/{name}{extension}",
        "u//{profile}/{name}{extension}",
        "/u/{profile}/{name}{extension}",
        "u/{profile}/{name}{extension}/x",
        "ü/{profile}/{name}{extension}",
        "u/{profile}/{0}{name}{extension}",
    ],
)
def test_key_templates_that_could_go_wrong_are_refused(template: str) -> None:
    with pytest.raises(Misconfigured, match="key template"):
        KeyRules(template)


@pytest.mark.parametrize(
    "template",
    ["photos/{profile}/{name}{extension}", "{profile}/{name}{extension}", "abc/u/{profile}/{name}{extension}"],
)
def test_new_keys_cannot_be_those_of_migrated_files(template: str) -> None:
    bucket = S3Bucket(name="b", region="eu-central-1", public_base_url="https://cdn.example.com")
    with pytest.raises(Misconfigured, match="migrated"):
        S3Uploads(bucket, RULES, keys=KeyRules(template))
    with pytest.raises(Misconfigured, match="migrated"):
        S3Uploads(bucket, RULES, keys=KeyRules("old/{profile}/{name}{extension}"), migrated_prefixes=["old/"])
    S3Uploads(bucket, RULES, keys=KeyRules("photos/{profile}/{name}{extension}"), migrated_prefixes=["old/"])


@settings(deadline=None)  # the first example makes a client
@given(profiles)
def test_the_migration_takes_new_references_for_what_they_are(profile: str) -> None:
    """At the target, of no blob: never moved, never erased, never rolled back."""
    rules = UrlRules(
        account_url=ACCOUNT,
        containers=["photos", "verifications"],
        alias_hosts={"img.example.com": "photos"},
        public_base_url="https://cdn.example.com/files",
        keys=KeyTemplate(),
    )
    ticket = shared_s3().put_ticket(profile, PHOTO)
    found = rules.classify(ticket.reference)
    assert found is not None
    assert (found.kind, found.key) == (UrlKind.TARGET, ticket.key)
    assert rules.file_of(ticket.key) is None
    before = azure().put_ticket(profile, PHOTO)
    late = rules.classify(before.reference)
    assert late is not None
    assert late.kind is UrlKind.SOURCE
    assert late.file is not None
    assert rules.key_of(late.file) == f"photos/{before.key}" != ticket.key


@pytest.mark.parametrize("seconds", [0, 59, 7 * 24 * 3600 + 1])
def test_times_that_no_store_honours_are_refused(seconds: int) -> None:
    with pytest.raises(Misconfigured, match="expires_in"):
        UploadRules(max_bytes=1, expires_in=timedelta(seconds=seconds))
    with pytest.raises(Misconfigured, match="expires_in"):
        s3().download_url("https://cdn.example.com/files/photos/a.jpg", timedelta(seconds=seconds))


def test_rules_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"max_bytes": 6 * 1024**3},
        {"max_bytes": 1, "min_bytes": 2},
        {"max_bytes": 1, "types": {}},
        {"max_bytes": 1, "types": {"image/*": ".jpg"}},
        {"max_bytes": 1, "types": {"image/jpeg": "/../x"}},
        {"max_bytes": 1, "cache_control": "a\r\nb"},
    ):
        with pytest.raises(Misconfigured):
            UploadRules(**wrong)  # type: ignore[arg-type]
    with pytest.raises(Misconfigured):
        Encryption("AES128")  # type: ignore[arg-type]
    with pytest.raises(Misconfigured):
        Encryption("AES256", "key")


MOMENT = datetime(2026, 3, 1, 4, tzinfo=UTC)


def switched(at: datetime, switch: Switch) -> SwitchedUploads:
    return SwitchedUploads(azure(), s3(), switch, clock=lambda: at)


@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_all_instances_switch_at_the_same_moment(seconds: int) -> None:
    at = (MOMENT + timedelta(seconds=seconds)).astimezone(timezone(timedelta(hours=5, minutes=30)))
    one, other = Switch.parse("2026-03-01T04:00:00Z"), Switch.parse("2026-02-28T20:00:00-08:00")
    expected = "azure" if seconds < 0 else "s3"
    assert {switched(at, switch).put_ticket("7", PHOTO).store for switch in (one, other)} == {expected}


def test_the_switch_may_be_a_word() -> None:
    assert switched(MOMENT, Switch.parse("before")).put_ticket("7", PHOTO).store == "azure"
    assert switched(MOMENT, Switch.parse(" after\n")).put_ticket("7", PHOTO).store == "s3"
    assert switched(MOMENT, Switch.parse("before")).form_ticket("7", PHOTO) is None


@pytest.mark.parametrize("text", ["", "now", "2026-03-01T04:00:00", "2026-03-01", "After"])
def test_a_switch_that_instances_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"switch|time zone"):
        Switch.parse(text)


@pytest.mark.parametrize("word", ["before", "after"])
def test_files_of_both_stores_are_read_on_both_sides_of_the_switch(word: str) -> None:
    uploads = switched(MOMENT, Switch.parse(word))
    assert "X-Amz-Signature" in uploads.download_url("https://cdn.example.com/files/photos/7/a%20b.jpg")
    for old in (f"{ACCOUNT}/photos/7/a%20b.jpg?sig=old", "https://img.example.com/7/a%20b.jpg"):
        url = uploads.download_url(old)
        assert url.startswith(f"{ACCOUNT}/photos/7/a%20b.jpg?")
        assert "sp=r&" in url
        assert "sig=old" not in url
    for foreign in (f"{ACCOUNT}/private/a.jpg", "https://cdn.example.com/filesX/a.jpg", "https://evil.example/a.jpg"):
        assert not uploads.holds(foreign)
        with pytest.raises(Refused):
            uploads.download_url(foreign)
        with pytest.raises(NotConfirmed):
            uploads.confirm("7", foreign)


VARIABLES = {
    "UPLOADS_SWITCH": "2026-03-01T04:00:00Z",
    "UPLOADS_S3_BUCKET": "user-files",
    "UPLOADS_S3_REGION": "eu-central-1",
    "UPLOADS_S3_PUBLIC_BASE_URL": "https://cdn.example.com/files",
    "UPLOADS_AZURE_ACCOUNT_URL": ACCOUNT,
    "UPLOADS_AZURE_CONTAINER": "photos",
    "AZURE_STORAGE_KEY": "c2VjcmV0",
}


def test_configuration_alone_changes_the_store() -> None:
    assert from_environment(VARIABLES).put_ticket("7", PHOTO).store == "s3"  # the moment is past
    assert from_environment(VARIABLES | {"UPLOADS_SWITCH": "before"}).put_ticket("7", PHOTO).store == "azure"
    closed = {name: value for name, value in VARIABLES.items() if "AZURE" not in name} | {"UPLOADS_SWITCH": "after"}
    only_s3 = from_environment(closed)
    assert isinstance(only_s3, Uploads)
    assert only_s3.put_ticket("7", PHOTO).store == "s3"
    assert not only_s3.holds(f"{ACCOUNT}/photos/a.jpg")


def test_configuration_is_followed() -> None:
    uploads = from_environment(
        VARIABLES
        | {
            "UPLOADS_SWITCH": "after",
            "UPLOADS_TYPES": "image/png, image/webp",
            "UPLOADS_MAX_BYTES": "20",
            "UPLOADS_EXPIRE_SECONDS": "90",
            "UPLOADS_CACHE_CONTROL": "public, max-age=31536000, immutable",
            "UPLOADS_S3_ENCRYPTION": "aws:kms",
            "UPLOADS_S3_KMS_KEY_ID": "alias/uploads",
            "UPLOADS_S3_KEY_TEMPLATE": "v2/{profile}/{name}{extension}",
        }
    )
    ticket = uploads.put_ticket("7", Wish(content_type="image/webp", size=20))
    assert re.fullmatch(r"v2/7/[0-9a-f]{32}\.webp", ticket.key)
    assert "X-Amz-Expires=90" in ticket.url
    assert dict(ticket.headers) == {
        "Content-Type": "image/webp",
        "If-None-Match": "*",
        "Cache-Control": "public, max-age=31536000, immutable",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "alias/uploads",
    }
    for wish in (PHOTO, Wish(content_type="image/webp", size=21)):
        with pytest.raises(Refused):
            uploads.put_ticket("7", wish)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "") for name in VARIABLES if name != "UPLOADS_AZURE_ACCOUNT_URL"),
        ("UPLOADS_AZURE_ACCOUNT_URL", ""),
        ("UPLOADS_MAX_BYTES", "10 MB"),
        ("UPLOADS_MAX_BYTE", "10"),
        ("UPLOADS_DIGEST_REQUIRED", "yes"),
        ("UPLOADS_TYPES", "image/svg+xml"),
        ("AZURE_STORAGE_KEY", "no base64!"),
        ("UPLOADS_S3_ENCRYPTION", "yes"),
        ("UPLOADS_S3_KEY_TEMPLATE", "photos/{profile}/{name}{extension}"),
    ],
)
def test_wrong_configuration_is_refused_at_the_start(name: str, value: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        from_environment(VARIABLES | {name: value})
    assert "c2VjcmV0" not in str(refused.value)
    assert "no base64!" not in str(refused.value)


def test_every_variable_is_described() -> None:
    root = Path(__file__).parents[2]
    read = re.findall(r'"((?:UPLOADS|AZURE)_[A-Z0-9_]+)"', Path(configuration.__file__).read_text(encoding="utf-8"))
    described = re.findall(
        r"^\| `([A-Z0-9_]+)` \|", (root / "docs/uploads.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(described) == set(read)


def test_refusals_are_explained_without_repeating_them() -> None:
    error = "<Error><Code>{}</Code><Message>{}</Message><Resource>/b/secret</Resource></Error>"
    assert "15 minutes" in explain(error.format("RequestTimeTooSkewed", "The difference is too large"))
    assert "time is over" in explain(error.format("AccessDenied", "Request has expired"))
    assert "role" in explain(error.format("AccessDenied", "Access Denied"))
    assert "already" in explain(error.format("UnauthorizedBlobOverwrite", ""))
    assert explain(error.format("Unheard", "secret")) == "The store said Unheard."
    assert explain("<html>secret</html>") == "The store gave no reason."
