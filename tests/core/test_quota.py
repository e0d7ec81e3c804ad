"""Tests for :mod:`derp.core.quota`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.quota import KEPT, MonthlyQuota, first_of_next, month_of

MONTHS = st.sampled_from(["1970-01", "2025-12", "2026-01", "2026-02", "2031-07"])


class QuotaTests(SynchronousTestCase):
    def test_counting(self) -> None:
        """What passed is counted from the totals, and the limit is reached exactly."""
        quota = MonthlyQuota({}, "2026-11", 100)
        quota.note(60, "2026-11")
        self.assertFalse(quota.exhausted)
        quota.note(99, "2026-11")
        self.assertFalse(quota.exhausted)
        quota.note(100, "2026-11")
        self.assertTrue(quota.exhausted)
        self.assertEqual(quota.used, 100)

    def test_restart(self) -> None:
        """A new process goes on where the last one was, with totals of its own."""
        first = MonthlyQuota({}, "2026-11", 100)
        first.note(70, "2026-11")
        second = MonthlyQuota(first.months, "2026-11", 100)
        second.note(30, "2026-11")
        self.assertTrue(second.exhausted)

    def test_two_who_count(self) -> None:
        """What the other one added is added here; what it took away is not."""
        quota = MonthlyQuota({"2026-10": 5, "2026-11": 70}, "2026-11", 100)
        quota.note(10, "2026-11")
        quota.join({"2026-10": 5, "2026-11": 70}, {"2026-10": 4, "2026-11": 72, "2026-12": 1})
        self.assertEqual(quota.months, {"2026-10": 5, "2026-11": 82, "2026-12": 1})

    def test_new_month(self) -> None:
        """A new month begins at zero; the totals go on."""
        quota = MonthlyQuota({"2026-11": 90}, "2026-11", 100)
        quota.note(10, "2026-11")
        self.assertTrue(quota.exhausted)
        quota.note(15, "2026-12")
        self.assertEqual((quota.used, quota.exhausted), (5, False))
        quota.note(20, "2027-01")
        self.assertEqual((quota.month, quota.used), ("2027-01", 5))

    def test_no_limit(self) -> None:
        """Without a limit it is counted all the same, and never used up."""
        quota = MonthlyQuota({}, "2026-11", 0)
        quota.note(1 << 60, "2026-11")
        self.assertFalse(quota.exhausted)

    def test_step_forward_and_back(self) -> None:
        """A wrong year gives nothing away: what passed in it counts when the clock is right."""
        quota = MonthlyQuota({}, "2026-11", 100)
        quota.note(50, "2026-11")
        quota.note(80, "2031-02")
        self.assertEqual(quota.used, 30)
        quota.note(90, "2026-11")
        self.assertEqual((quota.used, quota.months), (90, {"2026-11": 90}))

    def test_step_back(self) -> None:
        """Set back by a month, it goes on from what was counted, not from zero."""
        quota = MonthlyQuota({}, "2026-11", 100)
        quota.note(100, "2026-11")
        quota.note(100, "2026-10")
        self.assertTrue(quota.exhausted)

    def test_unset_clock(self) -> None:
        """A machine without a clock goes on with the last month it knew."""
        quota = MonthlyQuota({"2026-10": 5, "2026-11": 100}, "1970-01", 100)
        self.assertEqual((quota.month, quota.exhausted), ("2026-11", True))
        quota.note(7, "1970-01")
        quota.note(8, "2026-11")
        self.assertEqual(quota.used, 108)

    def test_first_start_without_a_clock(self) -> None:
        """What passed before the clock was ever set counts for the first real month."""
        quota = MonthlyQuota({}, "1970-01", 100)
        quota.note(60, "1970-01")
        quota.note(70, "2026-11")
        self.assertEqual(quota.months, {"2026-11": 70})

    def test_bounded(self) -> None:
        """Old months are forgotten."""
        months = {f"{year}-01": 1 for year in range(2025, 2100)}
        self.assertEqual(len(MonthlyQuota(months, "2100-01", 0).months), KEPT)

    @given(st.lists(st.tuples(MONTHS, st.integers(0, 50)), max_size=30))
    def test_nothing_is_lost(self, steps: list[tuple[str, int]]) -> None:
        """However the clock steps, every byte stays in some month's count."""
        quota = MonthlyQuota({}, "2026-01", 100)
        total = 0
        for month, more in steps:
            total += more
            quota.note(total, month)
            self.assertEqual(sum(quota.months.values()), total)

    def test_months(self) -> None:
        """Months are written so that they sort, and end where the next one begins."""
        self.assertEqual(month_of(2026, 3), "2026-03")
        self.assertEqual(first_of_next("2026-11"), "2026-12-01")
        self.assertEqual(first_of_next("2026-12"), "2027-01-01")
