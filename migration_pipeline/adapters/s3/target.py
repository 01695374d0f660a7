"""AWS S3, or a store that speaks its protocol, as the target: objects are created, never replaced.

Bytes go through obstore, with a SHA-256 that the server checks. boto3 checks the bucket, compares, uploads large
files in parts, and writes the keys that obstore would alter on the way.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from migration_pipeline.adapters.s3.errors import REMEDIES, UNUSABLE, refused, translated
from migration_pipeline.adapters.s3.headers import StoreAs, for_boto3, for_obstore, obstore_encryption
from migration_pipeline.adapters.s3.upload import Condition, S3Upload, stale, uploads_under
from migration_pipeline.core.errors import Fatal, Permanent, Transient, Unreachable
from migration_pipeline.core.model import FileHeaders
from migration_pipeline.core.ports import KeyTaken, ObjectFacts, Receipt

T = TypeVar("T")

_THREADS = 8  # for what boto3 does; large files and odd keys are few
_READ_BYTES = 1024 * 1024
_NO_OBJECT: Condition = {"IfNoneMatch": "*"}


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

    def __init__(self, bucket: Bucket, *, store_as: StoreAs | None = None, timeout: float = 60) -> None:
        """Set up.

        Args:
            bucket: where objects go.
            store_as: storage class, encryption and tags of every object.
            timeout: seconds that one request may take.
        """
        self._bucket, self._store_as, self._timeout = bucket, store_as or StoreAs(), timeout
        # An ETag is the object's MD5 unless KMS keys encrypt it; where the bucket does that, only an answer tells.
        self._etag_is_md5 = self._store_as.etag_is_md5

    async def __aenter__(self) -> Self:
        # obstore's runtime starts a thread for every core otherwise, which costs more than it brings: one worker
        # process is one core's work.
        os.environ.setdefault("TOKIO_WORKER_THREADS", "1")
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
        self._client = await asyncio.get_running_loop().run_in_executor(
            self._pool, open_client, self._bucket, self._timeout
        )
        self._store = _open_store(self._bucket, self._store_as, timedelta(seconds=self._timeout))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    async def check(self) -> None:
        await self._in_thread(lambda: self._client.head_bucket(Bucket=self._bucket.name), self._unusable)

    async def create(
        self, key: str, body: bytes, md5: bytes, headers: FileHeaders, *, replaces: str | None = None
    ) -> Receipt:
        if replaces is None and carried_unchanged(key):
            etag, version = await self._put(key, body, headers)
        else:
            condition = await self._condition(key, replaces)
            etag, version = await self._in_thread(lambda: self._put_with_boto3(key, body, headers, condition))
        return await self._receipt(key, md5, etag, version)

    async def begin(self, key: str, headers: FileHeaders, *, replaces: str | None = None) -> S3Upload:
        # Asked first: an upload that can only be refused at its end would cost all its bytes.
        condition = await self._condition(key, replaces)
        if "IfNoneMatch" in condition and await self._in_thread(lambda: self._head(key)) is not None:
            raise KeyTaken
        before = await self._in_thread(lambda: uploads_under(self._client, self._bucket.name, key))
        for upload_id in stale(before):
            await self._upload(key, upload_id).abort()
        try:
            upload_id = await self._in_thread(
                lambda: self._client.create_multipart_upload(
                    Bucket=self._bucket.name,
                    Key=key,
                    ChecksumAlgorithm="SHA256",
                    **for_boto3(headers, self._store_as),
                )["UploadId"]
            )
        except Transient:
            # Perhaps only the answer got lost: an upload that nobody knows of would keep its place for ever.
            now = await self._in_thread(lambda: uploads_under(self._client, self._bucket.name, key))
            for unknown in now.keys() - before.keys():
                await self._upload(key, unknown).abort()
            raise
        return self._upload(key, upload_id, condition)

    def _upload(self, key: str, upload_id: str, condition: Condition = _NO_OBJECT) -> S3Upload:
        where = {"Bucket": self._bucket.name, "Key": key, "UploadId": upload_id}
        return S3Upload(self._client, self._in_thread, where, condition)

    async def _condition(self, key: str, replaces: str | None) -> Condition:
        """What must hold of the key for a write: nothing there, or the very copy of ours that is to be replaced."""
        if replaces is None or await self._in_thread(lambda: self._head(key)) is None:
            return _NO_OBJECT
        return {"IfMatch": f'"{replaces}"'}

    async def describe(self, key: str, *, read: bool = False) -> ObjectFacts | None:
        if read and carried_unchanged(key):
            return await self._read(key)

        def look() -> ObjectFacts | None:
            head = self._head(key)
            if head is None:
                return None
            etag = head["ETag"].strip('"')
            md5 = self._read_back(key) if read else _md5_in(etag) if _etag_means_md5(head) else None
            return ObjectFacts(head["ContentLength"], md5, etag, _version(head), head["LastModified"])

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

    async def erase(self, key: str, etag: str, versions: Sequence[str]) -> int:
        def delete() -> int:
            where: dict[str, Any] = {"Bucket": self._bucket.name, "Key": key}
            for version in versions:
                self._client.delete_object(**where, VersionId=version)
            if versions:
                return len(versions)
            head = self._head(key)
            # On a bucket with versioning a plain delete would only hide the object, and all that lies below it.
            if head is None or head["ETag"].strip('"') != etag or _version(head) is not None:
                return 0
            self._client.delete_object(**where)
            return 1

        return await self._in_thread(delete)

    async def _put(self, key: str, body: bytes, headers: FileHeaders) -> tuple[str, str | None]:
        import obstore.exceptions  # noqa: PLC0415 - imported where bytes are moved, not in every process

        try:
            answer = await obstore.put_async(
                self._store,
                key,
                body,
                attributes=for_obstore(headers, self._store_as),
                tags=dict(self._store_as.tags) or None,
                mode="create",
                use_multipart=False,
            )
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:  # the latter for a missing bucket
            raise refused(str(error)) from None
        return (answer["e_tag"] or "").strip('"'), _version({"VersionId": answer["version"]})

    def _put_with_boto3(
        self, key: str, body: bytes, headers: FileHeaders, condition: Condition
    ) -> tuple[str, str | None]:
        answer = self._client.put_object(
            Bucket=self._bucket.name,
            Key=key,
            Body=body,
            ChecksumAlgorithm="SHA256",
            **condition,
            **for_boto3(headers, self._store_as),
        )
        return answer["ETag"].strip('"'), _version(answer)

    async def _receipt(self, key: str, md5: bytes, etag: str, version: str | None) -> Receipt:
        """What was confirmed. The server has checked the SHA-256 in any case; an MD5 in the ETag confirms twice."""
        confirmed = _md5_in(etag) if self._etag_is_md5 else None
        if confirmed is not None and confirmed != md5:
            head = await self._in_thread(lambda: self._head(key))
            if head is not None and not _etag_means_md5(head):
                self._etag_is_md5 = False
                confirmed = None
        return Receipt(etag, confirmed, version)

    async def _read(self, key: str) -> ObjectFacts | None:
        """The object read back by the client that costs least."""
        import obstore.exceptions  # noqa: PLC0415 - imported where bytes are moved, not in every process

        digest = hashlib.md5(usedforsecurity=False)
        try:
            found = await obstore.get_async(self._store, key)
            async for chunk in found.stream(_READ_BYTES):
                digest.update(chunk)
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            meaning = refused(str(error))
            if isinstance(meaning, Permanent):
                return None
            raise meaning from None
        meta = found.meta
        version = _version({"VersionId": meta["version"]})
        return ObjectFacts(
            meta["size"], digest.digest(), (meta["e_tag"] or "").strip('"'), version, meta["last_modified"]
        )

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
            raise (meaning or translated)(error) from None

    def _unusable(self, error: Exception) -> Exception:
        """Why the bucket cannot be used at all; HEAD's answers have no body, so their status must do."""
        response = getattr(error, "response", None) or {}  # without an answer, there is none or it is None
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in UNUSABLE:
            setting = UNUSABLE[status]
            said = f"S3 answered {status} for bucket {self._bucket.name!r}."
            return Fatal(said, setting=setting, remedy=REMEDIES[setting])
        meaning, setting = translated(error), "target.endpoint_url"
        if isinstance(meaning, Transient):
            said = f"cannot use {self._bucket.endpoint_url or 'S3'}: {meaning}."
            return Unreachable(said, setting=setting, remedy=REMEDIES[setting])
        return meaning


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


def _open_store(bucket: Bucket, store_as: StoreAs, timeout: timedelta) -> Any:  # noqa: ANN401 - obstore is imported late
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - as for boto3
    from obstore.store import S3Store  # noqa: PLC0415 - as for boto3

    return S3Store(
        bucket.name,
        config={
            "region": bucket.region,
            "virtual_hosted_style_request": bucket.endpoint_url is None,
            "checksum_algorithm": "SHA256",
            "conditional_put": "etag",
            **obstore_encryption(store_as),
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


def _etag_means_md5(head: Any) -> bool:  # noqa: ANN401 - boto3's answer
    """Amazon S3 API Reference, "Object": not for multipart uploads, nor for KMS or customer keys."""
    return "KMS" not in str(head.get("ServerSideEncryption", "")).upper() and "SSECustomerAlgorithm" not in head


def _version(answer: Mapping[str, Any]) -> str | None:
    """The version's name; "null" is how S3 calls the only one there is without versioning."""
    version = answer.get("VersionId")
    return version if version and version != "null" else None


def _md5_in(etag: str) -> bytes | None:
    return bytes.fromhex(etag) if re.fullmatch(r"[0-9a-f]{32}", etag) else None
