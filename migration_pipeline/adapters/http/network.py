"""Which proxy and which certificate authorities: decided once here, and told to every client."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from migration_pipeline.core.errors import SettingsError

CA_SETTING = "network.ca_bundle"
_CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Where tools are told of a private CA. The first that is set holds for every client, not for its own alone."""
_TOLD = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
"""By what the clients of botocore, of azure-core and Google, of OpenSSL, and gRPC learn of a bundle."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Network:
    """The way out of this machine.

    Attributes:
        ca_bundle: a PEM file of authorities to trust; `None` for those that the machine trusts.
        proxies: scheme → proxy's URL, as `urllib.request.getproxies` has them, with `no` for the exceptions.
    """

    ca_bundle: Path | None
    proxies: Mapping[str, str]

    @classmethod
    def of_environment(cls, ca_bundle: Path | None = None) -> "Network":
        """As the usual variables say: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, and those for a private CA.

        Raises:
            SettingsError: the bundle cannot be read, or holds no certificate.
        """
        named = [(CA_SETTING, ca_bundle)] if ca_bundle else []
        named += [(name, Path(os.environ[name])) for name in _CA_VARIABLES if os.environ.get(name)]
        if not named:
            return cls(None, getproxies_environment())
        setting, path = named[0]
        _read(path, setting)
        return cls(path, getproxies_environment())

    def proxy_for(self, url: str) -> str | None:
        """The proxy that requests to this URL go through; `None` where they go straight."""
        parts = urlsplit(url)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        if not proxy or _excepted(parts.hostname or "", parts.port, self.proxies.get("no", "")):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def proxies_for(self, url: str) -> dict[str, str]:
        """The same as botocore, requests and azure-core take it: scheme → proxy."""
        proxy = self.proxy_for(url)
        return {urlsplit(url).scheme: proxy} if proxy else {}

    def certificates(self) -> list[bytes]:
        """The bundle's certificates, each as PEM."""
        return _read(self.ca_bundle, CA_SETTING) if self.ca_bundle else []

    @property
    def verify(self) -> str | bool:
        """The bundle as botocore, requests and azure-core take it."""
        return str(self.ca_bundle) if self.ca_bundle else True

    def tell_the_others(self) -> None:
        """Have libraries that we do not open clients of, Google's and Apprise's, trust the same authorities."""
        if self.ca_bundle:
            os.environ.update(dict.fromkeys(_TOLD, str(self.ca_bundle)))


def _excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY names this host: itself, a domain above it, an address range, any, each perhaps with a port."""
    for entry in filter(None, (each.strip().lower() for each in no_proxy.split(","))):
        name, _, only_port = entry.rpartition(":") if re.fullmatch(r"[^:]+:\d+", entry) else (entry, "", "")
        if only_port and int(only_port) != port:
            continue
        domain = name.removeprefix("*").removeprefix(".")
        if name == "*" or host == domain or host.endswith(f".{domain}") or _within(host, name):
            return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False  # one of them is a name


def _read(path: Path, setting: str) -> list[bytes]:
    try:
        found = _CERTIFICATE.findall(path.read_bytes())
    except OSError as error:
        said = f"{str(path)!r} cannot be read: {error.strerror}."
        raise SettingsError(said, setting=setting, remedy="Name a PEM file of certificates.") from None
    if not found:
        said = f"{str(path)!r} holds no certificate."
        raise SettingsError(said, setting=setting, remedy="Name a PEM file of certificates.")
    return found
