"""Azure Blob Storage as the source: read only.

Bytes come through aiohttp with a container SAS; azure-storage-blob only mints that SAS. The URL that is fetched is
always built here from account, container and name: a URL found in the app's data is never fetched.
"""

import base64
import binascii
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from migration_pipeline.core.errors import Fatal, MigrationError, Permanent, Transient, Unreachable
from migration_pipeline.core.model import FileHeaders, Outcome, SourceFile
from migration_pipeline.core.ports import Admit, SourceBlob

KEY_SETTING = "AZURE_STORAGE_KEY"
SAS_SETTING = "AZURE_STORAGE_SAS_TOKEN"
_CONNECT_SECONDS = 10
_SAS_LIFE = timedelta(hours=6)
_SAS_USED = 0.8  # of its life; then another is made
_SAS_FRESH_SECONDS = 60
Clock = Callable[[], float]

_FATAL = {
    "AccountIsDisabled": "source.account_url",
    "AuthenticationFailed": KEY_SETTING,
    "AuthorizationFailure": KEY_SETTING,
    "AuthorizationPermissionMismatch": KEY_SETTING,
    "AuthorizationProtocolMismatch": KEY_SETTING,
    "AuthorizationResourceTypeMismatch": KEY_SETTING,
    "AuthorizationServiceMismatch": KEY_SETTING,
    "AuthorizationSourceIPMismatch": KEY_SETTING,
    "ContainerBeingDeleted": "source.containers",
    "ContainerDisabled": "source.containers",
    "ContainerNotFound": "source.containers",
    "InsufficientAccountPermissions": KEY_SETTING,
    "InvalidAuthenticationInfo": KEY_SETTING,
    "KeyBasedAuthenticationNotPermitted": KEY_SETTING,
    "NoAuthenticationInformation": KEY_SETTING,
    "PublicAccessNotPermitted": KEY_SETTING,
    "ResourceNotFound": "source.containers",
}
_PERMANENT = {
    "BlobArchived": Outcome.SOURCE_ARCHIVED,
    "BlobBeingRehydrated": Outcome.SOURCE_ARCHIVED,
    "BlobNotFound": Outcome.SOURCE_MISSING,
    "ConditionNotMet": Outcome.SOURCE_CHANGED,
    "InvalidRange": Outcome.SOURCE_CHANGED,
}
_TRANSIENT = {"InternalError", "OperationTimedOut", "ServerBusy"}
_OVERLOAD = {"OperationTimedOut", "ServerBusy"}
"""Error codes as in Microsoft's "Common REST API error codes" and "Blob Storage error codes"."""

_REMEDIES = {
    KEY_SETTING: f"Set {KEY_SETTING} to a key of this account, or {SAS_SETTING} to a SAS with read and list rights.",
    "source.containers": "Name containers that exist in the account.",
    "source.account_url": "Check the account.",
}


@dataclass(frozen=True, slots=True)
class AzureCredentials:
    """An account key, or a SAS that the operator made; the one that is set. Neither is ever shown."""

    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)


