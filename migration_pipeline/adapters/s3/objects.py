"""Single requests about objects, signed here and sent by the client that carries bytes."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from migration_pipeline.adapters.http.answers import code_in, etag_in, length_of, moment_of, name_in
from migration_pipeline.adapters.http.wire import Answer, NoAnswer, OddHeader, Open, Whole, Wire, carried_unchanged
from migration_pipeline.adapters.s3.access import Access
from migration_pipeline.adapters.s3.errors import EXPIRED, by_code, unanswered, unusable
from migration_pipeline.adapters.s3.sign import UNSIGNED, Keys
from migration_pipeline.core.errors import Transient
from migration_pipeline.core.ports import Body, ObjectFacts

_OK, _NOT_FOUND = 200, 404
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes from which nobody reads at once: Amazon S3 User Guide, "Understanding archival storage"."""
_NOTHING = hashlib.sha256(b"").hexdigest()


class Head(NamedTuple):
    """What S3 says of an object.

    Attributes:
        etag_is_md5: the ETag, if it looks like an MD5, is that of the bytes.
    """

    facts: ObjectFacts
    etag_is_md5: bool


class Objects:
    """Requests about the bucket's objects; `carries` says which keys may be asked for."""

    def __init__(self, access: Access, wire: Wire) -> None:
        """Use this configuration and this client."""
        self._access, self._wire = access, wire

    def carries(self, key: str) -> bool:
        """Whether the client sends this key unchanged."""
        return carried_unchanged(key)

    async def put(self, key: str, body: Body, md5: bytes, headers: Mapping[str, str], query: str = "") -> Answer:
        """Write; raises what the answer means, `BytesRefused` where S3 got other bytes."""
        sent = {**headers, "content-md5": base64.b64encode(md5).decode()}
        payload = UNSIGNED
        if self._access.place.signs_payload:
            payload = hashlib.sha256(body).hexdigest()
        answer = await self._asked("PUT", self._access.place.of(key) + query, sent, body, payload)
        if answer.status != _OK:
            raise _meaning(answer, "PUT")
        return answer

    async def head(self, key: str) -> Head | None:
        """What S3 says of the object; `None` where there is none."""
        answer = await self._asked("HEAD", self._access.place.of(key), {}, None, _NOTHING)
        if answer.status == _NOT_FOUND:
            return None
        if answer.status != _OK:
            raise _meaning(answer, "HEAD")
        size = length_of(_header(answer, "content-length"))
        if size is None:
            raise not_understood("Content-Length")
        return _head(answer, size)

    async def read(self, key: str) -> Head | None:
        """The object read to its end, and digested; `None` where there is none."""
        digest, size = hashlib.md5(usedforsecurity=False), 0
        async with self._open(key) as answer:
            if answer.status == _NOT_FOUND and code_in(await answer.body()) != "NoSuchBucket":
                return None
            if answer.status != _OK:
                code = code_in(await answer.body())
                if code == "InvalidObjectState":
                    return await self.head(key)  # in an archive class, from which nothing is read at once
                raise by_code(code, answer.status, _header(answer, "retry-after"))
            async for chunk in answer.chunks():
                digest.update(chunk)
                size += len(chunk)
            head = _head(answer, size)
        return head._replace(facts=head.facts._replace(md5=digest.digest()))

    async def check(self) -> None:
        """Raise where the bucket is missing, or refuses us."""
        answer = await self._asked("HEAD", self._access.place.url, {}, None, _NOTHING)
        if answer.status != _OK:
            raise _meaning(answer, "HEAD")

    async def _asked(self, method: str, url: str, headers: Mapping[str, str], body: Body | None, payload: str) -> Whole:
        """The answer, whatever it is; credentials that S3 calls expired are asked for anew, once."""
        keys = await self._access.keys()
        answer = await self._once(method, url, headers, body, payload, keys)
        if answer.status in _MAY_BE_EXPIRED and (method == "HEAD" or code_in(answer.body) in EXPIRED):
            newer = await self._access.others_than(keys)
            if newer is not None:
                return await self._once(method, url, headers, body, payload, newer)
        return answer

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, payload: str, keys: Keys
    ) -> Whole:
        signed = self._access.signer.signed(method, url, headers, keys, payload=payload)
        try:
            return await self._wire.send(method, url, signed, body)
        except NoAnswer as error:
            raise unanswered(error) from None

    @asynccontextmanager
    async def _open(self, key: str) -> AsyncIterator[Open]:
        url = self._access.place.of(key)
        signed = self._access.signer.signed("GET", url, {}, await self._access.keys(), payload=_NOTHING)
        try:
            answer = await self._wire.open("GET", url, signed)
            try:
                yield answer
            finally:
                await answer.close()
        except OddHeader:
            raise not_understood("header") from None
        except NoAnswer as error:
            raise unanswered(error) from None


_MAY_BE_EXPIRED = {400, 401, 403}


def _meaning(answer: Whole, method: str) -> Exception:
    if method == "HEAD" and answer.status in {301, 307, 400, 403, 404}:
        return unusable(answer.status)
    return by_code(code_in(answer.body), answer.status, _header(answer, "retry-after"))


def _head(answer: Answer, size: int) -> Head:
    etag = etag_of(answer)
    encryption = (_header(answer, "x-amz-server-side-encryption") or "").upper()
    # Amazon S3 API Reference, "Object": not for uploads in parts, nor for KMS or customer keys.
    is_md5 = "KMS" not in encryption and _header(answer, "x-amz-server-side-encryption-customer-algorithm") is None
    facts = ObjectFacts(
        size,
        md5_in(etag) if is_md5 else None,
        etag,
        version_of(answer),
        moment_of(_header(answer, "last-modified")),
        # Restored for some days or not: what refers to it is to lead there for good.
        archived=is_archived(_header(answer, "x-amz-storage-class"), _header(answer, "x-amz-archive-status")),
    )
    return Head(facts, is_md5)


def _header(answer: Answer, name: str) -> str | None:
    """A header; one above ASCII, which S3 never sends, is not there, or not what it should be."""
    try:
        return answer.header(name)
    except OddHeader:
        return _ODD


_ODD = "\x80"
"""Of no form that is asked for below."""


def is_archived(storage_class: str | None, archive_status: str | None) -> bool:
    """Whether nobody reads the object at once; Intelligent-Tiering says so in a header of its own."""
    return storage_class in ARCHIVES or archive_status is not None


def etag_of(answer: Answer) -> str:
    """The ETag, without its quotes; raises `Transient` where there is none, for then nothing was confirmed."""
    return checked_etag(_header(answer, "etag"))


def checked_etag(given: object) -> str:
    """The same of an ETag that was read already."""
    etag = etag_in(given)
    if etag is None:
        raise not_understood("ETag")
    return etag.strip('"')


def version_of(answer: Answer) -> str | None:
    """The version's name; raises `Transient` where it cannot be one."""
    return checked_version(_header(answer, "x-amz-version-id"))


def checked_version(given: object) -> str | None:
    """The same of a name that was read already; "null" is how S3 calls the only one there is without versioning."""
    if not given or given == "null":
        return None
    version = name_in(given)
    if version is None:
        raise not_understood("version")
    return version


def not_understood(what: str) -> Transient:
    """S3 says what it says again; a proxy's page in its place passes."""
    return Transient(f"S3's answer is not understood: it has no {what}, or an odd one")


def md5_in(etag: str) -> bytes | None:
    """The digest that an ETag is, where it has the form of one."""
    return bytes.fromhex(etag) if re.fullmatch(r"[0-9a-f]{32}", etag) else None
