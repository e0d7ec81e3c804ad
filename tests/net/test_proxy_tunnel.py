"""Tests of :mod:`derp.net.proxy_tunnel`; whole tunnels are in ``test_admission_url``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.testing import AccumulatingProtocol, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp.net.bounded_http import NoAnswer
from derp.net.proxy_tunnel import TunnelEndpoint


class FakeProxy:
    """An endpoint whose connection is a string."""

    def __init__(self) -> None:
        self.dialed: Deferred[Any] = Deferred()
        self.factory: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.dialed

    def answer(self) -> StringTransportWithDisconnection:
        protocol = self.factory.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self.dialed.callback(protocol)
        return transport


class Inside(Factory):
    """Makes what talks to the target."""

    protocol = AccumulatingProtocol
    protocolConnectionMade = None


class TunnelTests(SynchronousTestCase):
    """:class:`derp.net.proxy_tunnel.TunnelEndpoint`."""

    def setUp(self) -> None:
        self.proxy: Any = FakeProxy()

    def connect(self, host: str = "a.test", authorization: str | None = None) -> Deferred[Any]:
        return TunnelEndpoint(self.proxy, host, 443, authorization).connect(Inside())

    def test_request(self) -> None:
        """Where to, and as whom."""
        for host, target in (("a.test", "a.test:443"), ("2001:db8::1", "[2001:db8::1]:443")):
            self.setUp()
            self.connect(host, "Basic eA==")
            self.assertEqual(
                self.proxy.answer().value().decode(),
                f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
                "Proxy-Authorization: Basic eA==\r\n\r\n",
            )

    def test_through(self) -> None:
        """The answer may come in pieces; what is behind it, and later, is the target's."""
        connected = self.connect()
        outer = self.proxy.answer().protocol
        for piece in (b"HTTP/1.1 20", b"0 OK\r\nx: y\r\n\r", b"\nhel"):
            self.assertNoResult(connected)
            outer.dataReceived(piece)
        inner = self.successResultOf(connected)
        outer.dataReceived(b"lo")
        self.assertEqual(inner.data, b"hello")
        outer.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(inner.closed)

    def test_given_up(self) -> None:
        """Who gives up leaves no connection to the proxy."""
        connected = self.connect()
        transport = self.proxy.answer()
        connected.cancel()
        self.failureResultOf(connected, CancelledError)
        self.assertFalse(transport.connected)
        transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")

    def test_given_up_while_dialing(self) -> None:
        """Or keeps dialing it."""
        connected = self.connect()
        connected.cancel()
        self.failureResultOf(connected, CancelledError)
        self.assertTrue(self.proxy.dialed.called)

    def test_unreachable(self) -> None:
        """The proxy itself may be down."""
        self.proxy.dialed = fail(ConnectionRefusedError())
        self.failureResultOf(self.connect(), NoAnswer)
