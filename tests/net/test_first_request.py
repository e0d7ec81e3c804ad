"""Stock clients' upgrades without an HTTP connection, and everybody else's with one."""

import gc
import weakref
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.first_request import FirstRequest
from derp.net.http_deadlines import LINGER_S, READ_S
from derp.net.trusted_proxies import TrustedProxies
from derp.net.upgrade import UpgradableChannel
from derp.net.web import build_main_site
from derp.wire.stock_upgrade import recognise_upgrade
from derp.wire.upgrade import encode_upgrade_request
from tests.net.sites import GREETING, AbortableTransport, FakeRelay, Visit, get, site_parts
from tests.net.upgrade_case import CLIENT_INFO, HEAD, SwappingTransport, UpgradeTestCase

PLAIN = encode_upgrade_request("/derp", "derp.example.com")
FAST = encode_upgrade_request("/derp", "derp.example.com", fast_start=True)
LATE_S = 5.0


class RelayTransport(SwappingTransport):
    """A transport of strings that can swap its protocol, as our own."""

    tls_version = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.protocols: list[Any] = []

    def setProtocol(self, protocol: Any) -> None:
        super().setProtocol(protocol)
        self.protocols.append(protocol)


class FrontVisit(Visit):
    """A visit that begins as connections to the relay do."""

    def __init__(
        self, site: Any, transport: Any = None, clock: Clock | None = None, *, named: bool = False
    ) -> None:
        self.transport = RelayTransport() if transport is None else transport
        self.clock = clock
        self.arrivals: list[None] = []
        arrive = partial(self.arrivals.append, None)
        self.front = FirstRequest(site, site.derp, arrive, named=named)
        self.transport.setProtocol(self.front)
        self.front.makeConnection(self.transport)

    @property
    def channel(self) -> Any:
        """Whoever gets the bytes now."""
        return self.transport.swapped


