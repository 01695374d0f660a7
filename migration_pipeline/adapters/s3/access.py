"""Where the bucket is and who we are there, as botocore resolves it: once, for every kind of request."""

import asyncio
import functools
import time
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.s3.errors import CREDENTIALS, REMEDIES, translated
from migration_pipeline.adapters.s3.sign import Keys, Signer
from migration_pipeline.core.errors import Fatal

THREADS = 8  # for what botocore's client does; these requests are few
_MUST_RENEW_SECONDS = 60.0
"""Nearer to their end than this, credentials are not signed with while their renewal is under way."""
_RENEWED_SECONDS = 5.0
"""Credentials that last less than botocore likes to have in hand are not renewed for each request."""
_PROBE_KEY = "k"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects go.

    Attributes:
        name: the bucket, or an access point's ARN.
        region: that it is in.
        endpoint_url: overrules every other one; `None` for that of botocore's configuration.
    """

    name: str
    region: str
    endpoint_url: str | None = None


class Place(NamedTuple):
    """The bucket's own URL, and how requests to it are signed.

    Attributes:
        url: without a slash at its end; a slash and the percent-encoded key follow.
        region: that signatures are for.
        service: the signing name.
        signs_payload: the body's SHA-256 is signed: over plain HTTP, or where botocore is configured so.
    """

    url: str
    region: str
    service: str
    signs_payload: bool

    def of(self, key: str) -> str:
        """The URL of an object, as botocore encodes keys."""
        return f"{self.url}/{quote(key, safe='/~')}"


class Access:
    """One configuration: botocore's session, its client, the endpoint that this one would use, and its credentials."""

    def __init__(self, bucket: Bucket, network: Network, timeout: float) -> None:
        """Read the configuration; blocks, and may ask a provider of credentials.

        Raises:
            Fatal: there are no credentials, or the configuration is one that cannot be.
            Transient: a provider of credentials does not answer.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - with boto3, 0.15 s

        if bucket.name.endswith("--x-s3"):
            raise Fatal(
                "directory buckets (S3 Express One Zone) have no ETags that prove bytes, and are not taken.",
                setting="target.bucket",
                remedy="Name a general purpose bucket.",
            )
        self._bucket, self._network, self._timeout = bucket, network, timeout
        try:
            self.session = _session(bucket.region)  # STS, for roles, is asked in that region too
            self._credentials = self.session.get_credentials()
            self.client, self.place = _client(self.session, bucket, network, timeout)
        except (BotoCoreError, ClientError, ValueError) as error:
            raise translated(error) from None
        if self._credentials is None:
            raise Fatal("no credentials found.", setting=CREDENTIALS, remedy=REMEDIES[CREDENTIALS])
        self.signer = Signer(self.place.region, self.place.service)
        self._asking = asyncio.Lock()
        self._renewing: asyncio.Task[Keys] | None = None
        self._renewed: tuple[float, Keys] | None = None

    async def keys(self) -> Keys:
        """Botocore's credentials as they are now, renewed in time without holding up the event loop.

        Raises:
            Fatal: the provider refuses to renew them.
            Transient: it does not answer.
        """
        needed = getattr(self._credentials, "refresh_needed", None)
        if needed is None or not needed():
            return _frozen(self._credentials)
        if self._renewed is not None and time.monotonic() - self._renewed[0] < _RENEWED_SECONDS:
            return self._renewed[1]
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
            self._renewing.add_done_callback(self._ended)
        if self._renewed is not None and not needed(_MUST_RENEW_SECONDS):
            return self._renewed[1]
        return await asyncio.shield(self._renewing)

    async def others_than(self, refused: Keys) -> Keys | None:
        """Credentials that are not those which S3 calls expired; `None` where there are no others.

        The whole chain is asked anew: a role's may have been revoked before their time, and somebody may have written
        others into AWS's files.
        """
        current = await self.keys()
        if current != refused:
            return current
        async with self._asking:
            current = await self.keys()
            if current != refused:
                return current
            found = await asyncio.to_thread(self._anew)
            if found is None or _frozen(found) == refused:
                return None
            self._credentials, self._renewed = found, None
            return await self.keys()

    def _anew(self) -> Any:  # noqa: ANN401 - botocore's credentials
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            session = _session(self._bucket.region)
            found = session.get_credentials()
            if found is not None:
                _frozen(found)
                self.session = session
                self.client, _ = _client(session, self._bucket, self._network, self._timeout)
        except (BotoCoreError, ClientError) as error:
            raise translated(error) from None
        return found

    async def _renew(self) -> Keys:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            keys = await asyncio.to_thread(_frozen, self._credentials)
        except (BotoCoreError, ClientError) as error:
            raise translated(error) from None
        self._renewed = time.monotonic(), keys
        return keys

    def _ended(self, task: "asyncio.Task[Keys]") -> None:
        self._renewing = None
        if not task.cancelled():
            task.exception()  # whoever waits is told of it

    def close(self) -> None:
        """Close the client."""
        self.client.close()


def _session(region: str) -> Any:  # noqa: ANN401 - boto3's
    """A session with a configuration and credentials of its own, and the descriptions of AWS that all share."""
    import boto3  # noqa: PLC0415 - 0.15 s that a run without files to copy need not spend
    import botocore.session  # noqa: PLC0415 - as above

    core = botocore.session.get_session()
    models = _models(core.get_config_variable("data_path"))
    core.register_component("data_loader", models)
    session = boto3.Session(region_name=region, botocore_session=core)
    # boto3 has added its own folder once more.
    models.search_paths[:] = dict.fromkeys(models.search_paths)
    return session


@functools.cache
def _models(data_path: str | None) -> Any:  # noqa: ANN401 - botocore's
    """What botocore knows of AWS' services, read once: a tenth of a second of CPU for every session otherwise."""
    from botocore.loaders import create_loader  # noqa: PLC0415 - as above

    return create_loader(data_path)


