"""
DERP frames: what every byte on the wire means.

A frame is ``type u8 | length u32 BE | payload``; the length does not count the five header
bytes. Keys are raw Curve25519 public keys of 32 bytes. Source: tailscale ``derp/derp.go``.

======  ===============  =====================================================  ==========
type    name             payload                                                direction
======  ===============  =====================================================  ==========
0x01    ServerKey        magic 8 | server key 32                                S → C
0x02    ClientInfo       client key 32 | nonce 24 | box(JSON)                   C → S
0x03    ServerInfo       nonce 24 | box(JSON)                                   S → C
0x04    SendPacket       destination key 32 | packet                            C → S
0x05    RecvPacket       source key 32 | packet                                 S → C
0x06    KeepAlive        empty                                                  S → C
0x07    NotePreferred    0 or 1                                                 C → S
0x08    PeerGone         key 32 | reason u8                                     S → C
0x09    PeerPresent      key 32 | IPv6 16 | port u16 | flags u8                 S → mesh
0x0a    ForwardPacket    source key 32 | destination key 32 | packet            mesh → S
0x10    WatchConns       empty                                                  mesh → S
0x11    ClosePeer        key 32                                                 mesh → S
0x12    Ping             8 bytes                                                both
0x13    Pong             8 bytes                                                both
0x14    Health           UTF-8 text, empty is healthy                           S → C
0x15    Restarting       reconnect-in ms u32 | try-for ms u32                   S → C
======  ===============  =====================================================  ==========
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from derp.errors import ProtocolError

MAGIC = b"DERP\xf0\x9f\x94\x91"
"""Opens ServerKey: "DERP" and U+1F511."""
HEADER_LEN = 5
KEY_LEN = 32
NONCE_LEN = 24
MAX_PACKET = 65536
"""Longest packet a client may send or get, keys and header not counted (derp.MaxPacketSize)."""
MAX_CLIENT_INFO = 256 << 10
"""Longest ClientInfo frame a server reads."""
MIN_CLIENT_INFO = KEY_LEN + NONCE_LEN
MAX_CLIENT_FRAME = 1 << 20
"""Longest frame a client reads before it gives the server up."""
PING_LEN = 8
MAX_PING = 1000
"""Longest Ping a server accepts; what follows the first 8 bytes is ignored."""
PEER_PRESENT_LEN = KEY_LEN + 16 + 2 + 1
PROTOCOL_VERSION = 2
KEEP_ALIVE_S = 60.0
"""A server speaks at least this often; a client calls twice this long silence death."""

HEADER = Struct(">BI")
LENGTH = Struct(">I").unpack_from
"""Reads the payload length of the frame whose type byte stands just before."""


class FrameType(IntEnum):
    """First byte of a frame."""

    SERVER_KEY = 0x01
    CLIENT_INFO = 0x02
    SERVER_INFO = 0x03
    SEND_PACKET = 0x04
    RECV_PACKET = 0x05
    KEEP_ALIVE = 0x06
    NOTE_PREFERRED = 0x07
    PEER_GONE = 0x08
    PEER_PRESENT = 0x09
    FORWARD_PACKET = 0x0A
    WATCH_CONNS = 0x10
    CLOSE_PEER = 0x11
    PING = 0x12
    PONG = 0x13
    HEALTH = 0x14
    RESTARTING = 0x15


class PeerGoneReason(IntEnum):
    """Last byte of a PeerGone frame."""

    DISCONNECTED = 0x00
    NOT_HERE = 0x01
    MESH_CONN_BROKE = 0xF0
    """Never on the wire: a mesh client's own word for a lost link."""


class PeerPresentFlags(IntFlag):
    """Last byte of a PeerPresent frame. Regular is set only when nothing else is."""

    REGULAR = 1
    MESH_PEER = 2
    PROBER = 4
    NOT_IDEAL = 8


def encode_frame(frame_type: int, payload: bytes = b"") -> bytes:
    """Put the five header bytes before a payload."""
    return HEADER.pack(frame_type, len(payload)) + payload


KEEP_ALIVE_FRAME = encode_frame(FrameType.KEEP_ALIVE)
WATCH_CONNS_FRAME = encode_frame(FrameType.WATCH_CONNS)


def _check_key(key: bytes) -> bytes:
    if len(key) != KEY_LEN:
        raise ValueError(f"a node key has {KEY_LEN} bytes, not {len(key)}")
    return key


def _check_packet(packet: bytes) -> bytes:
    if len(packet) > MAX_PACKET:
        raise ValueError(f"a packet has at most {MAX_PACKET} bytes, not {len(packet)}")
    return packet


