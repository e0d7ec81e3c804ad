"""One attempt per name, shared by whoever waits."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.net.acme_problem import ACMEError
from derp.net.certificate_flights import MOST_NAMES, MOST_WAITING, Flights
from tests.certificate_files import NOW
from tests.wall_clock import WallClock


class FlightsTests(SynchronousTestCase):
    """See :class:`derp.net.certificate_flights.Flights`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = WallClock(self.clock, NOW)
        self.begun: list[tuple[str, Deferred[None]]] = []
        self.ended: list[tuple[str, str]] = []
        self.flights = Flights(
            self.clock,
            self.wall.seconds,
            self.work,
            limit_s=300,
            luck=lambda: 0.0,
            ended=lambda name, error: self.ended.append((name, error)),
        )

    def work(self, name: str) -> Deferred[None]:
        """Begin an attempt that the test ends."""
        attempt: Deferred[None] = Deferred()
        self.begun.append((name, attempt))
        return attempt

    def fail_once(self, error: Exception | None = None) -> None:
        """Let an attempt fail."""
        waiting = self.flights.board("a")
        self.clock.advance(0)
        self.begun[-1][1].errback(error or ACMEError("no"))
        self.failureResultOf(waiting, ACMEError)

    def test_shared(self) -> None:
        """Three wait, one attempt is made, all are told."""
        waiting = [self.flights.board("a") for _ in range(3)]
        self.clock.advance(0)
        self.assertEqual([name for name, _ in self.begun], ["a"])
        self.begun[0][1].callback(None)
        for each in waiting:
            self.assertIsNone(self.successResultOf(each))
        self.assertEqual(self.ended, [("a", "")])

    def test_leaving_ends_nothing(self) -> None:
        """A client that goes away leaves the flight to the others."""
        first, second = self.flights.board("a"), self.flights.board("a")
        self.clock.advance(0)
        first.cancel()
        self.failureResultOf(first)
        self.begun[0][1].callback(None)
        self.successResultOf(second)

    def test_names_fly_alone(self) -> None:
        """Another name is another flight."""
        self.flights.board("a")
        self.flights.board("b")
        self.clock.advance(0)
        self.assertEqual([name for name, _ in self.begun], ["a", "b"])
        self.assertFalse(self.flights.may_begin("a"))
        self.assertTrue(self.flights.may_begin("c"))

    def test_rests_after_failure(self) -> None:
        """Who comes too early is told when to come; the pause doubles; success ends that."""
        self.fail_once()
        self.assertEqual(self.ended, [("a", "no")])
        early = self.failureResultOf(self.flights.board("a"), ACMEError)
        self.assertIn("the next is made after 2026-11-20 12:01:00 UTC", early.getErrorMessage())
        self.clock.advance(60)
        self.fail_once()
        self.assertEqual(self.flights.failures("a"), 2)
        self.clock.advance(119)
        self.assertFalse(self.flights.may_begin("a"))
        self.clock.advance(1)
        self.assertTrue(self.flights.may_begin("a"))
        waiting = self.flights.board("a")
        self.clock.advance(0)
        self.begun[-1][1].callback(None)
        self.successResultOf(waiting)
        self.assertEqual(self.flights.failures("a"), 0)

    def test_forgiven(self) -> None:
        """The operator may end the pause; another failure is still one more in a row."""
        self.fail_once()
        self.flights.forgive()
        self.assertTrue(self.flights.may_begin("a"))
        self.fail_once()
        self.assertEqual(self.flights.failures("a"), 2)

    def test_rate_limit(self) -> None:
        """The authority's wish is the pause."""
        self.fail_once(ACMEError("slow down", retry_after=5000))
        self.clock.advance(4999)
        self.assertFalse(self.flights.may_begin("a"))
        self.clock.advance(1)
        self.assertTrue(self.flights.may_begin("a"))

    def test_deadline(self) -> None:
        """An attempt that takes for ever is ended."""
        waiting = self.flights.board("a")
        self.clock.advance(0)
        self.clock.advance(300)
        error = self.failureResultOf(waiting, ACMEError)
        self.assertIn("longer than 300 s", error.getErrorMessage())

    def test_unforeseen(self) -> None:
        """A bug of ours is logged with its trace, and is a failure like others."""
        self.fail_once(ZeroDivisionError("oops"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.ended, [("a", "ZeroDivisionError: oops")])

    def test_stop(self) -> None:
        """Everything ends now, waits included, and nothing begins any more."""
        waiting = self.flights.board("a")
        self.clock.advance(0)
        begun = self.flights.board("b")
        self.flights.stop()
        for each in (waiting, begun, self.flights.board("c")):
            self.failureResultOf(each, ACMEError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_crowd(self) -> None:
        """However many come while an attempt is under way, only so many are kept waiting."""
        waiting = [self.flights.board("a") for _ in range(MOST_WAITING)]
        error = self.failureResultOf(self.flights.board("a"), ACMEError)
        self.assertIn("too many wait", error.getErrorMessage())
        waiting[0].cancel()
        self.failureResultOf(waiting[0])
        self.assertNoResult(self.flights.board("a"))

    def test_bound(self) -> None:
        """Failures of so many names are remembered, and no more are tried."""
        for number in range(MOST_NAMES):
            self.flights.board(str(number)).addErrback(lambda _: None)
        self.clock.advance(0)
        for _, attempt in self.begun:
            attempt.errback(ACMEError("no"))
        error = self.failureResultOf(self.flights.board("one more"), ACMEError)
        self.assertIn("too many names", error.getErrorMessage())
