"""Signing in to the account: by its key, by SAS that the operator made, or as an identity of Microsoft Entra.

Bytes go with a container's SAS in the query, or with a bearer token in a header; both are renewed in good time, once
for everybody. Azure's own clients get what they take.
"""

import asyncio
import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.core.errors import Fatal, MigrationError, SettingsError, Transient

AUTH_SETTING, KEY_SETTING, SAS_SETTING = "source.auth", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"
Clock = Callable[[], float]

REMEDIES = {
    KEY_SETTING: f"Set {KEY_SETTING} to a key of this account, or {SAS_SETTING} to a SAS with read and list rights.",
    SAS_SETTING: "Make a SAS of this account that has not ended, with the rights to read and to list.",
    AUTH_SETTING: "Give the identity the role Storage Blob Data Reader on the account, and wait some minutes.",
}
_SAS_USED = 0.8  # of its life; then another is made
_FRESH_SECONDS = 60
_BACKDATED = timedelta(minutes=15)
"""Azure: "Grant limited access to Azure Storage resources using SAS", on clock skew."""
_SCOPE = "https://storage.azure.com/.default"
_VERSION = "2021-08-06"
"""Of Azure's protocol, which requests with a bearer token must name."""
_IN_HAND_SECONDS = 300
_ACCOUNT_HOST = re.compile(r"(?P<account>[a-z0-9]{3,24})(?:-secondary)?\.(?:z\d+\.)?blob\.")
"""Microsoft, "Storage account overview", on endpoints: with the secondary's name, and with that of a DNS zone."""
_SIGNED = {
    "AADSTS7000215": "the client's secret is not right",
    "AADSTS7000222": "the client's secret has ended",
    "AADSTS700016": "the tenant does not know the client",
    "AADSTS700024": "the assertion has ended",
    "AADSTS70021": "no federated credential of the client fits the assertion",
    "AADSTS700213": "no federated credential of the client fits the assertion",
    "AADSTS90002": "there is no such tenant",
    "AADSTS53003": "a policy of conditional access forbids it",
    "AADSTS50076": "it asks for MFA",
}
"""Microsoft, "Microsoft Entra authentication and authorization error codes"."""


@dataclass(frozen=True, slots=True)
class AzureCredentials:
    """An account key, SAS that the operator made, or neither: an identity of Entra's. Never shown.

    Attributes:
        sas_token: one for all containers, or a JSON object of container → SAS.
        account_name: where the account's URL does not say it.
    """

    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    entra: bool = False
    account_name: str | None = None


class Signed(NamedTuple):
    """What a request goes with: an addition to its query, and headers."""

    query: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return "Signed()"


class SignIn(Protocol):
    """One way to sign in."""

    @property
    def setting(self) -> str:
        """Where to look when it is refused."""

    @property
    def ends_at(self) -> datetime | None:
        """When it ends for good; `None` where it is renewed."""

    async def signed(self, container: str) -> Signed:
        """What requests to this container go with."""

    async def renewed(self, container: str, refused: Signed) -> bool:
        """Whether there is another to try than the one that was refused, or will be."""

    def for_sdk(self, container: str | None = None) -> Any:  # noqa: ANN401 - of several kinds
        """The credential as Azure's own clients take it."""


def sign_in(
    account_url: str,
    containers: Sequence[str],
    credentials: AzureCredentials,
    network: Network,
    life: timedelta,
    rights: str,
    clock: Clock = time.monotonic,
) -> SignIn:
    """The way that these credentials allow.

    Raises:
        SettingsError: a SAS is none, or is not for these containers; the account's name cannot be read from the URL.
    """
    if credentials.entra:
        return _Entra(network)
    if credentials.sas_token:
        return _GivenSas(credentials.sas_token, containers)
    return _AccountKey(account_url, credentials, life, rights, clock)


def account_name(account_url: str, given: str | None = None) -> str:
    """The account that a URL belongs to.

    Raises:
        SettingsError: a domain of the operator's own does not say it.
    """
    parts = urlsplit(account_url)
    host = _ACCOUNT_HOST.match(parts.hostname or "")
    # Azurite and Azure Stack put the account into the path, Azure into the host.
    name = given or parts.path.strip("/") or (host["account"] if host else "")
    if not name:
        raise SettingsError(
            f"{parts.hostname!r} does not say which account it is of.",
            setting="source.account_name",
            remedy="Set it to the storage account's name.",
        )
    return name.removesuffix("-secondary")


