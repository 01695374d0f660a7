"""The ways in which an app's data spells the URL of one blob."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote

from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from migration_pipeline.sandbox.app_places import ALIAS_HOST, AppStores
from migration_pipeline.sandbox.photo_files import PHOTOS, Blob

_SAS_EXPIRY = datetime(2099, 1, 1, tzinfo=UTC)
"""Fixed, so that the same app gets the same signatures."""
_KEPT_BY_BROWSERS = "/!$&'()*+,;=:@~[]|^`{}<>\""
"""What careless clients leave as it is, and what means the same escaped or not in a path."""


class UrlWriter:
    """Writes URLs of one app's blobs.

    Attributes:
        written: every URL of the source so far.
        signatures: of every SAS written, decoded: secrets, which must show up nowhere.
    """

    def __init__(self, stores: AppStores) -> None:
        self._stores = stores
        self._account = stores.account_url.rstrip("/")
        self._base = stores.public_base_url.rstrip("/")
        self.written: set[str] = set()
        self.signatures: set[str] = set()

    def plain(self, blob: Blob) -> str:
        """The canonical URL."""
        return self._note(f"{self._account}/{blob.container}/{quote(blob.name)}")

    def target(self, blob: Blob) -> str:
        """The URL of the blob's copy in S3, under the default key."""
        return f"{self._base}/{quote(str(blob))}"

    def alias(self, blob: Blob) -> str:
        """The CDN's URL; for a container that has none, the canonical one."""
        if blob.container != PHOTOS:
            return self.plain(blob)
        return self._note(f"https://{ALIAS_HOST}/{quote(blob.name)}")

    def sas(self, blob: Blob) -> str:
        """With a SAS that works."""
        token = generate_blob_sas(
            self._stores.account_name,
            blob.container,
            blob.name,
            account_key=self._stores.account_key,
            permission=BlobSasPermissions(read=True),
            expiry=_SAS_EXPIRY,
        )
        self.signatures.update(parse_qs(token)["sig"])
        return self._note(f"{self.plain(blob)}?{token}")

    def careless(self, blob: Blob) -> str:
        """Escapes nothing but what would otherwise end the path or be an escape."""
        escaped = {"%": "%25", "?": "%3F", "#": "%23", " ": "%20"}
        name = "".join(escaped.get(c, c) for c in blob.name)
        return self._note(f"{self._account}/{blob.container}/{name}")

    def careful(self, blob: Blob) -> str:
        """Escapes every byte but slashes, in lower case."""
        octets = "".join(c if c == "/" else "".join(f"%{byte:02x}" for byte in c.encode()) for c in blob.name)
        return self._note(f"{self._account}/{blob.container}/{octets}")

    def shouting(self, blob: Blob) -> str:
        """With the scheme in capitals, which mean the same."""
        scheme, _, rest = self.plain(blob).partition("://")
        return self._note(f"{scheme.upper()}://{rest}")

    def shouting_alias(self, blob: Blob) -> str:
        """The CDN's host in capitals, with its default port."""
        return self._note(f"https://{ALIAS_HOST.upper()}:443/{quote(blob.name)}")

    def with_fragment(self, blob: Blob) -> str:
        """With a fragment, which is no part of the name."""
        return self._note(f"{self.plain(blob)}#top")

    def half_escaped(self, blob: Blob) -> str:
        """Escapes what JavaScript's encodeURI does, roughly."""
        return self._note(f"{self._account}/{blob.container}/{quote(blob.name, safe=_KEPT_BY_BROWSERS)}")

    def spellings(self) -> tuple[Callable[[Blob], str], ...]:
        """Every way to name one blob of the photos container, other than the canonical one."""
        return (
            self.careful,
            self.alias,
            self.sas,
            self.shouting,
            self.with_fragment,
            self.shouting_alias,
            self.half_escaped,
            self.careless,
        )

    def _note(self, url: str) -> str:
        self.written.add(url)
        return url


def foreign_url(rng: random.Random) -> str:
    """A picture on somebody else's site."""
    return f"https://cdn.example.org/avatars/{rng.getrandbits(64):016x}.jpg?size=large"
