"""Tests for :mod:`derp.core.probe_spread`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.probe_spread import fnv1_64, initial_delay


class HashTests(SynchronousTestCase):
    """:func:`fnv1_64`."""

    def test_known(self) -> None:
        """Values of FNV's authors (test vectors of their reference code)."""
        self.assertEqual(fnv1_64(b""), 0xCBF29CE484222325)
        self.assertEqual(fnv1_64(b"a"), 0xAF63BD4C8601B7BE)
        self.assertEqual(fnv1_64(b"foobar"), 0x340D8765A4DDA9C2)


class DelayTests(SynchronousTestCase):
    """:func:`initial_delay`."""

    @given(st.text(), st.floats(1e-3, 1e7))
    def test_range(self, name: str, interval: float) -> None:
        """Never a whole interval, never negative, the same each time."""
        delay = initial_delay(name, interval)
        self.assertGreaterEqual(delay, 0)
        self.assertLess(delay, interval)
        self.assertEqual(delay, initial_delay(name, interval))

    def test_spread(self) -> None:
        """Names of one map spread over the interval, also those that differ at their end only."""
        names = [f"derp/fra/{node}a/udp{n}" for node in range(20) for n in range(5)]
        tenths = [int(initial_delay(name, 10)) for name in names]
        self.assertEqual(len(set(tenths)), 10)
        self.assertLess(max(map(tenths.count, range(10))), 25)
        near = [initial_delay(f"derp/fra/1a/{end}", 1) for end in "abcdefgh"]
        self.assertGreater(max(near) - min(near), 0.3)
