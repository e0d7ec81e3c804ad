"""
One logged-in connection, as the relay's state sees it.

Packets for a connection go straight to its sink while the socket takes them; only a blocked
one grows an :class:`~derp.core.outbox.Outbox`. The flags here are what registry, router and
mesh keep about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from derp.core.outbox import Outbox, QueuedPacket
from derp.core.stats import DropReason, PacketKind, Stats
from derp.wire.disco import looks_like_disco
from derp.wire.frames import (
    FrameType,
    PeerPresentFlags,
    encode_frame,
    encode_peer_gone,
    encode_peer_present,
    encode_recv_packet,
)
from derp.wire.keys import ZERO_KEY

NOT_HERE_BURST = 3.0
"""PeerGone "not here" answers one connection may draw at once; one more each second."""


class PeerSink(Protocol):
    """
    What the core may ask of the adapter that owns a connection's socket.

    Both are called in the middle of changes. They may call :meth:`Connection.block` before
    they return, but report a lost connection only later.
    """

    def write(self, data: bytes) -> None:
        """Send soon, in order. Never blocks, never raises for a lost connection."""

    def write_through(self, data: memoryview) -> None:
        """
        The same for a large piece, which is taken from where it lies.

        Nothing of ``data`` may be kept past the call.
        """

    def close(self, reason: str) -> None:
        """
        End the connection, whatever still waits for it; a second time changes nothing.

        :param reason: for the log, empty for a quiet end.
        """


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """Where a client comes from; ``ip`` is ``None`` if that is not ip:port."""

    ip: IPv4Address | IPv6Address | None = None
    port: int = 0

    def __str__(self) -> str:
        if self.ip is None:
            return "unknown"
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


class Connection:
    """
    State of one connection that has logged in.

    :param key: its raw node key.
    :param connected_at: seconds, on the clock the adapter feeds the relay with.
    """

    __slots__ = (
        "__weakref__",
        "blocked",
        "connected_at",
        "disabled",
        "dup",
        "heard",
        "is_mesh",
        "is_prober",
        "key",
        "not_here_at",
        "not_here_tokens",
        "not_ideal",
        "outbox",
        "outbox_depth",
        "preferred",
        "recv_bytes",
        "remote",
        "sent_bytes",
        "sink",
        "stats",
        "write",
        "write_through",
    )

    def __init__(
        self,
        key: bytes,
        sink: PeerSink,
        stats: Stats,
        remote: RemoteAddress,
        connected_at: float,
        outbox_depth: int,
    ) -> None:
        self.key = key
        self.sink = sink
        self.write: Callable[[bytes], None] = sink.write
        self.write_through: Callable[[memoryview], None] = sink.write_through
        self.stats = stats
        self.remote = remote
        self.connected_at = connected_at
        self.outbox_depth = outbox_depth
        self.outbox: Outbox | None = None
        self.blocked = False
        """The socket is full: packets queue. Set by the adapter through :meth:`block`."""
        self.heard: set[bytes] | None = None
        """Sources this connection has been sent packets from, for its whole life."""
        self.is_mesh = False
        self.is_prober = False
        self.not_ideal = False
        self.dup = False
        """Another connection of the same key exists."""
        self.disabled = False
        """Put out of use by the policy for fighting duplicates."""
        self.preferred = False
        """The client calls this relay its home."""
        self.not_here_tokens = NOT_HERE_BURST
        self.not_here_at = connected_at
        self.sent_bytes = 0
        """Bytes of frames relayed to this client, headers included (``/debug/traffic``)."""
        self.recv_bytes = 0
        """Bytes of frames this client sent, headers included."""

    @property
    def presence_flags(self) -> PeerPresentFlags:
        """How watchers are told of this connection."""
        flags = PeerPresentFlags(0)
        if self.is_mesh:
            flags |= PeerPresentFlags.MESH_PEER
        if self.is_prober:
            flags |= PeerPresentFlags.PROBER
        if self.not_ideal:
            flags |= PeerPresentFlags.NOT_IDEAL
        return flags or PeerPresentFlags.REGULAR

    def presence_frame(self) -> bytes:
        """The PeerPresent frame that announces this connection."""
        return encode_peer_present(
            self.key, self.remote.ip, self.remote.port, int(self.presence_flags)
        )

    def may_ask_not_here(self, now: float) -> bool:
        """Whether one more PeerGone "not here" may answer this connection (3, then 1/s)."""
        tokens = self.not_here_tokens + max(0.0, now - self.not_here_at)
        self.not_here_at = now
        self.not_here_tokens = min(tokens, NOT_HERE_BURST)
        if self.not_here_tokens < 1.0:
            return False
        self.not_here_tokens -= 1.0
        return True

    # -- sending ---------------------------------------------------------------------------

    def queue_packet(self, kind: PacketKind, packet: QueuedPacket) -> None:
        """Let one RecvPacket frame wait for the full socket; the oldest may have to go."""
        if self.outbox is None:
            self.outbox = Outbox(self.outbox_depth)
        dropped = self.outbox.push(kind, packet)
        if dropped is not None:
            waited = packet.waiting_since - dropped.waiting_since
            self.stats.note_queued_for(waited, sent=False)
            self.stats.drop(DropReason.QUEUE_HEAD, kind, dropped.size, dropped.source, self.key)

    def send_packet(self, source: bytes, packet: bytes, now: float) -> None:
        """
        Send or queue one packet (what forwarders use; the packet path has its own way).

        A zero source is delivered in the layout of protocol version 1, without a key.
        """
        if source == ZERO_KEY:
            frame = encode_frame(FrameType.RECV_PACKET, packet)
        else:
            frame = encode_recv_packet(source, packet)
        size = len(packet)
        if self.blocked:
            self.queue_packet(kind_of(packet), QueuedPacket(frame, size, source, now))
            return
        self.write(frame)
        self.stats.packets_sent += 1
        self.stats.bytes_sent += size
        self.sent_bytes += len(frame)

    def send_control(self, frame: bytes) -> None:
        """Send a frame that must not be lost; a connection that cannot keep up is closed."""
        if not self.blocked:
            self._write_control(frame)
            return
        if self.outbox is None:
            self.outbox = Outbox(self.outbox_depth)
        if not self.outbox.push_control(frame):
            self.sink.close("too slow for its control frames")

    def send_peer_gone(self, key: bytes, reason: int) -> None:
        """Tell this client that a key is gone, or not here."""
        self.send_control(encode_peer_gone(key, reason))

    def send_pong(self, frame: bytes) -> None:
        """Answer a ping; while one pong waits for the full socket, others are dropped."""
        if not self.blocked:
            self._write_control(frame)
            return
        if self.outbox is None:
            self.outbox = Outbox(self.outbox_depth)
        if self.outbox.pong is None:
            self.outbox.pong = frame

    def _write_control(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == FrameType.PONG:
            self.stats.sent_pong += 1
        elif kind == FrameType.PEER_GONE:
            if frame[-1]:
                self.stats.peer_gone_not_here_frames += 1
            else:
                self.stats.peer_gone_disconnected_frames += 1
        self.write(frame)

    # -- the full socket -------------------------------------------------------------------

    def block(self) -> None:
        """The socket is full; from now on packets queue."""
        self.blocked = True

    def unblock(self, now: float) -> None:
        """The socket takes bytes again: send what waited, until it is full once more."""
        self.blocked = False
        outbox = self.outbox
        while outbox and not self.blocked:
            self._send_next(outbox, now)
        if not outbox:
            self.outbox = None

    def _send_next(self, outbox: Outbox, now: float) -> None:
        control = outbox.pop_control()
        if control is not None:
            self._write_control(control)
        elif outbox.pong is not None:
            pong, outbox.pong = outbox.pong, None
            self._write_control(pong)
        else:
            waiting = outbox.pop()
            assert waiting is not None
            packet = waiting[1]
            self.stats.note_queued_for(now - packet.waiting_since)
            self.stats.packets_sent += 1
            self.stats.bytes_sent += packet.size
            self.sent_bytes += len(packet.frame)
            self.write(packet.frame)

    def drop_queued(self) -> None:
        """The connection is gone: count what waited for it, hold its socket no longer."""
        self.write, self.write_through = _ignore, _ignore
        outbox, self.outbox = self.outbox, None
        if outbox is None:
            return
        while (waiting := outbox.pop()) is not None:
            kind, packet = waiting
            self.stats.drop(
                DropReason.GONE_DISCONNECTED, kind, packet.size, packet.source, self.key
            )


def _ignore(data: bytes | memoryview) -> None:
    """Stands where a lost connection's sink stood."""


def kind_of(packet: bytes) -> PacketKind:
    """Tell disco from the rest."""
    return PacketKind.DISCO if looks_like_disco(packet) else PacketKind.OTHER
