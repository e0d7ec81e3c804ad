"""Tests for :mod:`derp.prober.probe` and :mod:`derp.prober.run`."""

from datetime import UTC, datetime

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.prober.check import Check, ProbeFailed
from derp.prober.probe import CLOSE_S, STILL_RUNNING, Probe, ProbeBusy
from derp.prober.run import describe
from tests.prober.checks import FakeCheck, failing, nothing
from tests.wall_clock import WallClock

START = 1_700_000_000.0


class ProbeTestCase(SynchronousTestCase):
    """A clock, a fake check, and a probe of it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = WallClock(self.clock, START)
        self.fake = FakeCheck(self.clock, region="zero")
        self.changes: list[str] = []

    def probe(self, interval: float = 10.0, **options: object) -> Probe:
        """A probe that has been started."""
        probe = Probe(
            self.clock,
            self.wall.seconds,
            "derp/zero/1a/tls",
            interval,
            self.fake.check,
            changed=lambda probe: self.changes.append(probe.history.status),
            **options,  # type: ignore[arg-type]
        )
        self.addCleanup(probe.close)
        probe.start()
        return probe

    def pump(self, seconds: float) -> None:
        """Let so much time pass, second by second."""
        self.clock.pump([1.0] * int(seconds))


class TimingTests(ProbeTestCase):
    """When runs begin."""

    def test_at_once_then_every_interval(self) -> None:
        """Without a delay a probe runs at once, then once per interval."""
        self.fake.at_once = nothing
        self.probe()
        self.assertEqual(self.fake.begun, [0.0])
        self.pump(35)
        self.assertEqual(self.fake.begun, [0.0, 10.0, 20.0, 30.0])

    def test_delay(self) -> None:
        """With one only after it, and then once per interval from there."""
        self.fake.at_once = nothing
        self.probe(delay=7.0)
        self.pump(6)
        self.assertEqual(self.fake.begun, [])
        self.pump(22)
        self.assertEqual(self.fake.begun, [7.0, 17.0, 27.0])

    def test_no_catching_up(self) -> None:
        """After a machine has slept there is one run, not all that were missed."""
        self.fake.at_once = nothing
        self.probe()
        self.clock.advance(3605)
        self.assertEqual(len(self.fake.begun), 2)
        self.pump(5)
        self.assertEqual(self.fake.begun[2:], [3610.0])

    def test_clock_is_set(self) -> None:
        """Runs begin when they are due, and take as long as they take; their times are civil."""
        for change in (3600.0, -7200.0):
            probe = self.probe()
            self.clock.advance(1.0)
            self.wall.set_by(change)
            begun = len(self.fake.begun)
            self.fake.succeed()
            history = probe.history
            self.assertEqual(list(history.latencies), [1.0])
            self.assertEqual(history.ended, self.wall.seconds())
            self.clock.advance(8.0)
            self.assertEqual(len(self.fake.begun), begun)
            self.clock.advance(1.0)
            self.assertEqual(len(self.fake.begun), begun + 1)
            self.assertEqual(history.started, self.wall.seconds())
            probe.close()

    def test_changes(self) -> None:
        """Each begin and each end is told, with the history as it is then."""
        self.probe()
        self.fake.succeed()
        self.pump(10)
        self.fake.fail(ProbeFailed("no answer"))
        self.assertEqual(self.changes, ["running", "succeeded", "running", "failed"])

    def test_once(self) -> None:
        """Once is once."""
        self.fake.at_once = nothing
        self.probe(once=5.0, delay=3.0)
        self.pump(60)
        self.assertEqual(self.fake.begun, [3.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimeoutTests(ProbeTestCase):
    """Runs that do not end by themselves."""

    def test_deadline(self) -> None:
        """After 80 % of the interval a run has failed: one false result, no latency."""
        probe = self.probe()
        self.pump(7)
        self.assertEqual(probe.history.status, "running")
        self.pump(1)
        self.assertEqual(probe.history.status, "failed")
        self.assertEqual(probe.history.error, "deadline exceeded: no result within 8s")
        self.assertEqual(list(probe.history.results), [False])
        self.assertEqual(list(probe.history.latencies), [])
        self.assertEqual((self.fake.cancelled, probe.in_flight), (1, 0))

    def test_goes_on(self) -> None:
        """The next run begins as if nothing had been."""
        probe = self.probe()
        self.pump(10)
        self.assertEqual(self.fake.begun, [0.0, 10.0])
        self.fake.succeed()
        self.assertEqual(list(probe.history.results), [False, True])

    def test_its_own_words(self) -> None:
        """A check that can say what it was waiting for when it was cancelled does."""

        async def run() -> None:
            try:
                await Deferred()
            except CancelledError:
                raise ProbeFailed("no ServerInfo came") from None

        self.fake.check = Check(probe_class="fake", labels={}, run=run)
        probe = self.probe()
        self.pump(8)
        self.assertEqual(probe.history.error, "no ServerInfo came")

    def test_does_not_stop(self) -> None:
        """A check that goes on is a failure each time its turn comes, and is never doubled."""
        self.fake.stubborn = True
        probe = self.probe()
        self.pump(8)
        self.assertIn("deadline exceeded", probe.history.error)
        self.assertEqual((probe.in_flight, probe.history.status), (1, "failed"))
        self.pump(22)
        self.assertEqual(self.fake.begun, [0.0])
        self.assertEqual(probe.history.error, STILL_RUNNING)
        self.assertEqual(list(probe.history.results), [False] * 4)
        self.fake.stubborn = False
        self.pump(10)
        self.assertEqual((self.fake.begun, probe.in_flight), ([0.0, 40.0], 1))

    def test_concurrency(self) -> None:
        """Three runs at a time if three are allowed, and no fourth."""
        probe = self.probe(timeout=1000.0, concurrency=3)
        self.pump(95)
        self.assertEqual(self.fake.begun, [0.0, 10.0, 20.0])
        self.assertEqual(probe.in_flight, 3)
        self.assertEqual(list(probe.history.results), [])


class FailureTests(ProbeTestCase):
    """Whatever a check does is a result."""

    def test_any_exception(self) -> None:
        """Of whatever kind, at once or later; the schedule goes on."""
        probe = self.probe()
        self.fake.fail(ZeroDivisionError("division by zero"))
        self.assertEqual(probe.history.error, "ZeroDivisionError: division by zero")
        for error in (KeyError("x"), RecursionError(), ProbeFailed("no answer")):
            self.fake.at_once = failing(error)
            self.pump(10)
            self.assertEqual(probe.history.status, "failed")
        self.assertEqual(probe.history.error, "no answer")
        self.assertEqual(len(self.fake.begun), 4)

    def test_no_coroutine(self) -> None:
        """Not even a check that raises before it is a coroutine."""
        self.fake.check = Check(probe_class="fake", labels={}, run=failing(TypeError("what")))
        probe = self.probe()
        self.assertEqual(probe.history.error, "TypeError: what")

    def test_logged(self) -> None:
        """One line per failure, with the probe's name."""
        self.fake.at_once = failing(ProbeFailed("no answer"))
        with capturedLogs() as logged:
            self.probe()
        lines = [formatEvent(event) for event in logged]
        self.assertEqual(lines, ["probe derp/zero/1a/tls: no answer"])

    def test_words(self) -> None:
        """Our own errors are sentences; of others the type is said, too."""
        self.assertEqual(describe(ProtocolError("the key\nis bad")), "the key is bad")
        self.assertEqual(describe(ProbeFailed()), "ProbeFailed")
        self.assertEqual(describe(OSError(5, "input/output")), "OSError: [Errno 5] input/output")
        self.assertEqual(describe(RecursionError()), "RecursionError")


