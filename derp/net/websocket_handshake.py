"""
The opening handshake of WebSocket (RFC 6455 §4.2), on a request twisted.web has parsed.

wsproto does the framing but would want to read the request itself. The checks, their order and
their words are those of the library derper uses (``github.com/coder/websocket``).
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import TYPE_CHECKING, Final

from twisted.web import http

from derp.net.answers import first_header

if TYPE_CHECKING:
    from derp.net.web_request import WebRequest

SUBPROTOCOL: Final = b"derp"

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_LEN: Final = 16
_VIOLATION: Final = "WebSocket protocol violation: "
_WANT_UPGRADE: Final = {b"Connection": b"Upgrade", b"Upgrade": b"websocket"}


@dataclass(frozen=True)
class HandshakeFault:
    """Why a request is no handshake, and the answer to it."""

    status: int
    message: str
    headers: dict[bytes, bytes] = field(default_factory=dict)


def _tokens(request: WebRequest, name: bytes) -> Iterator[bytes]:
    for line in request.requestHeaders.getRawHeaders(name, []):
        for token in line.split(b","):
            yield token.strip()


def _has_token(request: WebRequest, name: bytes, token: bytes) -> bool:
    return any(found.lower() == token for found in _tokens(request, name))


def _quoted(value: bytes) -> str:
    return json.dumps(value.decode("utf-8", "replace"))


def find_fault(request: WebRequest) -> HandshakeFault | None:
    """Check a request; ``None`` is a good one."""
    if request.clientproto != b"HTTP/1.1":
        proto = _quoted(request.clientproto)
        message = f"{_VIOLATION}handshake request must be at least HTTP/1.1: {proto}"
        return HandshakeFault(426, message)
    for name, token in ((b"Connection", "Upgrade"), (b"Upgrade", "websocket")):
        if not _has_token(request, name, token.lower().encode("ascii")):
            value = _quoted(first_header(request, name))
            message = f"{_VIOLATION}{name.decode()} header {value} does not contain {token}"
            return HandshakeFault(426, message, _WANT_UPGRADE)
    if request.method != b"GET":
        method = _quoted(request.method)
        return HandshakeFault(405, f"{_VIOLATION}handshake request method is not GET but {method}")
    version = first_header(request, b"Sec-WebSocket-Version")
    if version != b"13":
        message = (
            f"unsupported WebSocket protocol version (only 13 is supported): {_quoted(version)}"
        )
        return HandshakeFault(400, message, {b"Sec-WebSocket-Version": b"13"})
    return _find_key_fault(request.requestHeaders.getRawHeaders(b"Sec-WebSocket-Key", []))


def _find_key_fault(keys: Sequence[bytes]) -> HandshakeFault | None:
    if not keys:
        return HandshakeFault(400, f"{_VIOLATION}missing Sec-WebSocket-Key")
    if len(keys) > 1:
        return HandshakeFault(400, f"{_VIOLATION}multiple Sec-WebSocket-Key headers")
    try:
        raw = b64decode(keys[0], validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) == _KEY_LEN:
        return None
    key = _quoted(keys[0])
    return HandshakeFault(
        400,
        f"{_VIOLATION}invalid Sec-WebSocket-Key {key}, must be a 16 byte base64 encoded string",
    )


def speaks_derp(request: WebRequest) -> bool:
    """Whether the client offers the subprotocol by its whole name, not only within another."""
    return SUBPROTOCOL in _tokens(request, b"Sec-WebSocket-Protocol")


def accept_head(request: WebRequest) -> bytes:
    """
    Compose the 101 for a request without a fault.

    Extensions are never taken up: WireGuard does not compress.
    """
    key = first_header(request, b"Sec-WebSocket-Key")
    # RFC 6455 §4.2.2 prescribes SHA-1; it only shows that we speak WebSocket.
    digest = sha1(key + _GUID, usedforsecurity=False).digest()
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Connection: Upgrade",
        b"Sec-Websocket-Accept: " + b64encode(digest),
        b"Upgrade: websocket",
        b"Date: " + http.datetimeToString(),
    ]
    if speaks_derp(request):
        lines.insert(3, b"Sec-Websocket-Protocol: " + SUBPROTOCOL)
    return b"\r\n".join(lines) + b"\r\n\r\n"
