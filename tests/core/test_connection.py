"""Tests for :mod:`derp.core.connection`."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.connection import Connection, RemoteAddress, kind_of
from derp.core.outbox import MAX_CONTROL_BYTES, QueuedPacket
from derp.core.stats import DropReason, PacketKind, Stats
from derp.wire.frames import (
    KEEP_ALIVE_FRAME,
    FrameType,
    PeerGoneReason,
    PeerPresentFlags,
    encode_frame,
    encode_peer_gone,
    encode_pong,
    encode_recv_packet,
)
from derp.wire.keys import ZERO_KEY
from derp.wire.messages import PeerPresent, parse_message
from tests.core.fakes import FakeSink, disco

SOURCE = b"s" * 32
PONG = encode_pong(b"12345678")


class ConnectionCase(SynchronousTestCase):
    """One connection on a sink that records."""

    def setUp(self) -> None:
        self.stats = Stats()
        self.sink = FakeSink()
        self.conn = self.make()

    def make(self, remote: RemoteAddress | None = None, depth: int = 32) -> Connection:
        remote = remote or RemoteAddress()
        return Connection(b"k" * 32, self.sink, self.stats, remote, 100.0, depth)

    def queue(self, packet: bytes, at: float = 0.0) -> None:
        frame = encode_recv_packet(SOURCE, packet)
        waiting = QueuedPacket(frame, len(packet), SOURCE, at)
        self.conn.queue_packet(kind_of(packet), waiting)


class AnnouncementTests(ConnectionCase):
    """How watchers are told of a connection."""

    def test_flags(self) -> None:
        """A bit per property; regular only when there is no other."""
        expected = {
            (False, False, False): PeerPresentFlags.REGULAR,
            (True, False, False): PeerPresentFlags.MESH_PEER,
            (False, True, False): PeerPresentFlags.PROBER,
            (False, False, True): PeerPresentFlags.NOT_IDEAL,
            (True, True, True): PeerPresentFlags(2 | 4 | 8),
        }
        for properties, flags in expected.items():
            conn = self.conn
            conn.is_mesh, conn.is_prober, conn.not_ideal = properties
            self.assertEqual(conn.presence_flags, flags)

    def test_presence_frame(self) -> None:
        """Key, address and flags; IPv4 mapped, an address of another kind all zero."""
        for text, packed in (
            ("192.0.2.7", bytes(10) + b"\xff\xff\xc0\x00\x02\x07"),
            ("2001:db8::7", ip_address("2001:db8::7").packed),
        ):
            conn = self.make(RemoteAddress(ip_address(text), 4660))
            frame = conn.presence_frame()
            self.assertEqual(frame, b"\x09\0\0\0\x33" + conn.key + packed + b"\x12\x34\x01")
        frame = self.make().presence_frame()
        self.assertEqual(frame[5:], b"k" * 32 + bytes(18) + b"\x01")
        message = parse_message(frame[0], frame[5:])
        assert isinstance(message, PeerPresent)
        self.assertEqual(message.flags, PeerPresentFlags.REGULAR)

    def test_address_text(self) -> None:
        """Addresses print as in derper's log: brackets around IPv6."""
        texts = [
            str(RemoteAddress(ip_address("192.0.2.7"), 80)),
            str(RemoteAddress(ip_address("2001:db8::7"), 80)),
            str(RemoteAddress()),
        ]
        self.assertEqual(texts, ["192.0.2.7:80", "[2001:db8::7]:80", "unknown"])


