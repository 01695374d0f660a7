"""Which strings are references to files, and where a file's new place is.

Identity is the decoded blob name: a URL is parsed once, its path percent-decoded once; query string and fragment are no
part of it. Nothing is folded: `//`, `..`, case, NFC and NFD, dots at the ends stay as they are, because Azure and S3
both tell them apart.

A string is a URL only if all of it is. What names the source and is not wholly understood is `embedded` or
`unparsable`: it is left alone, and holds its profile.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category
from urllib.parse import quote, unquote, unquote_to_bytes

from migration_pipeline.core.errors import Permanent, SettingsError
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.core.queries import Query, Tail, signed, tail_of, unsigned
from migration_pipeline.core.seeing import Place, Seeing, account_places, ascii_host

MAX_KEY_BYTES = 1024
"""S3: "object key names … UTF-8 … at most 1,024 bytes long" (Amazon S3 User Guide, naming objects)."""

_URL = re.compile(r"(https?)://([^/?#\\]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.IGNORECASE | re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AROUND = " \t\r\n"
"""White space that may stand around a URL, and stays there."""
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_WHOLE_ACCOUNT = "*"
_ROOT = "$root"
_UNSEEN = "\u00ad\u200b\u2060\ufeff"
"""Invisible, and no part of names: what stays of a text that was copied from somewhere."""
_NOT_TEXT = ("Cc", "Cs")
_ANOTHER = re.compile(r"[,;|\"'][ ]*https?:", re.IGNORECASE)


class UrlKind(StrEnum):
    """What a URL found in the app's data is to us."""

    SOURCE = "source"
    TARGET = "target"
    OTHER_CONTAINER = "other_container"
    FOREIGN = "foreign"
    UNPARSABLE = "unparsable"
    EMBEDDED = "embedded"


class Reference(NamedTuple):
    """A URL found in the app's data.

    Attributes:
        file: the blob, where `kind` is source.
        key: the decoded S3 key, where `kind` is target.
        shown: the URL without query string, fragment and user info: fit for logs.
        reason: why it could not be parsed, where it could not.
        holds: it names the source and is not understood, so that its profile is not migrated.
        had_query: there was a SAS, which is not kept.
        asks: it has a query string or a fragment that may mean something.
        waits: for a decision about that.
        stays: it is no URL of its own, and is never re-pointed: what the app makes of it moves.
    """

    kind: UrlKind
    file: SourceFile | None = None
    key: str | None = None
    shown: str = ""
    reason: str = ""
    holds: bool = False
    had_query: bool = False
    asks: bool = False
    waits: bool = False
    stays: bool = False


class Whole(NamedTuple):
    """A string that is one URL.

    Attributes:
        start, end: of the URL, white space around it left out.
        tail: its query string and fragment without a SAS.
    """

    reference: Reference
    start: int
    end: int
    tail: str = ""


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """Where a blob's copy goes: `prefix`, then `template` with `{container}` and `{blob}` filled in."""

    prefix: str = ""
    template: str = "{container}/{blob}"

    def check(self, containers: Sequence[str]) -> None:
        """Refuse templates under which two blobs could share a key.

        A container's name holds no slash, so a slash between the two placeholders tells them apart.

        Raises:
            SettingsError: naming the setting.
        """
        setting, text = "target.key_template", self.template
        if text.count("{blob}") != 1 or text.count("{container}") > 1:
            raise SettingsError(f"{text!r} must hold {{blob}} once, and {{container}} at most once.", setting=setting)
        if re.search(r"[{}]", text.replace("{blob}", "").replace("{container}", "")):
            raise SettingsError(f"{text!r} holds braces other than {{container}} and {{blob}}.", setting=setting)
        if "{container}" not in text:
            if len(containers) > 1:
                raise SettingsError(
                    f"{text!r} would give equally named blobs of two containers one key.",
                    setting=setting,
                    remedy='Put {container} in, for example "{container}/{blob}".',
                )
            return
        between = re.search(r"\{(?:container|blob)\}(.*)\{(?:container|blob)\}", text)
        if between is None or "/" not in between[1]:
            raise SettingsError(f"{text!r} needs a slash between {{container}} and {{blob}}.", setting=setting)

    def fill(self, file: SourceFile) -> str:
        """The key, whether or not S3 can hold it."""
        # One pass: a blob named "{container}" stays what it is.
        parts = {"{container}": file.container, "{blob}": file.blob}
        return self.prefix + re.sub(r"\{container\}|\{blob\}", lambda m: parts[m[0]], self.template)

    def file_of(self, key: str, containers: Collection[str]) -> SourceFile | None:
        """The one blob that `fill` gives this key to, if any."""
        pattern = re.escape(self.prefix + self.template)
        for name, group in (("container", "(?P<container>[^/]+)"), ("blob", "(?P<blob>.+)")):
            pattern = pattern.replace(re.escape(f"{{{name}}}"), group)
        match = re.fullmatch(pattern, key, re.DOTALL)
        if match is None:
            return None
        (only,) = containers if len(containers) == 1 else ("",)
        file = SourceFile(match.groupdict().get("container", only), match["blob"])
        return file if file.container in containers and self.fill(file) == key else None

    def key_of(self, file: SourceFile) -> str:
        """The S3 key of a blob.

        Raises:
            Permanent: `too_long_key`, where the key exceeds what S3 can hold.
        """
        key = self.fill(file)
        length = len(key.encode())
        if length > MAX_KEY_BYTES:
            raise Permanent(Outcome.TOO_LONG_KEY, f"the key has {length} bytes; S3 holds {MAX_KEY_BYTES}")
        return key


