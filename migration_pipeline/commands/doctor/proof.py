"""What a store must do for a migration to be safe on it, tried on objects of random names that are removed again."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress

from migration_pipeline.adapters.s3.probe import S3Probe
from migration_pipeline.commands.doctor.findings import Finding, What, failure, ok
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.core.model import FileHeaders
from migration_pipeline.core.ports import BytesRefused, KeyTaken, Receipt, Upload

BODY = b"probe"
HEADERS = FileHeaders(content_type="text/plain")
_OTHER = b"other"
_UNSAFE = "Do not migrate to this store: take one that keeps S3's conditional writes."


def md5(body: bytes) -> bytes:
    """Its digest."""
    return hashlib.md5(body, usedforsecurity=False).digest()


async def proofs(probe: S3Probe, key: str) -> AsyncIterator[Finding]:
    """What was found out about the store; an object with `BODY` is under the key."""
    if (wrong := await _read_by_another(probe, key)) is not None:
        yield wrong
    yield await _creates_only(probe, key)
    yield await _compares_digests(probe, f"{key}-digest")
    yield await _uploads_in_parts(probe, f"{key}-parts")


async def _read_by_another(probe: S3Probe, key: str) -> Finding | None:
    """Both clients must mean the same store: files were recorded as copied once that lay in another."""
    try:
        ours, other = await probe.describe(key, read=True), await probe.read_by_sdk(key)
    except MigrationError as error:
        return failure(What.TARGET, f"does not read: {error}", "Grant s3:GetObject.")
    if other != BODY or ours is None or ours.md5 != md5(BODY):
        return failure(What.TARGET, "an object just written reads otherwise with another client.", "Look at the store.")
    return None


async def _creates_only(probe: S3Probe, key: str) -> Finding:
    try:
        await probe.create(key, _OTHER, md5(_OTHER), HEADERS)
    except KeyTaken:
        return ok(What.TARGET_CREATES, "an object that is there is not replaced")
    except MigrationError as error:
        return failure(What.TARGET_CREATES, f"a conditional write ends otherwise: {error}.", _UNSAFE)
    return failure(
        What.TARGET_CREATES, "the store ignores If-None-Match: it replaced an object that was there.", _UNSAFE
    )


async def _compares_digests(probe: S3Probe, key: str) -> Finding:
    try:
        receipt = await probe.create(key, _OTHER, md5(BODY), HEADERS)
    except BytesRefused:
        return ok(What.TARGET_DIGESTS, "bytes of another digest are refused")
    except MigrationError as error:
        return failure(What.TARGET_DIGESTS, f"a wrong Content-MD5 is answered otherwise: {error}.", _UNSAFE)
    await _removed(probe, key, receipt)
    return failure(
        What.TARGET_DIGESTS,
        "the store ignores Content-MD5: it took bytes of another digest.",
        "Do not migrate to this store: it would keep what was damaged on the way.",
    )


async def _uploads_in_parts(probe: S3Probe, key: str) -> Finding:
    """One completed, one refused at its end and aborted; what it leaves is removed, or named."""
    try:
        finding, receipt = await _parts(probe, key)
    except MigrationError as error:
        remedy = "Grant s3:PutObject, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads."
        return failure(What.TARGET_PARTS, f"cannot be made: {error}.", remedy)
    try:
        await probe.remove(key, receipt)
    except MigrationError:
        return failure(What.TARGET_PARTS, f"the object {key!r} is left.", "Grant s3:DeleteObject, and remove it.")
    return finding


async def _parts(probe: S3Probe, key: str) -> tuple[Finding, Receipt]:
    what = What.TARGET_PARTS
    upload, late = await probe.begin(key, HEADERS), await probe.begin(key, HEADERS)
    await upload.put(1, BODY, md5(BODY))
    await late.put(1, _OTHER, md5(_OTHER))
    receipt = await upload.complete()
    try:
        receipt = await late.complete()
        return failure(what, "the store ignores If-None-Match at the end of an upload in parts.", _UNSAFE), receipt
    except KeyTaken:
        finding = await _ended(probe, key, late)
    return finding, receipt


async def _ended(probe: S3Probe, key: str, late: Upload) -> Finding:
    what = What.TARGET_PARTS
    try:
        await late.abort()
        there = await probe.read_by_sdk(key)
    except MigrationError as error:
        return failure(what, f"cannot be ended: {error}.", "Grant s3:AbortMultipartUpload and s3:GetObject.")
    if there != BODY:
        return failure(what, "one just completed reads otherwise.", "Look at the store.")
    return ok(what, "completed, refused where the key is taken, and aborted")


async def _removed(probe: S3Probe, key: str, receipt: Receipt) -> None:
    with suppress(MigrationError):  # the probe's own line says that removing fails
        await probe.remove(key, receipt)
