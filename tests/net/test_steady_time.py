"""Tests for :mod:`derp.net.steady_time`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from derp.net.steady_time import keep_steady_time

UPTIME = 12.0


class SteadyTimeTests(SynchronousTestCase):
    """Each of Twisted's reactors, none of which runs."""

    def setUp(self) -> None:
        self.uptime = UPTIME
        self.fired: list[str] = []

    def steady(self) -> float:
        """The clock that nobody sets, shortly after a boot."""
        return self.uptime

    def reactors(self) -> list[Any]:
        """One of each kind."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        made: list[Any] = [
            EPollReactor(),
            PollReactor(),
            SelectReactor(),
            AsyncioSelectorReactor(loop),
        ]
        for each in made:
            self.addCleanup(_close, each)
        return made

    def turn(self, reactor: Any) -> list[str]:
        """Let it do what is due; give what was."""
        self.fired.clear()
        reactor.runUntilCurrent()
        return list(self.fired)

    def test_timers_go_by_it(self) -> None:
        """New calls, how long the reactor sleeps, calls that are put off: all by this clock."""
        for reactor in self.reactors():
            self.uptime = UPTIME
            keep_steady_time(reactor, self.steady)
            self.assertEqual(reactor.seconds(), UPTIME)
            reactor.callLater(60.0, self.fired.append, "a minute")
            later = reactor.callLater(5.0, self.fired.append, "put off")
            self.assertEqual(reactor.timeout(), 5.0)
            self.uptime += 4.0
            later.reset(10.0)
            self.uptime += 9.5
            self.assertEqual(self.turn(reactor), [])
            self.assertEqual(reactor.timeout(), 0.5)
            self.uptime += 0.5
            self.assertEqual(self.turn(reactor), ["put off"])
            self.uptime += 46.0
            self.assertEqual(self.turn(reactor), ["a minute"])

    def test_default(self) -> None:
        """The kernel's clock that nobody can set."""
        for reactor in self.reactors():
            keep_steady_time(reactor)
            self.assertIs(reactor.seconds, time.monotonic)

    def test_pending_calls_keep_what_is_left(self) -> None:
        """Those that were set by the old clock, in whatever order, and cancelled ones."""
        for reactor in self.reactors():
            self.uptime = UPTIME
            old = UPTIME + 1.7e9
            reactor.seconds = lambda old=old: old
            for seconds in (30.0, 10.0, 20.0):
                reactor.callLater(seconds, self.fired.append, f"{seconds:g}")
            reactor.callLater(5.0, self.fired.append, "never").cancel()
            reactor.timeout()  # some are in the heap
            reactor.callLater(15.0, self.fired.append, "15")
            keep_steady_time(reactor, self.steady)
            keep_steady_time(reactor, self.steady)
            for seconds in ("10", "15", "20", "30"):
                self.uptime = UPTIME + float(seconds) - 0.25
                self.assertEqual(self.turn(reactor), [])
                self.uptime += 0.5
                self.assertEqual(self.turn(reactor), [seconds])

    def test_overdue(self) -> None:
        """What was due already is made in the next turn."""
        for reactor in self.reactors():
            self.uptime = UPTIME
            now = [100.0]
            reactor.seconds = lambda now=now: now[0]
            reactor.callLater(1.0, self.fired.append, "due")
            now[0] = 200.0
            keep_steady_time(reactor, self.steady)
            self.assertEqual(self.turn(reactor), ["due"])


def _close(reactor: Any) -> None:
    """Give back what a reactor has opened to wake itself."""
    reactor.removeAll()
    for each in list(reactor._internalReaders):
        reactor.removeReader(each)
        each.connectionLost(None)
    poller = getattr(reactor, "_poller", None)
    if hasattr(poller, "close"):
        poller.close()