class UrlRules:
    """Classifies strings of the app's data, and maps files to keys and URLs."""

    def __init__(
        self,
        *,
        account_url: str,
        containers: Sequence[str],
        alias_hosts: Mapping[str, str],
        public_base_url: str,
        other_target_urls: Sequence[str] = (),
        keys: KeyTemplate,
        query: Query = Query.WAIT,
    ) -> None:
        """Set up from settings.

        Args:
            account_url: the storage account's blob endpoint.
            containers: those that move.
            alias_hosts: host (of a CDN, say), with a path where it serves more → the container that it serves, or `*`.
            public_base_url: what references to S3 start with.
            other_target_urls: further starts of URLs that mean the same bucket.
            keys: the key template, already checked.
            query: what becomes of query strings and fragments that are no SAS.
        """
        self._account_url = account_url.rstrip("/")
        self._containers = frozenset(containers)
        self._public_base = public_base_url.rstrip("/")
        self._keys, self.query = keys, query
        source = _place(self._account_url, "source.account_url")
        aliases = [
            _place(f"https://{host}", "source.alias_hosts")._replace(
                container=None if container == _WHOLE_ACCOUNT else container
            )
            for host, container in alias_hosts.items()
        ]
        targets = [
            _place(url, "target.public_base_url")._replace(is_target=True)
            for url in (self._public_base, *other_target_urls)
        ]
        self.source = Seeing([*account_places(source.host, source.path), *aliases])
        """Sees whether a text names the source."""
        self.stores = Seeing([*self.source.places, *targets])
        """Sees whether a text names the source or the target."""
        self._places: dict[str, list[Place]] = {}
        for place in (*self.source.places, *targets):
            self._places.setdefault(place.host, []).append(place)

    @property
    def source_hosts(self) -> list[str]:
        """In lower case: what names the source holds one of these, in whatever case, where it is not escaped."""
        return self.source.needles

    def classify(self, text: str) -> Reference | None:
        """What `text` is to us as a whole; `None` where it is no URL, and names no host of the source."""
        found = self.whole(text)
        return None if found is None else found.reference

    def whole(self, text: str) -> Whole | None:
        """The same, with where the URL stands in the text."""
        core = text.strip(_AROUND)
        match = _URL.fullmatch(core) if core[:4].lower() == "http" else None
        place = None if match is None else self._place_of(match)
        # Whatever the recogniser makes of the rest: a text that names the source there is never nothing.
        beside = core if match is None or place is None else "".join(filter(None, match.group(3, 4, 5)))
        if self.source.sees(beside):
            return Whole(self.embedded(beside), 0, len(text))
        if match is None:
            return None
        if place is None or not _is_one(core):
            if place is not None and not place.is_target:
                return Whole(self.embedded(core), 0, len(text))
            return Whole(Reference(UrlKind.FOREIGN, shown=_shown(match)), 0, len(text))
        start = len(text) - len(text.lstrip(_AROUND))
        tail = tail_of(match[4], match[5])
        reference = self._target(match, place) if place.is_target else self._source(match, place, tail)
        return Whole(reference, start, start + len(core), tail.kept)

    def embedded(self, text: str, reason: str = "") -> Reference:
        """The reference that stands for whatever a text names in the source."""
        said = reason or "names the source inside something larger, or in a spelling that is not understood"
        return Reference(UrlKind.EMBEDDED, shown=unsigned(self.source.first(text)), reason=said, holds=True)

    def key_of(self, file: SourceFile) -> str:
        """The S3 key of a blob; raises `Permanent` (too_long_key)."""
        return self._keys.key_of(file)

    def file_of(self, key: str) -> SourceFile | None:
        """The blob whose copy belongs under this key; `None` for keys that no blob's copy can have."""
        return self._keys.file_of(key, self._containers)

    def unchecked_key_of(self, file: SourceFile) -> str:
        """The key for comparing names, also where it is too long for S3."""
        return self._keys.fill(file)

    def source_url(self, file: SourceFile) -> str:
        """The canonical URL of a blob, without a SAS."""
        return f"{self._account_url}/{quote(file.container, safe='$')}/{quote(file.blob)}"

    def target_url(self, file: SourceFile) -> str:
        """The URL that references to a blob get; raises `Permanent` (too_long_key)."""
        return f"{self._public_base}/{quote(self.key_of(file))}"

    def _place_of(self, match: re.Match[str]) -> Place | None:
        host = _host(match[2].rpartition("@")[2], match[1])
        for place in self._places.get(host, ()):
            if match[3].startswith(place.path) and match[3][len(place.path) : len(place.path) + 1] in ("/", ""):
                return place
        return None

    def _source(self, match: re.Match[str], place: Place, tail: Tail) -> Reference:
        shown, (userinfo, at, _) = _shown(match), match[2].rpartition("@")
        container, raw_name = place.container, match[3][len(place.path) + 1 :]
        if container is None:
            segment, slash, rest = raw_name.partition("/")
            # Microsoft Learn, "Working with the root container": its blobs may be named without it, and have no slash.
            in_root = not slash and _ROOT in self._containers and unquote(segment) not in self._containers
            container, raw_name = (_ROOT, segment) if in_root else (unquote(segment), rest)
            if container.partition("/")[0] not in self._containers:
                return Reference(UrlKind.OTHER_CONTAINER, shown=shown)
            if "/" in container:
                reason = "escapes the slash after its container"
                return Reference(UrlKind.UNPARSABLE, shown=shown, reason=reason, holds=True)
        if at:
            reason = f"carries user info ({len(userinfo)} characters)"
            return Reference(UrlKind.UNPARSABLE, shown=shown, reason=reason, holds=True)
        name, reason = _decoded(raw_name)
        if not reason and tail.other_bytes:
            reason = "names a snapshot or an old version of a blob"
        if reason:
            return Reference(UrlKind.UNPARSABLE, shown=shown, reason=reason, holds=True)
        return Reference(
            UrlKind.SOURCE,
            file=SourceFile(container, name),
            shown=shown,
            had_query=tail.had_sas,
            asks=bool(tail.kept),
            waits=bool(tail.kept) and self.query is Query.WAIT,
        )

    def _target(self, match: re.Match[str], place: Place) -> Reference:
        key, reason = _decoded(match[3][len(place.path) + 1 :])
        kind = UrlKind.UNPARSABLE if reason else UrlKind.TARGET
        return Reference(kind, key=key, shown=_shown(match), reason=reason)