def encode_send_packet(destination: bytes, packet: bytes) -> bytes:
    """
    Encode SendPacket: ``04 | length | destination 32 | packet``.

    :raises ValueError: if the packet is longer than :data:`MAX_PACKET`.
    """
    return encode_frame(FrameType.SEND_PACKET, _check_key(destination) + _check_packet(packet))


def encode_recv_packet(source: bytes, packet: bytes) -> bytes:
    """
    Encode RecvPacket: ``05 | length | source 32 | packet``.

    It is as long as the SendPacket it came from, which lets the relay rewrite one into the
    other where it lies.
    """
    return encode_frame(FrameType.RECV_PACKET, _check_key(source) + _check_packet(packet))


def encode_forward_packet(source: bytes, destination: bytes, packet: bytes) -> bytes:
    """Encode ForwardPacket: ``0a | length | source 32 | destination 32 | packet``."""
    payload = _check_key(source) + _check_key(destination) + _check_packet(packet)
    return encode_frame(FrameType.FORWARD_PACKET, payload)


def encode_note_preferred(preferred: bool) -> bytes:
    """Encode NotePreferred: this server is, or is no longer, the client's home."""
    return encode_frame(FrameType.NOTE_PREFERRED, b"\x01" if preferred else b"\x00")


def encode_peer_gone(key: bytes, reason: int) -> bytes:
    """Encode PeerGone: ``08 | 33 | key 32 | reason u8``."""
    return encode_frame(FrameType.PEER_GONE, _check_key(key) + bytes((reason,)))


def encode_peer_present(
    key: bytes, ip: IPv4Address | IPv6Address | None, port: int, flags: int
) -> bytes:
    """
    Encode PeerPresent: ``09 | 51 | key 32 | IP 16 | port u16 | flags u8``.

    :param ip: IPv4 is written as ``::ffff:a.b.c.d``; ``None`` (not ip:port) as zeros.

    The reference's comment says 41 bytes; its code, and ours, send 51.
    """
    if ip is None:
        packed = bytes(16)
    elif ip.version == 4:
        packed = b"\0" * 10 + b"\xff\xff" + ip.packed
    else:
        packed = ip.packed
    tail = packed + port.to_bytes(2, "big") + bytes((flags,))
    return encode_frame(FrameType.PEER_PRESENT, _check_key(key) + tail)


def encode_close_peer(key: bytes) -> bytes:
    """Encode ClosePeer: ``11 | 32 | key 32``."""
    return encode_frame(FrameType.CLOSE_PEER, _check_key(key))


def encode_ping(data: bytes) -> bytes:
    """Encode Ping: ``12 | 8 | data 8``."""
    if len(data) != PING_LEN:
        raise ValueError(f"a ping carries {PING_LEN} bytes, not {len(data)}")
    return encode_frame(FrameType.PING, data)


def encode_pong(data: bytes) -> bytes:
    """Encode Pong: ``13 | 8 | the 8 bytes of the ping``."""
    if len(data) != PING_LEN:
        raise ValueError(f"a pong carries {PING_LEN} bytes, not {len(data)}")
    return encode_frame(FrameType.PONG, data)


def encode_health(problem: str) -> bytes:
    """Encode Health; an empty text says that the server is well (again)."""
    return encode_frame(FrameType.HEALTH, problem.encode())


def encode_restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    """Encode Restarting: ``15 | 8 | reconnect-in ms u32 | try-for ms u32``."""
    payload = reconnect_in_ms.to_bytes(4, "big") + try_for_ms.to_bytes(4, "big")
    return encode_frame(FrameType.RESTARTING, payload)


class FrameDecoder:
    """
    Cut a byte stream into frames, however it was split.

    This is the patient reader of clients and tests; the relay parses in place instead
    (:mod:`derp.core.router`).

    :param max_payload: a longer frame is the remote's fault. It is refused at its header,
        before anything is kept for it.
    """

    def __init__(self, max_payload: int = MAX_CLIENT_FRAME) -> None:
        self.max_payload = max_payload
        """May change between two frames: a greeting must be shorter than what follows it."""
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """
        Take what arrived, give the frames it completed as ``(type, payload)``.

        :raises ProtocolError: at a frame longer than allowed; the stream is then lost.
        """
        held = self._held
        held += data
        start = 0
        try:
            while len(held) - start >= HEADER_LEN:
                frame_type, length = HEADER.unpack_from(held, start)
                if length > self.max_payload:
                    raise ProtocolError(
                        f"frame 0x{frame_type:02x} of {length} bytes; at most"
                        f" {self.max_payload} are allowed"
                    )
                end = start + HEADER_LEN + length
                if len(held) < end:
                    break
                payload = bytes(held[start + HEADER_LEN : end])
                start = end
                yield frame_type, payload
        finally:
            del held[:start]
