"""
Read the ClientHello before any TLS engine sees the connection.

The certificate is chosen from what the client asks for (server name, ALPN), and the engine
can refuse neither a name nor a protocol list by itself; so the first message is parsed here
and then handed to the engine unchanged.

====================  =====================================================================
record                ``16`` | version u16 (major 3) | length u16 | fragment of 1..16384 B
handshake header      ``01`` | length u24
ClientHello           version u16 | random 32 | session id <u8> | cipher suites <u16> |
                      compression methods <u8> | extensions <u16> (may be missing)
extension             type u16 | data <u16>
server_name (0)       list <u16> of: name type u8 (0 = host name) | name <u16>
supported_groups(10)  list <u16> of u16
ALPN (16)             list <u16> of: protocol <u8>
supported_versions    list <u8> of u16
(43)
====================  =====================================================================

Sources: RFC 8446 sections 4.1.2, 4.2 and 5.1; RFC 6066 section 3; RFC 7301 section 3.1.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from derp.errors import ProtocolError

MAX_HELLO_LEN: Final = 16 * 1024
"""Longest ClientHello body read. Real ones have 0.2 to 2 KB (post-quantum key shares included)."""

MAX_RECORDS: Final = 2048
"""Most records one ClientHello may be split over; a 1.6 KB hello in one-byte records fits."""

RECORD_HEADER_LEN: Final = 5
_HANDSHAKE_HEADER_LEN: Final = 4

MAX_BUFFERED_LEN: Final = (
    _HANDSHAKE_HEADER_LEN + MAX_HELLO_LEN + RECORD_HEADER_LEN * (MAX_RECORDS + 1)
)
"""While :func:`parse_client_hello` answers ``None`` it was given fewer bytes than this."""

_MAX_FRAGMENT_LEN: Final = 1 << 14  # RFC 8446 section 5.1
_RECORD_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
_FIXED_LEN: Final = 34  # version and random

_SERVER_NAME: Final = 0
_SUPPORTED_GROUPS: Final = 10
_ALPN: Final = 16
_SUPPORTED_VERSIONS: Final = 43
_READ_EXTENSIONS: Final = frozenset((_SERVER_NAME, _SUPPORTED_GROUPS, _ALPN, _SUPPORTED_VERSIONS))

_u16 = struct.Struct("!H").unpack_from
_two_u16 = struct.Struct("!HH").unpack_from

_HOST_NAME: Final = re.compile(rb"[!-~]{1,255}")
"""Visible ASCII: what may be compared with a host name and shown in a log."""

_Bytes = bytes | bytearray | memoryview


class ClientHello(NamedTuple):
    """What a client asks for, as far as a certificate choice can depend on it."""

    server_name: str | None = None
    """SNI as sent, case kept; ``None`` if absent. DERP clients that dial an IP send none."""
    alpn: tuple[bytes, ...] = ()
    """Protocols offered, the client's favourite first; empty if the extension is absent."""
    offers_tls13: bool = False
    offers_tls12: bool = False
    supported_groups: tuple[int, ...] = ()
    """Key exchange groups (IANA numbers), the client's favourite first."""


def parse_client_hello(data: _Bytes) -> ClientHello | None:
    """
    Parse the ClientHello at the start of a connection.

    Call it again with the whole input so far whenever more has arrived. What stands behind the
    ClientHello is not looked at. The usual hello of one record is read in place; nothing of
    ``data`` is kept.

    :returns: ``None`` while the message is incomplete.
    :raises ProtocolError: as soon as this cannot become an acceptable ClientHello.
    """
    size = len(data)
    start = RECORD_HEADER_LEN + _HANDSHAKE_HEADER_LEN
    if size >= start:
        record_len = _u16(data, 3)[0]
        if record_len >= _HANDSHAKE_HEADER_LEN:
            end = start + _check_start(data, record_len)
            if end <= RECORD_HEADER_LEN + record_len:
                return _parse_body(data, start, end) if end <= size else None
    return _parse_split(data)


def _check_start(data: _Bytes, record_len: int) -> int:
    """Check a first record that holds the handshake header; return the hello's length."""
    if data[0] != _RECORD_HANDSHAKE or data[1] != 3:
        raise ProtocolError("not a TLS ClientHello: the first record is no handshake record")
    if data[5] != _CLIENT_HELLO:
        raise ProtocolError(f"not a TLS ClientHello: handshake message of type {data[5]}")
    if record_len > _MAX_FRAGMENT_LEN:
        raise ProtocolError("TLS record longer than 16384 bytes")
    # A hello over MAX_HELLO_LEN ends behind this record, so _parse_split is who refuses it.
    return data[6] << 16 | data[7] << 8 | data[8]


