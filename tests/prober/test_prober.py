"""Tests for :mod:`derp.prober.prober`."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.core.probe_spread import initial_delay
from derp.prober.probe import Probe
from derp.prober.prober import ONCE_CONTINUOUS_S, Prober
from tests.prober.checks import FakeCheck, Heard, nothing


class ProberTestCase(SynchronousTestCase):
    """A prober in virtual time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fake = FakeCheck(self.clock)
        self.heard = Heard()

    def prober(self, *, spread: bool = False, once: bool = False) -> Prober:
        """A prober that tells us what happens."""
        prober = Prober(self.clock, spread=spread, once=once, wall_time=self.clock.seconds)
        prober.listeners.append(self.heard)
        self.addCleanup(prober.stop)
        return prober


class SpreadTests(ProberTestCase):
    """When probes begin."""

    def test_spread(self) -> None:
        """Each after the delay of its name; a continuous one at once."""
        self.fake.at_once = nothing
        prober = self.prober(spread=True)
        delay = initial_delay("a", 60.0)
        self.assertGreater(delay, 1)
        prober.add("a", 60.0, self.fake.check)
        self.clock.advance(delay - 0.01)
        self.assertEqual(self.fake.begun, [])
        self.clock.advance(0.02)
        self.assertEqual(len(self.fake.begun), 1)
        self.clock.advance(60)
        self.assertEqual(len(self.fake.begun), 2)
        prober.add("b", -60.0, self.fake.check)
        self.assertEqual(len(self.fake.begun), 3)

    def test_no_spread(self) -> None:
        """At once."""
        self.prober().add("a", 60.0, self.fake.check)
        self.assertEqual(self.fake.begun, [0.0])


class AddRemoveTests(ProberTestCase):
    """The set of probes."""

    def test_life(self) -> None:
        """What listeners hear of a probe from its beginning to its end."""
        prober = self.prober()
        probe = prober.add("a", 10.0, self.fake.check)
        self.assertEqual(prober.probes, {"a": probe})
        self.fake.succeed()
        self.clock.advance(10)
        self.successResultOf(prober.remove("a"))
        expected = ["unknown", "running", "succeeded", "running", "removed"]
        self.assertEqual(self.heard.events, [("a", event) for event in expected])
        self.assertEqual((prober.probes, self.clock.getDelayedCalls()), ({}, []))

    def test_bad(self) -> None:
        """One name, one probe; no interval, no probe."""
        prober = self.prober()
        prober.add("a", 10.0, self.fake.check)
        self.assertRaises(ValueError, prober.add, "a", 10.0, self.fake.check)
        self.assertRaises(ValueError, prober.add, "b", 0.0, self.fake.check)
        self.assertRaises(KeyError, prober.remove, "b")

    def test_replaced(self) -> None:
        """A name is free as soon as its probe is removed, even if that still runs."""
        prober = self.prober()
        self.fake.stubborn = True
        prober.add("a", 10.0, self.fake.check)
        leaving = prober.remove("a")
        other = FakeCheck(self.clock)
        replacement = prober.add("a", 10.0, other.check)
        self.assertNoResult(leaving)
        self.fake.succeed()
        self.successResultOf(leaving)
        self.assertEqual((replacement.in_flight, prober.probes), (1, {"a": replacement}))

    def test_stop(self) -> None:
        """Of a hundred probes that were removed none runs any more, and no timer is left."""
        prober = self.prober()
        self.fake.at_once = nothing
        for number in range(100):
            prober.add(str(number), 10.0, self.fake.check)
        for number in range(50):
            prober.remove(str(number))
        self.clock.advance(10)
        self.assertEqual(len(self.fake.begun), 150)
        self.assertEqual(len(self.clock.getDelayedCalls()), 50)
        self.successResultOf(prober.stop())
        self.assertEqual((prober.probes, self.clock.getDelayedCalls()), ({}, []))

    def test_broken_listener(self) -> None:
        """A listener that fails is logged, and disturbs nobody."""

        def broken(probe: Probe) -> None:
            raise RuntimeError("broken listener")

        prober = self.prober()
        prober.listeners.insert(0, broken)
        prober.add("a", 10.0, self.fake.check)
        self.fake.succeed()
        self.assertEqual(self.heard.events[-1], ("a", "succeeded"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)
        del prober.listeners[0]


class RunNowTests(ProberTestCase):
    """:meth:`Prober.run_now`."""

    def test_known(self) -> None:
        """By name; neither unknown ones nor such as run all the time."""
        prober = self.prober()
        prober.add("a", 10.0, self.fake.check)
        prober.add("b", -10.0, self.fake.check)
        self.fake.succeed()
        self.fake.at_once = nothing
        self.assertTrue(self.successResultOf(prober.run_now("a")).succeeded)
        for name in ("b", "c"):
            self.assertRaises(KeyError, prober.run_now, name)


class OnceTests(ProberTestCase):
    """A prober that runs all once."""

    def test_once(self) -> None:
        """Periodic ones run once; continuous ones for a while."""
        prober = self.prober(once=True)
        self.fake.at_once = nothing
        lasting = FakeCheck(self.clock)
        prober.add("a", 10.0, self.fake.check)
        probe = prober.add("b", -10.0, lasting.check)
        lasting.found = {"sent": 9}
        self.clock.advance(ONCE_CONTINUOUS_S)
        self.clock.advance(100)
        self.assertEqual((len(self.fake.begun), len(lasting.begun)), (1, 1))
        self.assertEqual(probe.history.status, "succeeded")


class MonthTests(ProberTestCase):
    """Days on end."""

    def test_month(self) -> None:
        """A month of virtual time: as many timers as probes, and histories of bounded size."""
        prober = self.prober(spread=True)
        checks = [FakeCheck(self.clock) for _ in range(4)]
        names = ("works", "fails", "hangs", "lasts")
        checks[0].at_once = nothing
        checks[3].at_once = lambda: 1 / 0  # type: ignore[assignment, return-value]
        for name, check in zip(names, checks, strict=True):
            prober.add(name, -600.0 if name == "lasts" else 600.0, check.check)
        most = 0
        for _ in range(31 * 24 * 6):
            self.clock.advance(600.0)
            if checks[1].open:
                checks[1].fail(OSError("refused"))
            most = max(most, len(self.clock.getDelayedCalls()))
        self.assertLessEqual(most, 2 * len(names))
        for probe in prober.probes.values():
            history = probe.history
            self.assertGreater(history.ok_runs + history.failed_runs, 31 * 24 * 6 - 20)
            self.assertLessEqual(len(history.minutes), 360)
            self.assertLessEqual(len(history.failures), 20)
            self.assertLessEqual(probe.in_flight, 1)
        self.assertEqual(prober.probes["works"].history.failed_runs, 0)
        for name in names[1:]:
            self.assertEqual(prober.probes[name].history.ok_runs, 0, name)
