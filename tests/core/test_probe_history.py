"""Tests for :mod:`derp.core.probe_history`."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.probe_history import (
    FAILURES,
    MAX_ERROR,
    MINUTES,
    RECENT,
    SAMPLE,
    Minute,
    ProbeHistory,
)

T0 = 1_700_000_040.0
"""The beginning of a minute."""


def run(history: ProbeHistory, start: float, latency: float = 0.5, error: str = "") -> None:
    """One run, from its start to its end."""
    history.begin(start)
    history.end(start + latency, latency, error)


class StatusTests(SynchronousTestCase):
    """What a history says of the last run."""

    def test_statuses(self) -> None:
        """Unknown, running, succeeded, running again over a known success, failed."""
        history = ProbeHistory()
        self.assertEqual((history.status, history.started), ("unknown", None))
        history.begin(T0)
        self.assertEqual((history.status, history.last_status), ("running", "unknown"))
        history.end(T0 + 2, 2.0)
        self.assertEqual((history.status, history.latency), ("succeeded", 2.0))
        history.begin(T0 + 10)
        self.assertEqual((history.status, history.last_status), ("running", "succeeded"))
        self.assertEqual((history.started, history.ended), (T0 + 10, T0 + 2))
        history.end(T0 + 11, 1.0, "no answer")
        self.assertEqual((history.status, history.error), ("failed", "no answer"))
        self.assertIsNone(history.latency)

    def test_overlapping(self) -> None:
        """Two runs at a time: it runs until both have ended, each with its own latency."""
        history = ProbeHistory()
        history.begin(T0)
        history.begin(T0 + 1)
        history.end(T0 + 3, 3.0)
        self.assertEqual((history.status, history.latency), ("running", 3.0))
        history.end(T0 + 5, 4.0)
        self.assertEqual((history.status, history.latency), ("succeeded", 4.0))

    def test_withdrawn(self) -> None:
        """A run that was called off leaves no trace but its start."""
        history = ProbeHistory()
        run(history, T0)
        history.begin(T0 + 9)
        history.withdraw()
        self.assertEqual(history.status, "succeeded")
        self.assertEqual(list(history.results), [True])

    def test_recovered(self) -> None:
        """A success clears the error, and not the list of failures."""
        history = ProbeHistory()
        run(history, T0, error="no answer")
        run(history, T0 + 15)
        self.assertEqual((history.status, history.error), ("succeeded", ""))
        self.assertEqual(list(history.failures), [(T0 + 0.5, "no answer")])

    def test_counters(self) -> None:
        """Runs and seconds are counted by outcome."""
        history = ProbeHistory()
        run(history, T0, 1.0)
        run(history, T0 + 9, 2.0)
        run(history, T0 + 20, 4.0, "late")
        self.assertEqual((history.ok_runs, history.ok_seconds), (2, 3.0))
        self.assertEqual((history.failed_runs, history.failed_seconds), (1, 4.0))

    def test_clock_set_back(self) -> None:
        """Latencies do not mind, and no minute is older than the one before it."""
        history = ProbeHistory()
        run(history, T0 + 120)
        history.begin(T0 + 130)
        history.end(T0, 0.25)
        self.assertEqual((history.ended, history.latency), (T0, 0.25))
        self.assertEqual([each.runs for each in history.minutes], [2])

    def test_error_is_bounded(self) -> None:
        """What a server says cannot fill our memory, nor our log with lines."""
        history = ProbeHistory()
        run(history, T0, error="x\n" * MAX_ERROR)
        self.assertEqual(len(history.error), MAX_ERROR)
        self.assertNotIn("\n", history.error)


class RecentTests(SynchronousTestCase):
    """The last results."""

    def test_ratio_and_median(self) -> None:
        """The median is the middle in time order, as the reference takes it."""
        history = ProbeHistory()
        self.assertEqual((history.success_ratio, history.middle_latency), (0.0, 0.0))
        for number, latency in enumerate((5.0, 1.0, 9.0, 2.0)):
            run(history, T0 + number * 15, latency)
        run(history, T0 + 99, error="no")
        self.assertEqual(history.success_ratio, 0.8)
        self.assertEqual(history.middle_latency, 9.0)

    def test_ten(self) -> None:
        """Ten of each are kept."""
        history = ProbeHistory()
        for number in range(25):
            run(history, T0 + number * 15, float(number), "no" if number % 2 else "")
        self.assertEqual(list(history.results), [False, True] * 5)
        self.assertEqual(list(history.latencies), [float(n) for n in range(6, 25, 2)])


class MinuteTests(SynchronousTestCase):
    """:class:`Minute`."""

    def test_all_of_few(self) -> None:
        """Few latencies are all kept."""
        minute = Minute(T0)
        for latency in (0.1, None, 0.3):
            minute.add(latency)
        self.assertEqual((minute.runs, minute.failures), (3, 1))
        self.assertEqual(list(minute.latencies), [0.1, 0.3])

    @given(st.integers(0, 2000))
    def test_sample(self, count: int) -> None:
        """Of many an even sample is kept, from the first on."""
        minute = Minute(T0)
        for number in range(count):
            minute.add(float(number))
        kept = list(minute.latencies)
        self.assertEqual(minute.runs, count)
        self.assertLessEqual(len(kept), SAMPLE)
        self.assertGreaterEqual(len(kept), min(count, SAMPLE // 2))
        steps = {after - before for before, after in pairwise(kept)}
        self.assertLessEqual(len(steps), 1)
        self.assertEqual(kept[:1], [0.0][:count])


class PercentileTests(SynchronousTestCase):
    """:meth:`ProbeHistory.percentile`."""

    def test_known(self) -> None:
        """Nearest rank, over successes of all minutes."""
        history = ProbeHistory()
        self.assertIsNone(history.percentile(50))
        for number in range(100):
            run(history, T0 + number * 30, (number * 37 % 100 + 1) / 8)
        run(history, T0 + 9999, 500.0, "no")
        found = [history.percentile(p) for p in (0, 1, 50, 95, 99, 100)]
        self.assertEqual(found, [each / 8 for each in (1, 1, 50, 95, 99, 100)])

    def test_follows(self) -> None:
        """A new run changes what was already asked for."""
        history = ProbeHistory()
        run(history, T0, 1.0)
        self.assertEqual(history.percentile(100), 1.0)
        run(history, T0 + 15, 3.0)
        self.assertEqual(history.percentile(100), 3.0)

    def test_six_hours(self) -> None:
        """What is older than six hours does not count any more."""
        history = ProbeHistory()
        run(history, T0, 9.0)
        run(history, T0 + (MINUTES - 1) * 60, 1.0)
        self.assertEqual(history.percentile(100), 9.0)
        run(history, T0 + MINUTES * 60, 1.0)
        self.assertEqual(history.percentile(100), 1.0)


class BoundTests(SynchronousTestCase):
    """Nothing grows."""

    def test_month(self) -> None:
        """After a month of a run every 15 s, every third a failure, all has its bound."""
        history = ProbeHistory()
        for number in range(31 * 24 * 60 * 4):
            run(history, T0 + number * 15, 0.1, "no answer" if number % 3 == 0 else "")
        self.assertEqual(len(history.results), RECENT)
        self.assertEqual(len(history.latencies), RECENT)
        self.assertEqual(len(history.minutes), MINUTES)
        self.assertEqual(len(history.failures), FAILURES)
        self.assertEqual({each.runs for each in history.minutes}, {4})
        self.assertEqual(history.ok_runs + history.failed_runs, 31 * 24 * 60 * 4)
