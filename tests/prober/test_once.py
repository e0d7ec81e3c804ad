"""Tests for :mod:`derp.prober.once`."""

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from derp.prober.check import Check, ProbeFailed
from derp.prober.once import OnceReport
from derp.prober.prober import Prober
from tests.prober.checks import FakeCheck, failing, nothing


class OnceTests(SynchronousTestCase):
    """Every probe once, and what is said then."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.prober = Prober(self.clock, spread=False, once=True, wall_time=self.clock.seconds)
        self.addCleanup(self.prober.stop)
        self.once = OnceReport(self.prober)

    def code(self) -> tuple[int, list[str]]:
        """Exit code and what a report says."""
        with capturedLogs() as logged:
            code = self.once.report()
        return code, [formatEvent(event) for event in logged]

    def test_probes_of_probes(self) -> None:
        """A probe that is added by another one's run is waited for."""
        inner = FakeCheck(self.clock)

        async def run() -> None:
            self.prober.add("inner", 10.0, inner.check)

        outer = Check(probe_class="derp_map", labels={}, run=run)
        self.prober.add("outer", 10.0, outer)
        self.assertNoResult(self.once.done)
        self.clock.advance(3)
        inner.succeed()
        self.assertEqual(self.successResultOf(self.once.done), 0)

    def test_spread(self) -> None:
        """One that has not begun yet is waited for."""
        self.prober = Prober(self.clock, spread=True, once=True, wall_time=self.clock.seconds)
        self.addCleanup(self.prober.stop)
        self.once = OnceReport(self.prober)
        fake = FakeCheck(self.clock)
        fake.at_once = nothing
        for name in ("a", "b", "c"):
            self.prober.add(name, 10.0, fake.check)
        self.assertNoResult(self.once.done)
        self.clock.advance(10)
        self.assertEqual((self.successResultOf(self.once.done), len(fake.begun)), (0, 3))

    def test_hanging(self) -> None:
        """A check that never ends is bad, and does not keep us."""
        self.prober.add("a", 10.0, FakeCheck(self.clock).check)
        self.clock.advance(8)
        self.assertEqual(self.successResultOf(self.once.done), 1)

    def test_interrupted(self) -> None:
        """Who ends before all have ended has no report, and so not that all is good."""
        hanging, good = FakeCheck(self.clock), FakeCheck(self.clock)
        good.at_once = nothing
        self.prober.add("a", 10.0, hanging.check)
        self.prober.add("b", 10.0, good.check)
        self.prober.stop()
        self.assertNoResult(self.once.done)

    def test_report(self) -> None:
        """Good ones first, then bad ones, each by name; one that never ended is left out."""
        fakes = {name: FakeCheck(self.clock) for name in ("z", "b", "a", "y", "open")}
        for name, fake in fakes.items():
            self.prober.add(name, 10.0, fake.check)
        self.clock.advance(0.25)
        fakes["z"].succeed()
        fakes["b"].succeed()
        fakes["a"].fail(ProbeFailed("no answer"))
        fakes["y"].fail(ProbeFailed("refused"))
        self.assertEqual(
            self.code(),
            (1, ["good: b: 250ms", "good: z: 250ms", "bad: a: no answer", "bad: y: refused"]),
        )

    def test_all_good(self) -> None:
        """Nothing bad is 0; nothing at all is not."""
        self.assertEqual(self.code()[0], 1)
        fake = FakeCheck(self.clock)
        fake.at_once = nothing
        self.prober.add("a", 10.0, fake.check)
        self.assertEqual(self.code(), (0, ["good: a: 0s"]))
        self.assertEqual(self.successResultOf(self.once.done), 0)

    def test_bad_map(self) -> None:
        """If there is no map there is one bad probe."""
        fake = FakeCheck(self.clock)
        fake.at_once = failing(ProbeFailed("the DERP map is empty"))
        self.prober.add("derpmap-probe", 10.0, fake.check)
        self.assertEqual(self.successResultOf(self.once.done), 1)
