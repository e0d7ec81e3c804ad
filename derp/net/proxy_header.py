"""
The PROXY protocol's header, before anything else on a connection from a proxy.

::

    v1   PROXY TCP4 192.0.2.1 198.51.100.1 51000 443 CR LF        at most 107 bytes
    v2   signature 12 | version, command | family | length u16 | addresses, TLVs

The parsers are Twisted's; these two modules of it are private, so this is the one place that
knows them. What they take on trust is checked here: that the header is complete, its size, and
that addresses are addresses.

Source: haproxy ``doc/proxy-protocol.txt``.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

from derp.errors import ProtocolError

V1_START: Final = b"PROXY "
V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1: Final = 107
V2_FIXED: Final = 16
MAX_HEADER: Final = V2_FIXED + 2048
"""Our own bound: addresses take at most 216 bytes, the rest is room for TLVs."""


def header_length(start: bytes) -> int | None:
    """
    Tell how long the header at the start of a stream is.

    :returns: 0 if there is none, ``None`` if that cannot be told yet.
    :raises ProtocolError: if it is one and longer than it may be.
    """
    if start.startswith(V2_START[: len(start)]):
        if len(start) < V2_FIXED:
            return None
        length = V2_FIXED + int.from_bytes(start[14:V2_FIXED], "big")
        if length > MAX_HEADER:
            raise ProtocolError(f"PROXY header of {length} bytes")
        return length
    if not start.startswith(V1_START[: len(start)]):
        return 0
    end = start.find(b"\r\n", 0, MAX_V1)
    if end >= 0:
        return end + 2
    if len(start) >= MAX_V1:
        raise ProtocolError("PROXY header without an end")
    return None


def parse_header(header: bytes) -> Any:
    """
    Read a complete header.

    :returns: the client as the socket module writes it (a tuple, or a unix path); ``None`` if
        the proxy speaks for itself or does not know.
    :raises ProtocolError: if it makes no sense.
    """
    try:
        if header.startswith(V2_START):
            source = V2Parser.parse(header).source
        elif header == b"PROXY UNKNOWN\r\n":
            source = None
        else:
            source = V1Parser.parse(header[:-2]).source
        return None if source is None else _sockname(source)
    except (InvalidProxyHeader, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"PROXY header that makes no sense: {header[:64]!r}") from error


def _sockname(source: Any) -> Any:
    if isinstance(source, UNIXAddress):
        return source.name or ""
    ip = ip_address(source.host)
    if not 0 <= source.port <= 65535 or (ip.version == 6) != (":" in source.host):
        raise ValueError
    return str(ip), source.port