def _client(session: Any, bucket: Bucket, network: Network, timeout: float) -> tuple[Any, Place]:  # noqa: ANN401 - boto3's
    from botocore.config import Config  # noqa: PLC0415 - as above

    def client(proxies: dict[str, str]) -> Any:  # noqa: ANN401 - as above
        config = Config(
            retries={"total_max_attempts": 1},  # they are the engine's business
            connect_timeout=10,
            read_timeout=timeout,
            max_pool_connections=THREADS,
            # Content-MD5 proves the bytes; uploads in parts begun with another checksum would want it of each.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies=proxies,
            # A style of addressing is set for our own setting alone: elsewhere the profile may have one.
            s3={"addressing_style": "path"} if bucket.endpoint_url else None,
        )
        return session.client(
            "s3",
            region_name=bucket.region,
            endpoint_url=bucket.endpoint_url,
            verify=network.verify if network.ca_bundle else None,
            config=config,
        )

    made = client({})
    place = _place(made, bucket)
    # Only the endpoint tells whether there is a proxy before it.
    proxies = network.proxies_for(place.url)
    return (client(proxies) if proxies else made), place


def _frozen(credentials: Any) -> Keys:  # noqa: ANN401 - botocore's
    frozen = credentials.get_frozen_credentials()
    return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _place(client: Any, bucket: Bucket) -> Place:  # noqa: ANN401 - boto3's
    """What botocore would send: a request is prepared by it to the end, and kept from going out.

    So whatever decides an endpoint has decided this one: dots in the name, partitions, FIPS, dual-stack, acceleration,
    access points, a profile's or the environment's endpoint.
    """

    def keep(request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's
        raise _Kept(request)

    client.meta.events.register("before-send.s3.HeadObject", keep, unique_id="place")
    request: Any = None
    try:
        client.head_object(Bucket=bucket.name, Key=_PROBE_KEY)
    except _Kept as kept:
        request = kept.request
    finally:
        client.meta.events.unregister("before-send.s3.HeadObject", unique_id="place")
    signature = request.headers.get("Authorization", "")
    signature = signature.decode() if isinstance(signature, bytes) else signature
    if not signature.startswith("AWS4-HMAC-SHA256 Credential="):
        raise Fatal(
            "requests to it are signed in a way that is not known here (multi-region access points are).",
            setting="target.bucket",
            remedy="Name the bucket itself, or an access point in one region.",
        )
    region, service = signature.split("Credential=", 1)[1].split(",", 1)[0].split("/")[-3:-1]
    s3: dict[str, Any] = client.meta.config.s3 or {}
    signs = s3.get("payload_signing_enabled")
    url = str(request.url).removesuffix(f"/{_PROBE_KEY}")
    return Place(url, region, service, urlsplit(url).scheme != "https" if signs is None else bool(signs))


class _Kept(Exception):  # noqa: N818 - no failure
    """A request that does not go out."""

    def __init__(self, request: Any) -> None:  # noqa: ANN401 - botocore's
        self.request = request
