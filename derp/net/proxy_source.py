"""
Whom a PROXY header names as the client.

The parsers are Twisted's; these two modules of it are private, so this is the one place that
knows them. What they take on trust is checked: that the header is complete and its size in
:mod:`derp.net.proxy_header`, that addresses are addresses here.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

from derp.errors import ProtocolError
from derp.net.proxy_header import V2_START


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
