"""
What waits for one connection whose socket is full, and how much of it may.

Nothing waits while the socket takes bytes: an outbox exists only for a blocked connection.
Two lanes hold packets, disco apart from all else, so that a flood of data does not push out
the few packets that would find a direct path. Each lane is short and drops its *oldest*
packet: a late WireGuard packet is worth less than a fresh one. Source: tailscale
``derpserver`` ``sendPkt``.
"""

from __future__ import annotations

from collections import deque

from derp.core.stats import PacketKind

DEFAULT_DEPTH = 32
"""Packets per lane (perClientSendQueueDepth)."""
MAX_CONTROL_BYTES = 1 << 20
"""
Control frames (peer gone, peer present, keepalive) kept for a blocked connection. A mesh peer
that misses one would keep wrong books, so past this it is closed and starts afresh; 1 MiB is
18,000 presence frames.
"""


class QueuedPacket:
    """A complete RecvPacket frame and when it began to wait (seconds)."""

    __slots__ = ("frame", "size", "source", "waiting_since")

    def __init__(self, frame: bytes, size: int, source: bytes, waiting_since: float) -> None:
        self.frame = frame
        self.size = size
        """Data bytes, key and header not counted."""
        self.source = source
        self.waiting_since = waiting_since


class Outbox:
    """
    The bounded queues of one blocked connection.

    :param depth: packets each lane may hold.
    """

    __slots__ = ("_control", "_control_bytes", "_depth", "_lanes", "pong")

    def __init__(self, depth: int = DEFAULT_DEPTH) -> None:
        if depth < 1:
            raise ValueError(f"an outbox of {depth} packets holds nothing")
        self._depth = depth
        self._lanes: tuple[deque[QueuedPacket], deque[QueuedPacket]] = (deque(), deque())
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self.pong: bytes | None = None
        """The one pong that may wait; a ping that comes meanwhile goes unanswered."""

    def __bool__(self) -> bool:
        return bool(self._control or self._lanes[0] or self._lanes[1] or self.pong)

    def __len__(self) -> int:
        """Packets waiting."""
        return len(self._lanes[0]) + len(self._lanes[1])

    def push(self, kind: PacketKind, packet: QueuedPacket) -> QueuedPacket | None:
        """
        Queue a packet.

        :return: the oldest packet of the lane if it had to make room; the caller counts it.
        """
        lane = self._lanes[kind]
        dropped = lane.popleft() if len(lane) >= self._depth else None
        lane.append(packet)
        return dropped

    def push_control(self, frame: bytes) -> bool:
        """
        Queue a frame that must not be lost.

        :return: whether there was room; if not, the connection has to go.
        """
        if self._control_bytes + len(frame) > MAX_CONTROL_BYTES:
            return False
        self._control_bytes += len(frame)
        self._control.append(frame)
        return True

    def pop_control(self) -> bytes | None:
        """Take the oldest control frame."""
        if not self._control:
            return None
        frame = self._control.popleft()
        self._control_bytes -= len(frame)
        return frame

    def pop(self) -> tuple[PacketKind, QueuedPacket] | None:
        """Take the next packet: disco first (few, small, and in a hurry), then in order."""
        for kind in PacketKind:
            if self._lanes[kind]:
                return kind, self._lanes[kind].popleft()
        return None
