"""
Node keys and mesh keys: raw 32-byte strings and their text forms.

A key is plain ``bytes`` of :data:`KEY_LEN` everywhere in this package; there is no key
class, so that the packet path compares and hashes slices of frames directly.

=================  ===========================================  ==========================
key                text                                         where
=================  ===========================================  ==========================
node public        ``nodekey:`` + 64 hex digits                 admission, logs of the mesh
node public        64 hex digits ("untyped")                    HTTP header, meta cert CN
node private       ``privkey:`` + 64 hex digits                 key file
mesh               64 hex digits, white space around it         ``--mesh-psk-file``
=================  ===========================================  ==========================

Printed digits are lower case; both cases are read. Nothing is re-clamped when read: the
scalar multiplication clamps by itself. Source: Go ``types/key``.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Final

from nacl.bindings import crypto_scalarmult_base, randombytes

from derp.errors import ProtocolError

KEY_LEN: Final = 32
"""Bytes of every key: Curve25519 public, Curve25519 private, mesh key."""

ZERO_KEY: Final = bytes(KEY_LEN)
"""No key. Readable as text, but nothing can be sealed to it or opened from it."""

_HEX_LEN: Final = 2 * KEY_LEN
_HEX_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}")
_PUBLIC_PREFIX: Final = "nodekey:"
_PRIVATE_PREFIX: Final = "privkey:"


def parse_node_public(text: str) -> bytes:
    """
    Read ``nodekey:`` + 64 hex digits; nothing may stand around it.

    :raises ProtocolError: if it is anything else.
    """
    return _parse_typed(text, _PUBLIC_PREFIX, "node public key")


def parse_node_private(text: str) -> bytes:
    """
    Read ``privkey:`` + 64 hex digits; nothing may stand around it.

    :raises ProtocolError: if it is anything else; the message does not repeat the text.
    """
    return _parse_typed(text, _PRIVATE_PREFIX, "node private key")


def parse_untyped_public(text: str) -> bytes:
    """
    Read a node public key of 64 bare hex digits.

    :raises ProtocolError: if it is anything else.
    """
    return _parse_hex(text, "untyped node public key")


def parse_mesh_key(text: str) -> bytes:
    """
    Read a mesh key as files and environment variables hold it: white space around it is dropped.

    All zero is read as :data:`ZERO_KEY`, which means "no mesh key".

    :raises ProtocolError: if it is not 64 hex digits (an empty text is not, either).
    """
    return _parse_hex(text.strip(), "mesh key")


def parse_mesh_key_hex(text: str) -> bytes:
    """
    Read a mesh key as ClientInfo carries it: 64 hex digits and no white space.

    :raises ProtocolError: if it is anything else.
    """
    return _parse_hex(text, "mesh key")


def format_node_public(raw: bytes) -> str:
    """
    Print a public key with its prefix.

    :raises ValueError: if ``raw`` is not 32 bytes.
    """
    return _PUBLIC_PREFIX + _checked(raw).hex()


def format_node_private(raw: bytes) -> str:
    """
    Print a private key with its prefix. For the key file only, never for a log.

    :raises ValueError: if ``raw`` is not 32 bytes.
    """
    return _PRIVATE_PREFIX + _checked(raw).hex()


def short_key(raw: bytes) -> str:
    """
    Name a public key in a log: ``[`` + 5 characters of its base64 form + ``]``.

    The zero key is the empty string. Five characters are 30 bits: enough to follow a client
    through a log, not an identity.

    :raises ValueError: if ``raw`` is not 32 bytes.
    """
    if is_zero(_checked(raw)):
        return ""
    return f"[{b2a_base64(raw[:6])[:5].decode('ascii')}]"


def is_zero(raw: bytes) -> bool:
    """Whether this is :data:`ZERO_KEY`: no key at all."""
    return raw == ZERO_KEY


def public_of(private: bytes) -> bytes:
    """
    Compute the public key of a private one (X25519 base point multiplication).

    :raises ValueError: if ``private`` is not 32 bytes, or is the zero key.
    """
    if is_zero(_checked(private)):
        raise ValueError("the zero key has no public key")
    return bytes(crypto_scalarmult_base(private))


def generate_private() -> bytes:
    """Make a random private key, clamped as RFC 7748 section 5 says."""
    scalar = bytearray(randombytes(KEY_LEN))
    scalar[0] &= 248
    scalar[31] = (scalar[31] & 127) | 64
    return bytes(scalar)


def _parse_typed(text: str, prefix: str, what: str) -> bytes:
    if not text.startswith(prefix):
        raise ProtocolError(f"not a {what}: it does not start with {prefix!r}")
    return _parse_hex(text[len(prefix) :], what)


def _parse_hex(text: str, what: str) -> bytes:
    # bytes.fromhex alone would accept blanks between the digits.
    if len(text) != _HEX_LEN:
        raise ProtocolError(f"not a {what}: {len(text)} characters where {_HEX_LEN} hex digits go")
    if _HEX_KEY.fullmatch(text) is None:
        raise ProtocolError(f"not a {what}: a character is not a hex digit")
    return bytes.fromhex(text)


def _checked(raw: bytes) -> bytes:
    if len(raw) != KEY_LEN:
        raise ValueError(f"a key has {KEY_LEN} bytes, not {len(raw)}")
    return raw
