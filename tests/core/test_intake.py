"""Tests for :mod:`derp.core.intake`: sessions behind limits, in virtual time."""

from itertools import cycle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.fair_share import FairShare
from derp.core.intake import MAX_COST, MeteredIntake, RefusingIntake
from derp.core.ratelimit import TokenBucket
from derp.core.stats import DropReason, PacketKind
from derp.errors import ProtocolError
from derp.wire.frames import FrameType, encode_frame, encode_send_packet
from derp.wire.messages import Pong, ReceivedPacket
from tests.core.fakes import FakeClient, make_relay
from tests.core.metered_clients import Flock, MeteredClient, fairness


def frame_of(destination: bytes, cost: int) -> bytes:
    """A SendPacket that costs so many bytes."""
    return encode_send_packet(destination, b"p" * (cost - 32))


class MeteredIntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relay = make_relay()
        self.to = FakeClient(self.relay, "to")

    def metered(self, rate: float = 65568.0, burst: float = 65568.0, **options) -> MeteredClient:  # type: ignore[no-untyped-def]
        return MeteredClient(self.relay, "from", TokenBucket(rate, burst, 0.0), **options)

    def test_reference(self) -> None:
        """As in TestPerClientRateLimit: 65568 bytes at once, as many again a second later."""
        member = self.metered()
        largest = frame_of(self.to.key, MAX_COST)
        self.assertEqual(member.offer(largest), 0)
        self.assertEqual(member.holds, [])
        self.assertEqual(member.offer(largest), len(largest))
        self.assertEqual(member.holds, [1.0])
        self.relay.now = 1.0
        self.assertEqual(member.offer(), 0)
        self.assertEqual(len(self.to.take()), 2)

    def test_paid_at_the_header(self) -> None:
        """A frame is paid for when its header is there, before its body has come."""
        member = self.metered()
        frame = frame_of(self.to.key, 40000)
        member.offer(frame)
        member.offer(frame[:5])
        self.assertEqual(len(member.holds), 1)
        self.relay.now = 1.0
        member.offer()
        member.offer(frame[5:20000])
        member.offer(frame[20000:])
        self.assertEqual(len(member.holds), 1, "the body is not paid for again")
        self.assertEqual(member.unread, b"")

    def test_part_of_a_header(self) -> None:
        """Less than a header costs nothing and is kept."""
        member = self.metered()
        member.offer(frame_of(self.to.key, MAX_COST))
        self.assertEqual(member.offer(b"\x04\0\0"), 3)
        self.assertEqual(member.holds, [])

    def test_every_type_costs(self) -> None:
        """Pings and frames of no known type are metered, too; those never cost more than 65568."""
        member = self.metered()
        unknown = bytes((0x77,)) + (200_000).to_bytes(4, "big") + b"u" * 50_000
        self.assertEqual(member.offer(unknown), 0)
        self.assertEqual(member.offer(b"u" * 150_000), 0, "its body is thrown away as it comes")
        self.assertEqual(member.holds, [])
        ping = encode_frame(FrameType.PING, b"12345678")
        self.assertEqual(member.offer(ping), len(ping))
        self.assertEqual(len(member.holds), 1)
        self.relay.now = 1.0
        member.offer()
        self.assertEqual(member.client.take(), [Pong(b"12345678")])

    def test_order_is_kept(self) -> None:
        """What waits comes out in order, none lost, none twice."""
        member = self.metered(rate=10_000.0)
        data = b"".join(
            encode_send_packet(self.to.key, b"%06d" % i + b"z" * 994) for i in range(150)
        )
        member.offer(data)
        for step in range(1, 40):
            self.relay.now = step * 0.5
            member.offer()
        packets = [m.packet[:6] for m in self.to.take() if isinstance(m, ReceivedPacket)]
        self.assertEqual(packets, [b"%06d" % i for i in range(150)])

    def test_mesh_is_exempt(self) -> None:
        """A mesh peer is never held."""
        member = self.metered(rate=1.0, mesh=True)
        for _ in range(5):
            member.offer(frame_of(self.to.key, MAX_COST))
        self.assertEqual(member.holds, [])

    def test_behind_the_login(self) -> None:
        """Packets that come in one piece with the login are metered; the login is not."""
        member = self.metered(log_in=False)
        login = member.client.login_frame()
        frame = frame_of(self.to.key, 40_000)
        self.assertEqual(member.offer(login + frame + frame), len(frame))
        self.assertEqual(len(member.holds), 1)
        self.assertEqual(len(self.to.take()), 1)

    def test_login_in_pieces(self) -> None:
        """A login cut anywhere is put together as without a limit."""
        for cut in (0, 1, 4, 5, 6, 60):
            member = MeteredClient(
                self.relay, f"c{cut}", TokenBucket(1.0, MAX_COST, 0.0), log_in=False
            )
            login = member.client.login_frame()
            member.offer(login[:cut])
            self.assertEqual(member.offer(login[cut:]), 0)
            self.assertIsNotNone(member.client.session.conn)

    def test_in_the_middle_of_a_frame(self) -> None:
        """A limit that comes while a frame is under way lets that one through."""
        plain = FakeClient(self.relay, "from")
        frame = frame_of(self.to.key, 40_000)
        plain.feed(frame[:10_000])
        holds: list[float | None] = []
        empty = TokenBucket(1.0, MAX_COST, 0.0)
        empty.take(MAX_COST, 0.0)
        intake = MeteredIntake(plain.session, empty, None, holds.append)
        held = bytearray(plain.feeder.held + frame[10_000:] + frame)
        with memoryview(held) as view:
            consumed = intake.receive(held, view, len(held))
        self.assertEqual(consumed, len(frame))
        self.assertEqual(len(holds), 1)

    def test_faults_come_after_the_frames_before_them(self) -> None:
        """A bad frame closes as without a limit, once it has been paid for."""
        member = self.metered()
        bad = bytes((FrameType.SEND_PACKET,)) + (31).to_bytes(4, "big") + b"x" * 31
        with self.assertRaises(ProtocolError):
            member.offer(frame_of(self.to.key, 100) + bad)
        self.assertEqual(len(self.to.take()), 1)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.integers(32, 3000), min_size=1, max_size=40),
        st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 0.3)), min_size=1, max_size=8),
    )
    def test_any_cut(self, costs: list[int], steps: list[tuple[int, float]]) -> None:
        """However the stream is cut and whenever it goes on, the same packets come out."""
        relay = make_relay()
        to = FakeClient(relay, "to")
        member = MeteredClient(relay, "from", TokenBucket(20_000.0, 65568.0, 0.0))
        stream = b"".join(frame_of(to.key, cost) for cost in costs)
        pos = 0
        turns = cycle(steps)
        while pos < len(stream) or member.unread:
            cut, pause = next(turns)
            relay.now += pause if pos < len(stream) else 1.0
            member.offer(stream[pos : pos + cut])
            pos += cut
        sizes = [len(m.packet) + 32 for m in to.take() if isinstance(m, ReceivedPacket)]
        self.assertEqual(sizes, costs)