def _parse_split(data: _Bytes) -> ClientHello | None:
    """Parse a hello that is short of a header or continues in further records."""
    message = bytearray()
    position = records = 0
    size = len(data)
    while position < size:
        if data[position] != _RECORD_HANDSHAKE:
            raise ProtocolError("not a TLS ClientHello: a record is no handshake record")
        if position + 1 < size and data[position + 1] != 3:
            raise ProtocolError("not a TLS ClientHello: unknown record version")
        body = position + RECORD_HEADER_LEN
        if body > size:
            break
        length = _u16(data, position + 3)[0]
        records += 1
        if not 0 < length <= _MAX_FRAGMENT_LEN or records > MAX_RECORDS:
            raise ProtocolError(f"ClientHello in records of bad length or over {MAX_RECORDS} many")
        message += data[body : body + length]
        end = _message_end(message)
        if end is not None and len(message) >= end:
            return _parse_body(message, _HANDSHAKE_HEADER_LEN, end)
        position = body + length
    return None


def _message_end(message: bytearray) -> int | None:
    """Return where the handshake message ends, ``None`` before its header is complete."""
    if message and message[0] != _CLIENT_HELLO:
        raise ProtocolError(f"not a TLS ClientHello: handshake message of type {message[0]}")
    if len(message) < _HANDSHAKE_HEADER_LEN:
        return None
    length = int.from_bytes(message[1:4], "big")
    if length > MAX_HELLO_LEN:
        raise ProtocolError(f"ClientHello of {length} bytes; at most {MAX_HELLO_LEN} are read")
    return _HANDSHAKE_HEADER_LEN + length


def _parse_body(data: _Bytes, start: int, end: int) -> ClientHello:
    """Parse the message body ``data[start:end]``, all of which is present."""
    try:
        version = _u16(data, start)[0]
        position = start + _FIXED_LEN
        position += 1 + data[position]  # session id
        position += 2 + _u16(data, position)[0]  # cipher suites
        position += 1 + data[position]  # compression methods
        found = _find_extensions(data, position, end)
    except (IndexError, struct.error):
        raise ProtocolError("ClientHello is cut short") from None
    versions: tuple[int, ...] = (version,)
    if _SUPPORTED_VERSIONS in found:
        versions = _u16_list(found[_SUPPORTED_VERSIONS], 1)
    return ClientHello(
        _host_name(found[_SERVER_NAME]) if _SERVER_NAME in found else None,
        _protocols(found[_ALPN]) if _ALPN in found else (),
        _TLS_1_3 in versions,
        _TLS_1_2 in versions,
        _u16_list(found[_SUPPORTED_GROUPS], 2) if _SUPPORTED_GROUPS in found else (),
    )


def _find_extensions(data: _Bytes, position: int, end: int) -> dict[int, bytes]:
    """Collect the extensions that are read at all; the block fills the rest of the message."""
    found: dict[int, bytes] = {}
    if position == end:
        return found
    if position + 2 + _u16(data, position)[0] != end:
        raise ProtocolError("ClientHello: its lengths do not add up")
    position += 2
    while position < end:
        kind, length = _two_u16(data, position)
        position += 4
        after = position + length
        if after > end:
            raise ProtocolError("ClientHello: an extension is cut short")
        if kind in _READ_EXTENSIONS:
            if kind in found:
                raise ProtocolError(f"ClientHello: extension {kind} comes twice")
            found[kind] = bytes(data[position:after])
        position = after
    return found


def _host_name(extension: bytes) -> str | None:
    """Read server_name; entries of a type other than host name are skipped."""
    if len(extension) < 3 or _u16(extension)[0] != len(extension) - 2:
        raise ProtocolError("ClientHello: malformed server_name")
    name = None
    position = 2
    while position < len(extension):
        start = position + 3
        if start > len(extension):
            raise ProtocolError("ClientHello: server_name is cut short")
        kind = extension[position]
        position = start + _u16(extension, start - 2)[0]
        if position > len(extension):
            raise ProtocolError("ClientHello: server_name is cut short")
        if kind == 0:
            if name is not None or not _HOST_NAME.fullmatch(extension, start, position):
                raise ProtocolError("ClientHello: server_name holds no single host name")
            name = extension[start:position].decode("ascii")
    return name


def _protocols(extension: bytes) -> tuple[bytes, ...]:
    """Read the ALPN list."""
    if len(extension) < 4 or _u16(extension)[0] != len(extension) - 2:
        raise ProtocolError("ClientHello: malformed ALPN list")
    names = []
    position = 2
    while position < len(extension):
        start = position + 1
        position = start + extension[position]
        if position == start or position > len(extension):
            raise ProtocolError("ClientHello: malformed ALPN list")
        names.append(extension[start:position])
    return tuple(names)


def _u16_list(extension: bytes, length_size: int) -> tuple[int, ...]:
    """Read a list of 16-bit numbers behind a length of 1 or 2 bytes."""
    count, odd = divmod(len(extension) - length_size, 2)
    if count < 1 or odd or int.from_bytes(extension[:length_size], "big") != 2 * count:
        raise ProtocolError("ClientHello: malformed list of versions or groups")
    return struct.unpack_from(f"!{count}H", extension, length_size)
