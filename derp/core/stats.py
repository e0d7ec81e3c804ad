"""
What the relay counts: plain integers, read by whoever shows them.

Nothing here knows Prometheus or a label; a counter is an attribute, so that the packet path
pays one in-place addition per run of packets. Names follow derper's variables (see
``derp_…`` in its ``/debug/varz``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from enum import IntEnum
from itertools import accumulate


class DropReason(IntEnum):
    """Why a packet did not arrive. The value indexes :attr:`Stats.packets_dropped`."""

    UNKNOWN_DEST = 0
    UNKNOWN_DEST_ON_FWD = 1
    GONE_DISCONNECTED = 2
    QUEUE_HEAD = 3
    QUEUE_TAIL = 4
    WRITE_ERROR = 5
    DUP_CLIENT = 6
    MESH_LINK = 7
    """Ours: the link to the mesh peer that has the destination could not take it."""


class PacketKind(IntEnum):
    """What a packet looks like from outside. The value indexes per-kind counters."""

    DISCO = 0
    OTHER = 1


DropListener = Callable[[DropReason, PacketKind, bytes, bytes], None]
"""Takes reason, kind, source and destination of a lost packet."""


class Histogram:
    """
    Counts of observations at or below fixed bounds, as Prometheus histograms want them.

    :param bounds: ascending upper bounds; ``+Inf`` is implied.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """Count at or below each bound, ``+Inf`` last."""
        return list(accumulate(self.counts))


class Stats:
    """Counters of one relay since its start, and the gauges that are kept by hand."""

    def __init__(self) -> None:
        self.accepts = 0
        """Connections handed to DERP, refused ones included."""
        self.packets_received = 0
        self.bytes_received = 0
        """Data bytes of SendPacket, without key and header."""
        self.packets_sent = 0
        self.bytes_sent = 0
        """Data bytes of RecvPacket, counted when written to the socket's side."""
        self.disco_received = 0
        """Part of :attr:`packets_received` that looks like disco."""
        self.packets_dropped = [[0] * len(DropReason) for _ in PacketKind]
        self.bytes_dropped = [[0] * len(DropReason) for _ in PacketKind]
        self.packets_forwarded_in = 0
        self.packets_forwarded_out = 0
        self.got_ping = 0
        self.sent_pong = 0
        self.home_moves_in = 0
        self.home_moves_out = 0
        self.home_connections = 0
        self.notideal_connections = 0
        self.connections = 0
        """Logged-in connections (a key connected twice counts twice)."""
        self.dup_client_keys = 0
        self.dup_client_conns = 0
        self.total_dup_client_conns = 0
        self.multiforwarder_created = 0
        self.multiforwarder_deleted = 0
        self.packet_forwarder_delete_other_value = 0
        self.peer_gone_disconnected_frames = 0
        self.peer_gone_not_here_frames = 0
        self.sclient_write_timeouts = 0
        self.unknown_frames = 0
        """Never counted up, as in derper; unknown frames are skipped silently."""
        self.logins_refused = 0
        self.protocol_errors = 0
        self.login_timeouts = 0
        self.drop_listener: DropListener | None = None
        """Told of each drop, for the log (:mod:`derp.net.drop_log`)."""
        self._queue_average_ms = 0.0
        self._queue_average_at = 0
        self.buffered_write_frames = Histogram(
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 50, 100
        )
        self.mesh_update_batch_size = Histogram(0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        self.mesh_update_loop_count = Histogram(0, 1, 2, 5, 10, 20, 50, 100)
        self.tcp_rtt: dict[str, int] = {}
        """Non-cumulative counts by label: ``10ms`` … ``inf``, ``non-tcp``, ``error``."""

    def drop(
        self, reason: DropReason, kind: PacketKind, size: int, source: bytes, destination: bytes
    ) -> None:
        """Count one lost packet of ``size`` data bytes."""
        self.packets_dropped[kind][reason] += 1
        self.bytes_dropped[kind][reason] += size
        if self.drop_listener is not None:
            self.drop_listener(reason, kind, source, destination)

    def note_queued_for(self, seconds: float, *, sent: bool = True) -> None:
        """
        A packet left an outbox after this long: enter it into the moving average.

        Packets that never waited count as 0 ms. They are caught up with here, and when the
        average is read, so that the packet path does not pay for them.

        :param sent: it is about to be sent and counted; otherwise it had to make room.
        """
        waited_ms = 1000.0 * max(0.0, seconds)
        self._queue_average_ms = 0.9 * self.average_queue_duration_ms + 0.1 * waited_ms
        self._queue_average_at = self.packets_sent + sent

    @property
    def average_queue_duration_ms(self) -> float:
        """Moving average (alpha 0.1 per packet) of the time sent packets had to wait."""
        unqueued = max(0, self.packets_sent - self._queue_average_at)
        return self._queue_average_ms * 0.9 ** min(unqueued, 1000)

    @property
    def dropped(self) -> int:
        """Packets lost for whatever reason."""
        return sum(map(sum, self.packets_dropped))