class ContinuousTests(ProbeTestCase):
    """A negative interval."""

    def test_begun_anew(self) -> None:
        """No timeout; after each end one pause, and then exactly one new run."""
        probe = self.probe(-10.0)
        self.pump(1000)
        self.assertEqual((self.fake.begun, probe.in_flight), ([0.0], 1))
        for _ in range(5):
            self.fake.fail(ProbeFailed("cut"))
            self.pump(10)
        self.assertEqual(self.fake.begun, [0.0, 1010.0, 1020.0, 1030.0, 1040.0, 1050.0])
        self.assertEqual((len(self.fake.open), self.fake.cancelled), (1, 0))
        self.assertEqual(list(probe.history.results), [False] * 5)

    def test_at_once(self) -> None:
        """One that fails at once is not tried more often."""
        self.fake.at_once = failing(ProbeFailed("refused"))
        self.probe(-10.0)
        self.pump(30)
        self.assertEqual(self.fake.begun, [0.0, 10.0, 20.0, 30.0])

    def test_once(self) -> None:
        """Where everything runs once, it has succeeded if it lasts, and measures something."""
        probe = self.probe(-10.0, once=5.0)
        self.fake.found = {"sent": 9}
        self.pump(5)
        self.assertEqual((probe.history.status, probe.history.latency), ("succeeded", 5.0))
        self.assertEqual((self.fake.cancelled, self.clock.getDelayedCalls()), (1, []))

    def test_once_nothing(self) -> None:
        """One that has not come to measure anything by then has failed."""
        for self.fake.stubborn in (False, True):
            probe = self.probe(-10.0, once=5.0)
            self.pump(5)
            self.assertIn("no result within 5s", probe.history.error)

    def test_once_failing(self) -> None:
        """And has failed if it does not."""
        probe = self.probe(-10.0, once=5.0)
        self.fake.fail(ProbeFailed("cut"))
        self.pump(60)
        self.assertEqual((probe.history.status, self.fake.begun), ("failed", [0.0]))


