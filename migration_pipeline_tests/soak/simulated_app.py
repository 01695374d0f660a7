"""An app with users, and what its stores must hold by its users' acts alone. Shares no code with the product.

Every photo has a uid, which stands in its bytes and beside its URL. A migration may change URLs and nothing else, so at
any moment each place must hold the very uids that the users put there, in their order, and each URL must lead to its
photo's bytes.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import psycopg
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient
from botocore.exceptions import ClientError
from psycopg.types.json import Json, Jsonb

SCHEMA = """
CREATE TABLE profiles (
  id bigint PRIMARY KEY, photos jsonb, raw json, cover text, extra text[], deleted_at timestamptz,
  photos_migrated_at timestamptz, bio text, page text
);
CREATE TABLE verifications (
  profile_id bigint NOT NULL REFERENCES profiles ON DELETE CASCADE, id integer, photo_url text,
  PRIMARY KEY (profile_id, id)
);
CREATE INDEX ON verifications (profile_id);
"""
PLACES = ("photos", "raw", "cover", "extra", "bio", "verifications")
_IN_BIO = re.compile(r'<img alt="([^"]*)" src=\'([^\']*)\'>')


@dataclass(frozen=True, slots=True)
class Servers:
    """Where everything is."""

    database_url: str
    container: ContainerClient
    source_base: str
    s3: Any
    bucket: str
    public_base_url: str
    firestore: Any


class Waits(Exception):  # noqa: N818 - a state, not a failure
    """The app would wait for the migration's lock; its act comes later."""


@dataclass(slots=True)
class User:
    """A profile, and what each place must hold: uids in order."""

    id_: int
    places: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in (*PLACES, "firebase")})
    gone: bool = False
    soft_deleted: bool = False
    page: str = ""
    """A text that the migration was not told to hold any: what is named in it holds the user."""
    named: list[str] = field(default_factory=list)
    """Photos named in that."""
    late: bool = False
    """The app wrote a URL of the old store while the flag was set: untrue until a sweep."""


