"""What is asked of the target about uploads: how its bucket is set up, which rules it has, and probes left behind."""

import ipaddress
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from migration_pipeline.adapters.s3.errors import translated
from migration_pipeline.adapters.s3.probe import S3Probe
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.ports import Receipt

Configuration = Mapping[str, Any]
Kind = Literal["cors", "lifecycle"]

_QUESTIONS = {
    "cors": "get_bucket_cors",
    "lifecycle": "get_bucket_lifecycle_configuration",
    "public_access_block": "get_public_access_block",
    "policy_status": "get_bucket_policy_status",
    "policy": "get_bucket_policy",
    "encryption": "get_bucket_encryption",
    "versioning": "get_bucket_versioning",
    "ownership": "get_bucket_ownership_controls",
}
_RIGHTS = {
    "cors": "s3:GetBucketCORS",
    "lifecycle": "s3:GetLifecycleConfiguration",
    "public_access_block": "s3:GetBucketPublicAccessBlock",
    "policy_status": "s3:GetBucketPolicyStatus",
    "policy": "s3:GetBucketPolicy",
    "encryption": "s3:GetEncryptionConfiguration",
    "versioning": "s3:GetBucketVersioning",
    "ownership": "s3:GetBucketOwnershipControls",
}
"""Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3"."""

_NOT_FOUND, _FORBIDDEN = 404, 403
_UNKNOWN_QUESTION = (400, 405, 501)
_IN_A_HEADER = "TransitionDefaultMinimumObjectSize"
"""Belongs to the lifecycle configuration, and is not in its document."""


class Told(NamedTuple):
    """What the store said to a question about the bucket.

    Attributes:
        answer: boto3's, empty where nothing of that kind is set; `None` where it is not to be had.
        why: it is not to be had, in words.
        remedy: what would bring an answer.
        whole: whether boto3 understood all of it: what it does not know would be lost by writing it back.
    """

    answer: Configuration | None
    why: str = ""
    remedy: str = ""
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSetUp:
    """How the bucket is set up for uploads.

    Attributes:
        region: that it is in; `None` where the store does not say.
        host: of the endpoint that upload URLs name.
        addresses: that its name leads to; none where it does not resolve.
    """

    cors: Told
    lifecycle: Told
    public_access_block: Told
    policy_status: Told
    policy: Told
    encryption: Told
    versioning: Told
    ownership: Told
    region: str | None
    host: str
    addresses: Sequence[str]


class S3WritePath(S3Probe):
    """The target, asked about uploads."""

    @property
    def session(self) -> Any:  # noqa: ANN401 - boto3's, imported late
        """The session that made this client: another would read the same files again."""
        return self._access.session

    async def set_up(self) -> BucketSetUp:
        """How the bucket is set up."""

        def look() -> BucketSetUp:
            told = {name: self._told(name) for name in _QUESTIONS}
            head = self._client.head_bucket(Bucket=self._bucket.name)["ResponseMetadata"]["HTTPHeaders"]
            host = urlsplit(self._client.meta.endpoint_url).hostname or ""
            # For us-east-1, boto3 speaks to the global name by default; upload URLs hold the region's.
            host = f"s3.{self._bucket.region}.amazonaws.com" if host == "s3.amazonaws.com" else host
            return BucketSetUp(
                **told, region=head.get("x-amz-bucket-region"), host=host, addresses=list(_addresses(host))
            )

        return await self._in_thread(look)

    async def write(self, kind: Kind, before: Configuration, after: Configuration) -> None:
        """Replace a configuration, if it is still what it was.

        S3 has no conditional write here: what somebody writes within the same tenth of a second is lost.

        Raises:
            Fatal: it changed meanwhile, or the credentials may not.
        """

        def replace() -> None:
            now = self._told(kind)
            if now.answer != before or not now.whole:
                raise Fatal(
                    f"the bucket's {kind} configuration changed meanwhile, or cannot be read whole.",
                    setting="target.bucket",
                    remedy="Look again: migration-pipeline doctor --write-path --fix",
                )
            where = {"Bucket": self._bucket.name}
            if kind == "cors":
                self._client.put_bucket_cors(**where, CORSConfiguration={"CORSRules": after["CORSRules"]})
                return
            kept = {_IN_A_HEADER: before[_IN_A_HEADER]} if _IN_A_HEADER in before else {}
            rules = {"Rules": after["Rules"]}
            self._client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration=rules, **kept)

        await self._in_thread(replace)

    async def discard(self, key: str, md5: bytes | None = None) -> None:
        """Remove the object under the key, version and all; with `md5`, only if it holds those bytes."""
        there = await self.describe(key, read=md5 is not None)
        if there is not None and md5 in (None, there.md5):
            await self.remove(key, Receipt(there.etag, None, there.version))

    async def old_keys(self, prefix: str, size: int, age: timedelta) -> list[str]:
        """Keys below a prefix whose objects are of this size and, by the store's clock, older."""

        def look() -> list[str]:
            page = self._client.list_objects_v2(Bucket=self._bucket.name, Prefix=prefix)
            date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
            now = parsedate_to_datetime(date) if date else datetime.now(UTC)
            found = page.get("Contents", [])
            return [item["Key"] for item in found if item["Size"] == size and now - item["LastModified"] >= age]

        return await self._in_thread(look)

    def _told(self, name: str) -> Told:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as for boto3

        self._client.meta.events.register("before-parse.s3", _count_leaves, unique_id="leaves")
        try:
            answer = dict(getattr(self._client, _QUESTIONS[name])(Bucket=self._bucket.name))
        except ClientError as error:
            return _not_told(name, error)
        except BotoCoreError as error:
            return Told(None, f"it cannot be asked: {translated(error)}.", "Try again.")
        leaves = answer.pop("Leaves", 0)
        del answer["ResponseMetadata"]
        return Told(answer, whole=leaves == _leaves({name: of for name, of in answer.items() if name != _IN_A_HEADER}))


def private(addresses: Sequence[str]) -> bool:
    """Whether all of them are of a private network."""
    return bool(addresses) and all(ipaddress.ip_address(each).is_private for each in addresses)


def _not_told(name: str, error: Any) -> Told:  # noqa: ANN401 - botocore is imported late
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if status == _NOT_FOUND:
        return Told({})
    if status == _FORBIDDEN:
        return Told(None, "the credentials may not ask.", f"Grant {_RIGHTS[name]} to see.")
    if status in _UNKNOWN_QUESTION:
        return Told(None, "the store does not know the question.", "Look at the store's own documents.")
    return Told(None, f"it cannot be asked: {translated(error)}.", "Try again.")


def _addresses(host: str) -> Iterator[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return
    yield from dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found)


def _count_leaves(response_dict: Any, customized_response_dict: Any, **_: object) -> None:  # noqa: ANN401 - botocore's
    """Note with the answer how many elements without children its document has."""
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314 - the store is trusted with all files
    except ET.ParseError:
        return
    customized_response_dict["Leaves"] = sum(1 for element in root.iter() if len(element) == 0)


def _leaves(value: object) -> int:
    """How many the answer has of them, as far as boto3 understood it."""
    if isinstance(value, Mapping):
        return sum(map(_leaves, value.values())) or 1
    if isinstance(value, list):
        return sum(map(_leaves, value))
    return 1
