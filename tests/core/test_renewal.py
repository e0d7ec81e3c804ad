"""When certificates are renewed and failures tried again."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.renewal import (
    DAY_S,
    Backoff,
    check_interval,
    renew_before,
    renewal_time,
    rest_after_renewal,
    time_in_window,
    validity_problem,
)

LIFETIMES = st.floats(min_value=1.0, max_value=3650 * DAY_S)
LUCK = st.floats(min_value=0.0, max_value=0.999)


class RenewalTests(SynchronousTestCase):
    """The date rules."""

    def test_known_lifetimes(self) -> None:
        """90 days: 30 before the end; 45 and 6 days: a third; a year: 30 days."""
        for days, before in ((90, 30), (45, 15), (6, 2), (365, 30)):
            self.assertEqual(renew_before(0, days * DAY_S), before * DAY_S)

    @given(LIFETIMES, LUCK)
    def test_renewed_in_its_life(self, lifetime: float, luck: float) -> None:
        """Whatever the lifetime, renewal is due neither at once nor too late, and is looked for."""
        due = renewal_time(0, lifetime, luck)
        self.assertGreaterEqual(due, lifetime * 0.6)
        self.assertLess(due, lifetime)
        self.assertLessEqual(due, lifetime - renew_before(0, lifetime))
        if lifetime > 120:
            self.assertLess(due + check_interval(0, lifetime), lifetime)

    @given(LIFETIMES, LUCK)
    def test_rest(self, lifetime: float, luck: float) -> None:
        """A new certificate is left alone for a while that ends long before it is due."""
        rest = rest_after_renewal(0, lifetime)
        self.assertEqual(rest, min(lifetime / 10, 6 * 3600))
        self.assertLess(rest, renewal_time(0, lifetime, luck))

    def test_jitter_bound(self) -> None:
        """At most an hour, and a tenth of the margin."""
        self.assertEqual(renewal_time(0, 90 * DAY_S, 1.0), 60 * DAY_S - 3600)
        self.assertEqual(renewal_time(0, 3 * 3600, 1.0), 2 * 3600 - 360)

    def test_window(self) -> None:
        """A window's ends, and one that is upside down."""
        self.assertEqual(time_in_window(10, 20, 0.5), 15)
        self.assertEqual(time_in_window(20, 10, 0.5), 20)


class BackoffTests(SynchronousTestCase):
    """Failures in a row."""

    def test_doubles_to_half_an_hour(self) -> None:
        """1, 2, 4, 8, 16, 30, 30 minutes."""
        backoff = Backoff()
        delays = [backoff.failed(0, 0.0) / 60 for _ in range(7)]
        self.assertEqual(delays, [1, 2, 4, 8, 16, 30, 30])

    def test_holds_until_retry(self) -> None:
        """An attempt before the time is too early; success clears everything."""
        backoff = Backoff()
        backoff.failed(100, 0.0)
        self.assertTrue(backoff.holds(159.9))
        self.assertFalse(backoff.holds(160))
        backoff.succeeded()
        self.assertFalse(backoff.holds(0))
        self.assertEqual(backoff.failed(0, 0.0), 60)

    def test_rate_limit_wins(self) -> None:
        """An authority's wish counts if it is longer, up to a day."""
        self.assertEqual(Backoff().failed(0, 0.0, asked=5000), 5000)
        self.assertEqual(Backoff().failed(0, 0.0, asked=1e9), DAY_S)
        self.assertEqual(Backoff().failed(0, 0.0, asked=3), 60)


class ProblemTests(SynchronousTestCase):
    """What clients are told."""

    def test_long_lived(self) -> None:
        """Quiet until a day before the end."""
        end = 90 * DAY_S
        self.assertEqual(validity_problem("r", 0, end, end - DAY_S - 1), "")
        self.assertIn("expires in 23 h", validity_problem("r", 0, end, end - DAY_S + 1))
        self.assertIn("has expired", validity_problem("r", 0, end, end))
        self.assertIn("not valid yet", validity_problem("r", 5, end, 4))

    def test_short_lived(self) -> None:
        """A certificate of a day is no trouble while renewal is not even due."""
        self.assertEqual(validity_problem("r", 0, DAY_S, 3600), "")
        self.assertIn("within the hour", validity_problem("r", 0, DAY_S, DAY_S - 60))
