"""Addresses of sockets: from the kernel's form to Twisted's, and to text."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

_V4_MAPPED = "::ffff:"


def address_of(sockname: Any) -> IPv4Address | IPv6Address | UNIXAddress:
    """
    Make Twisted's address of the socket module's.

    A dual-stack socket shows IPv4 peers as v4-mapped IPv6 (RFC 4291 section 2.5.5.2); they
    become IPv4 again, as everything that looks at addresses expects.
    """
    if isinstance(sockname, str | bytes):
        return UNIXAddress(sockname or None)
    host, port = sockname[0], sockname[1]
    if host.startswith(_V4_MAPPED) and "." in host:
        return IPv4Address("TCP", host[len(_V4_MAPPED) :], port)
    if ":" in host:
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host, port)


def host_port(host: str, port: int) -> str:
    """Write an address for people and URLs: IPv6 stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_name(address: Any) -> str:
    """Write an address as logs do: ``1.2.3.4:5``, ``[2001:db8::1]:5``, or a unix path."""
    host = getattr(address, "host", None)
    if host is None:
        return "a unix socket"
    return host_port(host, address.port)
