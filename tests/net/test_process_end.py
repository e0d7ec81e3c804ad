"""Tests of :mod:`derp.net.process_end`; with real processes in tests.integration.test_drain."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.net import process_end
from derp.net.hangup import HangUp
from derp.net.process_end import HARD_LIMIT_CODE, SECOND_SIGNAL_CODE, ProcessEnd


class FakeReactor(Clock):
    """Calls at once what a signal wants called later, and remembers that it was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callFromThread(self, call: Any, *args: Any) -> None:
        call(*args)

    def stop(self) -> None:
        self.stops += 1


class FakeRelay:
    """Drains until it is told that it is over."""

    def __init__(self) -> None:
        self.drains: list[Deferred[bool]] = []

    def drain(self) -> Deferred[bool]:
        self.drains.append(Deferred())
        return self.drains[-1]


class FakeTimer:
    """A thread that never starts."""

    made: list[FakeTimer]

    def __init__(self, seconds: float, call: Any, args: list[Any]) -> None:
        self.seconds, self.call, self.args = seconds, call, args
        self.daemon = self.started = False
        self.made.append(self)

    def start(self) -> None:
        self.started = True


class ProcessEndTests(SynchronousTestCase):
    """Real signals to this process, and what comes of them."""

    def setUp(self) -> None:
        self.reactor, self.relay = FakeReactor(), FakeRelay()
        self.events: list[Any] = []
        self.timers = FakeTimer.made = []
        self.patch(process_end.threading, "Timer", FakeTimer)
        self.end = ProcessEnd(
            self.reactor,
            self.relay,
            drain_seconds=5.0,
            clean_up=lambda: self.events.append("clean"),
            leave=self.events.append,
        )
        self.end.when_ending = lambda: self.events.append("ending")
        self.end.install()
        self.addCleanup(self.end.restore)

    def send(self, number: int) -> None:
        """Get a signal."""
        os.kill(os.getpid(), number)

    def test_in_order(self) -> None:
        """The first signal drains; the reactor is stopped after that, and by nothing else."""
        self.send(signal.SIGTERM)
        self.assertEqual((len(self.relay.drains), self.reactor.stops), (1, 0))
        self.relay.drains[0].callback(True)
        self.assertEqual((self.events, self.reactor.stops), (["ending"], 1))

    def test_hard_limit(self) -> None:
        """A drain that took too long ends the process, everything else left alone."""
        self.send(signal.SIGINT)
        self.relay.drains[0].callback(False)
        self.assertEqual(self.events, ["ending", "clean", HARD_LIMIT_CODE])
        self.assertEqual(self.reactor.stops, 0)

    def test_drain_fails(self) -> None:
        """So does one that fails by a fault of ours, which is logged."""
        self.send(signal.SIGTERM)
        self.relay.drains[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events, ["ending", "clean", HARD_LIMIT_CODE])

    def test_second_signal(self) -> None:
        """Either of the two, after either, ends at once, in the signal's own call."""
        self.send(signal.SIGINT)
        self.reactor.callFromThread = lambda *args: self.fail("the reactor may hang")
        self.send(signal.SIGTERM)
        self.assertEqual(self.events, ["ending", "clean", SECOND_SIGNAL_CODE])

    def test_clean_up_fails(self) -> None:
        """Nothing keeps a process alive that has to go."""
        self.end._clean_up = lambda: 1 // 0
        self.send(signal.SIGTERM)
        self.send(signal.SIGTERM)
        self.assertEqual(self.events, ["ending", SECOND_SIGNAL_CODE])

    def test_backstop(self) -> None:
        """A thread ends a process whose reactor hangs, a little after the hard limit."""
        self.send(signal.SIGTERM)
        (timer,) = self.timers
        self.assertEqual((timer.seconds, timer.daemon, timer.started), (7.5, True, True))
        timer.call(*timer.args)
        self.assertEqual(self.events, ["ending", "clean", HARD_LIMIT_CODE])

    def test_drain_only(self) -> None:
        """SIGUSR2 drains and no more; SIGTERM then is the first of its kind, not the second."""
        self.send(signal.SIGUSR2)
        self.send(signal.SIGUSR2)
        self.relay.drains[0].callback(True)
        self.assertEqual((self.events, self.reactor.stops, self.timers), ([], 0, []))
        self.send(signal.SIGTERM)
        self.relay.drains[-1].callback(True)
        self.assertEqual((self.events, self.reactor.stops), (["ending"], 1))

    def test_replaced(self) -> None:
        """A successor is no signal: the first signal after it changes nothing."""
        self.end.end("replaced")
        self.send(signal.SIGTERM)
        self.assertEqual((len(self.relay.drains), self.events), (1, ["ending"]))

    def test_running_reactor_keeps_ours(self) -> None:
        """What the reactor installs as it starts to run is ours, so no signal slips through."""
        self.reactor.sigTerm(signal.SIGTERM, None)
        self.assertEqual(len(self.relay.drains), 1)
        self.reactor.sigInt(signal.SIGINT, None)
        self.assertEqual(self.events[-1], SECOND_SIGNAL_CODE)

    def test_hang_up(self) -> None:
        """SIGHUP is for whoever takes it; until then, and after that, nobody dies of it."""
        self.send(signal.SIGHUP)
        reloads: list[str] = []
        hang_up = HangUp(self.reactor, lambda: reloads.append("again"))
        hang_up.install()
        self.send(signal.SIGHUP)
        hang_up.restore()
        self.send(signal.SIGHUP)
        self.assertEqual((reloads, self.events), (["again"], []))

    def test_restore(self) -> None:
        """Tests get their signals back."""
        self.end.restore()
        self.assertNotIn(signal.getsignal(signal.SIGTERM), (self.end._end_signal,))

    def test_other_thread(self) -> None:
        """Where signals cannot be had, they are left alone."""
        self.end.restore()
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=self.end.install)
        thread.start()
        thread.join(60)
        self.assertIs(signal.getsignal(signal.SIGTERM), before)
