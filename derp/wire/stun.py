"""
STUN binding: ask a server which address it sees you at (RFC 8489).

Numbers are big-endian. A message is a header of 20 bytes and attributes::

    0  type u16 | 2  length u16 (bytes after the header) | 4  cookie u32 | 8  transaction id 12
    attribute: type u16 | length u16 (without padding) | value | 0..3 padding bytes of any value

==============================  ============================================================
binding request, 40 B           header ``0001`` | SOFTWARE ``tailnode`` | FINGERPRINT
binding response, 32 or 44 B    header ``0101`` | XOR-MAPPED-ADDRESS
MAPPED-ADDRESS ``0001``         0 | family u8 (1, 2) | port u16 | address 4 or 16
XOR-MAPPED-ADDRESS ``0020``     same, port and address XORed with cookie | transaction id
(some servers: ``8020``)
SOFTWARE ``8022``               text
FINGERPRINT ``8028``            CRC-32 of all bytes before this attribute, XOR ``5354554e``
==============================  ============================================================

A relay answers Tailscale's own requests only (SOFTWARE and FINGERPRINT as above) and nobody
else: 20 bytes of anybody would buy 32 or 44. Source of that rule: ``stun.ParseBindingRequest``.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from derp.errors import ProtocolError

HEADER_LEN: Final = 20
TRANSACTION_ID_LEN: Final = 12
MAGIC_COOKIE: Final = 0x2112A442
COOKIE: Final = MAGIC_COOKIE.to_bytes(4, "big")
PORT_XOR: Final = MAGIC_COOKIE >> 16
FINGERPRINT_XOR: Final = 0x5354554E  # "STUN"

BINDING_REQUEST: Final = 0x0001
BINDING_RESPONSE: Final = 0x0101

MAPPED_ADDRESS: Final = 0x0001
XOR_MAPPED_ADDRESS: Final = 0x0020
XOR_MAPPED_ADDRESS_OLD: Final = 0x8020
"""The number of early drafts; vovida.org's and other servers still send it."""
SOFTWARE: Final = 0x8022
FINGERPRINT: Final = 0x8028

TAILNODE: Final = b"tailnode"
"""SOFTWARE of every Tailscale client."""

FAMILY_IPV4: Final = 1
FAMILY_IPV6: Final = 2

REQUEST: Final = Struct("!IQQ16sI")
"""
A whole Tailscale request: type and length | mask 16 (two numbers) | attributes | CRC.

The *mask*, cookie and transaction id, is what an IPv6 address is XORed with; its first four
bytes, the cookie, are the mask of an IPv4 address.
"""
REQUEST_LEN: Final = REQUEST.size
REQUEST_HEAD: Final = BINDING_REQUEST << 16 | REQUEST_LEN - HEADER_LEN
REQUEST_ATTRIBUTES: Final = b"\x80\x22\x00\x08" + TAILNODE + b"\x80\x28\x00\x04"
FINGERPRINTED_LEN: Final = REQUEST_LEN - 8
"""How much of a Tailscale request the CRC covers."""

RESPONSE_IPV4: Final = Struct("!IQQIHHI")
"""Type and length | mask | attribute type and length | family | port | address."""
RESPONSE_IPV6: Final = Struct("!IQQIHHQQ")
RESPONSE_IPV4_HEAD: Final = BINDING_RESPONSE << 16 | 12
RESPONSE_IPV6_HEAD: Final = BINDING_RESPONSE << 16 | 24
ATTRIBUTE_IPV4: Final = XOR_MAPPED_ADDRESS << 16 | 8
ATTRIBUTE_IPV6: Final = XOR_MAPPED_ADDRESS << 16 | 20
MAPPED_PREFIX: Final = 0xFFFF
"""Bits 64..96 of ``::ffff:a.b.c.d``; the 64 bits before them are zero."""

_two_u16 = Struct("!HH").unpack_from
_header = Struct("!HHI")  # type, length, cookie
_fingerprint = Struct("!HHI")  # type, length, CRC
_two_u64 = Struct("!QQ").unpack
_unpack_request = REQUEST.unpack


class BindingResponse(NamedTuple):
    """What a server answered: whose request, and the address it saw."""

    transaction_id: bytes
    ip: IPv4Address | IPv6Address
    port: int


