"""
What a client makes of the frames a server sends.

Clients are lenient where frames grew over the years: see each class. Source: tailscale
``derp/derp_client.go``.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from derp.wire.frames import KEY_LEN, PING_LEN, FrameType, PeerGoneReason, PeerPresentFlags


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """RecvPacket: a packet and the key of who sent it."""

    source: bytes
    packet: bytes


@dataclass(frozen=True, slots=True)
class ServerInfoBox:
    """ServerInfo, still sealed: nonce and box (:func:`derp.wire.handshake.open_server_info`)."""

    sealed: bytes


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Nothing but a sign of life."""


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A key is not here (any more). The oldest form has no reason byte: disconnected."""

    key: bytes
    reason: int


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """A key is connected here. Older forms lack flags, or address and flags."""

    key: bytes
    ip: IPv4Address | IPv6Address | None
    port: int
    flags: PeerPresentFlags


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with a Pong of the same 8 bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Health:
    """What ails the server; empty when it is well."""

    problem: str


@dataclass(frozen=True, slots=True)
class Restarting:
    """The server is about to go: when to come back, and how long to try (milliseconds)."""

    reconnect_in_ms: int
    try_for_ms: int


Message = (
    ReceivedPacket
    | ServerInfoBox
    | KeepAlive
    | PeerGone
    | PeerPresent
    | Ping
    | Pong
    | Health
    | Restarting
)


def _peer_present(payload: bytes) -> PeerPresent | None:
    if len(payload) < KEY_LEN:
        return None
    key, ip, port, flags = payload[:KEY_LEN], None, 0, PeerPresentFlags(0)
    if len(payload) >= KEY_LEN + 18:
        address = IPv6Address(payload[KEY_LEN : KEY_LEN + 16])
        ip = address.ipv4_mapped or address
        port = int.from_bytes(payload[KEY_LEN + 16 : KEY_LEN + 18], "big")
    if len(payload) >= KEY_LEN + 19:
        flags = PeerPresentFlags(payload[KEY_LEN + 18])
    return PeerPresent(key, ip, port, flags)


def parse_message(frame_type: int, payload: bytes) -> Message | None:
    """
    Read one server frame as a client does.

    :return: ``None`` for what a client skips: unknown types, ServerKey, and frames too short
        to mean anything.
    """
    size = len(payload)
    match frame_type:
        case FrameType.RECV_PACKET if size >= KEY_LEN:
            return ReceivedPacket(payload[:KEY_LEN], payload[KEY_LEN:])
        case FrameType.SERVER_INFO:
            return ServerInfoBox(payload)
        case FrameType.KEEP_ALIVE:
            return KeepAlive()
        case FrameType.PEER_GONE if size >= KEY_LEN:
            reason = payload[KEY_LEN] if size > KEY_LEN else PeerGoneReason.DISCONNECTED
            return PeerGone(payload[:KEY_LEN], reason)
        case FrameType.PEER_PRESENT:
            return _peer_present(payload)
        case FrameType.PING if size >= PING_LEN:
            return Ping(payload[:PING_LEN])
        case FrameType.PONG if size >= PING_LEN:
            return Pong(payload[:PING_LEN])
        case FrameType.HEALTH:
            return Health(payload.decode("utf-8", "replace"))
        case FrameType.RESTARTING if size >= 8:
            return Restarting(
                int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
            )
        case _:
            return None
