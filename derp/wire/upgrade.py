"""
The HTTP/1.1 exchange in front of DERP, from the client's side.

::

    GET /derp HTTP/1.1                     what a client says
    Host: derp.example.com
    User-Agent: Go-http-client/1.1
    Connection: Upgrade
    Derp-Fast-Start: 1                     only if the server's key is known already
    Ideal-Node: 1a                         only if another node of the region was wanted
    Upgrade: DERP

    HTTP/1.1 101 Switching Protocols       what a server answers, unless told to start fast
    ...

What stands behind the blank line is DERP. Source: Go ``derphttp``; the header lines are those
of its client, in its order.
"""

from __future__ import annotations

import re
from typing import Final

from derp.errors import ProtocolError

MAX_HEAD: Final = 8192
"""Longest answer a client reads before it gives up; a real one has some 170 bytes."""
_BLANK_LINE: Final = b"\r\n\r\n"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.\d (\d{3})(?: ([^\r\n]*))?\r?\n")
_NO_TOKEN: Final = re.compile(r"[^\x21-\x7e]")
_NO_VALUE: Final = re.compile(r"[^\x20-\x7e]")
_SHOWN: Final = 80


def encode_upgrade_request(
    path: str, host: str, *, fast_start: bool = False, ideal_node: str = ""
) -> bytes:
    """
    Write the request.

    :param host: name or address, with the port unless it is the scheme's own.
    :param ideal_node: name of the region's first node, if connecting to another one.
    :raises ValueError: for text that would end its header line.
    """
    for text, forbidden in ((path, _NO_TOKEN), (host, _NO_TOKEN), (ideal_node, _NO_VALUE)):
        if forbidden.search(text):
            raise ValueError(f"{text!r} cannot stand in an HTTP request")
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: Go-http-client/1.1",
        "Connection: Upgrade",
        *(["Derp-Fast-Start: 1"] if fast_start else []),
        *([f"Ideal-Node: {ideal_node}"] if ideal_node else []),
        "Upgrade: DERP",
    ]
    return "\r\n".join(lines).encode("ascii") + _BLANK_LINE


def describe_http(data: bytes) -> str:
    """Tell in a few words what HTTP answer these bytes start, for errors."""
    found = _STATUS_LINE.match(data)
    if found is None:
        return f"no HTTP ({data[:_SHOWN]!r})"
    return f"HTTP {found[1].decode()} {(found[2] or b'')[:_SHOWN].decode('ascii', 'replace')}"


class UpgradeAnswer:
    """Collect the head of the server's answer, however it was split."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """
        Take what arrived.

        :return: ``None`` until the head is complete; then what stands behind it.
        :raises ProtocolError: if the head is too long, or says anything but 101.
        """
        looked_at = max(0, len(self._held) - len(_BLANK_LINE) + 1)
        self._held += data
        end = self._held.find(_BLANK_LINE, looked_at)
        head = bytes(self._held[:MAX_HEAD])
        if end < 0 and len(self._held) <= MAX_HEAD:
            if not b"HTTP/1.".startswith(head[:7]):
                raise ProtocolError(f"the server answered {describe_http(head)}")
            return None
        if end < 0 or end > MAX_HEAD:
            raise ProtocolError(f"the server's HTTP answer has no end within {MAX_HEAD} bytes")
        found = _STATUS_LINE.match(head)
        if found is None or found[1] != b"101":
            raise ProtocolError(
                f"the server answered {describe_http(head)} where 101 Switching Protocols"
                " was asked for: is it a DERP server, and is this its path?"
            )
        return bytes(self._held[end + len(_BLANK_LINE) :])