def is_stun(packet: bytes) -> bool:
    """Tell STUN from other traffic on a port; says nothing about the attributes."""
    return len(packet) >= HEADER_LEN and packet[0] < 0x40 and packet[4:8] == COOKIE


def fingerprint(data: bytes) -> int:
    """
    Value of a FINGERPRINT that follows ``data``.

    :param data: header included, its length field already counting the 8 bytes to come.
    """
    return crc32(data) ^ FINGERPRINT_XOR


def has_valid_fingerprint(packet: bytes) -> bool:
    """Whether the last 8 bytes are a FINGERPRINT that is right (RFC 8489 section 14.7)."""
    return is_stun(packet) and packet[-8:] == _fingerprint.pack(
        FINGERPRINT, 4, fingerprint(packet[:-8])
    )


def walk_attributes(packet: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """
    Walk attributes as (type, start of value, length of value).

    :raises ProtocolError: an attribute, its padding included, passes ``end``.
    """
    while at < end:
        if end - at < 4:
            raise ProtocolError("STUN attribute cut off in its header")
        kind, length = _two_u16(packet, at)
        at += 4
        padded = length + 3 & ~3
        if padded > end - at:
            raise ProtocolError("STUN attribute longer than its packet")
        yield kind, at, length
        at += padded


def parse_binding_request(packet: bytes) -> bytes:
    """
    Check a Tailscale client's request; give its transaction id.

    As the reference does, the header's length field is ignored and attributes are walked to
    the end of the packet, unknown ones skipped; some SOFTWARE must be ``tailnode``, the last
    attribute a FINGERPRINT and the last 4-byte FINGERPRINT right.

    :raises ProtocolError: anything else; such a packet deserves no answer.
    """
    if not is_stun(packet):
        raise ProtocolError("not STUN")
    if packet[:2] != b"\x00\x01":
        raise ProtocolError("STUN, but not a binding request")
    kind = sent = -1
    is_tailnode = False
    for kind, start, length in walk_attributes(packet, HEADER_LEN, len(packet)):
        if kind == SOFTWARE:
            is_tailnode = is_tailnode or packet[start : start + length] == TAILNODE
        elif kind == FINGERPRINT and length == 4:
            sent = int.from_bytes(packet[start : start + 4], "big")
    if not is_tailnode:
        raise ProtocolError("binding request of other software")
    if kind != FINGERPRINT:
        raise ProtocolError("binding request does not end in a fingerprint")
    if sent != fingerprint(packet[:-8]):
        raise ProtocolError("binding request with a wrong fingerprint")
    return packet[8:HEADER_LEN]


def answer(packet: bytes, ip_packed: bytes, port: int) -> bytes | None:
    """
    Answer one datagram; fast for the very request that Tailscale's clients send.

    :param ip_packed: the sender's address as its socket shows it, 4 or 16 bytes.
    :return: the response, or ``None`` for what :func:`parse_binding_request` refuses.
    """
    if len(packet) == REQUEST_LEN:
        head, mask, low_mask, attributes, sent = _unpack_request(packet)
        if (
            attributes == REQUEST_ATTRIBUTES
            and head == REQUEST_HEAD
            and mask >> 32 == MAGIC_COOKIE
            and crc32(packet[:FINGERPRINTED_LEN]) ^ FINGERPRINT_XOR == sent
        ):
            return _response(mask, low_mask, ip_packed, port)
    try:
        transaction_id = parse_binding_request(packet)
    except ProtocolError:
        return None
    return encode_binding_response(transaction_id, ip_packed, port)


def encode_binding_request(
    transaction_id: bytes, *, software: bytes | None = TAILNODE, with_fingerprint: bool = True
) -> bytes:
    """
    Encode a request; the defaults make Tailscale's own, 40 bytes.

    :param software: value of SOFTWARE, which comes first; ``None`` leaves it out.
    :param with_fingerprint: whether FINGERPRINT ends the request.
    """
    _check_transaction_id(transaction_id)
    attributes = b""
    if software is not None:
        padding = bytes(-len(software) % 4)
        attributes = SOFTWARE.to_bytes(2, "big") + len(software).to_bytes(2, "big")
        attributes += software + padding
    length = len(attributes) + 8 * with_fingerprint
    request = _header.pack(BINDING_REQUEST, length, MAGIC_COOKIE) + transaction_id + attributes
    if with_fingerprint:
        request += _fingerprint.pack(FINGERPRINT, 4, fingerprint(request))
    return request


def encode_binding_response(transaction_id: bytes, ip_packed: bytes, port: int) -> bytes:
    """
    Encode the answer to a request: 32 bytes for an IPv4 address, 44 for IPv6.

    An IPv4 address that came through a dual-stack socket (``::ffff:a.b.c.d``) is sent as IPv4.
    The reference sends it as IPv6, which Tailscale's clients undo and others do not expect.

    :param ip_packed: 4 or 16 bytes.
    """
    _check_transaction_id(transaction_id)
    mask, low_mask = _two_u64(COOKIE + transaction_id)
    return _response(mask, low_mask, ip_packed, port)


def _response(mask: int, low_mask: int, ip_packed: bytes, port: int) -> bytes:
    """:func:`encode_binding_response` with cookie | transaction id as two numbers."""
    if len(ip_packed) == 16:
        high, low = _two_u64(ip_packed)
        if high or low >> 32 != MAPPED_PREFIX:
            return RESPONSE_IPV6.pack(
                RESPONSE_IPV6_HEAD,
                mask,
                low_mask,
                ATTRIBUTE_IPV6,
                FAMILY_IPV6,
                port ^ PORT_XOR,
                high ^ mask,
                low ^ low_mask,
            )
        ip_packed = ip_packed[12:]
    if len(ip_packed) != 4:
        raise ValueError(f"an address has 4 or 16 bytes, not {len(ip_packed)}")
    return RESPONSE_IPV4.pack(
        RESPONSE_IPV4_HEAD,
        mask,
        low_mask,
        ATTRIBUTE_IPV4,
        FAMILY_IPV4,
        port ^ PORT_XOR,
        int.from_bytes(ip_packed, "big") ^ MAGIC_COOKIE,
    )


def parse_binding_response(packet: bytes) -> BindingResponse:
    """
    Read any server's success response.

    Lenient as ``stun.ParseResponse``: bytes after the length field's end are ignored, a
    FINGERPRINT is not checked (see :func:`has_valid_fingerprint`), XOR-MAPPED-ADDRESS beats
    MAPPED-ADDRESS, the last of a kind wins. An IPv4-mapped address is given as IPv4.

    :raises ProtocolError: not a success response, or none of its addresses is readable.
    """
    if not is_stun(packet):
        raise ProtocolError("not STUN")
    kind, length, _ = _header.unpack_from(packet)
    if kind != BINDING_RESPONSE:
        raise ProtocolError(f"STUN type 0x{kind:04x} is not a binding success response")
    end = HEADER_LEN + length
    if end > len(packet):
        raise ProtocolError("binding response shorter than its length field says")
    plain = xored = None
    for kind, start, size in walk_attributes(packet, HEADER_LEN, end):
        if kind == MAPPED_ADDRESS:
            plain = _address(packet[start : start + size], bytes(16))
        elif kind in (XOR_MAPPED_ADDRESS, XOR_MAPPED_ADDRESS_OLD):
            xored = _address(packet[start : start + size], packet[4:HEADER_LEN])
    seen = xored or plain
    if seen is None:
        raise ProtocolError("binding response without an address")
    return BindingResponse(packet[8:HEADER_LEN], *seen)


def _address(value: bytes, mask: bytes) -> tuple[IPv4Address | IPv6Address, int]:
    """Value of a (XOR-)MAPPED-ADDRESS as address and port; longer ones than needed pass."""
    if len(value) < 4:
        raise ProtocolError("mapped address without a port")
    size = {FAMILY_IPV4: 4, FAMILY_IPV6: 16}.get(value[1])
    if size is None:
        raise ProtocolError(f"mapped address of unknown family {value[1]}")
    if len(value) < 4 + size:
        raise ProtocolError("mapped address cut off")
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(mask[:2], "big")
    packed = bytes(byte ^ key for byte, key in zip(value[4:], mask[:size], strict=False))
    if size == 4:
        return IPv4Address(packed), port
    ip = IPv6Address(packed)
    return ip.ipv4_mapped or ip, port


def _check_transaction_id(transaction_id: bytes) -> None:
    if len(transaction_id) != TRANSACTION_ID_LEN:
        raise ValueError(f"a transaction id has 12 bytes, not {len(transaction_id)}")
