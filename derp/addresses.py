"""
Addresses to listen on, as operators write them: ``:443``, ``192.0.2.1:443``, ``[::1]:443``.

As in Go, a name instead of an IP stands for one of its addresses (IPv4 first), and a port may
have the name of a service. Source: Go ``net.SplitHostPort``, ``net.Listen``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from derp.errors import ConfigError
from derp.quoting import quoted

Resolve = Callable[[str], str]
"""Host name to one IP address as text; raises ``OSError`` if there is none."""

MAX_PORT: Final = 65535
_SERVICES: Final = {"http": 80, "https": 443}
_CURE: Final = "write it as :port, ip:port or [ipv6]:port"


def resolve_host(name: str) -> str:
    """
    Look a name up, preferring IPv4 as Go does for listeners. Blocks: for the start only.

    :raises OSError: if the name has no address.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def parse_listen_address(flag: str, text: str, resolve: Resolve = resolve_host) -> tuple[str, int]:
    """
    Read an address to listen on.

    :param flag: spelling of the flag it comes from, for errors.
    :returns: IP as text (empty is every address) and port.
    :raises ConfigError: if it is none; the sentence names ``flag``.
    """
    host, port = _split(flag, text)
    return _ip_of(flag, host, resolve), _port_of(flag, port)


def check_port(flag: str, port: int) -> int:
    """
    Let a port number through.

    :raises ConfigError: if there is no such port.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"{flag}: there is no port {port}: give a number from 0 to {MAX_PORT}")
    return port


def _split(flag: str, text: str) -> tuple[str, str]:
    """Divide at the last colon; an IPv6 address must stand in brackets."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        bare = host[1:-1]
        bad = ":" not in bare  # brackets are for IPv6
    else:
        bare = host
        bad = ":" in host
    if not colon or bad or "[" in bare or "]" in bare + port:
        raise ConfigError(f"{flag}: invalid server address {quoted(text)}: {_CURE}")
    return bare, port


def _ip_of(flag: str, host: str, resolve: Resolve) -> str:
    if not host:
        return ""
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return resolve(host)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise ConfigError(
            f"{flag}: {quoted(host)} is neither an IP address nor a name of one ({reason}): {_CURE}"
        ) from None


def _port_of(flag: str, port: str) -> int:
    if port in _SERVICES:
        return _SERVICES[port]
    if not (port.isascii() and port.isdigit() and len(port) <= 9):
        raise ConfigError(
            f"{flag}: there is no port {quoted(port)}: "
            f"give a number from 0 to {MAX_PORT}, http or https"
        )
    return check_port(flag, int(port))
