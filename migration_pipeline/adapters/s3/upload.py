"""One multipart upload to S3: each part with an MD5 that the server verifies, completed only on a free key."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from migration_pipeline.adapters.http.answers import name_in
from migration_pipeline.adapters.s3.objects import Objects, checked_etag, checked_version, etag_of
from migration_pipeline.core.ports import Body, Receipt

T = TypeVar("T")

Condition = Mapping[str, str]
"""What must hold of a key for a write, by boto3's names: `IfNoneMatch`, or `IfMatch`."""
_LONGEST_RUN = timedelta(days=8)  # dagster.yaml ends a run after seven


class InThread(Protocol):
    """Runs a call of boto3's in a thread, and translates its errors."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]:
        """Run it."""


def uploads_under(client: Any, bucket: str, key: str) -> dict[str, datetime]:  # noqa: ANN401 - boto3 makes its clients at run time
    """Uploads of exactly this key that are neither completed nor aborted: id and beginning."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
    found = (item for page in pages for item in page.get("Uploads", []) if item.get("Key") == key)
    return {item["UploadId"]: _began(item.get("Initiated")) for item in found if name_in(item.get("UploadId"))}


def _began(given: object) -> datetime:
    """One that does not say when it began is not old."""
    return given if isinstance(given, datetime) else datetime.now(UTC)


def stale(uploads: Mapping[str, datetime]) -> list[str]:
    """Those of them that a run left behind which was killed.

    A younger one may belong to a run that is alive, of another range that shares the file.
    """
    return [upload_id for upload_id, began in uploads.items() if datetime.now(UTC) - began > _LONGEST_RUN]


class S3Upload:
    """Fulfils `Upload`."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - boto3 makes its clients at run time
        in_thread: InThread,
        objects: Objects,
        upload: Mapping[str, str],
        condition: Condition,
    ) -> None:
        """Take part in an upload that was begun.

        Args:
            client: of boto3, which ends the upload.
            in_thread: runs its calls.
            objects: carries the parts.
            upload: bucket, key and id, by boto3's names.
            condition: what must hold of the key at the end.
        """
        self._client, self._in_thread, self._objects = client, in_thread, objects
        self._upload, self._condition = upload, condition
        self._parts: dict[int, dict[str, Any]] = {}
        self._size = 0

    async def put(self, number: int, body: Body, md5: bytes) -> None:
        key = self._upload["Key"]
        if self._objects.carries(key):
            query = f"?partNumber={number}&uploadId={quote(self._upload['UploadId'], safe='-_.~')}"
            etag = etag_of(await self._objects.put(key, body, md5, {}, query))
        else:
            etag = await self._in_thread(lambda: self._put_with_boto3(number, body, md5))
        if number not in self._parts:
            self._size += len(body)
        self._parts[number] = {"PartNumber": number, "ETag": f'"{etag}"'}

    def _put_with_boto3(self, number: int, body: Body, md5: bytes) -> str:
        answer = self._client.upload_part(
            **self._upload, PartNumber=number, Body=bytes(body), ContentMD5=base64.b64encode(md5).decode()
        )
        return checked_etag(answer.get("ETag"))

    async def complete(self) -> Receipt:
        parts = [self._parts[number] for number in sorted(self._parts)]
        answer = await self._in_thread(
            lambda: self._client.complete_multipart_upload(
                **self._upload,
                MultipartUpload={"Parts": parts},
                # S3 refuses an object of another size than this.
                MpuObjectSize=self._size,
                **self._condition,
            )
        )
        # The ETag of an object of parts is no digest of its bytes; each part's was verified on the way.
        return Receipt(checked_etag(answer.get("ETag")), None, checked_version(answer.get("VersionId")))

    async def abort(self) -> None:
        def call() -> None:
            try:
                self._client.abort_multipart_upload(**self._upload)
            except self._client.exceptions.NoSuchUpload:
                return  # over already

        await self._in_thread(call)
