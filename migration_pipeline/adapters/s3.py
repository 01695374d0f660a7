"""AWS S3, or a store that speaks its protocol, as the target: objects are created, never replaced.

Bytes go through obstore, with a SHA-256 that the server checks. boto3 checks the bucket, compares, uploads large
files in parts, and writes the keys that obstore would alter on the way.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from email.header import Header
from types import TracebackType
from typing import Any, Self, TypeVar

from migration_pipeline.core.errors import Fatal, Permanent, Transient
from migration_pipeline.core.model import FileHeaders, Outcome
from migration_pipeline.core.ports import KeyTaken, ObjectFacts, Receipt

T = TypeVar("T")

CREDENTIALS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
_THREADS = 8  # for what boto3 does; large files and odd keys are few
_READ_BYTES = 1024 * 1024

_TAKEN = {"PreconditionFailed"}
_FATAL = {
    "AccessDenied": CREDENTIALS,
    "AccountProblem": CREDENTIALS,
    "AllAccessDisabled": "target.bucket",
    "AuthorizationHeaderMalformed": "target.region",
    "ExpiredToken": CREDENTIALS,
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidBucketName": "target.bucket",
    "InvalidToken": CREDENTIALS,
    "NoSuchBucket": "target.bucket",
    "PermanentRedirect": "target.region",
    "RequestTimeTooSkewed": CREDENTIALS,
    "SignatureDoesNotMatch": CREDENTIALS,
}
_TRANSIENT = {
    "BadDigest",  # the bytes were damaged on the way: what the checksum is for
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "XAmzContentSHA256Mismatch",
}
"""Error codes as in the Amazon S3 API Reference, "Error responses"."""

_UNUSABLE = {301: "target.region", 400: CREDENTIALS, 403: CREDENTIALS, 404: "target.bucket"}
"""What HEAD on the bucket answers, and which setting is wrong then."""

_REMEDIES = {
    CREDENTIALS: "Give credentials that may PutObject, GetObject and ListBucket on target.bucket; check the clock.",
    "target.bucket": "Create the bucket, or name one that exists.",
    "target.region": "Name the bucket's own region.",
    "target.endpoint_url": "Check the URL and the network.",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects go; credentials come from AWS's default chain (environment, profile, role)."""

    name: str
    region: str
    endpoint_url: str | None = None


def carried_unchanged(key: str) -> bool:
    """Whether obstore writes exactly this key.

    Seen with obstore 0.12.1: it drops a slash at either end and refuses empty, `.` and `..` segments and control
    characters. A contract test compares this predicate with what obstore does.
    """
    return not re.search(r"[\x00-\x1f\x7f]", key) and not any(segment in {"", ".", ".."} for segment in key.split("/"))


