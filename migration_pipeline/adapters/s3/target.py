"""AWS S3, or a store that speaks its protocol, as the target: objects are created, never replaced.

Bytes, and questions about single objects, go through the client that carries bytes. botocore's does what is seldom:
beginning and ending uploads in parts, removing, and the few keys that the other one would alter.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

from migration_pipeline.adapters.http.answers import name_in
from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.wire import Wire
from migration_pipeline.adapters.s3.access import THREADS, Access, Bucket
from migration_pipeline.adapters.s3.errors import translated, unreachable
from migration_pipeline.adapters.s3.headers import StoreAs, for_boto3, for_request
from migration_pipeline.adapters.s3.objects import (
    ARCHIVES,
    Objects,
    checked_etag,
    checked_version,
    etag_of,
    is_archived,
    md5_in,
    not_understood,
    version_of,
)
from migration_pipeline.adapters.s3.upload import Condition, S3Upload, stale, uploads_under
from migration_pipeline.core.errors import Permanent, Transient
from migration_pipeline.core.model import FileHeaders, Outcome
from migration_pipeline.core.ports import Body, KeyTaken, ObjectFacts, Receipt

T = TypeVar("T")

_READ_BYTES = 1024 * 1024
_NO_OBJECT: Condition = {"IfNoneMatch": "*"}
_NULL = "null"
"""Amazon S3 User Guide, "Working with objects in a versioning-enabled bucket"."""
_IN_A_REQUEST = {"IfNoneMatch": "if-none-match", "IfMatch": "if-match"}


class S3Target:
    """Fulfils `TargetStore`. Open it, with `async with`, in the event loop that uses it."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        store_as: StoreAs | None = None,
        timeout: float = 60,
        network: Network | None = None,
    ) -> None:
        """Set up.

        Args:
            bucket: where objects go.
            store_as: storage class, encryption and tags of every object.
            timeout: seconds that one request may take.
            network: the way to it; that of the environment, if none is given.
        """
        self._bucket, self._store_as, self._timeout = bucket, store_as or StoreAs(), timeout
        self._network = network or Network.of_environment()
        # An ETag is the object's MD5 unless KMS keys encrypt it; where the bucket does that, only an answer tells.
        self._etag_is_md5 = self._store_as.etag_is_md5
        self._unanswered = dict[str, set[str]]()
        """Keys of which an upload was perhaps begun, its answer lost; and the uploads that there were before."""

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self._stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
        try:
            self._access = await asyncio.get_running_loop().run_in_executor(
                self._pool, Access, self._bucket, self._network, self._timeout
            )
            self._stack.callback(self._access.close)
            wire = await self._stack.enter_async_context(
                Wire(self._access.place.url, self._network, timeout=self._timeout)
            )
        except BaseException:
            await self._stack.aclose()
            raise
        self._objects = Objects(self._access, wire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def _client(self) -> Any:  # noqa: ANN401 - botocore's, the one of the newest credentials
        return self._access.client

    async def check(self) -> None:
        try:
            await self._objects.check()
        except Transient as error:
            raise unreachable(self._bucket.endpoint_url or "S3", error) from None

    async def create(
        self, key: str, body: Body, md5: bytes, headers: FileHeaders, *, replaces: str | None = None
    ) -> Receipt:
        condition = await self._condition(key, replaces)
        if self._objects.carries(key):
            conditions = {_IN_A_REQUEST[name]: value for name, value in condition.items()}
            answer = await self._objects.put(key, body, md5, for_request(headers, self._store_as) | conditions)
            etag, version = etag_of(answer), version_of(answer)
        else:
            etag, version = await self._in_thread(lambda: self._put_with_boto3(key, body, md5, headers, condition))
        return await self._receipt(key, md5, etag, version)

    async def begin(self, key: str, headers: FileHeaders, *, replaces: str | None = None) -> S3Upload:
        # Asked first: an upload that can only be refused at its end would cost all its bytes.
        condition = await self._condition(key, replaces)
        if "IfNoneMatch" in condition and await self.describe(key) is not None:
            raise KeyTaken
        before = await self._in_thread(lambda: uploads_under(self._client, self._bucket.name, key))
        unknown = before.keys() - self._unanswered.get(key, before.keys())
        for upload_id in {*stale(before), *unknown}:
            await self._upload(key, upload_id).abort()
        self._unanswered.pop(key, None)
        try:
            answer = await self._in_thread(
                lambda: self._client.create_multipart_upload(
                    Bucket=self._bucket.name, Key=key, **for_boto3(headers, self._store_as)
                )
            )
            upload_id = _upload_id(answer)
        except Transient:
            # Perhaps only the answer got lost: an upload that nobody knows of would keep its place for ever. Where S3
            # does not answer now either, the next try ends it.
            self._unanswered[key] = set(before)
            now = await self._in_thread(lambda: uploads_under(self._client, self._bucket.name, key))
            for late in now.keys() - before.keys():
                await self._upload(key, late).abort()
            self._unanswered.pop(key, None)
            raise
        return self._upload(key, upload_id, condition)

    def _upload(self, key: str, upload_id: str, condition: Condition = _NO_OBJECT) -> S3Upload:
        where = {"Bucket": self._bucket.name, "Key": key, "UploadId": upload_id}
        return S3Upload(self._client, self._in_thread, self._objects, where, condition)

    async def _condition(self, key: str, replaces: str | None) -> Condition:
        """What must hold of the key for a write: nothing there, or the very copy of ours that is to be replaced."""
        if replaces is None or await self.describe(key) is None:
            return _NO_OBJECT
        return {"IfMatch": f'"{replaces}"'}

    async def describe(self, key: str, *, read: bool = False) -> ObjectFacts | None:
        if self._objects.carries(key):
            found = await (self._objects.read(key) if read else self._objects.head(key))
            return found and self._known(found.facts)

        def look() -> ObjectFacts | None:
            head = self._head(key)
            if head is None:
                return None
            etag, size = checked_etag(head.get("ETag")), head.get("ContentLength")
            if size is None:
                raise not_understood("Content-Length")
            md5 = md5_in(etag) if _etag_means_md5(head) else None
            if read:
                md5 = self._read_back(key) or md5
            archived = is_archived(head.get("StorageClass"), head.get("ArchiveStatus"))
            facts = ObjectFacts(size, md5, etag, _version(head), head.get("LastModified"), archived)
            return self._known(facts)

        return await self._in_thread(look)

    def _known(self, facts: ObjectFacts) -> ObjectFacts:
        """A class that was asked for is no surprise."""
        return facts._replace(archived=facts.archived and self._store_as.storage_class not in ARCHIVES)

    async def remove(self, key: str, receipt: Receipt) -> None:
        def delete() -> None:
            where: dict[str, Any] = {"Bucket": self._bucket.name, "Key": key}
            if receipt.version:
                self._client.delete_object(**where, VersionId=receipt.version)
                return
            head = self._head(key)
            if head is not None and checked_etag(head.get("ETag")) == receipt.etag:
                self._client.delete_object(**where)

        await self._in_thread(delete)

    async def erase(self, key: str, etag: str, versions: Sequence[str]) -> int:
        def delete() -> int:
            where: dict[str, Any] = {"Bucket": self._bucket.name, "Key": key}
            for version in versions:
                self._client.delete_object(**where, VersionId=version)
            # What was made before the bucket had versioning is its "null" version, whatever lies above it. A plain
            # delete would only hide it, and is for stores that have no versions at all.
            for which in ({"VersionId": _NULL}, {}):
                head = self._head(key, **which)
                if head is not None and checked_etag(head.get("ETag")) == etag and (which or "VersionId" not in head):
                    self._client.delete_object(**where, **which)
                    return len(versions) + 1
            return len(versions)

        return await self._in_thread(delete)

    def _put_with_boto3(
        self, key: str, body: Body, md5: bytes, headers: FileHeaders, condition: Condition
    ) -> tuple[str, str | None]:
        answer = self._client.put_object(
            Bucket=self._bucket.name,
            Key=key,
            Body=bytes(body),
            ContentMD5=base64.b64encode(md5).decode(),
            **condition,
            **for_boto3(headers, self._store_as),
        )
        return checked_etag(answer.get("ETag")), _version(answer)

    async def _receipt(self, key: str, md5: bytes, etag: str, version: str | None) -> Receipt:
        """What was confirmed. The server has compared the MD5 in any case; one in the ETag confirms it twice."""
        confirmed = md5_in(etag) if self._etag_is_md5 else None
        if self._etag_is_md5 and confirmed != md5:
            there = await self.describe(key)
            if there is not None and there.etag != etag:
                raise not_understood("ETag")
            if there is not None and there.md5 is None:
                self._etag_is_md5 = False
                confirmed = None
        return Receipt(etag, confirmed, version)

    def _head(self, key: str, **which: str) -> Any:  # noqa: ANN401 - boto3's answer, or None
        from botocore.exceptions import ClientError  # noqa: PLC0415 - 0.15 s that few runs need

        try:
            return self._client.head_object(Bucket=self._bucket.name, Key=key, **which)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            # One that knows no versions may say 400 to the name of one.
            if status == HTTPStatus.NOT_FOUND or (which and status == HTTPStatus.BAD_REQUEST):
                return None
            raise

    def _read_back(self, key: str) -> bytes | None:
        """The digest of the object's bytes; `None` in an archive class, from which nothing is read at once."""
        digest = hashlib.md5(usedforsecurity=False)
        try:
            body = self._client.get_object(Bucket=self._bucket.name, Key=key)["Body"]
        except self._client.exceptions.InvalidObjectState:
            return None
        for chunk in body.iter_chunks(_READ_BYTES):
            digest.update(chunk)
        return digest.digest()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # noqa: PLC0415 - as above

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except ParamValidationError:
            raise Permanent(Outcome.TARGET_REFUSED, "S3's client refuses to send this key or its headers") from None
        except (BotoCoreError, ClientError) as error:
            raise translated(error) from None
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            # What botocore raises at numbers, dates and elements of an answer that are none.
            raise Transient(f"S3's answer is not understood: {type(error).__name__}") from None


def _upload_id(answer: Mapping[str, Any]) -> str:
    upload_id = name_in(answer.get("UploadId"))
    if upload_id is None:
        raise not_understood("UploadId")
    return upload_id


def _etag_means_md5(head: Any) -> bool:  # noqa: ANN401 - boto3's answer
    """Amazon S3 API Reference, "Object": not for multipart uploads, nor for KMS or customer keys."""
    return "KMS" not in str(head.get("ServerSideEncryption", "")).upper() and "SSECustomerAlgorithm" not in head


def _version(answer: Mapping[str, Any]) -> str | None:
    """The version's name; "null" is how S3 calls the only one there is without versioning."""
    return checked_version(answer.get("VersionId"))