class RunNowTests(ProbeTestCase):
    """Runs out of turn."""

    def test_at_once(self) -> None:
        """It begins at once, gives its result, and leaves the schedule alone."""
        probe = self.probe()
        self.fake.succeed()
        self.pump(3)
        asking = probe.run_now()
        self.pump(2)
        self.fake.succeed()
        result = self.successResultOf(asking)
        self.assertEqual((result.succeeded, result.ended, result.latency), (True, START + 5.0, 2.0))
        self.pump(5)
        self.assertEqual(self.fake.begun, [0.0, 3.0, 10.0])

    def test_failure(self) -> None:
        """A failure is a result."""
        probe = self.probe()
        self.fake.succeed()
        asking = probe.run_now()
        self.fake.fail(ProbeFailed("no answer"))
        self.assertEqual(self.successResultOf(asking).error, "no answer")

    def test_waits(self) -> None:
        """All who ask during a run share the one after it."""
        probe = self.probe()
        first, second = probe.run_now(), probe.run_now()
        self.fake.succeed()
        self.assertEqual(len(self.fake.begun), 2)
        self.assertNoResult(first)
        self.fake.succeed()
        self.assertIs(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(len(self.fake.begun), 2)

    def test_waits_no_longer_than_an_interval(self) -> None:
        """Where there is never room, it is said."""
        self.fake.stubborn = True
        probe = self.probe()
        self.pump(9)
        asking = probe.run_now()
        self.pump(9)
        self.assertNoResult(asking)
        self.pump(1)
        self.assertIn("not ended", str(self.failureResultOf(asking, ProbeBusy).value))

    def test_no_more_interest(self) -> None:
        """Who does not wait any more leaves no timer; a run that began goes on."""
        probe = self.probe()
        waiting = probe.run_now()
        timers = len(self.clock.getDelayedCalls())
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(len(self.clock.getDelayedCalls()), timers - 1)
        self.fake.succeed()
        running = probe.run_now()
        running.cancel()
        self.failureResultOf(running)
        self.fake.succeed()
        self.assertEqual(list(probe.history.results), [True, True])

    def test_removed(self) -> None:
        """Who asks a probe that is being removed is told."""
        probe = self.probe()
        waiting = probe.run_now()
        self.fake.succeed()
        more = probe.run_now()
        probe.close()
        for asking in (waiting, more):
            self.failureResultOf(asking, ProbeBusy)


class CloseTests(ProbeTestCase):
    """The end of a probe."""

    def test_idle(self) -> None:
        """Nothing of it is left."""
        for delay in (0.0, 3.0):
            probe = self.probe(delay=delay)
            if self.fake.open:
                self.fake.succeed()
            self.successResultOf(probe.close())
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pump(30)
        self.assertEqual(self.fake.begun, [0.0])

    def test_running(self) -> None:
        """What runs is called off, without a result."""
        probe = self.probe()
        self.successResultOf(probe.close())
        self.assertEqual((self.fake.cancelled, list(probe.history.results)), (1, []))
        self.assertEqual((probe.history.status, self.changes), ("unknown", ["running"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits(self) -> None:
        """What does not stop at once is waited for, but not for ever."""
        self.fake.stubborn = True
        first, second = self.probe(), self.probe()
        ending, lasting = first.close(), second.close()
        self.assertNoResult(ending)
        self.fake.succeed()
        self.successResultOf(ending)
        self.assertNoResult(lasting)
        self.pump(CLOSE_S)
        self.successResultOf(lasting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fake.succeed()


class InfoTests(ProbeTestCase):
    """:meth:`Probe.info`."""

    def test_fresh(self) -> None:
        """Before the first run: Go's zero time, and null for what is empty."""
        self.assertEqual(
            self.probe(delay=5.0).info(),
            {
                "Name": "derp/zero/1a/tls",
                "Class": "fake",
                "Interval": 10_000_000_000,
                "Labels": {"name": "derp/zero/1a/tls", "class": "fake", "region": "zero"},
                "Start": "0001-01-01T00:00:00Z",
                "End": "0001-01-01T00:00:00Z",
                "Latency": 0,
                "Status": "unknown",
                "Error": "",
                "RecentResults": None,
                "RecentLatencies": None,
            },
        )

    def test_after_runs(self) -> None:
        """Times in UTC, durations in nanoseconds."""
        self.wall.set_by(datetime(2026, 11, 21, 9, 50, 0, tzinfo=UTC).timestamp() - START)
        probe = self.probe()
        self.clock.advance(0.25)
        self.fake.succeed()
        self.clock.advance(9.75)
        self.fake.fail(ProbeFailed("no answer"))
        info = probe.info()
        self.assertEqual(info["Start"], "2026-11-21T09:50:10Z")
        self.assertEqual((info["Status"], info["Error"]), ("failed", "no answer"))
        self.assertEqual((info["RecentResults"], info["Latency"]), ([True, False], 0))
        self.assertEqual(info["RecentLatencies"], [250_000_000])
        self.clock.advance(10)
        self.clock.advance(0.5)
        self.fake.succeed()
        self.assertEqual(probe.info()["End"], "2026-11-21T09:50:20.5Z")
