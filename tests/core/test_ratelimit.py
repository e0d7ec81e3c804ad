"""Tests for :mod:`derp.core.ratelimit`."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.ratelimit import TokenBucket

STEPS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3000)), max_size=60)


class TokenBucketTests(SynchronousTestCase):
    def test_full_at_first(self) -> None:
        """A new bucket gives its burst at once, and then one rate's worth per second."""
        bucket = TokenBucket(65568, 65568, 100.0)
        self.assertTrue(bucket.take(65568, 100.0))
        self.assertFalse(bucket.take(1, 100.0))
        self.assertEqual(bucket.wait_for(65568, 100.0), 1.0)
        self.assertFalse(bucket.take(65568, 100.99))
        self.assertTrue(bucket.take(65568, 101.0))

    def test_never_more_than_burst(self) -> None:
        """Being idle for long earns no more than the burst."""
        bucket = TokenBucket(1000, 2000, 0.0)
        self.assertTrue(bucket.take(2000, 1e6))
        self.assertFalse(bucket.take(1, 1e6))

    def test_refusal_costs_nothing(self) -> None:
        """Who cannot have what it wants keeps what is there."""
        bucket = TokenBucket(10, 10, 0.0)
        self.assertFalse(bucket.take(11, 0.0))
        self.assertTrue(bucket.take(10, 0.0))

    def test_clock_set_back(self) -> None:
        """A step back neither gives nor takes, and time counts from the new reading."""
        bucket = TokenBucket(10, 10, 100.0)
        self.assertTrue(bucket.take(10, 100.0))
        self.assertFalse(bucket.take(1, 50.0))
        self.assertTrue(bucket.take(10, 51.0))

    def test_unlimited(self) -> None:
        """An infinite rate is no limit, whatever the burst."""
        bucket = TokenBucket(inf, 0, 0.0)
        self.assertTrue(bucket.take(1e12, 0.0))
        self.assertEqual(bucket.wait_for(1e12, 0.0), 0.0)

    def test_never(self) -> None:
        """What the bucket cannot hold, and what no rate brings, will never be there."""
        self.assertEqual(TokenBucket(1, 10, 0.0).wait_for(11, 0.0), inf)
        empty = TokenBucket(0, 10, 0.0)
        self.assertTrue(empty.take(10, 0.0))
        self.assertEqual(empty.wait_for(1, 5.0), inf)

    @given(STEPS, st.integers(1, 5000), st.integers(1, 5000))
    def test_bound(self, steps: list[tuple[float, int]], rate: int, burst: int) -> None:
        """Whatever is asked when, no more is given than burst and rate allow."""
        bucket = TokenBucket(rate, burst, 0.0)
        now = 0.0
        given_out = 0
        for pause, count in steps:
            now += pause
            if bucket.take(count, now):
                given_out += count
            self.assertLessEqual(given_out, burst + rate * now + 1e-6)

    @given(STEPS, st.integers(1, 5000), st.integers(3000, 5000))
    def test_wait_is_exact(self, steps: list[tuple[float, int]], rate: int, burst: int) -> None:
        """After the time it names there is enough, and shortly before there is not."""
        bucket = TokenBucket(rate, burst, 0.0)
        now = 0.0
        for pause, count in steps:
            now += pause
            wait = bucket.wait_for(count, now)
            if wait > 1e-3:
                self.assertFalse(bucket.take(count, now + wait - 5e-4))
                now += wait - 5e-4
                wait = 5e-4
            now += wait + 1e-6
            self.assertTrue(bucket.take(count, now))
