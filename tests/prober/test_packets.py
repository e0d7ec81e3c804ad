"""Tests of :mod:`derp.prober.packets`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from derp.prober.packets import PACKET_LEN, packets_for_size


class PacketTests(SynchronousTestCase):
    """How a payload is split."""

    def test_one_packet(self) -> None:
        """What fits into a packet is one, of new bytes each time."""
        for size in (1, 8, 8192, 65536):
            (packet,) = packets_for_size(size)
            self.assertEqual(len(packet), size)
        for size in (8, 8192, 65536):
            self.assertNotEqual(*(list(packets_for_size(size)) for _ in range(2)))

    def test_several_packets(self) -> None:
        """What does not is cut into the longest possible ones, the same each time."""
        for size, count in ((65537, 2), (500_000, 8), (1_000_000, 16)):
            packets = list(packets_for_size(size))
            self.assertEqual(len(packets), count)
            self.assertEqual(len(packets_for_size(size)), count)
            self.assertEqual(sum(map(len, packets)), size)
            self.assertEqual({len(packet) for packet in packets[:-1]}, {PACKET_LEN})
            self.assertEqual(list(packets_for_size(size)), packets)

    def test_all_differ(self) -> None:
        """No two packets of a payload are the same, not even one of a single byte."""
        packets = list(packets_for_size(PACKET_LEN * 9 + 1))
        self.assertEqual(len({packet[: len(packets[-1])] for packet in packets}), len(packets))

    def test_indexes(self) -> None:
        """Packets are a sequence: from either end, and by slices."""
        packets = packets_for_size(200_000)
        self.assertEqual(packets[-1], list(packets)[3])
        self.assertEqual(packets[1:3], list(packets)[1:3])
        self.assertRaises(IndexError, lambda: packets[4])

    def test_nothing(self) -> None:
        """There is no empty payload."""
        self.assertRaises(ValueError, packets_for_size, 0)
