"""CONNECT to the control server."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.config import Config
from derp.net.ace import CLOSE_S, DIAL_S, hostname_endpoints, parse_target
from derp.net.web import build_main_site
from tests.net.http_exchange import Exchange
from tests.net.sites import AbortableTransport, Visit, site_parts

TARGET = "controlplane.tailscale.com:443"
REQUEST = f"CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n".encode()
CONNECTED = b"HTTP/1.1 200 OK\r\n\r\n"


class TargetTests(SynchronousTestCase):
    """Where CONNECT may go."""

    def test_targets(self) -> None:
        """Ports 80 and 443 of tailscale.com's hosts, but to no DERP server."""
        good = (b"controlplane.tailscale.com:443", b"log.tailscale.com:80", b".tailscale.com:80")
        bad = (
            b"controlplane.tailscale.com:8080",
            b"controlplane.tailscale.com",
            b"tailscale.com:443",
            b"eviltailscale.com:443",
            b"a.tailscale.com.evil.example:443",
            b"derp1.tailscale.com:443",
            b"my-derper.tailscale.com:443",
            b"a.tailscale.com:443\n",
            b"a/b.tailscale.com:443",
            b"[::1]:443",
            b"http://a.tailscale.com:443",
            b"",
        )
        for target in good:
            self.assertIsNotNone(parse_target(target), target)
        for target in bad:
            self.assertIsNone(parse_target(target), target)
        self.assertEqual(parse_target(good[0]), ("controlplane.tailscale.com", 443))

    @given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda b: b + b".tailscale.com:80"))
    def test_any(self, target: bytes) -> None:
        """Whatever is asked for, only such a host comes out."""
        parsed = parse_target(target)
        if parsed is not None:
            host, port = parsed
            self.assertRegex(host, r"^[\w.-]*\.tailscale\.com$")
            self.assertIn(port, (80, 443))


class BackTransport(AbortableTransport):
    """The connection to the target."""

    keep_alive = False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled


class FakeDial:
    """An endpoint that connects when told to."""

    def __init__(self) -> None:
        self.targets: list[tuple[str, int]] = []
        self.cancelled = 0
        self.answer: Deferred[Any] | None = None

    def __call__(self, host: str, port: int) -> "FakeDial":
        self.targets.append((host, port))
        return self

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.answer is not None:
            return self.answer
        self.factory = factory
        self.connected: Deferred[Any] = Deferred(self._cancel)
        return self.connected

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1

    def succeed(self) -> BackTransport:
        transport = BackTransport()
        self.back = self.factory.buildProtocol(None)
        assert self.back is not None
        self.back.makeConnection(transport)
        self.connected.callback(self.back)
        return transport


