"""Tests of :mod:`derp.core.source_limit`."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.source_limit import SourceLimit


def limit(**options: float) -> SourceLimit:
    """Small: two per second and source, three at once, five sources, 100 in all."""
    chosen = {"rate": 2.0, "burst": 3.0, "total_rate": 100.0, "most_sources": 5, **options}
    return SourceLimit(0.0, **chosen)  # type: ignore[arg-type]


class SourceLimitTests(SynchronousTestCase):
    """How many answers a source has, and how many all have."""

    def test_source(self) -> None:
        """A burst, then the rate; another source has its own."""
        limited = limit()
        self.assertEqual([limited.allow(1, 0.0) for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertTrue(limited.allow(2, 0.0))
        self.assertEqual([limited.allow(1, 0.5) for _ in range(2)], [True, False])

    def test_total(self) -> None:
        """Many sources together have no more than the total; none of them is remembered then."""
        limited = limit(total_rate=4.0)
        allowed = [limited.allow(source, 0.0) for source in range(10)]
        self.assertEqual(allowed, [True] * 4 + [False] * 6)
        self.assertEqual(limited.sources, 4)
        self.assertTrue(limited.allow(9, 0.25))

    def test_refused_source_costs_others_nothing(self) -> None:
        """Who asks too much does not use up the total."""
        limited = limit(total_rate=4.0)
        for _ in range(50):
            limited.allow(1, 0.0)
        self.assertTrue(limited.allow(2, 0.0))

    def test_bounded(self) -> None:
        """The one longest unheard of is forgotten; one that asks stays, refused or not."""
        limited = limit()
        for source in range(5):
            for _ in range(3):
                limited.allow(source, 0.0)
        self.assertFalse(limited.allow(0, 0.0))
        limited.allow(99, 0.0)
        self.assertEqual(limited.sources, 5)
        self.assertFalse(limited.allow(0, 0.0))
        self.assertTrue(limited.allow(1, 0.0))

    @given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.0, 0.4)), max_size=200))
    def test_never_more(self, steps: list[tuple[int, float]]) -> None:
        """Whatever comes when: the table is bounded, and so are all and, if remembered, each."""
        limited = limit(total_rate=10.0)
        roomy = limit(total_rate=1e9, most_sources=100)
        now = 0.0
        total, by_source = 0, Counter[int]()
        for source, pause in steps:
            now += pause
            total += limited.allow(source, now)
            by_source[source] += roomy.allow(source, now)
            self.assertLessEqual(limited.sources, 5)
            self.assertLessEqual(total, 10 + 10 * now + 1e-6)
            self.assertLessEqual(by_source[source], 3 + 2 * now + 1e-6)