class AzureBlobSource:
    """Fulfils `SourceStore`. Open it, with `async with`, in the event loop that uses it."""

    def __init__(
        self,
        account_url: str,
        containers: Sequence[str],
        credentials: AzureCredentials,
        *,
        timeout: float = 60,
        sas_life: timedelta = _SAS_LIFE,
        clock: Clock = time.monotonic,
        rights: str = "rl",
    ) -> None:
        """Set up.

        Args:
            account_url: the account's blob endpoint.
            containers: those that may be read.
            credentials: of the account.
            timeout: seconds that the store may stay silent within a request.
            sas_life: how long a SAS made here is good for.
            clock: tells when to make another, in seconds.
            rights: of such a SAS, in Azure's letters; by default to read and to list.
        """
        self._timeout = timeout
        self._account_url = account_url.rstrip("/")
        self._containers = containers
        self._sas = _SasTokens(self._account_url, credentials, sas_life, clock, rights)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # The engine bounds what is in flight; a second bound here would only hide it.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._timeout),
            # A gzip-encoded body is stored and sent on as it is.
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def check(self) -> None:
        for container in self._containers:
            query = f"restype=container&comp=list&maxresults=1&{self._sas.token(container)}"
            try:
                response = await self._answer(f"{self._account_url}/{quote(container)}?{query}", {})
                response.release()
            except Transient as error:
                raise Unreachable(
                    f"cannot reach {self._account_url}: {error}",
                    setting="source.account_url",
                    remedy="Check the URL and the network.",
                ) from None

    async def read(self, file: SourceFile, *, whole_up_to: int, admit: Admit) -> SourceBlob:
        async with self._get(file, {}) as response:
            size, body = _length(response), None
            if size > whole_up_to:
                # Dropping the connection costs less than reading to the end of a large body.
                response.close()
            else:
                await admit(size)
                body = await response.read()
            if body is not None and len(body) != size:
                raise Transient(f"the source sent {len(body)} of {size} bytes")
            return SourceBlob(
                size, content_md5(response.headers), response.headers.get("ETag", ""), _headers(response), body
            )

    async def read_part(self, file: SourceFile, *, etag: str, start: int, length: int) -> bytes:
        headers = {"If-Match": etag, "Range": f"bytes={start}-{start + length - 1}"}
        async with self._get(file, headers) as response:
            body = await response.read()
        if len(body) != length:
            raise Transient(f"the source sent {len(body)} of {length} bytes")
        return body

    async def etag(self, file: SourceFile) -> str | None:
        try:
            response = await self._answer_for(file, {}, "HEAD")
        except Permanent as error:
            if error.outcome is Outcome.SOURCE_MISSING:
                return None
            raise
        response.release()
        return response.headers.get("ETag")

    @asynccontextmanager
    async def _get(self, file: SourceFile, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._answer_for(file, headers)
        try:
            yield response
        except _NO_ANSWER as error:
            raise _unanswered(error) from None
        finally:
            response.release()

    async def _answer_for(
        self, file: SourceFile, headers: Mapping[str, str], method: str = "GET", query: str = ""
    ) -> aiohttp.ClientResponse:
        """The blob's answer; a SAS that has expired is renewed once, for everybody."""
        if _leads_out(file.blob):
            raise Permanent(Outcome.SOURCE_UNREADABLE, "the name could lead out of its container")
        where, token = (
            f"{self._account_url}/{quote(file.container)}/{quote(file.blob)}?{query}",
            self._sas.token(file.container),
        )
        try:
            return await self._answer(f"{where}{token}", headers, method)
        except Fatal as refused:
            if refused.setting != KEY_SETTING or not self._sas.renewed(file.container, token):
                raise
        return await self._answer(f"{where}{self._sas.token(file.container)}", headers, method)

    async def _answer(self, url: str, headers: Mapping[str, str], method: str = "GET") -> aiohttp.ClientResponse:
        try:
            # `encoded`: the path goes out as written here; a redirect would leave the configured account.
            response = await self._session.request(
                method, URL(url, encoded=True), headers=headers, allow_redirects=False
            )
            if response.status in _GOOD:
                return response
            async with response:
                raise await _refusal(response)
        except _NO_ANSWER as error:
            raise _unanswered(error) from None


_GOOD = (200, 201, 202, 206)
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)


def _leads_out(blob: str) -> bool:
    """Whether a server that resolves `..` would be asked for something outside of the blob's container.

    Users can write such URLs into their rows, and a SAS of the operator's may reach more than what moves.
    """
    depth = 0
    for segment in re.split(r"[/\\]", blob):
        depth += {"": 0, ".": 0, "..": -1}.get(segment, 1)
        if depth < 0:
            return True
    return False


def keep_signatures_out_of_logs() -> None:
    """Withhold what urllib3 logs for debugging where it holds a SAS: whole URLs, from Azure's own client."""
    logging.getLogger("urllib3.connectionpool").addFilter(_without_signature)  # the same one again is no second


def _without_signature(record: logging.LogRecord) -> bool:
    return "sig=" not in record.getMessage()


def _unanswered(error: BaseException) -> Transient:
    # Only the kind: the text of these errors can hold the URL, and with it the SAS.
    away = isinstance(error, TimeoutError | aiohttp.ClientConnectorError)
    return Transient(f"reading the source failed: {type(error).__name__}", overload=away)


