"""The app on paper: every row, document and file, before any of it is written."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from migration_pipeline.sandbox.app_kinds import BAD_OUTCOMES, Kind, kind_of
from migration_pipeline.sandbox.app_places import AppSize, AppStores
from migration_pipeline.sandbox.app_urls import UrlWriter, foreign_url
from migration_pipeline.sandbox.photo_files import (
    NASTY_NAMES,
    PHOTOS,
    VERIFICATIONS,
    VERSIONS,
    Blob,
    selfie_size,
    size_of,
)

ProfileId = int | str
BIG_NUMBER = 123456789012345678901234567890

_BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
_TWO_YEARS = 2 * 365 * 24 * 3600
_FIRST_ID = 1001
_NAMES = ("ada", "bea", "cem", "dora", "emil", "fatma", "gus", "hana", "ivo", "jun", "kofi", "léa", "mia", "noor")
_CAPTIONS = (
    "",
    "me",
    "at the lake",
    'they call it "work"',
    "C:\\holidays\\2023",
    "été à Paris",
    "\U0001f600 finally!",
    "a < b & c > d",
    "line one\nline two",
    "find me at https://example.net/me, not on http",
)


@dataclass(slots=True)
class Verification:
    """A row of the table of verifications."""

    photo_url: str | None
    status: str


@dataclass(slots=True)
class PlannedProfile:
    """One user, at all sites.

    Attributes:
        photos: the database's value; `None` for NULL.
        document_photos: the document's value, before any edit of the app's the same.
        blobs: files that the profile's URLs name, among them such as are not there.
        bad: the one of them that cannot be copied.
    """

    profile_id: ProfileId
    kind: Kind
    username: str
    bio: str
    updated_at: datetime
    photos: list[dict[str, Any]] | None = field(default_factory=list)
    document_photos: list[dict[str, Any]] = field(default_factory=list)
    verifications: list[Verification] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    bad: Blob | None = None

    @property
    def photos_json(self) -> str | None:
        """The value of the database's column, as text."""
        return None if self.photos is None else json.dumps(self.photos, ensure_ascii=False)


@dataclass(slots=True)
class AppPlan:
    """The whole app.

    Attributes:
        blobs: every file of the source, by its text form; also those that are not there.
        source_urls: at least every URL in the app's data that names one.
        signatures: of all SAS in URLs.
    """

    profiles: list[PlannedProfile] = field(default_factory=list)
    blobs: dict[str, Blob] = field(default_factory=dict)
    source_urls: set[str] = field(default_factory=set)
    signatures: set[str] = field(default_factory=set)

    def references(self, profile: PlannedProfile, *, with_document: bool) -> int:
        """How many places of a profile hold a source URL."""
        photos = [*(profile.photos or ()), *(profile.document_photos if with_document else ())]
        strings = [value for photo in photos for value in photo.values() if isinstance(value, str)]
        strings += [item.photo_url for item in profile.verifications if item.photo_url]
        return sum(text in self.source_urls for text in strings)

    def in_target(self) -> Iterator[Blob]:
        """Files that S3 holds before any migration, under their keys."""
        for profile in self.profiles:
            if profile.kind is Kind.ALREADY_MIGRATED:
                yield from profile.blobs

    def conflicting(self) -> Iterator[Blob]:
        """Files under whose keys S3 holds other bytes."""
        for profile in self.profiles:
            if profile.kind is Kind.TARGET_CONFLICT and profile.bad is not None:
                yield profile.bad


def plan_app(stores: AppStores, size: AppSize) -> AppPlan:
    """Draw an app; URLs aside, which name the stores, it depends on the size alone."""
    plan, urls, last_id = AppPlan(), UrlWriter(stores), _FIRST_ID - 1
    for index in range(size.profiles):
        # Each profile draws from a seed of its own: a larger app begins with the same profiles as a smaller one.
        rng = random.Random(f"{size.seed}/{index}")  # noqa: S311 - test data, not cryptography
        last_id += rng.choice((1, 1, 1, 2, 5))  # profiles deleted for good leave gaps
        uuid = UUID(int=rng.getrandbits(128), version=4)
        draft = _Draft(str(uuid) if size.id_type == "uuid" else last_id, index, size, rng, urls)
        profile = draft.profile(plan.profiles[-1] if plan.profiles else None)
        plan.profiles.append(profile)
        plan.blobs.update((str(blob), blob) for blob in profile.blobs)
    plan.source_urls, plan.signatures = urls.written, urls.signatures
    return plan


