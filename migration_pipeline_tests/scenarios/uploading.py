"""Users who upload photos all along: by URLs of the old store, of the new one, and by old URLs after the switch."""

import hashlib
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import Request, urlopen

import psycopg
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from google.api_core.exceptions import Aborted, FailedPrecondition
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore
from psycopg.types.json import Jsonb

from migration_pipeline.uploads import S3Bucket, S3Uploads, UploadRules, Wish
from migration_pipeline_tests.scenarios.conftest import World

JPEG = "image/jpeg"


@dataclass(frozen=True)
class Ticket:
    """What an app gave a client to upload with, and the reference that goes into the profile afterwards."""

    url: str
    headers: dict[str, str]
    reference: str


@dataclass
class Users:
    """Clients and their app. Every photo has bytes of its own, so that one knows again where it went.

    Attributes:
        uploaded: digests of the photos of each profile.
        trouble: what went wrong for a user; nothing may.
        to_azure: photos that went to the old store.
        to_s3: photos that went to the new one.
    """

    world: World
    ids: list[str]
    old_urls_last: timedelta
    uploaded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    trouble: list[str] = field(default_factory=list)
    to_azure: int = 0
    to_s3: int = 0
    switched: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _busy: threading.Event = field(default_factory=threading.Event)
    _held: Ticket | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def at_work(self) -> Iterator["Users"]:
        """Two who upload at once, and one who holds a URL for a while before using it."""
        threads = [
            threading.Thread(target=self._live, args=(seed, hold)) for seed, hold in ((1, 0.0), (2, 0.0), (3, 0.6))
        ]
        self._busy.set()
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(60)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nobody begins an upload meanwhile; a URL that is held may be used all the same."""
        self._busy.clear()
        try:
            yield
        finally:
            self._busy.set()

    def hold_a_ticket(self) -> None:
        """Somebody gets an upload URL of the old store, and puts the phone away."""
        self._held = self._azure_ticket()

    def upload_with_the_ticket_held(self) -> None:
        """And takes it up again; raises `HTTPError` where the URL is good for nothing any more."""
        assert self._held is not None
        self._upload(self._held, self.ids[0], random.Random(len(self.uploaded)).randbytes(3000))

    def _azure_ticket(self) -> Ticket:
        """As the app made them before the switch."""
        places = self.world.places
        name = f"u{random.Random().getrandbits(96):024x}.jpg"
        sas = generate_blob_sas(
            places.account_url.rpartition("/")[2], "photos", name,
            account_key=places.account_key, permission=BlobSasPermissions(create=True, write=True),
            expiry=datetime.now(UTC) + self.old_urls_last,
        )  # fmt: skip
        reference = f"{places.account_url}/photos/{name}"
        return Ticket(f"{reference}?{sas}", {"x-ms-blob-type": "BlockBlob", "Content-Type": JPEG}, reference)

    def _s3_ticket(self, id_: str, size: int) -> Ticket:
        places = self.world.places
        bucket = S3Bucket(
            name=places.bucket,
            region="us-east-1",
            public_base_url=self.world.public_base_url,
            endpoint_url=places.s3_endpoint_url,
        )
        put = S3Uploads(bucket, UploadRules(max_bytes=10_000), migrated_prefixes=["photos/", "verifications/"])
        ticket = put.put_ticket(id_, Wish(content_type=JPEG, size=size))
        return Ticket(ticket.url, dict(ticket.headers), ticket.reference)

    def _live(self, seed: int, hold: float) -> None:
        rng = random.Random(seed)
        while not self._ended.wait(rng.uniform(0.1, 0.4)):
            if not self._busy.wait(0.1):
                continue
            id_, body = rng.choice(self.ids), rng.randbytes(rng.randint(1000, 5000))
            try:
                ticket = self._s3_ticket(id_, len(body)) if self.switched.is_set() else self._azure_ticket()
                if hold:
                    self._ended.wait(hold * self.old_urls_last.total_seconds())
                self._upload(ticket, id_, body)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
                self.trouble.append(repr(error))

    def _upload(self, ticket: Ticket, id_: str, body: bytes) -> str:
        request = Request(ticket.url, data=body, headers=ticket.headers, method="PUT")  # noqa: S310 - the sandbox's
        with urlopen(request, timeout=60):  # noqa: S310 - as above
            pass
        digest = hashlib.sha256(body).hexdigest()
        with self._lock:
            self.to_s3 += ticket.reference.startswith(self.world.public_base_url)
            self.to_azure += not ticket.reference.startswith(self.world.public_base_url)
            self.uploaded[id_].add(digest)
        self._refer(id_, ticket.reference)
        return digest

    def _refer(self, id_: str, reference: str) -> None:
        """The app's own transactions: row first, then the document."""
        with psycopg.connect(self.world.places.database_url) as connection:
            row = connection.execute("SELECT photos FROM profiles WHERE id::text = %s FOR UPDATE", [id_]).fetchone()
            photos = [*((row and row[0]) or []), {"original": reference}]
            connection.execute(
                "UPDATE profiles SET photos = %s, updated_at = now() WHERE id::text = %s", [Jsonb(photos), id_]
            )
        with _documents(self.world) as client:
            self._append(client, id_, reference)

    @staticmethod
    def _append(client: Any, id_: str, reference: str) -> None:
        document = client.document(f"profiles/{id_}")
        while True:
            snapshot = document.get()
            if not snapshot.exists:
                return
            photos = [*(snapshot.to_dict().get("photos") or []), {"original": reference}]
            option = client.write_option(last_update_time=snapshot.update_time)
            try:
                document.update({"photos": photos}, option=option)
            except (Aborted, FailedPrecondition):
                continue  # somebody else was faster
            return


@contextmanager
def _documents(world: World) -> Iterator[Any]:
    client = firestore.Client(world.places.firestore_project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call] # untyped
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call] # as above