class FirstRequestTests(UpgradeTestCase):
    """Who gets the first bytes, and when."""

    def front(self, transport: Any = None, *, named: bool = False) -> FrontVisit:
        return FrontVisit(self.site, transport, self.clock, named=named)

    def test_stock_request(self) -> None:
        """No HTTP connection is made; what stands behind the request is DERP."""
        visit = self.front()
        self.assertEqual(visit.send(PLAIN), HEAD + GREETING)
        visit.send(CLIENT_INFO)
        self.assertEqual(self.connection.received, CLIENT_INFO)
        self.assertEqual(visit.transport.protocols, [visit.front, self.connection])
        self.assertEqual(len(visit.arrivals), 1)
        self.clock.advance(2 * READ_S)
        self.assertFalse(visit.closing, "no deadline of HTTP's is left")

    def test_fast_start(self) -> None:
        """The login in the same piece gets there; nothing of HTTP is answered."""
        visit = self.front()
        self.assertEqual(visit.send(FAST + CLIENT_INFO), GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)

    def test_anything_else(self) -> None:
        """Another request is answered by HTTP, from its first byte on."""
        visit = self.front()
        self.assertIn(b"200 OK", visit.send(get("/derp/probe")))
        self.assertIsInstance(visit.channel, UpgradableChannel)
        self.assertIn(b"HTTP/1.1 400 ", visit.send(b"rubbish\r\n\r\n"))
        self.assertEqual(len(visit.arrivals), 1)

    def test_upgrade_after_another_request(self) -> None:
        """Only a connection's first request is looked at; a later one is HTTP's, all the same."""
        visit = self.front()
        visit.send(get("/derp/probe"))
        self.assertEqual(visit.send(PLAIN), HEAD + GREETING)

    def test_split(self) -> None:
        """A request in two pieces is HTTP's."""
        visit = self.front()
        self.assertEqual(visit.send(PLAIN[:40]), b"")
        self.assertEqual(visit.send(PLAIN[40:] + CLIENT_INFO), HEAD + GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)

    @given(st.lists(st.integers(1, 200), max_size=12), st.sampled_from((PLAIN, FAST)))
    def test_any_split(self, sizes: list[int], request: bytes) -> None:
        """However the bytes come, the relay gets those behind the request, once each."""
        self.relay.connections.clear()
        visit = self.front()
        rest = request + CLIENT_INFO
        answer = b""
        for size in [*sizes, len(rest)]:
            piece, rest = rest[:size], rest[size:]
            answer += visit.send(piece) if piece else b""
        self.assertEqual(answer, (HEAD if request is PLAIN else b"") + GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)

    def test_failing_relay(self) -> None:
        """An error of our own reaches the transport, which ends the connection."""

        def fail(**_: Any) -> None:
            raise ZeroDivisionError("on purpose")

        self.relay.accept = fail  # type: ignore[method-assign,assignment]
        with self.assertRaises(ZeroDivisionError):
            self.front().send(PLAIN)

    def test_silence(self) -> None:
        """Who never says a word is closed when its time is over, and cut a moment later."""
        visit = self.front()
        self.clock.advance(READ_S - 1)
        self.assertFalse(visit.closing)
        self.clock.advance(1 + LATE_S)
        self.assertTrue(visit.closing)
        self.clock.advance(LINGER_S + LATE_S)
        self.assertTrue(visit.transport.aborted)
        self.assertEqual(len(visit.arrivals), 0)

    def test_one_deadline(self) -> None:
        """The first byte does not make the time for the request begin anew."""
        visit = self.front()
        self.clock.advance(READ_S - 2)
        visit.send(b"GET ")
        self.clock.advance(2 + LATE_S)
        self.assertTrue(visit.closing)

    def test_lost_in_silence(self) -> None:
        """A connection that goes as it came leaves no timer."""
        visit = self.front()
        front = weakref.ref(visit.front)
        visit.front.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(2 * READ_S)
        self.assertFalse(visit.closing)
        gc.disable()
        self.addCleanup(gc.enable)
        visit.transport.protocols.clear()
        visit.transport.swapped = None
        del visit
        self.assertIsNone(front(), "freed by reference count")

    def test_tls_gauge(self) -> None:
        """The connection counts as one request of its TLS version, until it is lost."""
        transport = RelayTransport()
        transport.tls_version = "1.3"
        visit = self.front(transport)
        visit.send(PLAIN)
        stats = self.parts.tls_stats
        self.assertEqual((stats.requests, stats.active), ({"1.3": 1}, {"1.3": 1}))
        visit.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((stats.requests, stats.active), ({"1.3": 1}, {"1.3": 0}))
        self.assertIsNotNone(self.connection.lost)

    def test_nameless_client_of_a_proxy(self) -> None:
        """A proxy that does not say for whom it comes is pointed out here, too."""
        hints: list[Any] = []
        self.site.proxies = TrustedProxies.__new__(TrustedProxies)
        self.patch(
            TrustedProxies,
            "judge_nameless_login",
            lambda _, client, *, named: hints.append((client.host, named)),
        )
        self.front(RelayTransport("192.0.2.9"), named=True).send(PLAIN)
        self.front(RelayTransport("192.0.2.9")).send(PLAIN)
        self.assertEqual(hints, [("192.0.2.9", True), ("192.0.2.9", False)])

    def test_derp_turned_off(self) -> None:
        """Where ``/derp`` is a refusal there is no front."""
        site = build_main_site(site_parts(self.clock, Config(tls=False, derp=False)))
        self.assertIsNone(site.derp)


class SameVerdictTests(SynchronousTestCase):
    """What is recognised means to the HTTP server what it means to the front."""

    hosts = st.from_regex(r"\A[A-Za-z0-9.:\[\]_-]{1,261}\Z")
    values = st.from_regex(r"\A[!-~]{1,255}\Z")
    agents = st.from_regex(r"\A[!-~]([ -~]{0,254}[!-~])?\Z")

    @given(st.booleans(), hosts, st.none() | agents, st.none() | values, st.booleans())
    def test_same(
        self,
        fast: bool,
        host: str,
        agent: str | None,
        ideal: str | None,
        login: bool,
    ) -> None:
        """The relay is handed the same, and the client is answered the same."""
        lines = [
            "GET /derp HTTP/1.1",
            f"Host: {host}",
            *([f"User-Agent: {agent}"] if agent is not None else []),
            "Connection: Upgrade",
            *(["Derp-Fast-Start: 1"] if fast else []),
            *([f"Ideal-Node: {ideal}"] if ideal is not None else []),
            "Upgrade: DERP",
        ]
        request = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
        self.assertIsNotNone(recognise_upgrade(request))
        outcomes = []
        for kind in (Visit, FrontVisit):
            clock, relay = Clock(), FakeRelay()
            site = build_main_site(site_parts(clock, Config(tls=False), relay=relay))
            transport = AbortableTransport() if kind is Visit else RelayTransport()
            visit = kind(site, transport, clock)
            answer = visit.send(request + (CLIENT_INFO if login else b""))
            (connection,) = relay.connections
            outcomes.append((answer, connection.options, connection.received))
        self.assertEqual(*outcomes)
        self.assertEqual(outcomes[0][1]["remote"], IPv4Address("TCP", "127.0.0.1", 54321))
