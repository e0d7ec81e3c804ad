"""Tests for :mod:`derp.core.stats`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.stats import DropReason, Histogram, PacketKind, Stats


class HistogramTests(SynchronousTestCase):
    """Counts at or below bounds."""

    def test_a_bound_belongs_to_its_bucket(self) -> None:
        """A value on a bound counts there, one past the last counts under infinity."""
        histogram = Histogram(1, 2)
        for value in (0.5, 1, 1.5, 2, 2.5):
            histogram.observe(value)
        self.assertEqual(histogram.cumulative(), [2, 4, 5])
        self.assertEqual(histogram.total, 7.5)

    @given(st.lists(st.integers(0, 120)))
    def test_cumulative(self, values: list[int]) -> None:
        """Each cumulative count is the number of values at or below its bound."""
        histogram = Stats().buffered_write_frames
        for value in values:
            histogram.observe(value)
        expected = [sum(value <= bound for value in values) for bound in histogram.bounds]
        self.assertEqual(histogram.cumulative(), [*expected, len(values)])


class InitialTests(SynchronousTestCase):
    """A relay that has just started."""

    def test_all_zero(self) -> None:
        """Every counter and gauge is there and zero."""
        numbers = {
            name: value for name, value in vars(Stats()).items() if isinstance(value, int | float)
        }
        self.assertGreater(len(numbers), 25)
        self.assertEqual(set(numbers.values()), {0})
        for name in ("accepts", "logins_refused", "protocol_errors", "login_timeouts"):
            self.assertIn(name, numbers)

    def test_bounds(self) -> None:
        """The histograms have derper's bounds."""
        stats = Stats()
        bounds = (0, 1, 2, 5, 10, 20, 50, 100)
        self.assertEqual(stats.mesh_update_loop_count.bounds, bounds)
        self.assertEqual(stats.mesh_update_batch_size.bounds, (*bounds, 200, 500, 1000))
        frames = (*range(11), 15, 20, 25, 50, 100)
        self.assertEqual(stats.buffered_write_frames.bounds, frames)


class DropTests(SynchronousTestCase):
    """Lost packets by reason and kind."""

    def test_counts_by_reason_and_kind(self) -> None:
        """A drop counts once, under its own reason and kind, with its bytes."""
        stats = Stats()
        stats.drop(DropReason.QUEUE_HEAD, PacketKind.DISCO, 70, b"s", b"d")
        stats.drop(DropReason.QUEUE_HEAD, PacketKind.DISCO, 30, b"s", b"d")
        stats.drop(DropReason.DUP_CLIENT, PacketKind.OTHER, 0, b"s", b"d")
        self.assertEqual(stats.packets_dropped[PacketKind.DISCO][DropReason.QUEUE_HEAD], 2)
        self.assertEqual(stats.bytes_dropped[PacketKind.DISCO][DropReason.QUEUE_HEAD], 100)
        self.assertEqual(stats.packets_dropped[PacketKind.OTHER][DropReason.DUP_CLIENT], 1)
        self.assertEqual(stats.dropped, 3)
        self.assertEqual(sum(map(sum, stats.bytes_dropped)), 100)

    def test_every_combination_is_there_from_the_start(self) -> None:
        """Every reason, derper's seven among them, for both kinds: a scrape shows them all."""
        stats = Stats()
        derpers = (
            "UNKNOWN_DEST",
            "UNKNOWN_DEST_ON_FWD",
            "GONE_DISCONNECTED",
            "QUEUE_HEAD",
            "QUEUE_TAIL",
            "WRITE_ERROR",
            "DUP_CLIENT",
        )
        self.assertLessEqual(set(derpers), {reason.name for reason in DropReason})
        self.assertEqual(set(DropReason), set(range(len(DropReason))))
        self.assertEqual(stats.packets_dropped, [[0] * len(DropReason)] * 2)
        self.assertEqual(stats.bytes_dropped, [[0] * len(DropReason)] * 2)
        self.assertIsNot(stats.packets_dropped[0], stats.packets_dropped[1])

    def test_listener(self) -> None:
        """Whoever listens is told why, what, from whom and to whom."""
        stats = Stats()
        told: list[tuple[DropReason, PacketKind, bytes, bytes]] = []
        stats.drop_listener = lambda *what: told.append(what)
        stats.drop(DropReason.UNKNOWN_DEST, PacketKind.OTHER, 1, b"from", b"to")
        self.assertEqual(told, [(DropReason.UNKNOWN_DEST, PacketKind.OTHER, b"from", b"to")])


class QueueAverageTests(SynchronousTestCase):
    """The moving average of the time packets had to wait."""

    def test_no_packets(self) -> None:
        """Nothing waited, nothing to show."""
        self.assertEqual(Stats().average_queue_duration_ms, 0.0)

    def test_clock_that_was_set_back(self) -> None:
        """A negative wait is none."""
        stats = Stats()
        stats.note_queued_for(-3600.0)
        self.assertEqual(stats.average_queue_duration_ms, 0.0)

    @given(st.lists(st.none() | st.tuples(st.floats(0, 10), st.booleans())))
    def test_is_the_average_of_all_packets(self, packets: list[tuple[float, bool] | None]) -> None:
        """
        The catching up gives what entering every packet would: 0.9 of what was and 0.1 of each
        wait, none for a packet that did not have to, and for a dropped one its age too.
        """
        stats = Stats()
        average = 0.0
        for packet in packets:
            if packet is None:
                stats.packets_sent += 1
                average *= 0.9
                continue
            seconds, sent = packet
            stats.note_queued_for(seconds, sent=sent)
            stats.packets_sent += sent
            average = 0.9 * average + 0.1 * 1000 * seconds
            self.assertAlmostEqual(stats.average_queue_duration_ms, average, 6)
        self.assertAlmostEqual(stats.average_queue_duration_ms, average, 6)

    def test_long_silence_costs_nothing(self) -> None:
        """Millions of packets that did not wait bring the average to zero without a loop."""
        stats = Stats()
        stats.note_queued_for(5.0)
        stats.packets_sent += 10**9
        self.assertLess(stats.average_queue_duration_ms, 1e-9)