class _AccountKey:
    """One container SAS for each container, made here, and made anew in good time."""

    setting = KEY_SETTING
    ends_at = None

    def __init__(
        self, account_url: str, credentials: AzureCredentials, life: timedelta, rights: str, clock: Clock
    ) -> None:
        self._account = account_name(account_url, credentials.account_name)
        self._key = credentials.account_key or ""
        self._life, self._rights, self._clock = life, rights, clock
        self._made: dict[str, tuple[float, Signed]] = {}

    async def signed(self, container: str) -> Signed:
        made_at, signed = self._made.get(container, (0.0, None))
        if signed is None or self._clock() >= made_at + self._life.total_seconds() * _SAS_USED:
            signed = Signed(self._mint(container), {})
            self._made[container] = self._clock(), signed
        return signed

    async def renewed(self, container: str, refused: Signed) -> bool:
        # It can end before its time: the machine slept, and our clock with it. One that is refused right after it was
        # made says that the key itself is wrong.
        made_at, current = self._made.get(container, (0.0, refused))
        if current != refused:
            return True
        if self._clock() < made_at + _FRESH_SECONDS:
            return False
        self._made.pop(container, None)
        return True

    def for_sdk(self, container: str | None = None) -> Any:  # noqa: ANN401, ARG002 - the protocol's form
        from azure.core.credentials import AzureNamedKeyCredential  # noqa: PLC0415 - 0.3 s that few commands need

        return AzureNamedKeyCredential(self._account, self._key)

    def _mint(self, container: str) -> str:
        now = datetime.now(UTC)
        try:
            return container_sas(self._account, container, self._key, self._rights, now - _BACKDATED, now + self._life)
        except (binascii.Error, ValueError):
            raise Fatal("is not base64.", setting=KEY_SETTING, remedy=REMEDIES[KEY_SETTING]) from None


def container_sas(
    account: str, container: str, key: str, rights: str, start: datetime, end: datetime, version: str = _VERSION
) -> str:
    """A service SAS of a container: Microsoft, "Create a service SAS", versions from 2020-12-06 on.

    azure-storage-blob makes the same, at 28 MB of memory and a third of a second; a test compares the two.

    Raises:
        binascii.Error: the key is not base64.
    """
    begins, ends = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (start, end))
    resource = f"/blob/{account}/{container}"
    # Identifier, IP addresses, protocol; snapshot, scope of encryption, and five headers of the answer: none is set.
    signed = [rights, begins, ends, resource, "", "", "", version, "c", *[""] * 7]
    digest = hmac.digest(base64.b64decode(key, validate=True), "\n".join(signed).encode(), "sha256")
    asked = {"st": begins, "se": ends, "sp": rights, "sv": version, "sr": "c", "sig": base64.b64encode(digest).decode()}
    return urlencode(asked)


class _GivenSas:
    """SAS that the operator made; there is no other."""

    setting = SAS_SETTING

    def __init__(self, given: str, containers: Sequence[str]) -> None:
        self._tokens = _by_container(given, containers)
        ends = [end for token in self._tokens.values() if (end := _end(token)) is not None]
        self.ends_at = min(ends, default=None)

    async def signed(self, container: str) -> Signed:
        return Signed(self._tokens[container], {})

    async def renewed(self, container: str, refused: Signed) -> bool:  # noqa: ARG002 - the protocol's form
        return False

    def for_sdk(self, container: str | None = None) -> Any:  # noqa: ANN401 - a text
        return self._tokens[container] if container else next(iter(self._tokens.values()))


def given_sas_ends(given: str, containers: Sequence[str]) -> datetime | None:
    """When the first of the SAS that an operator made ends; `None` where none says so.

    Raises:
        SettingsError: it is none, or is not for these containers.
    """
    return _GivenSas(given, containers).ends_at


def _by_container(given: str, containers: Sequence[str]) -> dict[str, str]:
    remedy = f'Give one of the account (ss=b, srt=co), or one for each container: {{"{containers[0]}": "sv=…"}}.'
    text = given.strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            raise SettingsError("is not JSON.", setting=SAS_SETTING, remedy=remedy) from None
        if missing := sorted(set(containers) - found.keys()):
            raise SettingsError(f"has none for {', '.join(missing)}.", setting=SAS_SETTING, remedy=remedy)
    else:
        found = dict.fromkeys(containers, text)
        if len(containers) > 1 and parse_qs(text.lstrip("?")).get("sr") == ["c"]:
            raise SettingsError("is of one container, and several move.", setting=SAS_SETTING, remedy=remedy)
    tokens = {container: str(found[container]).strip().lstrip("?") for container in containers}
    if not all("sig" in parse_qs(token) for token in tokens.values()):
        raise SettingsError("is no SAS: it has no signature (sig=).", setting=SAS_SETTING, remedy=remedy)
    return tokens


