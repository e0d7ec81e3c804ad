"""
The PROXY protocol's header, before anything else on a connection from a proxy.

::

    v1   PROXY TCP4 192.0.2.1 198.51.100.1 51000 443 CR LF        at most 107 bytes
    v2   signature 12 | version, command | family | length u16 | addresses, TLVs

What a complete one says: :mod:`derp.net.proxy_source`. Source: haproxy ``doc/proxy-protocol.txt``.
"""

from __future__ import annotations

from typing import Final

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
