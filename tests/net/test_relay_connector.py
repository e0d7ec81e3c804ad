"""Tests of :mod:`derp.net.relay_connector`: over loopback sockets, and over none."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.errors import ConfigError
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import RelayConnector, connect
from derp.net.relay_dialer import RelayAddress
from derp.net.relay_errors import ConnectFailed, LoginRefused, RelayError
from derp.wire.derp_map import Node, Region
from derp.wire.frames import FrameType, encode_recv_packet
from derp.wire.handshake import ServerInfo
from derp.wire.keys import generate_private, public_of
from derp.wire.messages import ReceivedPacket
from derp.wire.node_json import pin_of
from tests.net.relay_fakes import (
    CLIENT,
    SERVER,
    FakeRelay,
    FakeRelayFactory,
    ServerTLS,
    make_credentials,
    metacert,
    over_tls,
)
from tests.net.test_relay_dialer import DialReactor
from tests.net.unhurried import Unhurried

reactor: Any = global_reactor

HOST = "127.0.0.1"
CA = make_credentials(["Test CA"], ca=True)
LEAF = make_credentials(["localhost", HOST], CA)
LONE = make_credentials([HOST])
META = metacert()
PEER = bytes(range(32))


class LoopbackTestCase(TestCase):
    """Real sockets and real TLS to scripted relays."""

    timeout = 60

    def setUp(self) -> None:
        self.clients: list[RelayClient] = []
        self.ca_file = self.mktemp()
        with open(self.ca_file, "wb") as file:
            file.write(CA.pem)

    async def tearDown(self) -> None:
        for client in self.clients:
            await client.close()

    def listen(
        self, tls: ServerTLS | None, make: Callable[[], FakeRelay] = FakeRelay
    ) -> tuple[int, FakeRelayFactory]:
        """Start a scripted relay; give its port."""
        relays = FakeRelayFactory(make)
        factory = relays if tls is None else over_tls(relays, tls)
        listening = reactor.listenTCP(0, factory, interface=HOST)
        self.addCleanup(listening.stopListening)
        return listening.getHost().port, relays

    async def connect(self, target: Any, **options: Any) -> RelayClient:
        options = {"ca_file": self.ca_file, **options}
        client = await connect(Unhurried(reactor), target, CLIENT, **options)
        self.clients.append(client)
        return client

    async def fails(self, target: Any, **options: Any) -> str:
        """The text of the error with which connecting fails."""
        try:
            await self.connect(target, **options)
        except ConnectFailed as error:
            return str(error)
        self.fail("connected after all")


class TLSTests(LoopbackTestCase):
    """By URL over TLS."""

    async def test_fast_start(self) -> None:
        """With TLS 1.3 and a meta certificate, request and ClientInfo come in one read."""
        port, relays = self.listen(ServerTLS(LEAF, [META]))
        client = await self.connect(f"https://localhost:{port}/derp", dial_host=HOST)
        self.assertEqual(client.server_key, public_of(SERVER))
        self.assertEqual(await client.when_logged_in(), ServerInfo(2))
        self.assertEqual(client.tls_version, "TLSv1.3")
        (relay,) = relays.relays
        self.assertTrue(relay.fast_started)
        self.assertEqual(relay.client_key, public_of(CLIENT))
        _, _, behind = relay.first_read.partition(b"\r\n\r\n")
        self.assertEqual(behind[:1], bytes((FrameType.CLIENT_INFO,)))
        self.assertIn(f"\r\nHost: localhost:{port}\r\n".encode(), relay.request)

    async def test_no_fast_start(self) -> None:
        """Without meta certificate, with TLS 1.2, or if not wanted: the plain upgrade."""
        for tls, version, options in (
            (ServerTLS(LEAF), "TLSv1.3", {}),
            (ServerTLS(LEAF, [META], SSL.TLS1_2_VERSION), "TLSv1.2", {}),
            (ServerTLS(LEAF, [META]), "TLSv1.3", {"fast_start": False}),
        ):
            port, relays = self.listen(tls)
            client = await self.connect(f"https://{HOST}:{port}/derp", **options)
            await client.when_logged_in()
            self.assertEqual(client.tls_version, version)
            self.assertFalse(relays.relays[0].fast_started)
            self.assertEqual(client.server_key, public_of(SERVER))

    async def test_traffic(self) -> None:
        """Packets and pings go over TLS in both directions."""
        port, relays = self.listen(ServerTLS(LEAF, [META]))
        heard: Deferred[Any] = Deferred()
        client = await self.connect(
            f"https://{HOST}:{port}/derp",
            on_message=lambda message: (
                heard.callback(message) if isinstance(message, ReceivedPacket) else None
            ),
        )
        client.send(PEER, bytes(65536))
        self.assertLess(await client.ping(), 5.0)
        (relay,) = relays.relays
        self.assertEqual(relay.frames[0], (FrameType.SEND_PACKET, PEER + bytes(65536)))
        relay.send(encode_recv_packet(PEER, b"x" * 65536))
        self.assertEqual(await heard, ReceivedPacket(PEER, b"x" * 65536))

    async def test_socket_options(self) -> None:
        """Small packets leave at once, and a peer that vanished is noticed."""
        port, _ = self.listen(ServerTLS(LEAF, [META]))
        client = await self.connect(f"https://{HOST}:{port}/derp")
        transport: Any = client.transport
        self.assertTrue(transport.getTcpNoDelay())
        self.assertTrue(transport.getTcpKeepAlive())

    async def test_pause_receiving(self) -> None:
        """While the owner does not read, nothing is delivered; nothing is lost either."""
        port, relays = self.listen(ServerTLS(LEAF, [META]))
        client = await self.connect(f"https://{HOST}:{port}/derp")
        await client.when_logged_in()
        other = await self.connect(f"https://{HOST}:{port}/derp")
        heard: list[Any] = []
        client.on_message = heard.append
        client.pause_receiving()
        relays.relays[0].send(encode_recv_packet(PEER, b"packet"))
        pong = client.ping()
        await other.ping()
        await other.ping()
        self.assertEqual(heard, [])
        self.assertNoResult(pong)
        client.resume_receiving()
        await pong
        self.assertEqual(heard, [ReceivedPacket(PEER, b"packet")])

    async def test_untrusted(self) -> None:
        """A certificate that is not taken is explained, and the relay sees no request."""
        port, relays = self.listen(ServerTLS(LEAF, [META]))
        text = await self.fails(f"https://{HOST}:{port}/derp", ca_file="")
        self.assertIn(f"https://{HOST}:{port}/derp: expected a trusted certificate", text)
        self.assertEqual(relays.relays[0].request, b"")

    async def test_wrong_name(self) -> None:
        """A certificate for another name is refused under the URL's name, not the dialed one."""
        port, _ = self.listen(ServerTLS(LEAF, [META]))
        text = await self.fails(f"https://other.example:{port}/derp", dial_host=HOST)
        self.assertIn("expected a certificate for other.example", text)

    async def test_insecure(self) -> None:
        """Checks can be turned off, for tests."""
        port, _ = self.listen(ServerTLS(LONE))
        client = await self.connect(f"https://{HOST}:{port}/derp", insecure_for_tests=True)
        await client.when_logged_in()

    async def test_no_tls_there(self) -> None:
        """A relay without TLS under an https URL is recognised by its answer."""

        class PlainHTTP(FakeRelay):
            def dataReceived(self, data: bytes) -> None:
                self.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        port, _ = self.listen(None, PlainHTTP)
        text = await self.fails(f"https://{HOST}:{port}/derp")
        self.assertIn("this port does not speak TLS", text)

    async def test_closed_in_the_handshake(self) -> None:
        """A relay that hangs up on the ClientHello."""

        class HangUp(FakeRelay):
            def dataReceived(self, data: bytes) -> None:
                self.hang_up()

        port, _ = self.listen(None, HangUp)
        text = await self.fails(f"https://{HOST}:{port}/derp")
        self.assertIn("closed the connection during the TLS handshake", text)

    async def test_derp_turned_off(self) -> None:
        """A relay that names its key but does no DERP answers fast start with HTTP."""
        off = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

        port, _ = self.listen(ServerTLS(LEAF, [META]), lambda: FakeRelay(greeting=off))
        client = await self.connect(f"https://{HOST}:{port}/derp")
        error = await client.when_closed()
        self.assertIn("404 Not Found", str(error))

    async def test_refused_login(self) -> None:
        """Fast or not, a refused login is a refused login."""
        port, _ = self.listen(ServerTLS(LEAF, [META]), lambda: FakeRelay(admit=False))
        for fast_start in (True, False):
            client = await self.connect(f"https://{HOST}:{port}/derp", fast_start=fast_start)
            with self.assertRaises(LoginRefused):
                await client.when_logged_in()