class _SasTokens:
    """One container SAS for each container, renewed in good time."""

    def __init__(
        self, account_url: str, credentials: AzureCredentials, life: timedelta, clock: Clock, rights: str
    ) -> None:
        parts = urlsplit(account_url)
        # Azurite and Azure Stack put the account into the path, Azure into the host.
        self._account = parts.path.strip("/") or (parts.hostname or "").split(".")[0]
        self._credentials, self._life, self._clock, self._rights = credentials, life, clock, rights
        self._tokens: dict[str, tuple[float, str]] = {}

    def token(self, container: str) -> str:
        if self._credentials.sas_token:
            return self._credentials.sas_token.lstrip("?")
        minted_at, token = self._tokens.get(container, (0.0, ""))
        if not token or self._clock() >= minted_at + self._life.total_seconds() * _SAS_USED:
            token = self._mint(container)
            self._tokens[container] = self._clock(), token
        return token

    def renewed(self, container: str, refused: str) -> bool:
        """Whether there is another token than the refused one to try, or will be.

        A token can end before its time: the machine slept, and our clock with it. One that is refused right after it
        was made says that the key itself is wrong.
        """
        minted_at, current = self._tokens.get(container, (0.0, refused))
        if current != refused:
            return True
        if self._credentials.sas_token or self._clock() < minted_at + _SAS_FRESH_SECONDS:
            return False
        self._tokens.pop(container, None)
        return True

    def _mint(self, container: str) -> str:
        # Imported here: 0.3 s that a run without files to copy need not spend.
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas  # noqa: PLC0415

        try:
            return generate_container_sas(
                self._account,
                container,
                account_key=self._credentials.account_key or "",
                permission=ContainerSasPermissions.from_string(self._rights),
                expiry=datetime.now(UTC) + self._life,
            )
        except (binascii.Error, ValueError):
            raise Fatal("is not base64.", setting=KEY_SETTING, remedy=_REMEDIES[KEY_SETTING]) from None


async def _refusal(response: aiohttp.ClientResponse) -> MigrationError:
    """What an answer other than 200 or 206 means, by the store's error code, else by status."""
    code = response.headers.get("x-ms-error-code") or _code_in(await response.text(errors="replace"))
    return refused(response.status, code, response.reason or "", response.headers.get("Retry-After"))


def refused(status: int, code: str, reason: str, retry_after: str | None) -> MigrationError:
    """What such an answer means; `code` is the store's own, or empty."""
    said = f"the source answered {status} {code or reason}"
    if code in _FATAL or (not code and status in (401, 403)):
        setting = _FATAL.get(code, KEY_SETTING)
        return Fatal(said, setting=setting, remedy=_REMEDIES[setting])
    if code in _PERMANENT:
        return Permanent(_PERMANENT[code], said)
    if code in _TRANSIENT or status in (408, 429) or status >= 500:  # noqa: PLR2004 - HTTP's server errors
        overload = code in _OVERLOAD or status in (408, 429, 503)
        return Transient(said, _retry_after(retry_after), overload=overload)
    return Permanent(Outcome.SOURCE_UNREADABLE, said)


def _code_in(body: str) -> str:
    match = re.search(r"<Code>(\w+)</Code>", body)
    return match[1] if match else ""


def _retry_after(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() else None


def _length(response: aiohttp.ClientResponse) -> int:
    if response.content_length is None:
        raise Permanent(Outcome.SOURCE_UNREADABLE, "the source did not say how long the blob is")
    return response.content_length


def content_md5(headers: Mapping[str, str]) -> bytes | None:
    """The stored digest, 16 bytes, where the blob has one."""
    try:
        digest = base64.b64decode(headers.get("Content-MD5", ""), validate=True)
    except binascii.Error:
        return None
    return digest if len(digest) == 16 else None  # noqa: PLR2004 - an MD5's bytes


def _headers(response: aiohttp.ClientResponse) -> FileHeaders:
    headers, prefix = response.headers, "x-ms-meta-"
    return FileHeaders(
        content_type=headers.get("Content-Type"),
        cache_control=headers.get("Cache-Control"),
        content_disposition=headers.get("Content-Disposition"),
        content_encoding=headers.get("Content-Encoding"),
        content_language=headers.get("Content-Language"),
        metadata={
            name[len(prefix) :]: _text(value) for name, value in headers.items() if name.lower().startswith(prefix)
        },
    )


def _text(value: str) -> str:
    """A metadata value: UTF-8 where its bytes are that, else the latin-1 that HTTP's headers used to be."""
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