class NotHereTests(ConnectionCase):
    """How many answers "not here" a connection may draw."""

    def test_three_at_once_then_one_a_second(self) -> None:
        """The bucket starts full with three and gets one more each second, never above."""
        ask = self.conn.may_ask_not_here
        self.assertEqual([ask(100.0) for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertEqual([ask(100.9), ask(101.0), ask(101.1)], [False, True, False])
        self.assertEqual([ask(1000.0) for _ in range(4)], [True] * 3 + [False])

    def test_refused_questions_cost_nothing(self) -> None:
        """Asking all the time does not put the next answer off."""
        allowed = sum(self.conn.may_ask_not_here(100 + tick / 64) for tick in range(6 * 64))
        self.assertEqual(allowed, 3 + 5)

    def test_clock_that_was_set_back(self) -> None:
        """An hour back takes no tokens away and gives none."""
        self.assertTrue(self.conn.may_ask_not_here(100.0))
        self.assertEqual(
            [self.conn.may_ask_not_here(-3500.0) for _ in range(3)], [True, True, False]
        )

    @given(st.lists(st.floats(0, 3), max_size=60))
    def test_never_more_than_the_rate(self, steps: list[float]) -> None:
        """Over any time no more than three and one a second are allowed."""
        conn = self.make()
        now = conn.connected_at
        allowed = 0
        for step in steps:
            now += step
            allowed += conn.may_ask_not_here(now)
            self.assertLessEqual(allowed, 3 + (now - conn.connected_at) + 1e-6)


class SendTests(ConnectionCase):
    """Sending while the socket takes bytes."""

    def test_packet(self) -> None:
        """A packet leaves at once and is counted."""
        self.conn.send_packet(SOURCE, b"data", 0.0)
        self.assertEqual(self.sink.written, [encode_recv_packet(SOURCE, b"data")])
        self.assertEqual((self.stats.packets_sent, self.stats.bytes_sent), (1, 4))
        self.assertEqual(self.conn.sent_bytes, 5 + 32 + 4)
        self.assertEqual(self.stats.average_queue_duration_ms, 0.0)

    def test_packet_from_the_zero_key(self) -> None:
        """The layout of protocol version 1 has no key."""
        self.conn.send_packet(ZERO_KEY, b"data", 0.0)
        self.assertEqual(self.sink.written, [encode_frame(FrameType.RECV_PACKET, b"data")])
        self.assertEqual((self.stats.packets_sent, self.stats.bytes_sent), (1, 4))
        self.assertEqual(self.conn.sent_bytes, 5 + 4)

    def test_control_frames_are_counted_when_written(self) -> None:
        """Pongs and both sorts of PeerGone have counters; keepalives have none."""
        conn, stats = self.conn, self.stats
        conn.send_pong(PONG)
        conn.send_peer_gone(SOURCE, PeerGoneReason.DISCONNECTED)
        conn.send_peer_gone(SOURCE, PeerGoneReason.NOT_HERE)
        conn.send_peer_gone(SOURCE, PeerGoneReason.NOT_HERE)
        conn.send_control(KEEP_ALIVE_FRAME)
        self.assertEqual(stats.sent_pong, 1)
        self.assertEqual(stats.peer_gone_disconnected_frames, 1)
        self.assertEqual(stats.peer_gone_not_here_frames, 2)
        self.assertEqual(len(self.sink.written), 5)
        self.assertIsNone(conn.outbox, "nothing waits for a socket that takes bytes")


class BlockedTests(ConnectionCase):
    """A socket that is full."""

    def test_nothing_is_written_or_counted(self) -> None:
        """While blocked everything waits, and the counters with it."""
        conn = self.conn
        conn.block()
        conn.send_packet(SOURCE, b"data", 0.0)
        conn.send_pong(PONG)
        conn.send_control(KEEP_ALIVE_FRAME)
        conn.send_peer_gone(SOURCE, 0)
        self.assertEqual(self.sink.written, [])
        self.assertEqual(self.stats.packets_sent, 0)
        self.assertEqual(self.stats.sent_pong, 0)
        self.assertEqual(self.stats.peer_gone_disconnected_frames, 0)

    def test_order_of_what_waited(self) -> None:
        """Control frames first, then the pong, disco, and data; each in its own order."""
        conn = self.conn
        conn.block()
        self.queue(b"data 1")
        self.queue(disco(fill=b"1"))
        conn.send_pong(PONG)
        self.queue(b"data 2")
        conn.send_peer_gone(SOURCE, 0)
        self.queue(disco(fill=b"2"))
        conn.send_control(KEEP_ALIVE_FRAME)
        conn.unblock(0.0)
        self.assertEqual(
            self.sink.written,
            [
                encode_peer_gone(SOURCE, 0),
                KEEP_ALIVE_FRAME,
                PONG,
                *(encode_recv_packet(SOURCE, disco(fill=fill)) for fill in (b"1", b"2")),
                *(encode_recv_packet(SOURCE, data) for data in (b"data 1", b"data 2")),
            ],
        )
        self.assertIsNone(conn.outbox, "an outbox that is empty is given up")
        self.assertFalse(conn.blocked)
        self.assertEqual(self.stats.packets_sent, 4)
        self.assertEqual(self.stats.bytes_sent, 62 + 62 + 6 + 6)
        self.assertEqual(conn.sent_bytes, 4 * 37 + 62 + 62 + 6 + 6)
        self.assertEqual(self.stats.sent_pong, 1)
        self.assertEqual(self.stats.peer_gone_disconnected_frames, 1)

    def test_one_pong_waits(self) -> None:
        """Pings that come while a pong waits go unanswered; the first one is not lost."""
        self.conn.block()
        for number in range(3):
            self.conn.send_pong(encode_pong(b"%08d" % number))
        self.conn.unblock(0.0)
        self.assertEqual(self.sink.written, [encode_pong(b"00000000")])
        self.assertEqual(self.stats.sent_pong, 1)
        self.conn.block()
        self.conn.send_pong(PONG)
        self.conn.unblock(0.0)
        self.assertEqual(self.sink.written[1:], [PONG])

    def test_full_again_in_the_middle(self) -> None:
        """What the socket does not take any more goes on waiting, in order."""
        conn = self.conn
        conn.block()
        for number in range(5):
            self.queue(b"%d" % number)
        self.sink.takes, self.sink.on_full = 2, conn.block
        conn.unblock(0.0)
        self.assertEqual(len(self.sink.written), 2)
        self.assertTrue(conn.blocked)
        self.queue(b"5")
        self.sink.takes = None
        conn.unblock(0.0)
        expected = [encode_recv_packet(SOURCE, b"%d" % number) for number in range(6)]
        self.assertEqual(self.sink.written, expected)

    def test_dropped_packets(self) -> None:
        """The oldest goes, counted by kind with its size; its source is known."""
        told: list[tuple[DropReason, PacketKind, bytes, bytes]] = []
        self.stats.drop_listener = lambda *what: told.append(what)
        self.conn = self.make(depth=1)
        self.conn.block()
        self.queue(b"four")
        self.queue(b"sixsix")
        self.queue(disco(70))
        self.queue(disco(80))
        reason = DropReason.QUEUE_HEAD
        self.assertEqual(self.stats.packets_dropped[PacketKind.OTHER][reason], 1)
        self.assertEqual(self.stats.bytes_dropped[PacketKind.OTHER][reason], 4)
        self.assertEqual(self.stats.packets_dropped[PacketKind.DISCO][reason], 1)
        self.assertEqual(self.stats.bytes_dropped[PacketKind.DISCO][reason], 70)
        kinds = (PacketKind.OTHER, PacketKind.DISCO)
        self.assertEqual(told, [(reason, kind, SOURCE, self.conn.key) for kind in kinds])

    def test_queue_average(self) -> None:
        """Waits enter the average in milliseconds with 0.1, also those of the dropped."""
        self.conn = self.make(depth=1)
        self.conn.block()
        self.queue(b"old", at=10.0)
        self.queue(b"new", at=10.5)
        self.assertAlmostEqual(self.stats.average_queue_duration_ms, 50.0)
        self.make().send_packet(SOURCE, b"to one that is not blocked", 10.5)
        self.assertAlmostEqual(self.stats.average_queue_duration_ms, 45.0)
        self.conn.unblock(10.6)
        self.assertAlmostEqual(self.stats.average_queue_duration_ms, 0.9 * 45 + 0.1 * 100)
        self.conn.send_packet(SOURCE, b"not queued", 10.6)
        self.assertAlmostEqual(self.stats.average_queue_duration_ms, 0.9 * 50.5)

    def test_too_many_control_frames_close(self) -> None:
        """A peer that misses a control frame would keep wrong books: it has to start afresh."""
        self.conn.block()
        frame = bytes(MAX_CONTROL_BYTES // 4)
        for _ in range(4):
            self.conn.send_control(frame)
        self.assertEqual(self.sink.closed, [])
        self.conn.send_control(KEEP_ALIVE_FRAME)
        self.assertEqual(self.sink.closed, ["too slow for its control frames"])

    def test_gone_with_packets_waiting(self) -> None:
        """What waited for a connection that ended is counted, control frames are not."""
        self.conn.block()
        self.queue(b"four")
        self.queue(disco(70))
        self.conn.send_pong(PONG)
        self.conn.drop_queued()
        reason = DropReason.GONE_DISCONNECTED
        self.assertEqual(self.stats.packets_dropped[PacketKind.OTHER][reason], 1)
        self.assertEqual(self.stats.packets_dropped[PacketKind.DISCO][reason], 1)
        self.assertEqual(self.stats.bytes_dropped[PacketKind.DISCO][reason], 70)
        self.assertEqual(self.stats.dropped, 2)
        self.conn.drop_queued()
        self.assertEqual(self.stats.dropped, 2)
        self.conn.unblock(0.0)
        self.assertEqual(self.sink.written, [])

    def test_blocked_for_nothing(self) -> None:
        """A socket that was full while nobody sent leaves no trace."""
        self.conn.block()
        self.conn.block()
        self.conn.unblock(0.0)
        self.conn.unblock(0.0)
        self.assertEqual(self.sink.written, [])
        self.conn.send_packet(SOURCE, b"x", 0.0)
        self.assertEqual(len(self.sink.written), 1)