class S3Target:
    """Fulfils `TargetStore`. Open it, with `async with`, in the event loop that uses it."""

    def __init__(self, bucket: Bucket, *, timeout: float = 60) -> None:
        """Set up.

        Args:
            bucket: where objects go.
            timeout: seconds that one request may take.
        """
        self._bucket, self._timeout = bucket, timeout
        # An ETag is the object's MD5 unless the bucket encrypts with KMS keys, which only an answer tells.
        self._etag_is_md5 = True

    async def __aenter__(self) -> Self:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
        self._client = await asyncio.get_running_loop().run_in_executor(
            self._pool, open_client, self._bucket, self._timeout
        )
        self._store = _open_store(self._bucket, timedelta(seconds=self._timeout))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    async def check(self) -> None:
        await self._in_thread(lambda: self._client.head_bucket(Bucket=self._bucket.name), self._unusable)

    async def create(self, key: str, body: bytes, headers: FileHeaders) -> Receipt:
        if carried_unchanged(key):
            etag, version = await self._put(key, body, headers)
        else:
            etag, version = await self._in_thread(lambda: self._put_with_boto3(key, body, headers))
        return await self._receipt(key, body, etag, version)

    async def create_from_parts(self, key: str, parts: AsyncIterator[bytes], headers: FileHeaders) -> Receipt:
        # Asked first: an upload that can only be refused at its end would cost all its bytes.
        if await self._in_thread(lambda: self._head(key)) is not None:
            raise KeyTaken
        where = {"Bucket": self._bucket.name, "Key": key}
        started = await self._in_thread(
            lambda: self._client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256", **_boto3_headers(headers))
        )
        upload = {**where, "UploadId": started["UploadId"]}
        try:
            done = [await self._upload_part(upload, number, part) async for number, part in _numbered(parts)]
            answer = await self._in_thread(
                lambda: self._client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": done}, IfNoneMatch="*"
                )
            )
        except BaseException:
            # Left alone, its parts would be kept, and billed, for ever.
            await asyncio.shield(self._in_thread(lambda: self._client.abort_multipart_upload(**upload)))
            raise
        return Receipt(answer["ETag"].strip('"'), None, answer.get("VersionId"))

    async def describe(self, key: str) -> ObjectFacts | None:
        def look() -> ObjectFacts | None:
            head = self._head(key)
            if head is None:
                return None
            etag = head["ETag"].strip('"')
            known = _md5_in(etag) if _etag_means_md5(head) else None
            return ObjectFacts(head["ContentLength"], known or self._read_back(key), etag)

        return await self._in_thread(look)

    async def remove(self, key: str, receipt: Receipt) -> None:
        def delete() -> None:
            where: dict[str, Any] = {"Bucket": self._bucket.name, "Key": key}
            if receipt.version:
                self._client.delete_object(**where, VersionId=receipt.version)
                return
            head = self._head(key)
            if head is not None and head["ETag"].strip('"') == receipt.etag:
                self._client.delete_object(**where)

        await self._in_thread(delete)

    async def _put(self, key: str, body: bytes, headers: FileHeaders) -> tuple[str, str | None]:
        import obstore.exceptions  # noqa: PLC0415 - imported where bytes are moved, not in every process

        try:
            answer = await obstore.put_async(
                self._store, key, body, attributes=_obstore_headers(headers), mode="create", use_multipart=False
            )
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:  # the latter for a missing bucket
            raise _refused(str(error)) from None
        return (answer["e_tag"] or "").strip('"'), answer["version"]

    def _put_with_boto3(self, key: str, body: bytes, headers: FileHeaders) -> tuple[str, str | None]:
        answer = self._client.put_object(
            Bucket=self._bucket.name,
            Key=key,
            Body=body,
            IfNoneMatch="*",
            ChecksumAlgorithm="SHA256",
            **_boto3_headers(headers),
        )
        return answer["ETag"].strip('"'), answer.get("VersionId")

    async def _upload_part(self, upload: dict[str, str], number: int, part: bytes) -> Any:  # noqa: ANN401 - boto3's
        answer = await self._in_thread(
            lambda: self._client.upload_part(**upload, PartNumber=number, Body=part, ChecksumAlgorithm="SHA256")
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": answer.get("ChecksumSHA256", "")}

    async def _receipt(self, key: str, body: bytes, etag: str, version: str | None) -> Receipt:
        """What was confirmed. The server has checked the SHA-256 in any case; an MD5 in the ETag confirms twice."""
        confirmed = _md5_in(etag) if self._etag_is_md5 else None
        if confirmed is not None and confirmed != hashlib.md5(body, usedforsecurity=False).digest():
            head = await self._in_thread(lambda: self._head(key))
            if head is not None and not _etag_means_md5(head):
                self._etag_is_md5 = False
                confirmed = None
        return Receipt(etag, confirmed, version)

    def _head(self, key: str) -> Any:  # noqa: ANN401 - boto3's answer, or None
        from botocore.exceptions import ClientError  # noqa: PLC0415 - as for obstore

        try:
            return self._client.head_object(Bucket=self._bucket.name, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:  # noqa: PLR2004 - HTTP's "not found"
                return None
            raise

    def _read_back(self, key: str) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        body = self._client.get_object(Bucket=self._bucket.name, Key=key)["Body"]
        for chunk in body.iter_chunks(_READ_BYTES):
            digest.update(chunk)
        return digest.digest()

    async def _in_thread(self, call: Callable[[], T], meaning: Callable[[Exception], Exception] | None = None) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as for obstore

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except (BotoCoreError, ClientError) as error:
            raise (meaning or _translated)(error) from None

    def _unusable(self, error: Exception) -> Exception:
        """Why the bucket cannot be used at all; HEAD's answers have no body, so their status must do."""
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in _UNUSABLE:
            setting = _UNUSABLE[status]
            said = f"S3 answered {status} for bucket {self._bucket.name!r}."
            return Fatal(said, setting=setting, remedy=_REMEDIES[setting])
        translated, setting = _translated(error), "target.endpoint_url"
        if isinstance(translated, Transient):
            said = f"cannot use {self._bucket.endpoint_url or 'S3'}: {translated}."
            return Fatal(said, setting=setting, remedy=_REMEDIES[setting])
        return translated


def open_client(bucket: Bucket, timeout: float = 60) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """A boto3 client for the bucket; retries are the engine's business, not the client's."""
    import boto3  # noqa: PLC0415 - 0.15 s that a run without files to copy need not spend
    from botocore.config import Config  # noqa: PLC0415 - as above

    return boto3.client(
        "s3",
        region_name=bucket.region,
        endpoint_url=bucket.endpoint_url,
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=10,
            read_timeout=timeout,
            max_pool_connections=_THREADS,
            s3={"addressing_style": "path" if bucket.endpoint_url else "auto"},
        ),
    )


def _open_store(bucket: Bucket, timeout: timedelta) -> Any:  # noqa: ANN401 - obstore is imported late
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - as for boto3
    from obstore.store import S3Store  # noqa: PLC0415 - as for boto3

    return S3Store(
        bucket.name,
        config={
            "region": bucket.region,
            "virtual_hosted_style_request": bucket.endpoint_url is None,
            "checksum_algorithm": "SHA256",
            "conditional_put": "etag",
            **({"endpoint": bucket.endpoint_url} if bucket.endpoint_url else {}),
        },
        credential_provider=Boto3CredentialProvider(),
        client_options={
            "allow_http": bool(bucket.endpoint_url and bucket.endpoint_url.startswith("http:")),
            "timeout": timeout,
        },
        # One policy for tries, and it is the engine's.
        retry_config={
            "max_retries": 0,
            "retry_timeout": timeout,
            "backoff": {"init_backoff": timedelta(0), "max_backoff": timedelta(0), "base": 2},
        },
    )


def _translated(error: Exception) -> Exception:
    from botocore.exceptions import ClientError, NoCredentialsError  # noqa: PLC0415 - as for boto3

    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return _by_code(error.response["Error"].get("Code", ""), status)
    if isinstance(error, NoCredentialsError):
        return Fatal("no credentials found.", setting=CREDENTIALS, remedy=_REMEDIES[CREDENTIALS])
    return Transient(f"S3 did not answer: {type(error).__name__}")


def _refused(said: str) -> Exception:
    """What obstore's text means: the answer's code and status stand in it, and nowhere else."""
    code = re.search(r"<Code>(\w+)</Code>", said)
    status = re.search(r"status code: (\d{3})", said)
    if status is None:
        return Transient("S3 did not answer: the connection failed or timed out")
    return _by_code(code[1] if code else "", int(status[1]))


def _by_code(code: str, status: int) -> Exception:
    said = f"S3 answered {status} {code}".rstrip()
    if code in _TAKEN or (not code and status == 412):  # noqa: PLR2004 - HTTP's "precondition failed"
        return KeyTaken()
    if code in _FATAL or (not code and status in (401, 403)):
        setting = _FATAL.get(code, CREDENTIALS)
        return Fatal(said, setting=setting, remedy=_REMEDIES[setting])
    if code in _TRANSIENT or status in (408, 429) or status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return Transient(said)
    if code == "KeyTooLongError":
        return Permanent(Outcome.TOO_LONG_KEY, said)
    return Permanent(Outcome.TARGET_REFUSED, said)


def _etag_means_md5(head: Any) -> bool:  # noqa: ANN401 - boto3's answer
    """Amazon S3 API Reference, "Object": not for multipart uploads, nor for KMS or customer keys."""
    return "KMS" not in str(head.get("ServerSideEncryption", "")).upper() and "SSECustomerAlgorithm" not in head


def _md5_in(etag: str) -> bytes | None:
    return bytes.fromhex(etag) if re.fullmatch(r"[0-9a-f]{32}", etag) else None


def _metadata(headers: FileHeaders) -> dict[str, str]:
    """User metadata as S3 stores it.

    S3 lower-cases names and holds ASCII values; it shows others in RFC 2047 form (Amazon S3 User Guide,
    "User-defined object metadata"), so that is how we send them.
    """
    return {
        name.lower(): value if value.isascii() else Header(value, "utf-8", maxlinelen=10_000).encode()
        for name, value in headers.metadata.items()
    }


def _obstore_headers(headers: FileHeaders) -> dict[str, str]:
    named = {
        "Content-Type": headers.content_type,
        "Cache-Control": headers.cache_control,
        "Content-Disposition": headers.content_disposition,
        "Content-Encoding": headers.content_encoding,
        "Content-Language": headers.content_language,
    }
    return {name: value for name, value in named.items() if value is not None} | _metadata(headers)


def _boto3_headers(headers: FileHeaders) -> dict[str, Any]:
    named = {
        "ContentType": headers.content_type,
        "CacheControl": headers.cache_control,
        "ContentDisposition": headers.content_disposition,
        "ContentEncoding": headers.content_encoding,
        "ContentLanguage": headers.content_language,
    }
    return {name: value for name, value in named.items() if value is not None} | {"Metadata": _metadata(headers)}


async def _numbered(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for part in parts:
        number += 1
        yield number, part