class App:
    """Three users, and their acts. `edits` counts what was written."""

    def __init__(
        self,
        servers: Servers,
        first_id: int,
        rng: random.Random,
        database: "psycopg.Connection[Any] | None" = None,
        *,
        deletes: float = 0.7,
    ) -> None:
        """Nothing exists yet.

        Args:
            servers: where everything is.
            first_id: of the first user.
            rng: draws the acts.
            database: where several apps share a connection.
            deletes: how often a profile is deleted, where all other acts together weigh 31.
        """
        self.servers, self.rng, self._deletes = servers, rng, deletes
        self.users = [User(first_id + n) for n in range(3)]
        self.edits = 0
        self.versions: dict[str, int] = {}
        self.blobs: dict[str, str] = {}
        """uid → ETag at the source, as the app last wrote it."""
        self.missing: set[str] = set()
        self.planted: dict[str, bytes] = {}
        """key → bytes of objects in S3 that are none of the migration's."""
        self.replaced: set[str] = set()
        """Photos that the app replaced in S3 in place: their newest bytes are there alone."""
        self.forgotten: list[tuple[User, str]] = []
        """Photos that users had removed when all old clients were gone."""
        self._read: set[str] = set()
        """URLs that a client has read, and may write again."""
        self._serial = 0
        self._connections: dict[str, HTTPConnection] = {}
        self.seconds: list[float] = []
        """Of each transaction with the row locked."""
        self._database = database or connect(servers.database_url, lock_timeout="5ms")
        self.pending: list[Callable[[], None]] = []
        self.stale: list[Callable[[], None]] = []
        self.removed: list[tuple[User, Any]] = []
        self.lost: list[str] = []
        """Edits that a user found undone; said at once, for the next edit would hide it."""

    def forget(self) -> None:
        """Old clients are gone for good, with all that they remember."""
        self.stale.clear()
        self.removed.clear()
        if not self.pending:
            self._read.clear()

    def settle(self) -> None:
        """Clients finish what they began; old ones are gone for good."""
        for act in self.pending:
            act()
        self.pending.clear()
        self.forget()

    def hang_up(self) -> None:
        """Whoever fetches again, connects again."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def close(self) -> None:
        self._database.close()
        self.hang_up()

    # -- making the app

    def create(self) -> None:
        """Files, a bad one now and then, and only then the rows and documents that lead a migration to them."""
        for user in self.users:
            for place in user.places:
                if place not in ("firebase", "cover", "bio"):
                    user.places[place] = [self._old_photo(user) for _ in range(self.rng.randint(0, 2))]
            user.places["cover"] = user.places["photos"][:1]
            user.places["bio"] = [*user.places["photos"], *user.places["cover"]]
            user.places["firebase"] = list(user.places["photos"])
            if user.places["photos"] and self.rng.random() < 0.15:
                user.named = user.places["photos"][:1]
                user.page = self._page(user.named[0])
        if self.rng.random() < 0.3:
            self._take_away_a_file()
        if self.rng.random() < 0.3:
            self._plant_a_conflict()
        for user in self.users:
            urls = {uid: self.source_url(uid) for uids in user.places.values() for uid in uids}
            with self._database.transaction():
                self._database.execute(
                    "INSERT INTO profiles (id, photos, raw, cover, extra, bio, page)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    [
                        user.id_,
                        Jsonb(_photos(user.places["photos"], urls)),
                        Json(_photos(user.places["raw"], urls)),
                        urls[user.places["cover"][0]] if user.places["cover"] else None,
                        [urls[uid] for uid in user.places["extra"]],
                        _bio(user, [(uid, urls[uid]) for uid in user.places["bio"]]),
                        user.page,
                    ],
                )
                for uid in user.places["verifications"]:
                    self._insert_verification(user, urls[uid])
            self._document(user).set({"photos": _photos(user.places["firebase"], urls), "name": f"user {user.id_}"})

    def _old_photo(self, user: User) -> str:
        uid = self._uid(user)
        self.upload_to_source(uid)
        return uid

    def _uid(self, user: User) -> str:
        self._serial += 1
        return f"{user.id_}-{self._serial:03}"

    def _take_away_a_file(self) -> None:
        uid = self.rng.choice(sorted(self.blobs) or [""])
        if uid:
            self.servers.container.delete_blob(self._blob(uid))
            self.missing.add(uid)

    def _plant_a_conflict(self) -> None:
        uid = self.rng.choice(sorted(self.blobs.keys() - self.missing) or [""])
        if uid:
            self._plant_over(uid)

    # -- files

    def _blob(self, uid: str) -> str:
        return f"{uid.split('-', maxsplit=1)[0]}/{uid}.jpg"

    def source_url(self, uid: str) -> str:
        """Every third is asked for in a size, which is to be kept."""
        size = "?w=200&h=200" if int(uid.rpartition("-")[2]) % 3 == 0 else ""
        return f"{self.servers.source_base}/{self._blob(uid)}{size}"

    def target_url(self, uid: str) -> str:
        """Where the migration puts its copy."""
        return f"{self.servers.public_base_url}/{self.servers.container.container_name}/{self._blob(uid)}"

    def _page(self, uid: str) -> str:
        """Names a photo in one of the ways that nobody rewrites."""
        url = self.source_url(uid)
        spellings = [f"[me]({url})", f"https://proxy.example/?u={quote(url, safe='')}", url.partition(":")[2],
                     json.dumps({"u": url}).replace("/", "\\/"), f"\ufeff{url}"]  # fmt: skip
        return self.rng.choice(spellings)

    def upload_to_source(self, uid: str) -> None:
        self.versions[uid] = self.versions.get(uid, 0) + 1
        answer = self.servers.container.upload_blob(self._blob(uid), self.body(uid), overwrite=True)
        self.blobs[uid] = answer.get_blob_properties().etag

    def body(self, uid: str, version: int | None = None) -> bytes:
        return f"{uid} version {version or self.versions[uid]}".encode()

    def _upload_to_target(self, user: User) -> tuple[str, str]:
        """A photo that a new client puts into the new store; its name is the new store's business."""
        uid = self._uid(user)
        key = f"uploads/{uid}.jpg"
        self.versions[uid] = 1
        self.planted[key] = self.body(uid)
        self.servers.s3.put_object(Bucket=self.servers.bucket, Key=key, Body=self.planted[key])
        return uid, f"{self.servers.public_base_url}/{key}"

    # -- acts of users

    def act(self) -> None:
        """One act of some user, drawn at random; raises `Waits` where a lock of the migration is in the way."""
        user = self.rng.choice(self.users)
        if self.pending and self.rng.random() < 0.4:
            self.pending.pop(0)()
        elif self.stale and self.rng.random() < 0.3:
            self.stale.pop(self.rng.randrange(len(self.stale)))()
        elif not user.gone:
            weights = {
                self.add_to_old: 5, self.add_to_new: 3, self.replace: 4, self.reorder: 3, self.remove: 3,
                self.set_cover: 2, self.write_bio: 2, self.verify: 2, self.write_over: 2, self.remember: 3,
                self.undo: 3, self.delete: self._deletes, self.restore: 1 if self.forgotten else 0,
            }  # fmt: skip
            (act,) = self.rng.choices(list(weights), list(weights.values()))
            act(user)

    def add_to_old(self, user: User) -> None:
        uid = self._old_photo(user)
        self._edit(user, lambda photos: [*photos, {"uid": uid, "url": self.source_url(uid)}])

    def add_to_new(self, user: User) -> None:
        uid, url = self._upload_to_target(user)
        self._edit(user, lambda photos: [{"uid": uid, "url": url}, *photos])

    def replace(self, user: User) -> None:
        uid = self._old_photo(user)
        self._edit(user, lambda photos: [*photos[:-1], {"uid": uid, "url": self.source_url(uid)}])

    def reorder(self, user: User) -> None:
        self._edit(user, lambda photos: photos[1:] + photos[:1])

    def remove(self, user: User) -> None:
        """The client keeps what it removed, should the user want it back."""
        with self._row(user) as row:
            self.removed += [(user, photo) for photo in row["photos"][:1]]
            self._read.update(photo["url"] for photo in row["photos"])
            self._write(user, row["photos"][1:])
        self.pending.append(lambda: self._edit_document(user, lambda photos: photos[1:]))

    def undo(self, user: User) -> None:
        """A photo comes back, by the URL that it had."""
        mine = [item for item in self.removed if item[0] is user]
        if mine:
            self._edit(user, lambda photos: [*photos, mine[-1][1]])
            self.removed.remove(mine[-1])

    def restore(self, _: User) -> None:
        """A photo comes back from a backup, by the URL that it had in the old store."""
        user, uid = self.forgotten.pop(self.rng.randrange(len(self.forgotten)))
        if not user.gone and uid in self.blobs and uid not in self.replaced:
            self._edit(user, lambda photos: [*photos, {"uid": uid, "url": self.source_url(uid)}])

    def set_cover(self, user: User) -> None:
        """The cover becomes the first photo, by whatever URL the row has for it."""
        with self._row(user) as row:
            if row["photos"]:
                self._update(user, "cover = %s", [row["photos"][0]["url"]])
                user.places["cover"] = [row["photos"][0]["uid"]]

    def write_bio(self, user: User) -> None:
        """A text about the photos, by whatever URLs the row has for them."""
        with self._row(user) as row:
            pairs = _pairs(row["photos"])
            self._update(user, "bio = %s", [_bio(user, pairs)])
            user.places["bio"] = [uid or "" for uid, _ in pairs]
            self._wrote(user, *(url for _, url in pairs))

    def verify(self, user: User) -> None:
        uid = self._old_photo(user)
        self._insert_verification(user, self.source_url(uid))
        user.places["verifications"].append(uid)
        self._wrote(user, self.source_url(uid))

    def write_over(self, user: User) -> None:
        """An upload under a SAS that was issued before the switch: newer bytes under a name that there is already."""
        lost = self.missing | self.replaced
        uids = [u for place in user.places.values() for u in place if u in self.blobs and u not in lost]
        if uids:
            self.upload_to_source(self.rng.choice(uids))
            self.edits += 1

    def remember(self, user: User) -> None:
        """An old client reads a value, and will write it back whole."""
        if self.rng.random() < 0.5:
            with self._row(user) as row:
                photos = row["photos"]
            self._read.update(photo["url"] for photo in photos)
            self.stale.append(lambda: self._write_photos(user, photos))
        elif (document := self._document(user).get()).exists:
            held = document.to_dict()["photos"]
            self._compare(user, "firebase", held)
            self._read.update(photo["url"] for photo in held)
            self.stale.append(lambda: self._write_document(user, held))

    def delete(self, user: User) -> None:
        """For good, or until the user comes back."""
        with self._row(user):
            if self.rng.random() < 0.5:
                self._update(user, "deleted_at = now()", [])
                user.soft_deleted = user.gone = True
                return
            self._execute("DELETE FROM profiles WHERE id = %s", [user.id_])
            user.gone = True
        for place in PLACES:
            user.places[place] = []
        self.edits += 1

        def delete_document() -> None:
            self._document(user).delete()
            user.places["firebase"] = []
            self.edits += 1

        self.pending.append(delete_document)

    # -- acts of others, in the new store

    def meddle(self) -> None:
        """Somebody removes, replaces or archives a copy that nobody refers to; or the app replaces one in place.

        Between two runs, for a run relies on what it has seen itself.
        """
        named: dict[str, set[bool]] = {}
        """uid → whether its references lead to the new store."""
        for user in self.users:
            for place, found in self.held(user).items():
                for uid, (_, url) in zip(user.places[place], found, strict=True):
                    named.setdefault(uid, set()).add(not url.startswith(self.servers.source_base))
        mine = {uid: key for uid in self.blobs if (key := self._key(uid)) not in self.planted and self._is_there(key)}
        moved = [uid for uid in mine if named.get(uid) == {True} and not self._remembered(uid)]
        unnamed = [uid for uid in mine if True not in named.get(uid, set()) and self.target_url(uid) not in self._read]
        named_in_texts = {uid for user in self.users for uid in user.named}
        if moved and not self.pending and self.rng.random() < 0.3:
            self._replace_in_place(self.rng.choice(sorted(set(moved) - named_in_texts) or [""]))
        elif unnamed:
            uid = self.rng.choice(sorted(unnamed))
            (self.rng.choice([self._remove_from_s3, self._plant_over, self._archive]))(uid)

    def _replace_in_place(self, uid: str) -> None:
        if uid:
            self.versions[uid] += 1
            self.replaced.add(uid)
            self.planted[self._key(uid)] = self.body(uid)
            self.servers.s3.put_object(Bucket=self.servers.bucket, Key=self._key(uid), Body=self.body(uid))

    def _remove_from_s3(self, uid: str) -> None:
        self.servers.s3.delete_object(Bucket=self.servers.bucket, Key=self._key(uid))

    def _plant_over(self, uid: str) -> None:
        self.planted[self._key(uid)] = b"somebody else's"
        self.servers.s3.put_object(Bucket=self.servers.bucket, Key=self._key(uid), Body=self.planted[self._key(uid)])

    def _archive(self, uid: str) -> None:
        self.servers.s3.put_object(
            Bucket=self.servers.bucket, Key=self._key(uid), Body=self._object(self._key(uid)), StorageClass="GLACIER"
        )

    def archived(self) -> set[str]:
        """Photos whose copies nobody can read at once."""
        return {uid for uid in self.blobs if self._is_there(self._key(uid), storage_class="GLACIER")}

    def _key(self, uid: str) -> str:
        return f"{self.servers.container.container_name}/{self._blob(uid)}"

    def _is_there(self, key: str, storage_class: str | None = None) -> bool:
        try:
            head = self.servers.s3.head_object(Bucket=self.servers.bucket, Key=key)
        except ClientError:
            return False
        return storage_class is None or head.get("StorageClass") == storage_class

    def _remembered(self, uid: str) -> bool:
        return bool({self.source_url(uid), self.target_url(uid)} & self._read)

    def _edit(self, user: User, change: Callable[[list[Any]], list[Any]]) -> None:
        """What a new client does: read, change and write the row in one transaction, and the document after it."""
        with self._row(user) as row:
            photos = change(row["photos"])
            self._write(user, photos)
        self.pending.append(lambda: self._edit_document(user, change))

    def _edit_document(self, user: User, change: Callable[[list[Any]], list[Any]]) -> None:
        snapshot = self._document(user).get()
        if snapshot.exists:
            found = snapshot.to_dict()["photos"]
            self._compare(user, "firebase", found)
            photos = change(found)
            self._write_document(user, photos)

    def _write_photos(self, user: User, photos: list[Any]) -> None:
        if user.gone:
            return
        with self._row(user):
            self._write(user, photos)

    def _write(self, user: User, photos: list[Any]) -> None:
        self._update(user, "photos = %s", [Jsonb(photos)])
        user.places["photos"] = [photo["uid"] for photo in photos]
        self._wrote(user, *(photo["url"] for photo in photos))

    def _write_document(self, user: User, photos: list[Any]) -> None:
        document = self._document(user)
        if document.get().exists:
            document.update({"photos": photos})
            user.places["firebase"] = [photo["uid"] for photo in photos]
            self._wrote(user, *(photo["url"] for photo in photos), firebase=True)

    def _wrote(self, user: User, *urls: str, firebase: bool = False) -> None:
        self.edits += 1
        in_source = any(url.startswith(self.servers.source_base) for url in urls)
        if in_source and (self.flag(user) or (firebase and self.firebase_is_read)):
            user.late = True

    firebase_is_read = False
    """Whether the migration has read the documents and is about to set the flag: what is written now comes late."""

    # -- the stores

    def flag(self, user: User) -> bool:
        row = self._database.execute(
            "SELECT photos_migrated_at IS NOT NULL FROM profiles WHERE id = %s", [user.id_]
        ).fetchone()
        return row is not None and bool(row[0])

    @contextmanager
    def _row(self, user: User) -> "Iterator[dict[str, Any]]":
        """The user's row, locked."""
        began = time.monotonic()
        with self._database.transaction():
            row = self._execute("SELECT photos FROM profiles WHERE id = %s FOR UPDATE", [user.id_]).fetchone()
            assert row is not None
            self._compare(user, "photos", row[0])
            yield {"photos": row[0]}
        self.seconds.append(time.monotonic() - began)

    def _compare(self, user: User, place: str, photos: list[Any]) -> None:
        found = [photo["uid"] for photo in photos]
        if found != user.places[place]:
            self.lost.append(f"user {user.id_} found {found} in {place}, the users' acts say {user.places[place]}")

    def _execute(self, text: str, values: Any) -> "psycopg.Cursor[Any]":
        try:
            return self._database.execute(text, values)
        except psycopg.errors.LockNotAvailable:
            raise Waits from None

    def _update(self, user: User, sets: str, values: list[Any]) -> None:
        self._execute(f"UPDATE profiles SET {sets} WHERE id = %s", [*values, user.id_])

    def _insert_verification(self, user: User, url: str) -> None:
        # Numbered by profile, so that everybody's rows have the same numbers.
        self._execute(
            "INSERT INTO verifications (profile_id, id, photo_url) SELECT %(id)s, coalesce(max(id), 0) + 1, %(url)s"
            " FROM verifications WHERE profile_id = %(id)s",
            {"id": user.id_, "url": url},
        )

    def _document(self, user: User) -> Any:
        return self.servers.firestore.document(f"profiles/{user.id_}")

    # -- what is there

    def held(self, user: User) -> dict[str, list[tuple[str | None, str]]]:
        """Every place: uid, where the place names one, and URL."""
        row = self._database.execute(
            "SELECT photos, raw, cover, extra, bio, page FROM profiles WHERE id = %s", [user.id_]
        ).fetchone()
        document = self._document(user).get()
        photos, raw, cover, extra, bio, page = row or ([], [], None, [], "", user.page)
        in_bio = _IN_BIO.findall(bio)
        if (row is not None and bio != _bio(user, in_bio)) or page != user.page:
            self.lost.append(f"user {user.id_} has a text that was changed: {bio!r} {page!r}")
        verifications = self._database.execute(
            "SELECT photo_url FROM verifications WHERE profile_id = %s ORDER BY id", [user.id_]
        ).fetchall()
        return {
            "photos": _pairs(photos),
            "raw": _pairs(raw),
            "cover": [(None, cover)] if cover else [],
            "extra": [(None, url) for url in extra],
            "bio": list(in_bio),
            "verifications": [(None, url) for (url,) in verifications],
            "firebase": _pairs(document.to_dict()["photos"]) if document.exists else [],
        }

    def fetch(self, url: str, *, archived: bool = False) -> bytes | None:
        """GET, as a client would; `None` for anything but 200, and for what S3 would not give out before a restore."""
        parts = urlsplit(url)
        if not parts.netloc:
            return None
        connection = self._connections.setdefault(parts.netloc, HTTPConnection(parts.netloc, timeout=60))
        try:
            connection.request("GET", parts.path)
            answer = connection.getresponse()
        except (RemoteDisconnected, ConnectionError):  # it was kept for too long
            connection.close()
            connection.request("GET", parts.path)
            answer = connection.getresponse()
        body = answer.read()
        frozen = answer.headers.get("x-amz-storage-class") == "GLACIER" and not archived
        return body if answer.status == HTTPStatus.OK and not frozen else None

    def objects(self) -> dict[str, bytes]:
        """Everything in the new store that belongs to these users."""
        prefixes = [f"{self.servers.container.container_name}/{user.id_}/" for user in self.users]
        prefixes += [f"uploads/{user.id_}-" for user in self.users]
        return {key: self._object(key) for prefix in prefixes for key in self._keys(prefix)}

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self.servers.s3.get_paginator("list_objects_v2").paginate(Bucket=self.servers.bucket, Prefix=prefix)
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", []))

    def _object(self, key: str) -> bytes:
        return bytes(self.servers.s3.get_object(Bucket=self.servers.bucket, Key=key)["Body"].read())

    def source_etag(self, uid: str) -> str | None:
        try:
            return str(self.servers.container.get_blob_client(self._blob(uid)).get_blob_properties().etag)
        except ResourceNotFoundError:
            return None

    def stamp(self) -> str:
        """Versions of all rows and documents: equal only if nothing was written."""
        ids = [user.id_ for user in self.users]
        rows = self._database.execute(
            "SELECT 'p', id, xmin::text FROM profiles WHERE id = ANY(%(ids)s)"
            " UNION ALL SELECT 'v', id, xmin::text FROM verifications WHERE profile_id = ANY(%(ids)s) ORDER BY 1, 2",
            {"ids": ids},
        ).fetchall()
        documents = [self._document(user).get() for user in self.users]
        return json.dumps([rows, [str(d.update_time) for d in documents]])


def connect(url: str, *, lock_timeout: str) -> "psycopg.Connection[Any]":
    """A connection of the app, which waits for locks so long."""
    connection = psycopg.connect(url, autocommit=True, application_name="app")
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [lock_timeout])
    return connection


def _bio(user: User, photos: Sequence[tuple[str | None, str]]) -> str:
    """HTML, and all that may stand in one."""
    images = ", ".join(f"<img alt=\"{uid}\" src='{url}'>" for uid, url in photos)
    return f"<p>Ich bin {user.id_} \u2013 &amp; \u5199\u771f (1.5) https://example.com/?a=1&amp;b\n{images}</p>"


def _photos(uids: list[str], urls: dict[str, str]) -> list[dict[str, str]]:
    return [{"uid": uid, "url": urls[uid]} for uid in uids]


def _pairs(photos: list[Any]) -> list[tuple[str | None, str]]:
    return [(photo["uid"], photo["url"]) for photo in photos]


def s3_client(endpoint_url: str) -> Any:
    """A client of the app's own."""
    return boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
