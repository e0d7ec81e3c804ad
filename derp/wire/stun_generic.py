"""
Binding requests of any RFC 8489 client, which a relay answers only if it is told to.

Checked here and not in Tailscale's own requests (:mod:`derp.wire.stun`): the length field, the
place and value of a FINGERPRINT, and whether all attributes that must be understood are. There
is no authentication, so USERNAME, MESSAGE-INTEGRITY and their like are known and mean nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from derp.errors import ProtocolError
from derp.wire.stun import (
    FINGERPRINT,
    HEADER_LEN,
    has_valid_fingerprint,
    is_stun,
    walk_attributes,
)

OPTIONAL: Final = 0x8000
"""Attributes from here on may be ignored (RFC 8489 section 14)."""
MESSAGE_INTEGRITY: Final = 0x0008
MESSAGE_INTEGRITY_SHA256: Final = 0x001C
KNOWN: Final = frozenset(
    {
        0x0001,  # MAPPED-ADDRESS
        0x0006,  # USERNAME
        MESSAGE_INTEGRITY,
        0x0009,  # ERROR-CODE
        0x000A,  # UNKNOWN-ATTRIBUTES
        0x0014,  # REALM
        0x0015,  # NONCE
        MESSAGE_INTEGRITY_SHA256,
        0x001D,  # PASSWORD-ALGORITHM
        0x001E,  # USERHASH
        0x0020,  # XOR-MAPPED-ADDRESS
    }
)
"""All that RFC 8489 itself defines and wants understood (section 18.3)."""


class GenericRequest(NamedTuple):
    """A sound binding request."""

    transaction_id: bytes
    unknown: tuple[int, ...]
    """Attributes that ask to be understood, and are not; each once. Draws error 420."""


def parse_generic_request(packet: bytes) -> GenericRequest:
    """
    Read a binding request.

    :raises ProtocolError: anything else, to be ignored (RFC 8489 section 6.3).
    """
    if not is_stun(packet) or packet[:2] != b"\x00\x01":
        raise ProtocolError("no STUN binding request")
    if int.from_bytes(packet[2:4], "big") != len(packet) - HEADER_LEN:
        raise ProtocolError("STUN length field and datagram disagree")
    unknown: dict[int, None] = {}
    kind = -1
    protected = False
    for kind, _, length in walk_attributes(packet, HEADER_LEN, len(packet)):
        if kind == FINGERPRINT and length != 4:
            raise ProtocolError("STUN fingerprint of a wrong length")
        if kind in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256):
            protected = True
        # What follows the integrity is not protected, and ignored (section 14.5).
        if kind < OPTIONAL and kind not in KNOWN and not protected:
            unknown[kind] = None
        if kind == FINGERPRINT and not has_valid_fingerprint(packet):
            raise ProtocolError("STUN fingerprint that is wrong or not last")
    return GenericRequest(packet[8:HEADER_LEN], tuple(unknown))
