"""Taking connections over from HTTP: transports, counts, the time it takes."""

import gc
import weakref
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.config import Config
from derp.net.upgrade import LossWatcher
from derp.net.web import build_main_site
from tests.net.http_exchange import Exchange
from tests.net.sites import (
    GREETING,
    FakeConnection,
    FakeRelay,
    get,
    site_parts,
)
from tests.net.upgrade_case import (
    CLIENT_INFO,
    FAST,
    UPGRADE,
    SwappingTransport,
    UpgradeTestCase,
)


class SwapTests(UpgradeTestCase):
    """Our own transport, which can change its protocol."""

    def test_swapped(self) -> None:
        """The transport talks to the session directly, after what was left behind."""
        visit = self.visit(SwappingTransport())
        visit.send(FAST + CLIENT_INFO)
        visit.transport.swapped.dataReceived(b"more")
        self.assertEqual(self.connection.received, CLIENT_INFO + b"more")

    def test_channel_is_freed(self) -> None:
        """Nothing keeps the channel or the request; no collector is needed for it."""
        visit = self.visit(SwappingTransport())
        visit.send(get("/") + FAST + CLIENT_INFO)
        channel = weakref.ref(visit.channel)
        gc.disable()
        try:
            del visit.channel
            self.assertIsNone(channel())
        finally:
            gc.enable()

    def test_tls_gauge(self) -> None:
        """A DERP connection counts as a live request until it is lost."""
        stats = self.parts.tls_stats
        visit = self.visit(SwappingTransport())
        visit.send(get("/"))
        self.assertEqual((stats.requests, stats.active), ({"1.3": 1}, {"1.3": 0}))
        visit.send(UPGRADE)
        self.assertEqual((stats.requests, stats.active), ({"1.3": 2}, {"1.3": 1}))
        visit.transport.swapped.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((stats.requests, stats.active), ({"1.3": 2}, {"1.3": 0}))
        self.assertIsNotNone(self.connection.lost)

    def test_tls_gauge_of_a_lost_request(self) -> None:
        """A request whose connection goes away is not live any more."""
        visit = self.visit(SwappingTransport())
        visit.send(get("/debug/later"))
        self.assertEqual(self.parts.tls_stats.active, {"1.3": 1})
        visit.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.parts.tls_stats.active, {"1.3": 0})

    def test_plain_connections_are_not_counted(self) -> None:
        """Without TLS there is no version to count."""
        self.visit().send(get("/"))
        self.assertEqual(self.parts.tls_stats.requests, {})


class LossWatcherTests(SynchronousTestCase):
    """The wrapper around a session whose end somebody else waits for."""

    def test_shared_buffer_methods(self) -> None:
        """A protocol that takes the shared buffer is called for it directly."""

        class Buffered(FakeConnection):
            wanted = 7

            def bufferReceived(self, buf: bytearray, view: memoryview, end: int) -> int:
                return end

        inner = Buffered(b"", {})
        watcher = LossWatcher(inner, lambda: None)
        self.assertEqual(watcher.bufferReceived, inner.bufferReceived)
        self.assertEqual(watcher.wanted, 7)

    def test_other_protocols(self) -> None:
        """A protocol that does not, does not seem to."""
        watcher = LossWatcher(FakeConnection(b"", {}), lambda: None)
        self.assertFalse(hasattr(watcher, "bufferReceived"))

    def test_lost_is_told_even_after_a_failure(self) -> None:
        """Counts end whatever the protocol does at its own end."""

        class Failing(FakeConnection):
            def connectionLost(self, reason: Any = None) -> None:
                raise ZeroDivisionError

        told: list[bool] = []
        watcher = LossWatcher(Failing(b"", {}), lambda: told.append(True))
        with self.assertRaises(ZeroDivisionError):
            watcher.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(told, [True])


class LaterTakeOverTests(UpgradeTestCase):
    """A take-over that comes later than the request."""

    def test_input_meanwhile(self) -> None:
        """What comes meanwhile is kept, up to a bound, and delivered first."""
        visit = self.visit()
        visit.send(get("/debug/later") + b"early ")
        visit.send(b"a" * 10_000)
        self.assertEqual(visit.transport.producerState, "producing")
        visit.send(b"b" * 10_000)
        self.assertEqual(visit.transport.producerState, "paused")
        taker = FakeConnection(b"", {})
        visit.channel.take_over(taker)
        visit.send(b"c")
        self.assertEqual(taker.received, b"early " + b"a" * 10_000 + b"b" * 10_000 + b"c")
        self.assertEqual(visit.transport.producerState, "producing")
        self.assertFalse(visit.closing)

    def test_taker_stops_reading(self) -> None:
        """A taker that wants no more, having seen what was kept, is not made to read on."""

        class Full(FakeConnection):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.pauseProducing()

        visit = self.visit()
        visit.send(get("/debug/later") + CLIENT_INFO)
        visit.channel.take_over(Full(b"", {}))
        self.assertEqual(visit.transport.producerState, "paused")


class TwistedTransportTests(TestCase):
    """The same on Twisted's own TCP, with real sockets."""

    async def _session(self) -> None:
        relay = FakeRelay()
        parts = site_parts(reactor, Config(tls=False), relay=relay)
        self.addCleanup(parts.wheel.stop)
        site: Any = build_main_site(parts)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        exchange = await connectProtocol(endpoint, Exchange())
        exchange.transport.write(get("/derp/probe") + FAST + CLIENT_INFO)
        self.assertEqual((await exchange.answer()).status, 200)
        self.assertEqual(await exchange.exactly(len(GREETING)), GREETING)
        (connection,) = relay.connections
        self.assertEqual(connection.received, CLIENT_INFO)
        connection.transport.write(b"pong")
        self.assertEqual(await exchange.exactly(4), b"pong")
        connection.transport.unregisterProducer()
        connection.transport.loseConnection()
        self.assertEqual(await exchange.end(), b"")
        self.assertIsNotNone(connection.lost)

    def test_session(self) -> Deferred[None]:
        """A request, an upgrade in the same packet, bytes both ways, the end."""
        return Deferred.fromCoroutine(self._session())
