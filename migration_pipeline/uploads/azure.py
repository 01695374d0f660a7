"""Azure Blob Storage: a SAS that may create one blob, once. It signs neither type nor size; `confirm` looks."""

import base64
import binascii
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from migration_pipeline.uploads import clocks
from migration_pipeline.uploads.errors import Misconfigured, StoreTrouble
from migration_pipeline.uploads.issuer import Place, StoreUploads, joined, under
from migration_pipeline.uploads.keys import KeyRules
from migration_pipeline.uploads.rules import UploadRules, Wish
from migration_pipeline.uploads.tickets import PutTicket, Stored

T = TypeVar("T")

_BACKDATED = timedelta(minutes=15)
"""Azure: "Grant limited access to Azure Storage resources using SAS", on clock skew."""
_PATIENCE: dict[str, Any] = {"retry_total": 2, "connection_timeout": 5, "read_timeout": 5}
_LONGEST_KEY, _KEY_LASTS = timedelta(days=7), timedelta(hours=12)
"""Microsoft, "Get User Delegation Key": seven days at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureContainer:
    """Where uploads go.

    Attributes:
        account_url: the account's blob endpoint.
        account_key: signs; it is never shown.
        credential: signs instead of a key, where it is an identity of azure-identity's: `DefaultAzureCredential()` for
            example. It needs the roles Storage Blob Data Contributor and Storage Blob Delegator.
        account_name: where `account_url` is a domain of your own.
        others: further containers of the account that files may be read from.
        aliases: further URLs that references start with (of a CDN, say) → the container that each serves.
    """

    account_url: str
    name: str
    account_key: str | None = field(default=None, repr=False)
    credential: Any = field(default=None, repr=False)
    account_name: str | None = None
    others: Sequence[str] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


class AzureUploads(StoreUploads):
    """Uploads to one container; fulfils `Uploads`. May be shared by threads."""

    store = "azure"
    digest: Literal["sha256", "md5"] = "md5"

    def __init__(
        self,
        container: AzureContainer,
        rules: UploadRules,
        *,
        keys: KeyRules | None = None,
        clock: clocks.Clock = clocks.now,
    ) -> None:
        """Set up; nothing is asked of Azure yet.

        Args:
            container: where uploads go.
            rules: what is allowed.
            keys: how blobs are named.
            clock: this machine's.
        """
        super().__init__(container.name, rules, keys or KeyRules())
        if container.account_key is None and container.credential is None:
            raise Misconfigured("there is neither a key of the storage account nor an identity")
        try:
            base64.b64decode(container.account_key or "", validate=True)
        except (binascii.Error, ValueError):
            raise Misconfigured("the storage account's key is not base64") from None
        self._account_url, self._account_key = container.account_url.rstrip("/"), container.account_key
        self._credential = container.credential
        self._delegated: tuple[datetime, Any] | None = None
        self._clock = clock
        self._bases = {f"{self._account_url}/{each}": each for each in (container.name, *container.others)}
        self._bases |= container.aliases
        parts = urlsplit(self._account_url)
        # Azurite and Azure Stack put the account into the path, Azure into the host.
        account = parts.path.strip("/") or (parts.hostname or "").split(".")[0]
        self._account = container.account_name or account.removesuffix("-secondary")
        # An emulator has no certificate.
        self._protocol = "https" if parts.scheme == "https" else "https,http"
        self._opening, self._borrowing = threading.Lock(), threading.Lock()
        self._opened: Any = None

    def reference(self, key: str) -> str:
        return joined(f"{self._account_url}/{self._room}", key)

    def check_clock(self) -> None:
        clocks.check_clock(self._account_url, self._rules.expires_in, self._clock)

    def _put(self, key: str, wish: Wish) -> PutTicket:
        headers = {"Content-Type": wish.content_type, "x-ms-blob-type": "BlockBlob"}
        if self._rules.cache_control is not None:
            headers["x-ms-blob-cache-control"] = self._rules.cache_control
        if wish.md5 is not None:
            headers["Content-MD5"] = base64.b64encode(wish.md5).decode()
        # Create, and not write: Put Blob is allowed, and what is there already stays as it is.
        token = self._token(Place(self._room, key), {"create": True}, self._rules.expires_in)
        reference = self.reference(key)
        return PutTicket(
            store=self.store,
            key=key,
            reference=reference,
            url=f"{reference}?{token}",
            headers=headers,
            size=wish.size,
            expires_at=self._clock() + self._rules.expires_in,
        )

    def _form(self, key: str, wish: Wish) -> None:
        """Azure takes no forms."""

    def _download(self, place: Place, expires_in: timedelta) -> str:
        url = joined(f"{self._account_url}/{place.room}", place.key)
        return f"{url}?{self._token(place, {'read': True}, expires_in)}"

    def _place(self, reference: str) -> Place | None:
        for base, container in self._bases.items():
            name = under(base, reference)
            if name is not None:
                return Place(container, name)
        return None

    def _stored(self, key: str) -> Stored | None:
        found = self._asked(key, lambda blob: blob.get_blob_properties())
        if found is None:
            return None
        return Stored(found.size, found.content_settings.content_type or "", found.etag.strip('"'))

    def _remove(self, key: str) -> None:
        self._asked(key, lambda blob: blob.delete_blob())

    def _token(self, place: Place, may: Mapping[str, bool], period: timedelta) -> str:
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas  # noqa: PLC0415 - apps without Azure need it not

        now = self._clock()
        signs = {"account_key": self._account_key} if self._account_key else {"user_delegation_key": self._key(period)}
        return generate_blob_sas(
            self._account,
            place.room,
            place.key,
            **signs,
            permission=BlobSasPermissions(**may),
            start=now - _BACKDATED,
            expiry=now + period,
            protocol=self._protocol,
        )

    def _key(self, period: timedelta) -> Any:  # noqa: ANN401 - azure-storage-blob's
        """A key that Azure lends an identity to sign with; a URL that it signs ends no later than the key."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - as above
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - as above

        now = self._clock()
        with self._borrowing:
            if self._delegated is None or self._delegated[0] < now + period:
                end = now + min(_LONGEST_KEY, period + _KEY_LASTS)
                try:
                    with BlobServiceClient(self._account_url, credential=self._credential, **_PATIENCE) as service:
                        self._delegated = end, service.get_user_delegation_key(now - _BACKDATED, end)
                except AzureError as error:
                    raise StoreTrouble(f"Azure lends no key to sign with: {type(error).__name__}") from None
            return self._delegated[1]

    def _asked(self, key: str, ask: Callable[[Any], T]) -> T | None:
        """Azure's answer; `None` where there is no such blob."""
        from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError  # noqa: PLC0415 - as above

        try:
            return ask(self._container().get_blob_client(key))
        except ResourceNotFoundError as error:
            if getattr(error, "error_code", "") == "ContainerNotFound":
                raise Misconfigured(f"the container {self._room!r} does not exist") from None
            return None
        except HttpResponseError as error:
            raise StoreTrouble(f"Azure answered {error.status_code} {getattr(error, 'error_code', '')}") from None
        except AzureError as error:
            raise StoreTrouble(f"Azure did not answer: {type(error).__name__}") from None

    def _container(self) -> Any:  # noqa: ANN401 - azure-storage-blob is imported late
        with self._opening:
            if self._opened is None:
                from azure.storage.blob import ContainerClient  # noqa: PLC0415 - as above

                self._opened = ContainerClient(
                    self._account_url,
                    self._room,
                    credential=self._credential or {"account_name": self._account, "account_key": self._account_key},
                    **_PATIENCE,
                )
            return self._opened
