"""Tests for :mod:`derp.net.timer_wheel`."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.net.timer_wheel import TimerWheel, WheelEntry


def _in_a_dictionary(entry: WheelEntry) -> bool:
    return any(isinstance(each, dict) for each in gc.get_referrers(entry))


class TimerWheelTests(SynchronousTestCase):
    """Timers fire once, in time, and can be taken back."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.13)
        self.wheel = TimerWheel(self.clock, 0.25)
        self.fired: list[str] = []

    def test_never_early_at_most_a_tick_late(self) -> None:
        """An entry fires within one tick after its time and not before."""
        self.wheel.schedule(2.0, lambda: self.fired.append("a"))
        self.clock.advance(1.99)
        self.assertEqual(self.fired, [])
        self.clock.advance(0.26)
        self.assertEqual(self.fired, ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_order(self) -> None:
        """Earlier entries fire first, whenever they were made."""
        self.wheel.schedule(5, lambda: self.fired.append("late"))
        self.wheel.schedule(1, lambda: self.fired.append("early"))
        self.clock.advance(10)
        self.assertEqual(self.fired, ["early", "late"])

    def test_one_delayed_call(self) -> None:
        """However many entries there are, the reactor holds one call."""
        for delay in range(100):
            self.wheel.schedule(delay, lambda: None)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_cancel(self) -> None:
        """A cancelled entry does not fire, and says that it is not active."""
        entry = self.wheel.schedule(1, lambda: self.fired.append("a"))
        self.assertTrue(entry.active)
        entry.cancel()
        self.assertFalse(entry.active)
        self.clock.advance(2)
        self.assertEqual(self.fired, [])

    def test_cancelled_leaves_at_once(self) -> None:
        """A cancelled entry takes no room until its time has come."""
        entries = [self.wheel.schedule(1, lambda: None) for _ in range(3)]
        entries[0].cancel()
        held = [each for each in entries if _in_a_dictionary(each)]
        self.assertEqual(held, entries[1:])

    def test_leaves_no_cycles(self) -> None:
        """What has fired, was cancelled or stopped is gone without the garbage collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        before = len([each for each in gc.get_objects() if isinstance(each, WheelEntry)])
        for _ in range(3):
            self.wheel.schedule(1, lambda: None)
        self.wheel.schedule(1, lambda: None).cancel()
        self.clock.advance(2)
        self.wheel.schedule(1, lambda: None)
        self.wheel.stop()
        after = len([each for each in gc.get_objects() if isinstance(each, WheelEntry)])
        self.assertEqual(after, before)

    def test_cancel_from_within(self) -> None:
        """One that fires may cancel those beside it, which fire no more, and itself."""

        def first() -> None:
            self.fired.append("first")
            for entry in entries[:2]:
                entry.cancel()

        calls = (first, lambda: self.fired.append("second"), lambda: self.fired.append("third"))
        entries = [self.wheel.schedule(1, call) for call in calls]
        self.clock.advance(2)
        self.assertEqual(self.fired, ["first", "third"])

    def test_reschedule_from_within(self) -> None:
        """A call may schedule the next one (a keepalive does)."""

        def again() -> None:
            self.fired.append("x")
            self.wheel.schedule(1, again)

        self.wheel.schedule(1, again)
        self.clock.pump([0.25] * 20)
        self.assertEqual(len(self.fired), 4)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_failing_call_is_logged_and_alone(self) -> None:
        """One that raises does not take the others of its tick along."""
        self.wheel.schedule(1, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        self.wheel.schedule(1, lambda: self.fired.append("b"))
        self.clock.advance(2)
        self.assertEqual(self.fired, ["b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        """A stopped wheel leaves nothing behind in the reactor."""
        self.wheel.schedule(1, lambda: self.fired.append("a"))
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_repeating(self) -> None:
        """A timer that sets itself anew does not hold up those that are due before it."""

        def repeat() -> None:
            self.fired.append("repeating")
            self.wheel.schedule(60, repeat)

        self.wheel.schedule(1, repeat)
        self.wheel.schedule(2, lambda: self.fired.append("once"))
        self.clock.pump([0.25] * 9)
        self.assertEqual(self.fired, ["repeating", "once"])
