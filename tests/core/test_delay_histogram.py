"""Tests of :mod:`derp.core.delay_histogram`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.delay_histogram import QUEUE_DELAY_BOUNDS, DelayHistogram, LatestDelays


class HistogramTests(SynchronousTestCase):
    """What is counted for ever."""

    def test_buckets(self) -> None:
        """Buckets hold what is at most their bound, and all of the smaller ones."""
        histogram = DelayHistogram((1, 2))
        for value in (0.5, 1, 1.5, 2, 2.5):
            histogram.observe(value)
        self.assertEqual(histogram.count, 5)
        self.assertEqual(histogram.sum, 7.5)
        self.assertEqual(histogram.buckets, {1: 2, 2: 4})

    def test_empty(self) -> None:
        """All buckets are there before anything was counted."""
        histogram = DelayHistogram()
        self.assertEqual(histogram.buckets, dict.fromkeys(QUEUE_DELAY_BOUNDS, 0))
        self.assertEqual((histogram.count, histogram.sum), (0, 0.0))

    def test_bounds(self) -> None:
        """Bounds that do not ascend are our own mistake."""
        for bounds in ((2, 1), (1, 1)):
            self.assertRaises(ValueError, DelayHistogram, bounds)


class LatestTests(SynchronousTestCase):
    """What is told of the latest packets."""

    def test_percentiles(self) -> None:
        """The value that so many percent do not exceed; order of arrival does not matter."""
        latest = LatestDelays()
        for delay in (5, 1, 4, 2, 3, 10, 9, 8, 7, 6):
            latest.arrived(delay)
        self.assertEqual(latest.percentiles(0, 10, 50, 90, 91, 99, 100), [1, 1, 5, 9, 10, 10, 10])

    def test_nothing_arrived(self) -> None:
        """Without a delay there are no percentiles, whatever was lost."""
        latest = LatestDelays()
        self.assertEqual(latest.percentiles(50), [])
        latest.lost()
        self.assertEqual(latest.percentiles(50), [])
        self.assertEqual((len(latest), latest.losses), (1, 1))

    def test_bounded(self) -> None:
        """Only the latest count: of losses, too."""
        latest = LatestDelays(3)
        latest.lost()
        for delay in (1, 2, 3):
            latest.arrived(delay)
        self.assertEqual((len(latest), latest.losses), (3, 0))
        latest.lost()
        self.assertEqual((latest.percentiles(0), latest.losses), ([2], 1))

    @given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.integers(0, 100))
    def test_share(self, delays: list[float], percent: int) -> None:
        """At least so many percent are not longer, and fewer are shorter."""
        latest = LatestDelays()
        for delay in delays:
            latest.arrived(delay)
        (found,) = latest.percentiles(percent)
        self.assertIn(found, delays)
        self.assertGreaterEqual(sum(d <= found for d in delays) * 100, percent * len(delays))
        if percent:
            self.assertLess(sum(d < found for d in delays) * 100, percent * len(delays))
