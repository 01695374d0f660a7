"""Checks a migration from outside: shares no code with the product, and uses the vendors' own libraries.

`references` and `dump` are taken before and after; `check_copies` compares bytes and headers of what was referred
to before; `check_urls` fetches what is referred to now; `stamps` and `untouched` prove that nothing was written.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import urlopen

import boto3
import psycopg
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from botocore.config import Config
from botocore.exceptions import ClientError

_THREADS = 8

Document = dict[str, Any]
References = dict[str, list[tuple[str, str]]]
"""Profile id as text → (site, URL); the sites are "database" and "firebase"."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything is; credentials of S3 come from the environment where they are not given."""

    account_url: str
    account_key: str
    alias_hosts: Mapping[str, str] = field(default_factory=dict)
    s3_endpoint_url: str
    bucket: str
    s3_access_key: str | None = None
    s3_secret_key: str | None = None
    database_url: str
    firestore_project: str | None = None
    firestore_host: str | None = None


class Stamp(NamedTuple):
    """A profile down to the versions of its rows and document: equal only if nothing was written."""

    row: tuple[str, str] | None
    verifications: tuple[tuple[str, str], ...]
    document: tuple[str, Document] | None


def source_of(url: str, account_url: str, alias_hosts: Mapping[str, str]) -> tuple[str, str] | None:
    """Container and blob that a URL names, or `None` where it names none of this account's."""
    try:
        parts, account = urlsplit(url), urlsplit(account_url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https"):
        return None
    host = parts.netloc.lower()
    base = account.path.rstrip("/") + "/"
    aliases = {name.lower(): container for name, container in alias_hosts.items()}
    if host == account.netloc.lower() and parts.path.startswith(base):
        container, _, name = parts.path[len(base) :].partition("/")
    elif (bare := re.sub(r":(80|443)$", "", host)) in aliases:
        container, name = aliases[bare], parts.path[1:]
    else:
        return None
    if not name or len(re.findall("%", name)) != len(re.findall("%[0-9a-fA-F]{2}", name)):
        return None
    return container, unquote(name, errors="strict")


def check_copies(
    places: Places,
    before: Mapping[str, Sequence[tuple[str, str]]],
    *,
    key_of: Callable[[str, str], str] = lambda container, blob: f"{container}/{blob}",
    leave_out: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """Compare every blob that was referred to before the migration with its copy: bytes, headers, metadata.

    Args:
        places: the stores.
        before: what `references` said before the migration, of the profiles in question.
        key_of: container and blob → key.
        leave_out: says of "container/blob" whether it is none of our business: the files meant to fail, say.

    Returns:
        One line for each difference.
    """
    found = (source_of(url, places.account_url, places.alias_hosts) for held in before.values() for _, url in held)
    sources = sorted({source for source in found if source is not None})
    wanted = [source for source in sources if not leave_out("/".join(source))]
    client = _s3(places)
    with BlobServiceClient(places.account_url, credential=places.account_key) as azure, _pool() as pool:

        def differences(source: tuple[str, str]) -> list[str]:
            return _differences(azure, client, places.bucket, source, key_of(*source))

        lines = [line for lines in pool.map(differences, wanted) for line in lines]
    client.close()
    return lines


def check_urls(urls: Iterable[str] | Mapping[str, int], hosts: Mapping[str, str] | None = None) -> list[str]:
    """Fetch every URL by plain HTTP GET, without any credentials.

    Args:
        urls: each once; a mapping says how many bytes each must bring.
        hosts: host → start of the URLs to fetch instead, for hosts that nothing answers for here.

    Returns:
        One line for each that does not answer 200 with as many bytes as it says.
    """
    lengths = urls if isinstance(urls, Mapping) else dict.fromkeys(urls)
    with _pool() as pool:
        lines = pool.map(lambda url: _fetch(url, lengths[url], hosts or {}), lengths)
        return [line for line in lines if line is not None]


def references(places: Places) -> References:
    """Every string that begins like a URL, in the configured columns and fields of both sites."""
    found: References = defaultdict(list)
    with psycopg.connect(places.database_url) as connection:
        for id_, photos in connection.execute("SELECT id::text, photos FROM profiles ORDER BY id"):
            found[id_] += [("database", url) for url in _urls(photos)]
        for id_, url in connection.execute("SELECT profile_id::text, photo_url FROM verifications ORDER BY id"):
            found[id_] += [("database", url) for url in _urls(url)]
    with _firestore(places) as client:
        for snapshot in client.collection("profiles").stream() if client else ():
            found[snapshot.id] += [("firebase", url) for url in _urls(snapshot.get("photos"))]
    return dict(found)


def references_of(places: Places, id_: str) -> list[tuple[str, str]]:
    """Those of one profile; see `references`."""
    with psycopg.connect(places.database_url) as connection:
        photos = connection.execute("SELECT photos FROM profiles WHERE id::text = %s", [id_]).fetchall()
        rows = connection.execute(
            "SELECT photo_url FROM verifications WHERE profile_id::text = %s ORDER BY id", [id_]
        ).fetchall()
    found = [("database", url) for (value,) in [*photos, *rows] for url in _urls(value)]
    with _firestore(places) as client:
        snapshot = client.document(f"profiles/{id_}").get() if client else None
        if snapshot is not None and snapshot.exists:
            found += [("firebase", url) for url in _urls(snapshot.get("photos"))]
    return found


def is_flagged(places: Places, id_: str) -> bool:
    """Whether the profile's flag is set."""
    with psycopg.connect(places.database_url) as connection:
        row = connection.execute(
            "SELECT photos_migrated_at IS NOT NULL FROM profiles WHERE id::text = %s", [id_]
        ).fetchone()
    return row is not None and bool(row[0])


def dump(places: Places) -> dict[str, dict[str, Any]]:
    """All rows and documents as plain values, to compare two end states.

    Of `photos_migrated_at` only remains whether it is set; documents' update times are left out.
    """
    with psycopg.connect(places.database_url) as connection:
        profiles = {
            row[0]: row[1:]
            for row in connection.execute(
                "SELECT id::text, username, photos::text, bio, updated_at::text, deleted_at::text,"
                " photos_migrated_at IS NOT NULL FROM profiles ORDER BY id"
            )
        }
        verifications = {
            row[0]: row[1:]
            for row in connection.execute(
                "SELECT id::text, profile_id::text, photo_url, status FROM verifications ORDER BY id"
            )
        }
    with _firestore(places) as client:
        documents = {
            snapshot.id: _plain(snapshot.to_dict())
            for snapshot in (client.collection("profiles").stream() if client else ())
        }
    return {"profiles": profiles, "verifications": verifications, "documents": documents}


def stamps(places: Places, profile_ids: Iterable[int | str]) -> dict[str, Stamp]:
    """These profiles with the versions of their rows (xmin) and of their documents (update time)."""
    ids = [str(id_) for id_ in profile_ids]
    verifications: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with psycopg.connect(places.database_url) as connection:
        rows = {
            id_: (xmin, text)
            for id_, xmin, text in connection.execute(
                "SELECT id::text, xmin::text, profiles::text FROM profiles WHERE id::text = ANY(%s)", [ids]
            )
        }
        for id_, xmin, text in connection.execute(
            "SELECT profile_id::text, xmin::text, verifications::text FROM verifications"
            " WHERE profile_id::text = ANY(%s) ORDER BY id",
            [ids],
        ):
            verifications[id_].append((xmin, text))
    documents: dict[str, tuple[str, Document]] = {}
    with _firestore(places) as client:
        if client:
            for snapshot in client.get_all([client.document(f"profiles/{id_}") for id_ in ids]):
                if snapshot.exists:
                    documents[snapshot.id] = snapshot.update_time.isoformat(), _plain(snapshot.to_dict())
    return {id_: Stamp(rows.get(id_), tuple(verifications[id_]), documents.get(id_)) for id_ in ids}


def untouched(places: Places, before: Mapping[str, Stamp]) -> list[str]:
    """One line for each part of these profiles that was written since `stamps` was taken, even with equal values."""
    now = stamps(places, before)
    return [
        f"{id_}: {part} was written: {then!r} is now {later!r}"
        for id_, stamp in before.items()
        for part, then, later in zip(Stamp._fields, stamp, now[id_], strict=True)
        if then != later
    ]


def _differences(azure: BlobServiceClient, s3: Any, bucket: str, source: tuple[str, str], key: str) -> list[str]:
    name = "/".join(source)
    try:
        # Not decompressed: a gzip-encoded body must be the same compressed bytes at both ends.
        blob = azure.get_blob_client(*source).download_blob(decompress=False)
        bytes_there = blob.readall()
    except ResourceNotFoundError:
        return [f"{name}: there is no such blob"]
    try:
        copy = s3.get_object(Bucket=bucket, Key=key)
        bytes_here = copy["Body"].read()
    except ClientError as error:
        return [f"{name}: S3 answered {error.response['Error']['Code']} for {key}"]
    settings = blob.properties.content_settings
    pairs = {
        "bytes": (bytes_there, bytes_here),
        # Stores give a file without a type one of their own making.
        "Content-Type": (settings.content_type or copy.get("ContentType"), copy.get("ContentType")),
        "Cache-Control": (settings.cache_control or None, copy.get("CacheControl")),
        "Content-Disposition": (settings.content_disposition or None, copy.get("ContentDisposition")),
        "Content-Encoding": (settings.content_encoding or None, copy.get("ContentEncoding")),
        "Content-Language": (settings.content_language or None, copy.get("ContentLanguage")),
        "metadata": ({k.lower(): v for k, v in (blob.properties.metadata or {}).items()}, copy["Metadata"]),
    }
    return [
        f"{name}: {what} differ: {_shown(there)} in Azure, {_shown(here)} in S3"
        for what, (there, here) in pairs.items()
        if there != here
    ]


def _shown(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)


def _fetch(url: str, length: int | None, hosts: Mapping[str, str]) -> str | None:
    parts = urlsplit(url)
    start = hosts.get(re.sub(r":(80|443)$", "", parts.netloc.lower()))
    there = f"{start}{parts.path}" if start else f"{parts.scheme}://{parts.netloc}{parts.path}"
    # Browsers escape what may not stand in a request, and leave escapes as they are; fragments stay at home.
    there = quote(there, safe="/:%!$&'()*+,;=@~") + (f"?{parts.query}" if parts.query else "")
    try:
        with urlopen(there, timeout=30) as answer:  # noqa: S310 - a sandbox's own URLs
            body, said = answer.read(), answer.headers["Content-Length"]
    except HTTPError as error:
        return f"{url}: answered {error.code}"
    except (OSError, HTTPException) as error:
        return f"{url}: {error!r}"
    if str(len(body)) != said or length not in (None, len(body)):
        return f"{url}: brought {len(body)} bytes, said {said}, should be {length}"
    return None


def _urls(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if re.match("https?://", value, re.IGNORECASE):
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _urls(item)
    elif isinstance(value, list):
        for item in value:
            yield from _urls(item)


def _plain(value: Any) -> Any:
    """A document's value without Google's classes, its types still told apart."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return ("timestamp", value.isoformat())
    if hasattr(value, "latitude"):
        return ("geo point", value.latitude, value.longitude)
    if hasattr(value, "path"):
        return ("reference", value.path)
    # 1, 1.0 and True are equal in Python and different in Firestore.
    return (type(value).__name__, value)


def _s3(places: Places) -> Any:
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=places.s3_endpoint_url,
        aws_access_key_id=places.s3_access_key,
        aws_secret_access_key=places.s3_secret_key,
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=_THREADS),
    )


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS)


@contextmanager
def _firestore(places: Places) -> Iterator[Any]:
    if places.firestore_project is None:
        yield None
        return
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - only where there is Firestore
    from google.cloud import firestore  # noqa: PLC0415 - as above

    # The client takes an emulator's address from the environment alone, while it is made.
    host = places.firestore_host or os.environ["FIRESTORE_EMULATOR_HOST"]
    with patch.dict(os.environ, {"FIRESTORE_EMULATOR_HOST": host}):
        client = firestore.Client(places.firestore_project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call] # untyped
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call] # as above
