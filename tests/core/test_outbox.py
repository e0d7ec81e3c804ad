"""Tests for :mod:`derp.core.outbox`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.core.outbox import DEFAULT_DEPTH, MAX_CONTROL_BYTES, Outbox, QueuedPacket
from derp.core.stats import PacketKind


def packet(number: int) -> QueuedPacket:
    return QueuedPacket(b"frame %d" % number, number, b"s" * 32, float(number))


def drain(outbox: Outbox) -> list[tuple[PacketKind, int]]:
    drained = []
    while (waiting := outbox.pop()) is not None:
        drained.append((waiting[0], waiting[1].size))
    return drained


class OutboxTests(SynchronousTestCase):
    """What may wait for a full socket, and what goes first."""

    def test_depth_is_the_references(self) -> None:
        """Each lane holds 32 packets unless told otherwise."""
        self.assertEqual(DEFAULT_DEPTH, 32)
        outbox = Outbox()
        for number in range(32):
            self.assertIsNone(outbox.push(PacketKind.OTHER, packet(number)))
        self.assertIsNotNone(outbox.push(PacketKind.OTHER, packet(32)))
        self.assertEqual(len(outbox), 32)

    def test_the_oldest_of_a_full_lane_makes_room(self) -> None:
        """A late packet is worth less than a fresh one."""
        outbox = Outbox(2)
        pushed = [packet(number) for number in range(4)]
        dropped = [outbox.push(PacketKind.OTHER, each) for each in pushed]
        self.assertEqual(dropped, [None, None, pushed[0], pushed[1]])
        self.assertEqual(drain(outbox), [(PacketKind.OTHER, 2), (PacketKind.OTHER, 3)])

    def test_lanes_are_apart(self) -> None:
        """A flood of data does not push out disco, nor the other way round."""
        outbox = Outbox(2)
        outbox.push(PacketKind.DISCO, packet(1))
        for number in range(10, 20):
            outbox.push(PacketKind.OTHER, packet(number))
        outbox.push(PacketKind.DISCO, packet(2))
        self.assertEqual(
            drain(outbox),
            [
                (PacketKind.DISCO, 1),
                (PacketKind.DISCO, 2),
                (PacketKind.OTHER, 18),
                (PacketKind.OTHER, 19),
            ],
        )

    def test_depth_of_one(self) -> None:
        """The smallest depth keeps the newest packet."""
        outbox = Outbox(1)
        outbox.push(PacketKind.OTHER, packet(1))
        dropped = outbox.push(PacketKind.OTHER, packet(2))
        assert dropped is not None
        self.assertEqual(dropped.size, 1)
        self.assertEqual(drain(outbox), [(PacketKind.OTHER, 2)])

    def test_no_depth_is_our_mistake(self) -> None:
        """An outbox that can hold nothing could only lose the packet it is given."""
        for depth in (0, -1):
            self.assertRaises(ValueError, Outbox, depth)

    def test_control_frames_keep_their_order(self) -> None:
        """Presence must be told in the order it changed."""
        outbox = Outbox()
        for number in range(5):
            self.assertTrue(outbox.push_control(b"%d" % number))
        self.assertEqual(
            [outbox.pop_control() for _ in range(6)], [*map(b"%d".__mod__, range(5)), None]
        )

    def test_control_frames_are_bounded(self) -> None:
        """What does not fit is refused and not kept; what leaves makes room."""
        self.assertEqual(MAX_CONTROL_BYTES, 1 << 20)
        outbox = Outbox()
        half = bytes(MAX_CONTROL_BYTES // 2)
        self.assertTrue(outbox.push_control(half))
        self.assertTrue(outbox.push_control(half))
        self.assertFalse(outbox.push_control(b"x"))
        self.assertFalse(outbox.push_control(b"x"))
        self.assertEqual(outbox.pop_control(), half)
        self.assertTrue(outbox.push_control(half))
        self.assertEqual([outbox.pop_control() for _ in range(3)], [half, half, None])

    def test_truth(self) -> None:
        """An outbox is true while anything waits in it, of whatever sort."""
        self.assertFalse(Outbox())
        for kind in PacketKind:
            outbox = Outbox()
            outbox.push(kind, packet(1))
            self.assertTrue(outbox)
            outbox.pop()
            self.assertFalse(outbox)
        outbox = Outbox()
        outbox.push_control(b"x")
        self.assertTrue(outbox)
        outbox.pop_control()
        self.assertFalse(outbox)
        outbox.pong = b"pong"
        self.assertTrue(outbox)
