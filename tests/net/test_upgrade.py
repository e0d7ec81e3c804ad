"""Taking connections over from HTTP: no byte lost, none added, nothing left behind."""

import gc
import weakref
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import NOT_DONE_YET

from derp.config import Config
from derp.net.derp_resource import upgrade_head
from derp.net.upgrade import LossWatcher
from derp.net.web import build_main_site
from tests.net.http_exchange import Exchange
from tests.net.sites import (
    GREETING,
    SERVER_KEY,
    AbortableTransport,
    FakeConnection,
    FakeRelay,
    TextPage,
    Visit,
    get,
    site_parts,
)

HEAD = upgrade_head(SERVER_KEY)
UPGRADE = get("/derp", "Connection: Upgrade", "Upgrade: DERP")
FAST = get("/derp", "Upgrade: DERP", "Derp-Fast-Start: 1")
CLIENT_INFO = b"\x02\x00\x00\x00\x04info"


class SwappingTransport(AbortableTransport):
    """Has ``setProtocol``, as our own transport."""

    swapped: Any = None
    tls_version: str | None = "1.3"

    def setProtocol(self, protocol: Any) -> None:
        self.swapped = protocol


class LaterPage(TextPage):
    """Answers when told to, in chunks."""

    def render(self, request: Any) -> Any:
        self.request = request
        request.write(b"first ")
        return NOT_DONE_YET