class PlainTests(LoopbackTestCase):
    """By URL without TLS."""

    async def test_upgrade(self) -> None:
        """The plain upgrade."""
        port, relays = self.listen(None)
        client = await self.connect(f"http://{HOST}:{port}/derp")
        await client.when_logged_in()
        self.assertIsNone(client.tls_version)
        self.assertEqual(client.peer_address.port, port)
        self.assertFalse(relays.relays[0].fast_started)

    async def test_no_relay(self) -> None:
        """A port where nobody listens is named, and why."""
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            port = taken.getsockname()[1]
            text = await self.fails(f"http://{HOST}:{port}/derp")
        self.assertIn(f"cannot connect to http://{HOST}:{port}/derp", text)
        self.assertIn("refused", text)

    async def test_generations(self) -> None:
        """A connector counts its connections."""
        port, _ = self.listen(None)
        connector = RelayConnector(
            reactor=reactor, target=f"http://{HOST}:{port}/derp", private_key=CLIENT
        )
        for generation in (1, 2, 3):
            client = await connector.connect()
            self.clients.append(client)
            self.assertEqual(client.generation, generation)

    async def test_silent_relay(self) -> None:
        """A relay that accepts and says nothing costs the time limit; the error says where."""
        listening = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface=HOST)
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port
        text = await self.fails(f"http://{HOST}:{port}/derp", timeout=0.05)
        self.assertIn("no connection within 0.05 s, still waiting for the HTTP answer", text)
        text = await self.fails(f"https://{HOST}:{port}/derp", timeout=0.05)
        self.assertIn("still waiting for the TLS handshake", text)

    async def test_back_pressure(self) -> None:
        """A relay that stops reading makes the client unwritable, until it reads again."""
        port, relays = self.listen(None)
        client = await self.connect(f"http://{HOST}:{port}/derp")
        await client.when_logged_in()
        (relay,) = relays.relays
        transport: Any = relay.transport
        transport.pauseProducing()
        sent = 0
        while client.send(PEER, bytes(60000)):
            sent += 1
            self.assertLess(sent, 2000, "the queue has no bound")
        self.assertFalse(client.writable)
        writable: Deferred[None] = Deferred()
        client.on_writable = lambda: writable.callback(None)
        transport.resumeProducing()
        await writable
        self.assertTrue(client.writable)
        await client.ping()
        packets = [frame for frame in relay.frames if frame[0] == FrameType.SEND_PACKET]
        self.assertEqual(len(packets), sent)


