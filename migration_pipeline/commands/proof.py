"""The demo's proof: every reference of every migrated profile is fetched from where it now points."""

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from threading import local
from urllib.parse import urlsplit

from migration_pipeline.core.model import ProfileId
from migration_pipeline.core.reading import read
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import UrlKind
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_documents, open_ledger, open_profiles, url_rules

_THREADS = 16
_OK = 200
_SHOWN = 10


@dataclass(slots=True)
class Proof:
    """What was fetched.

    Attributes:
        profiles: flagged ones, all of whose references were fetched.
        references: URLs in database and Firebase that were fetched.
        files: different ones among these.
        broken: URLs that gave no file, the first few.
        unmoved: references to the source that flagged profiles hold.
    """

    profiles: int = 0
    references: int = 0
    files: int = 0
    broken: list[str] = field(default_factory=list)
    unmoved: int = 0

    @property
    def holds(self) -> bool:
        """Whether every reference resolves, and none points at the source."""
        return not self.broken and not self.unmoved


def prove(settings: Settings) -> Proof:
    """Fetch every reference of every flagged profile by plain HTTP GET, as a client of the app would."""
    proof, rules, wanted = Proof(), url_rules(settings), set[str]()
    for _, strings in _flagged(settings):
        proof.profiles += 1
        for text in strings:
            for found in read(text, rules):
                if found.reference.kind is UrlKind.SOURCE or found.reference.holds:
                    proof.unmoved += 1
                elif found.reference.kind is UrlKind.TARGET:
                    proof.references += 1
                    wanted.add(found.written)
    with ThreadPoolExecutor(_THREADS) as pool:
        broken = [url for url, there in zip(wanted, pool.map(_Getter(), wanted), strict=True) if not there]
    proof.files, proof.broken = len(wanted), broken[:_SHOWN]
    return proof


def _flagged(settings: Settings) -> Iterator[tuple[ProfileId, list[Text]]]:
    with (
        closing(open_profiles(settings)) as profiles,
        open_documents(settings) as documents,
        closing(open_ledger(settings)) as ledger,
    ):
        for bounds in ledger.ranges():
            for batch in profiles.read(bounds):
                flagged = [profile for profile in batch if profile.flagged and not profile.deleted]
                copies = documents.read([profile.profile_id for profile in flagged])
                for profile in flagged:
                    yield profile.profile_id, [*profile.strings, *copies.get(profile.profile_id, ())]


class _Getter:
    """GET over connections that each thread keeps."""

    def __init__(self) -> None:
        self._own = local()

    def __call__(self, url: str) -> bool:
        parts = urlsplit(url)
        connection = getattr(self._own, "connection", None)
        if connection is None or self._own.host != parts.netloc:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = self._own.connection = kind(parts.netloc, timeout=30)
            self._own.host = parts.netloc
        try:
            connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return answer.status == _OK and len(body) == int(answer.headers.get("Content-Length", len(body)))