class RateTests(SynchronousTestCase):
    """The rates hold over ten seconds of virtual time."""

    def check(self, amount: float, expected: float) -> None:
        self.assertLess(abs(amount / expected - 1), 0.05, f"{amount:.0f} of {expected:.0f}")

    def test_one_client(self) -> None:
        """One client gets its rate, and its burst once."""
        flock = Flock([1200], rate=500_000.0)
        self.check(flock.run(10.0)[0], 500_000 * 10 + 65568)

    def test_hundred_clients(self) -> None:
        """Each of a hundred clients gets its own rate, whatever the size of its packets."""
        flock = Flock([100 + 29 * i for i in range(100)], rate=40_000.0)
        for amount in flock.run(10.0):
            self.check(amount, 40_000 * 10 + 65568)

    def test_fast_client(self) -> None:
        """A rate far above what one frame per wake-up would give holds, too."""
        flock = Flock([1200], rate=20e6, burst=200e3)
        turns = 0
        take = flock.members[0].offer

        def counting(data: bytes = b"") -> int:
            nonlocal turns
            turns += 1
            return take(data)

        flock.members[0].offer = counting  # type: ignore[method-assign]
        self.check(flock.run(2.0)[0], 20e6 * 2)
        self.assertLess(turns, 2000, "it is woken for several frames at a time")

    def test_shared(self) -> None:
        """A hundred clients share one rate, fairly though their packets differ in size."""
        share = FairShare(4e6, 400e3, 0.0)
        flock = Flock([60 + 150 * (i % 10) for i in range(100)], share=share)
        amounts = flock.run(10.0)
        index = fairness(amounts)
        print(f"\nfairness index of 100 clients sharing 4 MB/s: {index:.4f}")
        self.check(sum(amounts), 4e6 * 10 + 400e3)
        self.assertGreaterEqual(index, 0.95)

    def test_shared_and_own(self) -> None:
        """Who is held by its own limit leaves its share to the others."""
        share = FairShare(1e6, 65568.0, 0.0)
        flock = Flock([1000, 1000], share=share)
        flock.members[0].metered._bucket = TokenBucket(100_000.0, 65568.0, 0.0)
        slow, quick = flock.run(10.0)
        self.check(slow, 100_000 * 10 + 65568)
        self.check(slow + quick, 1e6 * 10 + 65568)


class RefusingIntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relay = make_relay()
        self.to = FakeClient(self.relay, "to")
        self.member = MeteredClient(self.relay, "from")
        self.refused: list[int] = []
        self.member.intake = RefusingIntake(self.member.client.session, self.refused.append)

    def test_packets_are_thrown_away(self) -> None:
        """Packets do not arrive; what is between them is answered."""
        ping = encode_frame(FrameType.PING, b"12345678")
        packet = frame_of(self.to.key, 1000)
        self.assertEqual(self.member.offer(packet + ping + packet + packet + ping), 0)
        self.assertEqual(self.to.take(), [])
        self.assertEqual(self.member.client.take(), [Pong(b"12345678")] * 2)
        self.assertEqual(self.refused, [1000] * 3)
        self.assertEqual(self.relay.stats.packets_received, 0)

    def test_in_pieces(self) -> None:
        """A packet cut anywhere is thrown away whole and counted once."""
        ping = encode_frame(FrameType.PING, b"12345678")
        stream = frame_of(self.to.key, 400) + ping + frame_of(self.to.key, 40)
        for byte in stream:
            self.member.offer(bytes((byte,)))
        self.assertEqual(self.refused, [400, 40])
        self.assertEqual(self.member.client.take(), [Pong(b"12345678")])
        self.assertEqual(self.to.take(), [])

    def test_going_on_in_the_middle(self) -> None:
        """When packets pass again in the middle of one, the rest of that one is no frame."""
        packet = frame_of(self.to.key, 1000)
        self.member.offer(packet[:300])
        self.member.intake = MeteredIntake(
            self.member.client.session, None, None, self.member.holds.append
        )
        self.member.offer(packet[300:] + packet)
        self.assertEqual(len(self.to.take()), 1)

    def test_mesh(self) -> None:
        """What a mesh peer forwards is thrown away, too."""
        peer = MeteredClient(self.relay, "peer", mesh=True)
        peer.intake = RefusingIntake(peer.client.session, self.refused.append)
        source = self.member.client.key
        peer.offer(encode_frame(FrameType.FORWARD_PACKET, source + self.to.key + b"data"))
        self.assertEqual(self.refused, [68])
        self.assertEqual(self.relay.stats.packets_forwarded_in, 0)
        dropped = self.relay.stats.packets_dropped[PacketKind.OTHER]
        self.assertEqual(dropped[DropReason.UNKNOWN_DEST_ON_FWD], 0)