def _is_one(core: str) -> bool:
    """Whether nothing in a text that begins like a URL says that it is more than one, or more than that."""
    if "://" in core[core.index("://") + 3 :] or _ANOTHER.search(core):
        return False
    if core.isascii():
        return core.isprintable() and " " not in core
    return not any(c.isspace() or c in _UNSEEN or category(c) in _NOT_TEXT for c in core)


def _shown(match: re.Match[str]) -> str:
    host = _host(match[2].rpartition("@")[2], match[1])
    return unsigned(f"{match[1]}://{host}{match[3]}".split(maxsplit=1)[0])


def _decoded(raw: str) -> tuple[str, str]:
    """The percent-decoded name, and why it has none where it has none."""
    if not raw:
        return "", "names no file"
    if "%" not in raw and raw.isascii() and raw.isprintable():
        return raw, ""  # the common case, at a fraction of the cost
    if signed(raw):
        return "", "holds an escaped query string with a signature"
    if _BAD_ESCAPE.search(raw):
        return "", "holds a % that is no escape"
    try:
        name = unquote_to_bytes(raw).decode()
    except UnicodeError:
        return "", "is not UTF-8"
    return ("", "holds a NUL character") if "\0" in name else (name, "")


@lru_cache(maxsize=1024)
def _host(authority: str, scheme: str) -> str:
    """In ASCII and lower case, without the scheme's default port and the root dot: equal for equal hosts."""
    return ascii_host(authority).removesuffix(_DEFAULT_PORT[scheme.lower()]).removesuffix(".")


def _place(url: str, setting: str) -> Place:
    match = _URL.fullmatch(url)
    if match is None or match[4] is not None or match[5] is not None or not match[2] or "@" in match[2]:
        raise SettingsError("must be an http(s) URL without query string or user info.", setting=setting)
    return Place(_host(match[2], match[1]), match[3].rstrip("/"))
