"""What `doctor` asks of S3, beside what the migration itself does."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from migration_pipeline.adapters.s3.target import S3Target

Answer = Mapping[str, Any]


class Stored(NamedTuple):
    """How an object is kept.

    Attributes:
        tags: `None` where the credentials may not ask.
    """

    storage_class: str
    encryption: str | None
    tags: Mapping[str, str] | None


class BucketFacts(NamedTuple):
    """How the bucket is set up; `None` where the credentials may not ask, or the store does not know the question.

    Attributes:
        region: that it is in.
        versioning: `Enabled`, `Suspended` or `Off`.
        encryption: what objects get that name none; empty for nothing.
        locked: how long Object Lock keeps an object by default, in words; empty for not at all.
        aborts_uploads: a rule drops the parts of uploads that were never completed, under our prefix.
    """

    region: str | None
    versioning: str | None
    encryption: str | None
    aborts_uploads: bool | None
    locked: str | None = ""


class S3Probe(S3Target):
    """The target, asked about itself."""

    async def stored(self, key: str) -> Stored:
        """How the object under the key is kept."""

        def look() -> Stored:
            head = self._head(key) or {}
            tags = self._answer(lambda: self._client.get_object_tagging(Bucket=self._bucket.name, Key=key))
            return Stored(
                head.get("StorageClass", "STANDARD"),
                head.get("ServerSideEncryption"),
                None if tags is None else {tag["Key"]: tag["Value"] for tag in tags.get("TagSet", [])},
            )

        return await self._in_thread(look)

    async def read_by_sdk(self, key: str) -> bytes | None:
        """The object's bytes, read by botocore's client alone; `None` where it finds none."""

        def read() -> bytes | None:
            if self._head(key) is None:
                return None
            return bytes(self._client.get_object(Bucket=self._bucket.name, Key=key)["Body"].read())

        return await self._in_thread(read)

    async def facts(self, prefix: str) -> BucketFacts:
        """How the bucket is set up, for keys under a prefix."""
        where = {"Bucket": self._bucket.name}

        def look() -> BucketFacts:
            client = self._client
            head = client.head_bucket(**where)["ResponseMetadata"]["HTTPHeaders"]
            versioning = self._answer(lambda: client.get_bucket_versioning(**where))
            encryption = self._answer(lambda: client.get_bucket_encryption(**where))
            lock = self._answer(lambda: client.get_object_lock_configuration(**where))
            rules = self._answer(lambda: client.get_bucket_lifecycle_configuration(**where))
            return BucketFacts(
                head.get("x-amz-bucket-region"),
                None if versioning is None else versioning.get("Status", "Off"),
                None if encryption is None else _algorithm(encryption),
                None if rules is None else any(aborts_uploads(rule, prefix) for rule in rules.get("Rules", [])),
                None if lock is None else _kept(lock),
            )

        return await self._in_thread(look)

    @staticmethod
    def _answer(call: Callable[[], Answer]) -> Answer | None:
        """boto3's answer, empty where there is nothing of that kind, `None` where it is not to be had."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - as for boto3

        try:
            return call()
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:  # noqa: PLR2004 - HTTP's "not found"
                return {}
            if status in _NOT_TO_BE_HAD:
                return None
            raise


_NOT_TO_BE_HAD = (400, 403, 405, 501)


def _algorithm(answer: Mapping[str, Any]) -> str:
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    return next((rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in rules), "")


def _kept(lock: Mapping[str, Any]) -> str:
    """How long an object is kept that says nothing of it itself."""
    kept = lock.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
    spans = [f"{kept[unit]} {unit.lower()}" for unit in ("Days", "Years") if unit in kept]
    return f"{kept.get('Mode', '')} for {spans[0]}" if spans else ""


def aborts_uploads(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a lifecycle rule drops the parts of abandoned uploads below a prefix.

    Amazon S3 API Reference, "LifecycleRule": an older form has the prefix outside of the filter.
    """
    condition = rule.get("Filter", rule)
    return (
        rule.get("Status") == "Enabled"
        and "AbortIncompleteMultipartUpload" in rule
        and not condition.keys() & {"Tag", "And"}
        and prefix.startswith(condition.get("Prefix", ""))
    )