def _end(token: str) -> datetime | None:
    """When a SAS ends; `None` where a stored access policy says so and not itself."""
    try:
        end = datetime.fromisoformat(parse_qs(token).get("se", [""])[0])
    except ValueError:
        return None
    return end if end.tzinfo else end.replace(tzinfo=UTC)


class _Entra:
    """A bearer token of `DefaultAzureCredential`: environment, workload identity, managed identity, `az login`."""

    setting = AUTH_SETTING
    ends_at = None

    def __init__(self, network: Network) -> None:
        self._network, self._turn = network, asyncio.Lock()
        self._credential: Any = None
        self._token, self._ends, self._renew_at = "", 0.0, 0.0

    async def signed(self, container: str) -> Signed:  # noqa: ARG002 - one for all
        if time.time() >= self._renew_at:
            # While one renews, the others go on with what they have, as long as it lasts.
            if self._turn.locked() and time.time() < self._ends - 1:
                return self._signed()
            async with self._turn:
                if time.time() >= self._renew_at:
                    await self._renew()
        return self._signed()

    async def renewed(self, container: str, refused: Signed) -> bool:  # noqa: ARG002 - one for all
        async with self._turn:
            if self._signed() != refused:
                return True
            await self._renew()
            return self._signed() != refused

    def _signed(self) -> Signed:
        return Signed("", {"authorization": f"Bearer {self._token}", "x-ms-version": _VERSION})

    async def _renew(self) -> None:
        token, now = await asyncio.to_thread(self._asked), time.time()
        if token.token == self._token:
            # azure-identity keeps what it has to the end, and one that ends on its way is refused.
            self._credential = None
            token = await asyncio.to_thread(self._asked)
        self._token, self._ends = token.token, float(token.expires_on)
        # Of one that lasts minutes, half its life is kept in hand.
        self._renew_at = self._ends - min(_IN_HAND_SECONDS, max(1.0, (self._ends - now) / 2))

    def _asked(self) -> Any:  # noqa: ANN401 - azure.core's AccessToken
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - 0.3 s that few commands need

        try:
            return self.for_sdk().get_token(_SCOPE)
        except AzureError as error:
            raise refused_by_entra(error) from None

    def for_sdk(self, container: str | None = None) -> Any:  # noqa: ANN401, ARG002 - azure.identity's
        if self._credential is None:
            self._credential = entra_credential(self._network)
        return self._credential


def entra_credential(network: Network) -> Any:  # noqa: ANN401 - azure.identity's
    """azure-identity's chain, on the way that every client goes."""
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - half a second

    return DefaultAzureCredential(
        # Authorities of other clouds, and of Azure Stack, are not all known to the public one.
        disable_instance_discovery=True,
        exclude_powershell_credential=True,
        exclude_visual_studio_code_credential=True,
        proxies=network.proxies_for("https://login.microsoftonline.com"),
        use_env_settings=False,
        connection_verify=network.verify,
    )


def refused_by_entra(error: Any) -> MigrationError:  # noqa: ANN401 - azure.core.exceptions.AzureError, imported late
    """What an error of azure-identity's means, by its class; its text names the client and the tenant, and is kept."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    code = re.search(r"AADSTS\d+", str(error))
    if "CredentialUnavailableError" in kinds or ("ClientAuthenticationError" in kinds and code is None):
        return Fatal(
            "no identity of Entra's is to be had here.",
            setting=AUTH_SETTING,
            remedy="Give the machine a managed or workload identity; or set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
            "AZURE_CLIENT_SECRET; or run: az login",
        )
    if code is not None:
        why = _SIGNED.get(code[0], "Entra refuses it")
        return Fatal(
            f"{why} ({code[0]}).",
            setting=AUTH_SETTING,
            remedy="Look at AZURE_TENANT_ID, AZURE_CLIENT_ID and its secret or federated credential.",
        )
    return Transient(f"signing in to Entra failed: {type(error).__name__}", overload=True)