class RegionTests(LoopbackTestCase):
    """By region of a DERP map."""

    def node(self, name: str, port: int, **fields: Any) -> Node:
        pin = pin_of(LONE.der)
        node = {"host_name": HOST, "cert_name": pin, "derp_port": port, **fields}
        return Node(name=name, **node)

    async def test_pinned(self) -> None:
        """A relay with a self-signed certificate for its IP, pinned, in either TLS."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            port, relays = self.listen(ServerTLS(LONE, [META], version))
            region = Region(region_id=900, code="own", nodes=(self.node("900a", port),))
            client = await self.connect(region)
            await client.when_logged_in()
            self.assertNotIn(b"Ideal-Node", relays.relays[0].request)

    async def test_wrong_pin(self) -> None:
        """Another certificate than the pinned one ends before a request is sent."""
        port, relays = self.listen(ServerTLS(LEAF, [META]))
        region = Region(region_id=900, code="own", nodes=(self.node("900a", port),))
        text = await self.fails(region)
        self.assertIn("region 900 (own) node 900a: CertName expects", text)
        self.assertEqual(relays.relays[0].request, b"")

    async def test_second_node(self) -> None:
        """If the first node is away the second is told whom the client wanted."""
        port, relays = self.listen(ServerTLS(LONE, [META]))
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            away = taken.getsockname()[1]
            nodes = (self.node("900a", away), self.node("900b", port))
            client = await self.connect(Region(region_id=900, code="own", nodes=nodes))
        await client.when_logged_in()
        self.assertIn(b"\r\nIdeal-Node: 900a\r\n", relays.relays[0].request)
        self.assertEqual(client.relay.label, "region 900 (own) node 900b")

    async def test_insecure_node(self) -> None:
        """``InsecureForTests`` of the map."""
        port, _ = self.listen(ServerTLS(LEAF))
        node = self.node("900a", port, cert_name="", insecure_for_tests=True)
        client = await self.connect(Region(region_id=900, nodes=(node,)))
        await client.when_logged_in()


class AttemptTests(SynchronousTestCase):
    """Limits and targets, without sockets."""

    def connector(self, target: Any = "https://relay.example/derp", **more: Any) -> RelayConnector:
        self.reactor = DialReactor()
        return RelayConnector(
            reactor=self.reactor, target=target, private_key=generate_private(), **more
        )

    def test_time_limit(self) -> None:
        """A URL that does not answer is given up after 10 s, and nothing is left behind."""
        connecting = self.connector().connect()
        self.reactor.advance(9.9)
        self.assertNoResult(connecting)
        self.reactor.advance(0.2)
        text = str(self.failureResultOf(connecting, ConnectFailed).value)
        self.assertIn("https://relay.example/derp: no connection within 10 s", text)
        self.assertIn("still waiting for the TCP connection", text)
        self.assertTrue(self.reactor.cancelled(0) and self.reactor.cancelled(1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_time_limit_of_a_region(self) -> None:
        """However many nodes a region has, 10 s are all it gets."""
        nodes = tuple(Node(name=str(n), host_name=f"192.0.2.{n}") for n in range(1, 20))
        connecting = self.connector(Region(region_id=9, code="x", nodes=nodes)).connect()
        for _ in range(101):
            self.reactor.advance(0.1)
        text = str(self.failureResultOf(connecting, ConnectFailed).value)
        self.assertIn("region 9 (x): no connection within 10 s", text)
        self.assertEqual(len(self.reactor.dialed), 7)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """Cancelling stops dialing."""
        connecting = self.connector().connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.reactor.cancelled(0))

    def test_cancel_later(self) -> None:
        """Cancelling closes a connection that is not through its handshake."""
        connecting = self.connector("http://192.0.2.1/derp").connect()
        self.reactor.accept(0)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)

    def test_targets(self) -> None:
        """URL, region and an address of one's own; nothing else."""
        own = RelayAddress(label="mine", host="192.0.2.1", port=3340, tls=False)
        self.connector(own).connect()
        self.assertEqual(self.reactor.dialed, [("192.0.2.1", 3340)])
        self.assertRaises(ConfigError, self.connector, "relay.example")
        self.assertRaises(ConfigError, self.connector, Region(region_id=1))

    def test_secrets_are_not_shown(self) -> None:
        """Neither private key nor mesh key appears when a connector is printed."""
        connector = self.connector(mesh_key=b"\xabc" * 16)
        text = repr(connector)
        self.assertNotIn(repr(connector.private_key), text)
        self.assertNotIn("xabc", text)

    def test_errors_are_relay_errors(self) -> None:
        """Whoever connects needs to catch one type."""
        self.assertTrue(issubclass(ConnectFailed, RelayError))
        self.assertTrue(issubclass(LoginRefused, RelayError))
