"""Tests for :mod:`derp.core.fair_share`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.fair_share import MOST_AT_ONCE, FairShare, ShareMember


class FairShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.share = FairShare(1000.0, 2000.0, 0.0)
        self.hog, self.modest, self.third = ShareMember(), ShareMember(), ShareMember()

    def test_nobody_waits_while_there_is_enough(self) -> None:
        """Up to the burst everything passes at once."""
        self.assertTrue(self.share.take(self.hog, 1500, 9999, 0.0))
        self.assertTrue(self.share.take(self.modest, 500, 500, 0.0))
        self.assertIsNone(self.share.wait(0.0))

    def test_line(self) -> None:
        """Who finds too little waits until there is enough, and no longer."""
        self.assertTrue(self.share.take(self.hog, 2000, 2000, 0.0))
        self.assertFalse(self.share.take(self.modest, 100, 100, 0.0))
        self.assertEqual(self.share.wait(0.0), 0.1)
        self.assertEqual(self.share.serve(0.09), [])
        self.assertEqual(self.share.serve(0.1), [self.modest])
        self.assertTrue(self.share.take(self.modest, 100, 100, 0.1))
        self.assertFalse(self.share.take(self.modest, 1, 1, 0.1))

    def test_asking_again_in_line(self) -> None:
        """Asking while waiting gives no second place."""
        self.share.take(self.hog, 2000, 2000, 0.0)
        for _ in range(3):
            self.assertFalse(self.share.take(self.modest, 100, 100, 0.0))
        self.assertEqual(self.share.waiting, 1)

    def test_no_passing_by(self) -> None:
        """While somebody waits nobody else takes what has come in meanwhile."""
        self.share.take(self.hog, 2000, 2000, 0.0)
        self.assertFalse(self.share.take(self.modest, 1000, 1000, 0.0))
        self.assertFalse(self.share.take(self.third, 100, 100, 0.5))

    def test_modest_goes_first(self) -> None:
        """Who has had little is served before who has had much, though it came later."""
        self.share.take(self.modest, 10, 10, 0.0)
        self.share.take(self.hog, 1990, 1990, 0.0)
        self.assertFalse(self.share.take(self.hog, 500, 500, 0.0))
        self.assertFalse(self.share.take(self.modest, 100, 100, 0.0))
        self.assertEqual(self.share.serve(0.1), [self.modest])

    def test_portion(self) -> None:
        """A long wish is served in portions, so that the others are not kept waiting."""
        share = FairShare(1e6, 1e6, 0.0)
        share.take(self.hog, 1_000_000, 1_000_000, 0.0)
        share.take(self.hog, 100, 500_000, 0.0)
        self.assertEqual(share.wait(0.0), MOST_AT_ONCE / 1e6)

    def test_leaving(self) -> None:
        """One that has gone is not served and holds nobody up."""
        self.share.take(self.hog, 2000, 2000, 0.0)
        self.share.take(self.modest, 2000, 2000, 0.0)
        self.share.take(self.third, 100, 100, 0.0)
        self.share.leave(self.modest)
        self.share.leave(self.modest)
        self.assertEqual(self.share.waiting, 1)
        self.assertEqual(self.share.serve(0.1), [self.third])
        self.assertIsNone(self.share.wait(0.1))

    def test_the_gone_are_forgotten(self) -> None:
        """A line that everybody leaves does not grow."""
        self.share.take(self.hog, 2000, 2000, 0.0)
        for _ in range(1000):
            member = ShareMember()
            self.share.take(member, 100, 100, 0.0)
            self.share.leave(member)
        self.assertEqual(self.share.members(), [])
        self.assertLess(len(self.share._line), 100)

    @given(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2000), st.floats(0, 1)), max_size=80)
    )
    def test_rate_holds(self, steps: list[tuple[int, int, float]]) -> None:
        """Whoever asks for what and when, all together get no more than the rate allows."""
        share = FairShare(1000.0, 2000.0, 0.0)
        members = [ShareMember() for _ in range(5)]
        now = used = 0.0
        for which, count, pause in steps:
            now += pause
            share.serve(now)
            if share.take(members[which], count, count, now):
                used += count
            owed = used + sum(member.credit for member in members)
            self.assertLessEqual(owed, 2000 + 1000 * now + 1e-6)
