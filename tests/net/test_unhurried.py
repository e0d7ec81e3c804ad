"""Tests of :mod:`tests.net.unhurried`, which other tests measure by."""

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.internet import reactor as untyped_reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.net.unhurried import STEP_S, Unhurried

reactor: Any = untyped_reactor


class UnhurriedTests(TestCase):
    """Time that waits."""

    timeout = 60

    def setUp(self) -> None:
        self.clock = Unhurried(reactor)

    async def test_runs(self) -> None:
        """Time goes on by itself, not faster than the reactor's, and calls are made in order."""
        began = reactor.seconds()
        made: list[float] = []
        for seconds in (0.03, 0.01, 0.02):
            self.clock.callLater(seconds, made.append, seconds)
        await deferLater(self.clock, 0.04)
        self.assertEqual(made, [0.01, 0.02, 0.03])
        self.assertGreaterEqual(reactor.seconds() - began, 0.039)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_stands_still(self) -> None:
        """Who stands still loses next to nothing of his time."""
        waiting: Deferred[None] = Deferred()
        waiting.addTimeout(0.2, self.clock)
        before = self.clock.seconds()
        time.sleep(0.3)
        self.assertLessEqual(self.clock.seconds() - before, STEP_S)
        await deferLater(reactor, 0)
        self.assertFalse(waiting.called)
        waiting.callback(None)
        await waiting

    def test_step(self) -> None:
        """How much that is may be chosen."""
        clock = Unhurried(reactor, step_s=0.1)
        before = clock.seconds()
        time.sleep(0.15)
        self.assertAlmostEqual(clock.seconds() - before, 0.1)

    async def test_ends(self) -> None:
        """A deadline comes, and what was called off leaves nothing behind."""
        self.clock.callLater(600, self.fail).cancel()
        with self.assertRaises(TimeoutError):
            await Deferred().addTimeout(0.01, self.clock)

    async def test_reactor(self) -> None:
        """It is a reactor all the same, in whose time connections are waited for."""
        self.assertTrue(IReactorTime.providedBy(self.clock))
        self.assertTrue(IReactorTCP.providedBy(self.clock))
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            with socket.create_connection(full.getsockname()):
                failed: Deferred[Any] = Deferred()
                factory = ClientFactory()
                factory.noisy = False
                factory.clientConnectionFailed = lambda connector, reason: failed.errback(reason)
                self.clock.connectTCP(*full.getsockname(), factory, timeout=0.05)
                await self.assertFailure(failed, ConnectTimeout)
