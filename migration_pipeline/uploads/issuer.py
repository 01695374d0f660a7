"""One interface for both stores, and what they have in common."""

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Literal, NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote, unquote_to_bytes

from migration_pipeline.uploads.errors import NotConfirmed, Refused
from migration_pipeline.uploads.keys import KeyRules
from migration_pipeline.uploads.rules import UploadRules, Wish, check_period
from migration_pipeline.uploads.tickets import Confirmed, FormTicket, PutTicket, Stored


@runtime_checkable
class Uploads(Protocol):
    """Issues upload URLs, confirms uploads, and gives URLs to read files by."""

    def put_ticket(self, profile: str, wish: Wish) -> PutTicket:
        """An upload by PUT; raises `Refused` where the rules do not allow it."""

    def form_ticket(self, profile: str, wish: Wish) -> FormTicket | None:
        """An upload by a form; `None` where the store takes none."""

    def confirm(self, profile: str, reference: str) -> Confirmed:
        """That the upload is there and is what was allowed.

        Raises:
            NotConfirmed: it is not.
            StoreTrouble: nobody knows: ask again.
        """

    def discard(self, profile: str, reference: str) -> None:
        """Remove an upload that was not confirmed; only ever one that these rules named for this profile."""

    def holds(self, reference: str) -> bool:
        """Whether the reference leads to this store."""

    def download_url(self, reference: str, expires_in: timedelta | None = None) -> str:
        """A URL to read a file by for a while, whether or not the public may; migrated files, too."""

    def check_clock(self) -> None:
        """Raise `ClockSkewed` where this machine's clock is too far from the store's."""


class Place(NamedTuple):
    """Where a file is: bucket or container, and its decoded name there."""

    room: str
    key: str


class StoreUploads(ABC):
    """What both stores do alike; fulfils `Uploads`."""

    store: str
    digest: Literal["sha256", "md5"]

    def __init__(self, room: str, rules: UploadRules, keys: KeyRules) -> None:
        self._room, self._rules, self._keys = room, rules, keys

    def put_ticket(self, profile: str, wish: Wish) -> PutTicket:
        self._rules.check(wish, self.digest)
        return self._put(self._keys.new(profile, self._rules.types[wish.content_type]), wish)

    def form_ticket(self, profile: str, wish: Wish) -> FormTicket | None:
        self._rules.check(wish, self.digest)
        return self._form(self._keys.new(profile, self._rules.types[wish.content_type]), wish)

    def confirm(self, profile: str, reference: str) -> Confirmed:
        key = self._own_key(profile, reference)
        stored = self._stored(key)
        if stored is None:
            raise NotConfirmed("nothing was uploaded there")
        try:
            extension = self._rules.check_type(stored.content_type)
            self._rules.check_size(stored.size)
        except Refused as reason:
            raise NotConfirmed(str(reason), there=True) from None
        if not self._keys.belongs_to(key, profile, extension):
            raise NotConfirmed(f"{stored.content_type!r} is not what this name was given for", there=True)
        return Confirmed(
            store=self.store,
            key=key,
            reference=self.reference(key),
            size=stored.size,
            content_type=stored.content_type,
            etag=stored.etag,
        )

    def discard(self, profile: str, reference: str) -> None:
        self._remove(self._own_key(profile, reference))

    def holds(self, reference: str) -> bool:
        return self._place(reference) is not None

    def download_url(self, reference: str, expires_in: timedelta | None = None) -> str:
        place = self._place(reference)
        if place is None:
            raise Refused("the reference leads to another store")
        period = self._rules.download_expires_in if expires_in is None else expires_in
        check_period("expires_in", period)
        return self._download(place, period)

    @abstractmethod
    def reference(self, key: str) -> str:
        """The URL of a key that the app stores; it holds no signature."""

    @abstractmethod
    def check_clock(self) -> None:
        """As in `Uploads`."""

    @abstractmethod
    def _put(self, key: str, wish: Wish) -> PutTicket: ...

    @abstractmethod
    def _form(self, key: str, wish: Wish) -> FormTicket | None: ...

    @abstractmethod
    def _download(self, place: Place, expires_in: timedelta) -> str: ...

    @abstractmethod
    def _stored(self, key: str) -> Stored | None: ...

    @abstractmethod
    def _remove(self, key: str) -> None: ...

    @abstractmethod
    def _place(self, reference: str) -> Place | None: ...

    def _own_key(self, profile: str, reference: str) -> str:
        """The key, if it was made for this profile: what a client sends is a wish, not a fact."""
        place = self._place(reference)
        if place is None or place.room != self._room:
            raise NotConfirmed("the reference leads to another store")
        if not any(self._keys.belongs_to(place.key, profile, end) for end in self._rules.types.values()):
            raise NotConfirmed("the reference is none that was issued for this profile")
        return place.key


def under(base: str, reference: str) -> str | None:
    """The decoded name that a URL holds below `base`; the query string and fragment, which may hold a SAS, are not."""
    start = base.rstrip("/") + "/"
    if not reference.startswith(start):
        return None
    raw = reference[len(start) :].partition("#")[0].partition("?")[0]
    try:
        return unquote_to_bytes(raw).decode() or None
    except UnicodeError:
        return None


def joined(base: str, name: str) -> str:
    """The URL of a name below `base`."""
    return f"{base.rstrip('/')}/{quote(name)}"
