"""
STUN error responses to binding requests (RFC 8489 sections 6.3.4, 14.8 and 14.13).

::

    error response              header 0111 | ERROR-CODE | further attributes
    ERROR-CODE 0009             0 0 | class u8 (3..6) | number u8 (0..99) | reason, UTF-8
    UNKNOWN-ATTRIBUTES 000a     type u16, …

A relay sends none, but for 420 (Unknown Attribute) where ``--stun-generic`` is on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from derp.errors import ProtocolError
from derp.wire.stun import COOKIE, HEADER_LEN, is_stun, walk_attributes

BINDING_ERROR: Final = 0x0111
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
UNKNOWN_ATTRIBUTE: Final = 420
MAX_REASON: Final = 763
"""Bytes (RFC 8489 section 14.8); what is longer is cut when read."""


class ErrorResponse(NamedTuple):
    """Why a server does not answer a request."""

    transaction_id: bytes
    code: int
    """300 to 699, as in HTTP."""
    reason: str
    """The server's words; often empty."""


def parse_error_response(packet: bytes) -> ErrorResponse | None:
    """
    Read an error response.

    :return: ``None`` for anything that is no error response to a binding request.
    :raises ProtocolError: it is one, and holds no readable ERROR-CODE.
    """
    if not is_stun(packet) or packet[:2] != BINDING_ERROR.to_bytes(2, "big"):
        return None
    end = HEADER_LEN + int.from_bytes(packet[2:4], "big")
    if end > len(packet):
        raise ProtocolError("binding error response shorter than its length field says")
    for kind, start, length in walk_attributes(packet, HEADER_LEN, end):
        if kind == ERROR_CODE and length >= 4:
            code = (packet[start + 2] & 7) * 100 + packet[start + 3]
            reason = packet[start + 4 : start + min(length, 4 + MAX_REASON)]
            return ErrorResponse(
                packet[8:HEADER_LEN], code, reason.decode("utf-8", "replace").rstrip("\0")
            )
    raise ProtocolError("binding error response without a code")


def encode_unknown_attributes(transaction_id: bytes, kinds: Sequence[int]) -> bytes:
    """
    Encode error 420, which lists the attributes that were not understood; its reason is empty.

    36 bytes for one or two of them, 4 more for each two.
    """
    if len(transaction_id) != 12:
        raise ValueError(f"a transaction id has 12 bytes, not {len(transaction_id)}")
    listed = b"".join(kind.to_bytes(2, "big") for kind in kinds)
    hundreds, number = divmod(UNKNOWN_ATTRIBUTE, 100)
    body = b"\x00\x09\x00\x04\x00\x00" + bytes((hundreds, number))
    body += UNKNOWN_ATTRIBUTES.to_bytes(2, "big") + len(listed).to_bytes(2, "big") + listed
    body += bytes(-len(listed) % 4)
    head = BINDING_ERROR.to_bytes(2, "big") + len(body).to_bytes(2, "big")
    return head + COOKIE + transaction_id + body