class _Draft:
    """Draws one profile."""

    def __init__(self, profile_id: ProfileId, index: int, size: AppSize, rng: random.Random, urls: UrlWriter) -> None:
        self._id, self._index, self._size, self._rng, self._urls = profile_id, index, size, rng, urls
        self._kind = kind_of(index, bad_files=size.bad_files)
        self._url: Callable[[Blob], str] = {
            Kind.ALIAS_HOST: urls.alias,
            Kind.SAS: urls.sas,
            Kind.ALREADY_MIGRATED: urls.target,
        }.get(self._kind, urls.plain)
        name = rng.choice(_NAMES)
        self._profile = PlannedProfile(
            profile_id,
            self._kind,
            username=f"{name}{rng.randrange(10, 10_000)}",
            bio=f"Hi, I am {name.capitalize()}. \u201cÇa va?\u201d",
            updated_at=_BEGINNING + timedelta(seconds=rng.randrange(_TWO_YEARS)),
        )

    def profile(self, neighbour: PlannedProfile | None) -> PlannedProfile:
        """The profile; `neighbour` is the one before it, whose files it may share."""
        if self._kind is Kind.WITHOUT_PHOTOS:
            # Apps write both for "none".
            self._profile.photos = None if self._index % 2 else []
            return self._profile
        photos = [self._photo(position) for position in range(self._number_of_photos())]
        if self._kind is Kind.SHARED and neighbour is not None and neighbour.kind is Kind.SHARED:
            photos.insert(0, self._borrowed(neighbour))
        self._alter(photos)
        self._profile.photos = photos
        self._profile.document_photos = _as_document(photos[:-1] if self._kind is Kind.DRIFTED else photos)
        self._profile.verifications = [self._verification() for _ in range(self._rng.choice((0, 1, 1, 2)))]
        return self._profile

    def _number_of_photos(self) -> int:
        if self._kind is Kind.NASTY_NAMES:
            return -(-len(NASTY_NAMES) // len(VERSIONS))
        mean = self._size.photos_per_profile
        # A drifted document lacks a photo and must keep one.
        least = 2 if self._kind is Kind.DRIFTED else 1
        return max(least, round(self._rng.triangular(1, 2 * mean - 1, mean)) if mean > 1 else 1)

    def _photo(self, position: int) -> dict[str, Any]:
        photo_id = f"{self._rng.getrandbits(64):016x}"
        photo: dict[str, Any] = {"id": photo_id}
        for version in VERSIONS:
            name = f"{self._id}/{photo_id}/{version}.jpg"
            if self._kind is Kind.NASTY_NAMES:
                number = position * len(VERSIONS) + VERSIONS.index(version)
                name = f"{self._id}/{NASTY_NAMES[number % len(NASTY_NAMES)]}"
            blob = self._keep(self._blob(PHOTOS, name, version, size_of(version, self._rng, self._size.scale)))
            photo[version] = self._spelled(blob)
        photo["position"] = position
        photo["caption"] = self._rng.choice(_CAPTIONS)
        return photo

    def _spelled(self, blob: Blob) -> str:
        if self._kind is not Kind.NASTY_NAMES:
            return self._url(blob)
        # Such names are where clients' ways to escape differ.
        return self._rng.choice((self._urls.plain, self._urls.careless, self._urls.half_escaped))(blob)

    def _blob(self, container: str, name: str, version: str, size: int) -> Blob:
        metadata = {"profile": str(self._id), "kind": version}
        return Blob(container, name, size, seed=str(self._size.seed), metadata=metadata)

    def _keep(self, blob: Blob) -> Blob:
        self._profile.blobs.append(blob)
        return blob

    def _verification(self) -> Verification:
        status = self._rng.choice(("requested", "pending", "approved", "rejected"))
        if status == "requested":
            return Verification(None, status)
        name = f"{self._id}/selfie-{self._rng.getrandbits(32):08x}.jpg"
        blob = self._keep(self._blob(VERIFICATIONS, name, "selfie", selfie_size(self._rng, self._size.scale)))
        return Verification(self._url(blob), status)

    def _borrowed(self, neighbour: PlannedProfile) -> dict[str, Any]:
        """The neighbour's first photo, its files named in other ways."""
        blobs = [blob for blob in neighbour.blobs if blob.container == PHOTOS][: len(VERSIONS)]
        spellings = self._urls.spellings()
        photo: dict[str, Any] = {"id": f"{self._rng.getrandbits(64):016x}"}
        for number, (version, blob) in enumerate(zip(VERSIONS, blobs, strict=True)):
            photo[version] = spellings[number % len(spellings)](self._keep(blob))
        # The first file once more as it was: the same URL in two profiles.
        return photo | {"position": -1, "caption": "the two of us", "thumbnail": self._urls.plain(blobs[0])}

    def _alter(self, photos: list[dict[str, Any]]) -> None:
        """Put in what the kind is about."""
        first = photos[0]
        if self._kind in BAD_OUTCOMES:
            first["original"] = self._urls.plain(self._spoil(0))
        elif self._kind is Kind.FOREIGN:
            photos.append({"id": "imported", "original": foreign_url(self._rng), "position": len(photos)})
        elif self._kind is Kind.BIG_NUMBER:
            first["perceptual_hash"] = BIG_NUMBER
        elif self._kind is Kind.ODD_HEADERS:
            self._profile.blobs[:6] = _odd(self._profile.blobs[:6])

    def _spoil(self, number: int) -> Blob:
        """Make one of the profile's files one that cannot be copied."""
        blob = self._profile.blobs[number]
        match self._kind:
            case Kind.MISSING_BLOB:
                blob = replace(blob, stored=False)
            case Kind.WRONG_MD5:
                blob = replace(blob, md5="wrong")
            case Kind.TOO_LONG_KEY:
                # Azure counts characters, up to 1,024; S3 counts bytes of UTF-8.
                blob = replace(blob, name=f"{self._id}/" + "\u00e9" * 520 + ".jpg")
            case _:
                pass
        self._profile.blobs[number] = self._profile.bad = blob
        return blob


def _odd(blobs: list[Blob]) -> list[Blob]:
    """Six files with headers as few have them; all can be copied."""
    with_name, zipped, untyped, empty, undigested, translated = blobs
    return [
        replace(with_name, content_disposition='attachment; filename="me.jpg"'),
        replace(zipped, content_encoding="gzip"),
        replace(untyped, content_type=None),
        replace(empty, size=0),
        replace(undigested, md5="none"),
        replace(translated, content_language="de", cache_control=None, metadata={}),
    ]


def _as_document(photos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Firestore's integers have 64 bits; clients of such apps keep larger ones as text.
    return [{k: str(v) if v == BIG_NUMBER else v for k, v in photo.items()} for photo in photos]
