"""
Which proxy the environment prescribes for a URL.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, or the same in lower case, as Go's
``httpproxy`` reads them: what is local is never sent through a proxy, and ``NO_PROXY`` holds
addresses, networks, and names that stand for all below them, each perhaps with a port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from derp.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy is, and what to tell it."""

    host: str
    port: int
    tls: bool = False
    """Whether it is spoken to over TLS."""
    credentials: tuple[str, str] | None = None


class ProxyEnvironment:
    """
    The variables of one process.

    :raises ConfigError: if one holds something that is no HTTP proxy.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._proxies = {scheme: _proxy(environ, f"{scheme.upper()}_PROXY") for scheme in _PORTS}
        if environ.get("REQUEST_METHOD"):
            self._proxies["http"] = None  # in a CGI script this variable is the client's
        _, value = _lookup(environ, "NO_PROXY")
        self._exempt = [item for part in value.split(",") if (item := part.strip().lower())]

    def proxy_for(self, url: str) -> Proxy | None:
        """Choose the proxy for a URL."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        proxy = self._proxies.get(parts.scheme)
        if proxy is None or self._is_exempt(host, parts.port or _PORTS[parts.scheme]):
            return None
        return proxy

    def _is_exempt(self, host: str, port: int) -> bool:
        ip = _ip(host)
        if host == "localhost" or (ip is not None and ip.is_loopback):
            return True
        return any(_matches(item, host, ip, port) for item in self._exempt)


def _matches(item: str, host: str, ip: IPv4Address | IPv6Address | None, port: int) -> bool:
    """Judge one item of ``NO_PROXY``."""
    if item == "*":
        return True
    if "/" in item:
        try:
            return ip is not None and ip in ip_network(item, strict=False)
        except ValueError:
            return False
    name, colon, number = item.rpartition(":")
    if colon and number.isdigit() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        item = name
    item = item.strip("[]")
    if ip is not None:
        return _ip(item) == ip
    item = item.removeprefix("*")
    return host.endswith(item) if item.startswith(".") else ("." + host).endswith("." + item)


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _lookup(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Find a variable in either case; give its name and value."""
    lower = name.lower()
    return (name, environ[name]) if environ.get(name) else (lower, environ.get(lower, ""))


def _proxy(environ: Mapping[str, str], variable: str) -> Proxy | None:
    name, value = _lookup(environ, variable)
    if not value:
        return None
    cure = "write it as http://host:port"
    try:
        parts: SplitResult = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:
        raise ConfigError(f"environment variable {name} is no URL: {cure}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        # The value is not repeated: it may hold a password.
        raise ConfigError(f"environment variable {name} names no HTTP proxy: {cure}")
    credentials = None
    if parts.username is not None:
        credentials = unquote(parts.username), unquote(parts.password or "")
    return Proxy(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "https", credentials)
