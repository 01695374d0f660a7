"""Azure Blob Storage as the source: read only.

Bytes come through one HTTP client with a container SAS; azure-storage-blob only mints that SAS. The URL that is fetched
is always built here from account, container and name: a URL found in the app's data is never fetched.
"""

import base64
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from migration_pipeline.adapters.azure.sign_in import KEY_SETTING, REMEDIES, AzureCredentials, Clock, sign_in
from migration_pipeline.adapters.http.answers import code_in, code_of, etag_in, length_of, wait
from migration_pipeline.adapters.http.network import CA_SETTING, Network
from migration_pipeline.adapters.http.plain import PlainAnswer, PlainClient
from migration_pipeline.adapters.http.wire import NoAnswer, OddHeader, Open, Wire, carried_unchanged
from migration_pipeline.core.errors import Fatal, MigrationError, Permanent, Transient, Unreachable
from migration_pipeline.core.model import FileHeaders, Outcome, SourceFile
from migration_pipeline.core.ports import Admit, Body, SourceBlob

_CONNECT_SECONDS = 10
_SAS_LIFE = timedelta(hours=6)
T = TypeVar("T")
_NO_HEADERS: Mapping[str, str] = {}
_META = "x-ms-meta-"

_FATAL = {
    "AccountIsDisabled": "source.account_url",
    "AuthenticationFailed": KEY_SETTING,
    "AuthorizationFailure": KEY_SETTING,
    "AuthorizationPermissionMismatch": KEY_SETTING,
    "AuthorizationProtocolMismatch": KEY_SETTING,
    "AuthorizationResourceTypeMismatch": KEY_SETTING,
    "AuthorizationServiceMismatch": KEY_SETTING,
    "AuthorizationSourceIPMismatch": KEY_SETTING,
    "AuthenticationRequired": KEY_SETTING,
    "AuthorizationResourceMismatch": KEY_SETTING,
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
_OVERLOAD = {"OperationTimedOut", "ServerBusy", "TooManyRequests"}
"""Error codes as in Microsoft's "Common REST API error codes" and "Blob Storage error codes"."""

_REMEDIES = {
    **REMEDIES,
    "source.containers": "Name containers that exist in the account.",
    "source.account_url": "Check the account; a key of your own that encrypts it must be enabled and within reach.",
    CA_SETTING: "Name a bundle that holds the authority of the account's certificate, or of the proxy's.",
}


class AzureBlobSource:
    """Fulfils `SourceStore`. Open it, with `async with`, in the event loop that uses it."""

    def __init__(  # noqa: PLR0913 - most by name, with a default
        self,
        account_url: str,
        containers: Sequence[str],
        credentials: AzureCredentials,
        *,
        timeout: float = 60,
        sas_life: timedelta = _SAS_LIFE,
        clock: Clock = time.monotonic,
        rights: str = "rl",
        network: Network | None = None,
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
            network: the way to it; that of the environment, if none is given.
        """
        self._network = network or Network.of_environment()
        self._timeout = timeout
        self._account_url = account_url.rstrip("/")
        self._containers = containers
        self.sign_in = sign_in(self._account_url, containers, credentials, self._network, sas_life, rights, clock)

    async def __aenter__(self) -> Self:
        self._wire = await Wire(self._account_url, self._network, timeout=self._timeout).__aenter__()
        self._plain = PlainClient(self._account_url, self._network, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.__aexit__(kind, error, trace)
        self._plain.close()

    async def check(self) -> None:
        for container in self._containers:
            try:
                await self._listed(container)
            except Transient as error:
                raise Unreachable(
                    f"cannot reach {self._account_url}: {error}",
                    setting="source.account_url",
                    remedy="Check the URL and the network.",
                ) from None

    async def _listed(self, container: str) -> bytes:
        """A listing of one blob."""

        async def take(answer: _Answer) -> bytes:
            return bytes(await answer.body())

        where = f"{self._account_url}/{quote(container)}?restype=container&comp=list&maxresults=1&"
        return await self._signed(container, "GET", where, {}, take)

    async def read(self, file: SourceFile, *, whole_up_to: int, admit: Admit) -> SourceBlob:
        async def take(answer: _Answer) -> SourceBlob:
            headers = answer.headers()
            size, etag, body = _length(headers), etag_of(headers), None
            # The connection of a large body is dropped, which costs less than reading it to its end.
            if size <= whole_up_to:
                await admit(size)
                body = await answer.body()
                if len(body) != size:
                    raise Transient(f"the source sent {len(body)} of {size} bytes")
            return SourceBlob(size, content_md5(headers), etag, _file_headers(headers), body)

        return await self._fetched(file, {}, take)

    async def read_part(self, file: SourceFile, *, etag: str, start: int, length: int) -> Body:
        body = await self._fetched(
            file, {"if-match": etag, "range": f"bytes={start}-{start + length - 1}"}, lambda answer: answer.body()
        )
        if len(body) != length:
            raise Transient(f"the source sent {len(body)} of {length} bytes")
        return body

    async def etag(self, file: SourceFile) -> str | None:
        try:
            return etag_of(await self._asked(file, "HEAD"))
        except Permanent as error:
            if error.outcome is Outcome.SOURCE_MISSING:
                return None
            raise

    async def _asked(
        self, file: SourceFile, method: str, headers: Mapping[str, str] = _NO_HEADERS, query: str = ""
    ) -> Mapping[str, str]:
        """The headers of an answer about a blob."""
        return await self._fetched(file, headers, _headers_of, method, query)

    async def _fetched(
        self,
        file: SourceFile,
        headers: Mapping[str, str],
        take: Callable[["_Answer"], Awaitable[T]],
        method: str = "GET",
        query: str = "",
    ) -> T:
        """What is taken of the blob's answer; a SAS that has expired is renewed once, for everybody."""
        if _leads_out(file.blob):
            raise Permanent(Outcome.SOURCE_UNREADABLE, "the name could lead out of its container")
        where = f"{self._account_url}/{quote(file.container)}/{quote(file.blob)}?{query}"
        return await self._signed(file.container, method, where, headers, take)

    async def _signed(
        self,
        container: str,
        method: str,
        where: str,
        headers: Mapping[str, str],
        take: Callable[["_Answer"], Awaitable[T]],
    ) -> T:
        """Ask, signed in; a SAS or a token that has ended is renewed once, for everybody."""
        signed = await self.sign_in.signed(container)
        try:
            return await self._taken(method, where + signed.query, {**headers, **signed.headers}, take)
        except Fatal as refused:
            if refused.setting != self.sign_in.setting or not await self.sign_in.renewed(container, signed):
                raise
        signed = await self.sign_in.signed(container)
        return await self._taken(method, where + signed.query, {**headers, **signed.headers}, take)

    async def _taken(
        self, method: str, url: str, headers: Mapping[str, str], take: Callable[["_Answer"], Awaitable[T]]
    ) -> T:
        try:
            if carried_unchanged(url.partition("?")[0]):
                try:
                    answer = await self._wire.open(method, url, headers)
                    try:
                        return await self._good(answer, take)
                    finally:
                        await answer.close()
                except OddHeader:
                    pass  # the other client reads them
            plain = await self._plain.ask(method, url, headers)
            try:
                return await self._good(plain, take)
            finally:
                await plain.close()
        except NoAnswer as error:
            raise _unanswered(error) from None

    async def _good(self, answer: "_Answer", take: Callable[["_Answer"], Awaitable[T]]) -> T:
        if answer.status in _GOOD:
            return await take(answer)
        headers, body = answer.headers(), await answer.body()
        code = code_of(headers.get("x-ms-error-code")) or code_in(body)
        raise refused(answer.status, code, headers.get("retry-after"), self.sign_in.setting)


_Answer = Open | PlainAnswer


async def _headers_of(answer: _Answer) -> Mapping[str, str]:
    return answer.headers()


_GOOD = (200, 201, 202, 206)


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


def sdk_options(network: Network, account_url: str, timeout: float) -> dict[str, Any]:
    """What Azure's own clients are told, so that they go the same way as bytes do; tries are counted by our own."""
    return {
        "connection_timeout": _CONNECT_SECONDS,
        "read_timeout": timeout,
        "retry_total": 0,
        "use_env_settings": False,
        "proxies": network.proxies_for(account_url),
        "connection_verify": network.verify,
    }


def _without_signature(record: logging.LogRecord) -> bool:
    return "sig=" not in record.getMessage()


def _unanswered(error: NoAnswer) -> MigrationError:
    if error.trouble == "certificate":
        return Fatal(f"the source's side: {error}.", setting=CA_SETTING, remedy=_REMEDIES[CA_SETTING])
    return Transient(f"reading the source failed: {error}", overload=error.overload)


def refused(status: int, code: str, retry_after: str | None, signed_in: str = KEY_SETTING) -> MigrationError:
    """What an answer means that is no good one, by the store's error code, else by status.

    Args:
        status: of the answer.
        code: the store's own, or empty.
        retry_after: the header.
        signed_in: the setting that says how requests are signed.
    """
    said = f"the source answered {status} {code}".rstrip()
    if code in _FATAL or code.startswith("KeyVault") or (not code and status in (401, 403)):
        setting = _FATAL.get(code, "source.account_url" if code else KEY_SETTING)
        setting = signed_in if setting == KEY_SETTING else setting
        return Fatal(said, setting=setting, remedy=_REMEDIES[setting])
    if code in _PERMANENT:
        return Permanent(_PERMANENT[code], said)
    if code in _TRANSIENT or status in (408, 429) or status >= 500:  # noqa: PLR2004 - HTTP's server errors
        overload = code in _OVERLOAD or status in (408, 429, 503)
        return Transient(said, wait(retry_after), overload=overload)
    return Permanent(Outcome.SOURCE_UNREADABLE, said)


def _length(headers: Mapping[str, str]) -> int:
    length = length_of(headers.get("content-length"))
    if length is None:
        raise Permanent(Outcome.SOURCE_UNREADABLE, "the source did not say how long the blob is")
    return length


def etag_of(headers: Mapping[str, str]) -> str:
    """The ETag, with its quotes; raises `Permanent` where there is none: nothing pins the blob to one version then."""
    etag = etag_in(headers.get("etag"))
    if etag is None:
        raise Permanent(Outcome.SOURCE_UNREADABLE, "the source did not say which version of the blob this is (ETag)")
    return etag


def content_md5(headers: Mapping[str, str]) -> bytes | None:
    """The stored digest, 16 bytes, where the blob has one."""
    try:
        digest = base64.b64decode(headers.get("content-md5", ""), validate=True)
    except ValueError:  # binascii's, and that of bytes above ASCII
        return None
    return digest if len(digest) == 16 else None  # noqa: PLR2004 - an MD5's bytes


def _file_headers(headers: Mapping[str, str]) -> FileHeaders:
    return FileHeaders(
        headers.get("content-type"),
        headers.get("cache-control"),
        headers.get("content-disposition"),
        headers.get("content-encoding"),
        headers.get("content-language"),
        {name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)},
    )
