"""Which strings are references to files, and where a file's new place is.

Identity is the decoded blob name: a URL is parsed once, its path percent-decoded once, its query string and
fragment dropped (they hold SAS tokens, which are secrets). Nothing is folded: `//`, `..`, case, NFC and NFD,
dots and spaces at the ends stay as they are, because Azure and S3 both tell them apart.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from migration_pipeline.core.errors import Permanent, SettingsError
from migration_pipeline.core.model import Outcome, SourceFile

MAX_KEY_BYTES = 1024
"""S3: "object key names … UTF-8 … at most 1,024 bytes long" (Amazon S3 User Guide, naming objects)."""

_URL = re.compile(r"(https?)://([^/?#\\]*)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# A browser drops tabs and line ends inside a URL, other clients send or refuse them: nobody can say which
# blob such a string means.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# These name other bytes than the blob itself.
_NOT_THE_BLOB = re.compile(r"(?:^|&)(?:snapshot|versionid)=", re.IGNORECASE)
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


class UrlKind(StrEnum):
    """What a URL found in the app's data is to us."""

    SOURCE = "source"
    TARGET = "target"
    FOREIGN = "foreign"
    UNPARSABLE = "unparsable"


class Reference(NamedTuple):
    """A URL found in the app's data.

    Attributes:
        file: the blob, where `kind` is source.
        key: the decoded S3 key, where `kind` is target.
        shown: the URL without query string, fragment and user info: fit for logs.
        reason: why it could not be parsed, where it could not.
        had_query: there was a query string; it may have held a SAS, and is not kept.
    """

    kind: UrlKind
    file: SourceFile | None = None
    key: str | None = None
    shown: str = ""
    reason: str = ""
    had_query: bool = False


class _Base(NamedTuple):
    """Scheme-less start of the URLs of one store: host with port, and the path before the names."""

    host: str
    path: str


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
    ) -> None:
        """Set up from settings.

        Args:
            account_url: the storage account's blob endpoint.
            containers: those that move; other containers of the account are foreign.
            alias_hosts: host (of a CDN, say) → the container that it serves.
            public_base_url: what references to S3 start with.
            other_target_urls: further starts of URLs that mean the same bucket.
            keys: the key template, already checked.
        """
        self._account_url = account_url.rstrip("/")
        self._containers = frozenset(containers)
        self._aliases = {_host(host, "https"): container for host, container in alias_hosts.items()}
        self._public_base = public_base_url.rstrip("/")
        self._keys = keys
        self._source = _base(self._account_url, "source.account_url")
        self._targets = tuple(_base(url, "target.public_base_url") for url in (self._public_base, *other_target_urls))

    @property
    def source_hosts(self) -> list[str]:
        """In lower case: every reference to the source holds one of these, in whatever case."""
        return sorted({self._source.host, *self._aliases})

    def classify(self, text: str) -> Reference | None:
        """What `text` is to us; `None` where it is no URL at all."""
        match = _URL.match(text.strip(" \t\r\n"))
        if match is None:
            return None
        scheme, authority, path, query = match.groups()
        userinfo, at, host = authority.rpartition("@")
        host = _host(host, scheme)
        shown = f"{scheme}://{host}{path}"
        if host == self._source.host and path.startswith(self._source.path + "/"):
            container, _, raw_name = path[len(self._source.path) + 1 :].partition("/")
            if container not in self._containers:
                return Reference(UrlKind.FOREIGN, shown=shown)
        elif host in self._aliases:
            container, raw_name = self._aliases[host], path[1:]
        else:
            return self._target(host, path, shown) or Reference(UrlKind.FOREIGN, shown=shown)
        if at:
            return Reference(UrlKind.UNPARSABLE, shown=shown, reason=f"carries user info ({len(userinfo)} characters)")
        name, reason = _decoded(raw_name)
        if not reason and query and _NOT_THE_BLOB.search(query):
            reason = "names a snapshot or an old version of a blob"
        if reason:
            return Reference(UrlKind.UNPARSABLE, shown=shown, reason=reason)
        return Reference(UrlKind.SOURCE, file=SourceFile(container, name), shown=shown, had_query=bool(query))

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
        return f"{self._account_url}/{quote(file.container)}/{quote(file.blob)}"

    def target_url(self, file: SourceFile) -> str:
        """The URL that references to a blob get; raises `Permanent` (too_long_key)."""
        return f"{self._public_base}/{quote(self.key_of(file))}"

    def _target(self, host: str, path: str, shown: str) -> Reference | None:
        for base in self._targets:
            if host == base.host and path.startswith(base.path + "/"):
                key, reason = _decoded(path[len(base.path) + 1 :])
                return Reference(UrlKind.UNPARSABLE if reason else UrlKind.TARGET, key=key, shown=shown, reason=reason)
        return None


def _decoded(raw: str) -> tuple[str, str]:
    """The percent-decoded name, and why it has none where it has none."""
    if not raw:
        return "", "names no file"
    if "%" not in raw and raw.isascii() and raw.isprintable():
        return raw, ""  # the common case, at a fraction of the cost
    if _CONTROL.search(raw):
        return "", "holds a raw control character"
    if _BAD_ESCAPE.search(raw):
        return "", "holds a % that is no escape"
    try:
        name = unquote_to_bytes(raw).decode()
    except UnicodeError:
        return "", "is not UTF-8"
    return ("", "holds a NUL character") if "\0" in name else (name, "")


@lru_cache(maxsize=1024)
def _host(authority: str, scheme: str) -> str:
    """Lower case, without the scheme's default port and the root dot: equal for equal hosts."""
    return authority.lower().removesuffix(_DEFAULT_PORT[scheme.lower()]).removesuffix(".")


def _base(url: str, setting: str) -> _Base:
    match = _URL.fullmatch(url)
    if match is None or match[4] is not None or not match[2] or "@" in match[2]:
        raise SettingsError("must be an http(s) URL without query string or user info.", setting=setting)
    return _Base(_host(match[2], match[1]), match[3].rstrip("/"))