class UpgradeTestCase(SynchronousTestCase):
    """A site with a fake relay, on strings."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.relay = FakeRelay()
        self.later = LaterPage(b"")
        self.parts = site_parts(
            self.clock,
            Config(tls=False),
            relay=self.relay,
            debug_pages={"/debug/later": self.later, "/debug/long": TextPage(b"x" * 100_000)},
        )
        self.site = build_main_site(self.parts)

    def visit(self, transport: Any = None) -> Visit:
        return Visit(self.site, transport, self.clock)

    @property
    def connection(self) -> FakeConnection:
        (connection,) = self.relay.connections
        return connection


class UpgradeTests(UpgradeTestCase):
    """``/derp`` with plain DERP."""

    def test_head_and_greeting(self) -> None:
        """Without fast start the 101 leaves together with ServerKey."""
        self.assertEqual(self.visit().send(UPGRADE), HEAD + GREETING)

    def test_fast_start(self) -> None:
        """In fast start nothing of HTTP is written, and what follows belongs to DERP."""
        self.assertEqual(self.visit().send(FAST + CLIENT_INFO), GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)
        self.assertTrue(self.connection.options["fast_start"])

    def test_fast_start_is_exactly_one(self) -> None:
        """Any other value of the header is no fast start."""
        request = get("/derp", "Upgrade: DERP", "Derp-Fast-Start: true")
        self.assertEqual(self.visit().send(request), HEAD + GREETING)

    def test_ideal_node(self) -> None:
        """A client that names another node as its ideal one is not ideal here."""
        self.visit().send(get("/derp", "Upgrade: DERP", "Ideal-Node: 7a"))
        self.assertTrue(self.connection.options["not_ideal"])

    def test_remote(self) -> None:
        """The relay is told who is there."""
        visit = self.visit()
        visit.send(UPGRADE)
        self.assertEqual(self.connection.options["remote"], visit.transport.getPeer())
        self.assertFalse(self.connection.options["not_ideal"])

    def test_forms_of_the_request(self) -> None:
        """Method, body, version and Connection do not matter; the bytes behind survive."""
        chunked = get("/derp", "Upgrade: derp", "Transfer-Encoding: chunked", method="POST")
        requests = [
            get("/derp", "Upgrade: derp", "Content-Length: 3", method="POST") + b"abc",
            chunked + b"3\r\nabc\r\n0\r\n\r\n",
            get("/derp?x=1", "Upgrade: DERP"),
            get("/derp", "Upgrade: DERP", "Connection: close"),
            b"GET /derp HTTP/1.0\r\nUpgrade: DERP\r\n\r\n",
            get("http://derp.example/derp", "Upgrade: DERP"),
            get("/%64erp", "Upgrade: WebSocket"),
        ]
        for request in requests:
            with self.subTest(request=request):
                self.relay.connections.clear()
                visit = self.visit()
                self.assertEqual(visit.send(request + CLIENT_INFO), HEAD + GREETING)
                visit.send(b"more")
                self.assertEqual(self.connection.received, CLIENT_INFO + b"more")
                self.assertFalse(visit.closing)

    def test_behind_other_requests(self) -> None:
        """Requests before the upgrade in the same packet are answered first."""
        pipeline = get("/derp/probe") + get("/", method="HEAD")
        pipeline += get("/derp/probe", "Content-Length: 2", method="POST") + b"ab"
        answers = self.visit().send(pipeline + FAST + CLIENT_INFO)
        self.assertEqual(answers.count(b"HTTP/1.1 "), 3)
        self.assertTrue(answers.endswith(b"bogus probe method\n" + GREETING))
        self.assertEqual(self.connection.received, CLIENT_INFO)

    def test_behind_an_answer_that_takes_its_time(self) -> None:
        """An upgrade waits for the answer before it, with all that follows."""
        visit = self.visit()
        visit.send(get("/debug/later", "X: y") + FAST + CLIENT_INFO)
        self.assertEqual(self.relay.connections, [])
        self.later.request.finish()
        self.assertTrue(visit.take().endswith(b"0\r\n\r\n" + GREETING))
        visit.send(b"more")
        self.assertEqual(self.connection.received, CLIENT_INFO + b"more")

    def test_reading_goes_on(self) -> None:
        """A channel that stopped reading for too much input starts again."""
        visit = self.visit()
        filler = get("/derp/probe") * 400
        visit.send(get("/debug/later") + filler + FAST)
        self.assertEqual(visit.transport.producerState, "paused")
        self.later.request.finish()
        self.assertEqual(visit.transport.producerState, "producing")
        self.assertEqual(len(self.relay.connections), 1)

    def test_full_socket(self) -> None:
        """A channel that stopped reading because nobody took its answers starts again, too."""
        visit = self.visit()
        visit.transport.producer.pauseProducing()
        self.assertEqual(visit.transport.producerState, "paused")
        visit.send(FAST)
        self.assertEqual(visit.transport.producerState, "producing")

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(1, 40)))
    def test_any_split(self, sizes: list[int]) -> None:
        """However the stream is cut, the session gets what is behind the request."""
        self.relay.connections.clear()
        stream = get("/derp/probe") + FAST + CLIENT_INFO * 3
        visit = self.visit()
        written = b""
        for size in sizes:
            if stream:
                written += visit.send(stream[:size])
                stream = stream[size:]
        written += visit.send(stream) if stream else b""
        self.assertTrue(written.endswith(GREETING))
        self.assertEqual(self.connection.received, CLIENT_INFO * 3)

    def test_byte_by_byte(self) -> None:
        """A request may come in single bytes."""
        visit = self.visit()
        for byte in UPGRADE + CLIENT_INFO:
            visit.channel.dataReceived(bytes([byte]))
        self.assertEqual(visit.take(), HEAD + GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)

    def test_nothing_left_behind(self) -> None:
        """No timer, no producer of HTTP's, no request."""
        visit = self.visit()
        visit.send(get("/") + UPGRADE)
        self.assertIs(visit.transport.producer, self.connection)
        self.assertEqual(visit.channel.requests, [])
        self.clock.advance(1000)
        self.assertFalse(visit.closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_loss(self) -> None:
        """On a transport of Twisted's, the end reaches the session through the channel."""
        visit = self.visit()
        visit.send(UPGRADE)
        reason = Failure(ConnectionDone())
        visit.channel.connectionLost(reason)
        self.assertIs(self.connection.lost, reason)

    def test_refused_upgrade_keeps_http(self) -> None:
        """Without an upgrade the connection stays what it is."""
        visit = self.visit()
        self.assertIn(b"426 Upgrade Required", visit.send(get("/derp", "Upgrade: h2c")))
        self.assertIn(b"200 OK", visit.send(get("/derp/probe")))

    def test_failing_relay(self) -> None:
        """A relay that fails on the way in gets no HTTP answer into its stream."""

        class Failing(FakeConnection):
            def connectionMade(self) -> None:
                raise ZeroDivisionError("on purpose")

        self.relay.accept = lambda **options: Failing(b"", {})  # type: ignore[assignment,method-assign]
        visit = self.visit()
        self.assertEqual(visit.send(UPGRADE), b"")
        self.assertTrue(visit.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


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
        watcher = LossWatcher(inner, lambda: None)  # type: ignore[arg-type]
        self.assertEqual(watcher.bufferReceived, inner.bufferReceived)
        self.assertEqual(watcher.wanted, 7)

    def test_other_protocols(self) -> None:
        """A protocol that does not, does not seem to."""
        watcher = LossWatcher(FakeConnection(b"", {}), lambda: None)  # type: ignore[arg-type]
        self.assertFalse(hasattr(watcher, "bufferReceived"))

    def test_lost_is_told_even_after_a_failure(self) -> None:
        """Counts end whatever the protocol does at its own end."""

        class Failing(FakeConnection):
            def connectionLost(self, reason: Any = None) -> None:
                raise ZeroDivisionError

        told: list[bool] = []
        watcher = LossWatcher(Failing(b"", {}), lambda: told.append(True))  # type: ignore[arg-type]
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
        site: Factory[Any] = build_main_site(parts)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
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
