"""A relay that passes packets on as a script wants it."""

from __future__ import annotations

from collections.abc import Callable

from derp.wire.frames import FrameType, PeerGoneReason, encode_frame, encode_recv_packet
from tests.net.relay_fakes import FakeRelay

Deliver = Callable[[bytes, bytes], bytes]
"""From source key and packet: what the destination is sent, frames or anything else."""


def faithfully(source: bytes, packet: bytes) -> bytes:
    """As a relay does it."""
    return encode_recv_packet(source, packet)


class Room:
    """
    The clients of one relay.

    :ivar unknown_for: so many packets are answered with PeerGone, not here.
    :ivar packets: how many were to be passed on.
    """

    def __init__(self, deliver: Deliver = faithfully) -> None:
        self.deliver = deliver
        self.unknown_for = 0
        self.packets = 0
        self.clients: dict[bytes, RelayingFake] = {}

    def enter(self) -> RelayingFake:
        """Make the protocol of a new client."""
        return RelayingFake(self)

    def pass_on(self, source: RelayingFake, destination: bytes, packet: bytes) -> None:
        self.packets += 1
        if self.unknown_for:
            self.unknown_for -= 1
            reason = bytes((PeerGoneReason.NOT_HERE,))
            source.send(encode_frame(FrameType.PEER_GONE, destination + reason))
        elif destination in self.clients:
            self.clients[destination].send(self.deliver(source.client_key, packet))


class RelayingFake(FakeRelay):
    """One client's connection."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room

    def _frame(self, frame_type: int, payload: bytes) -> None:
        super()._frame(frame_type, payload)
        self.frames.clear()
        self._room.clients[self.client_key] = self
        if frame_type == FrameType.SEND_PACKET:
            self._room.pass_on(self, payload[:32], payload[32:])