class ConnectTests(SynchronousTestCase):
    """The tunnel."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.dial = FakeDial()
        self.parts = site_parts(self.clock, Config(ace=True), dial=self.dial)
        self.site = build_main_site(self.parts)
        self.visit = Visit(self.site)

    def open(self) -> BackTransport:
        self.assertEqual(self.visit.send(REQUEST), b"")
        back = self.dial.succeed()
        self.assertEqual(self.visit.take(), CONNECTED)
        return back

    def test_tunnel(self) -> None:
        """Bytes go both ways, those sent too early among them."""
        self.visit.send(REQUEST + b"early ")
        self.visit.send(b"bird")
        back = self.dial.succeed()
        self.assertEqual(self.dial.targets, [("controlplane.tailscale.com", 443)])
        self.assertEqual((self.visit.take(), back.value()), (CONNECTED, b"early bird"))
        self.visit.send(b" more")
        self.dial.back.dataReceived(b"answer")
        self.assertEqual((self.visit.take(), back.value()), (b"answer", b"early bird more"))
        self.assertTrue(back.keep_alive)

    def test_after_another_request(self) -> None:
        """A kept connection may turn into a tunnel."""
        answer = self.visit.send(b"GET /derp/probe HTTP/1.1\r\nHost: a\r\n\r\n" + REQUEST)
        self.assertIn(b"200 OK", answer)
        self.dial.succeed()
        self.assertEqual(self.visit.take(), CONNECTED)

    def test_no_deadline(self) -> None:
        """HTTP's deadlines end with the request; no timer is left."""
        back = self.open()
        self.clock.advance(1000)
        self.assertFalse(self.visit.closing or back.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_back_pressure(self) -> None:
        """Who does not read stops the other's writing."""
        back = self.open()
        back.producer.pauseProducing()
        self.assertEqual(self.visit.transport.producerState, "paused")
        self.visit.transport.producer.pauseProducing()
        self.assertEqual(back.producerState, "paused")
        back.producer.resumeProducing()
        self.assertEqual(self.visit.transport.producerState, "producing")

    def test_client_ends(self) -> None:
        """The client's end is the target's, after all it was sent."""
        back = self.open()
        self.visit.send(b"bye")
        self.visit.channel.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(back.disconnecting)
        self.assertEqual((back.value(), back.producer), (b"bye", None))
        self.dial.back.dataReceived(b"too late")
        for _ in range(200):
            self.clock.advance(CLOSE_S / 100)
        self.assertTrue(back.aborted)

    def test_target_ends(self) -> None:
        """And the other way round; once gone, nothing is pending."""
        self.open()
        self.dial.back.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.visit.transport.disconnecting)
        self.visit.channel.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(1)
        self.clock.advance(CLOSE_S)
        self.assertFalse(self.visit.transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A target that can not be reached is a bad gateway, and the end."""
        self.dial.answer = fail(ConnectionRefusedError())
        answer = self.visit.send(REQUEST)
        self.assertIn(b"502 Bad Gateway", answer)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"Connect failure\n"))
        self.assertTrue(self.visit.closing)

    def test_no_answer(self) -> None:
        """Dialing has fifteen seconds."""
        self.visit.send(REQUEST)
        self.clock.advance(DIAL_S - 1)
        self.assertEqual(self.dial.cancelled, 0)
        self.clock.advance(1)
        self.assertEqual(self.dial.cancelled, 1)
        self.assertIn(b"502 Bad Gateway", self.visit.take())

    def test_client_does_not_wait(self) -> None:
        """A client that goes away ends the dialing."""
        self.visit.send(REQUEST)
        self.visit.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.dial.cancelled, 1)
        self.clock.advance(1)
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forbidden(self) -> None:
        """A target that is not allowed is not dialed."""
        answer = self.visit.send(REQUEST.replace(b"controlplane", b"derp1"))
        self.assertIn(b"403 Forbidden", answer)
        self.assertTrue(answer.endswith(b"Invalid CONNECT target\n"))
        self.assertEqual(self.dial.targets, [])
        self.assertTrue(self.visit.closing)

    def test_counted(self) -> None:
        """A tunnel is a live request for as long as it lasts."""
        transport = AbortableTransport()
        transport.tls_version = "1.3"
        self.visit = Visit(self.site, transport)
        self.open()
        self.assertEqual(self.parts.tls_stats.active, {"1.3": 1})
        self.visit.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.parts.tls_stats.active, {"1.3": 0})


class RealTunnelTests(TestCase):
    """With sockets all the way."""

    async def _tunnel(self) -> None:
        target: Deferred[Exchange] = Deferred()

        class Target(Exchange):
            def connectionMade(self) -> None:
                target.callback(self)

        listen: Any = reactor.listenTCP
        target_port = listen(0, Factory.forProtocol(Target), interface="127.0.0.1")
        self.addCleanup(target_port.stopListening)

        def dial(host: str, port: int) -> Any:
            return hostname_endpoints(reactor)("127.0.0.1", target_port.getHost().port)

        parts = site_parts(reactor, Config(ace=True), dial=dial)
        self.addCleanup(parts.wheel.stop)
        port = listen(0, build_main_site(parts), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await connectProtocol(endpoint, Exchange())
        data = bytes(range(256)) * 4096
        client.transport.write(REQUEST + data)
        self.assertEqual(await client.exactly(len(CONNECTED)), CONNECTED)
        far = await target
        self.assertEqual(await far.exactly(len(data)), data)
        far.transport.write(data)
        self.assertEqual(await client.exactly(len(data)), data)
        client.transport.loseConnection()
        self.assertEqual(await far.end(), b"")

    def test_tunnel(self) -> Deferred[None]:
        """A megabyte there and back, and the end passed on."""
        return Deferred.fromCoroutine(self._tunnel())
