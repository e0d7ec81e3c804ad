"""Nodes that hang at each stage of a connection, and nodes that answer garbage there."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from derp.prober import tls_peek
from derp.prober.check import Check, ProbeFailed
from derp.prober.mesh_check import mesh_check
from derp.prober.targets import Targets
from derp.prober.tls_check import tls_check
from derp.wire.derp_map import DERPMap, Node, Region
from derp.wire.frames import FrameType, encode_frame, encode_recv_packet
from derp.wire.handshake import encode_server_key
from derp.wire.keys import public_of
from derp.wire.node_json import pin_of
from tests.integration.relay_case import HOST, MESH_KEY, reactor
from tests.net.closed_ports import closed_tcp_port
from tests.net.relay_fakes import (
    SERVER,
    SWITCHING,
    FakeRelay,
    FakeRelayFactory,
    ServerTLS,
    metacert,
    over_tls,
)
from tests.net.test_relay_dialer import DialReactor
from tests.prober.chains import make_ca
from tests.prober.check_case import CheckTestCase
from tests.prober.relaying import Room

LONE = make_ca().leaf()
PIN = pin_of(LONE.der)
NAME = f"node 900a ({HOST})"
PATIENCE_S = (0.2, 1.0, 5.0)
"""How long a check is let run until it has come as far as it can; a busy machine takes longer."""
GREETING = encode_server_key(public_of(SERVER))
BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"


class Says(Protocol):
    """Says something to whoever connects, and reads on."""

    def __init__(self, words: bytes) -> None:
        self._words = words

    def connectionMade(self) -> None:
        if self._words and self.transport is not None:
            self.transport.write(self._words)


class NeverCloses(TLSMemoryBIOProtocol):
    """Does not hear that the other side wants to close."""

    def _shutdownTLS(self) -> None:
        """Do not answer."""

    def _tlsShutdownFinished(self, reason: Any) -> None:
        """Read no more, and keep the connection."""
        self._lostTLSConnection = True


class Silent(FakeRelay):
    """Greets, and does not answer the login."""

    def _frame(self, frame_type: int, payload: bytes) -> None:
        """Whatever it is."""


class FaultyNodeCase(CheckTestCase):
    """Serves, and looks at how checks fail."""

    def listen(self, make: Callable[[], Protocol], *, meta: bool = False, tls: bool = True) -> Node:
        """Serve a protocol as the node 900a."""
        factory: Any = Factory.forProtocol(make)
        factory.noisy = False
        if tls:
            server = ServerTLS(LONE, [metacert()] if meta else [])
            relays = FakeRelayFactory(make)  # type: ignore[arg-type]
            factory = over_tls(relays, server)
        self.port = self.closing(reactor.listenTCP(0, factory, interface=HOST))
        return self.node("900a", self.port, cert_name=PIN)

    def mesh(self, node: Node, **fields: Any) -> Check:
        return mesh_check(self.targets(**fields), self.region, node, node)

    async def says(self, check: Check, *words: str, seconds: float = 20.0) -> str:
        """Fail with all these words, and in time, and with the node's name and place."""
        text = await self.fails(check, seconds)
        self.assertNotIn("still waiting for", text)
        for each in (NAME, f"{HOST}:{self.port}", *words):
            self.assertIn(each, text)
        self.assertLess(len(text), 900)
        return text

    async def hangs(self, check: Check, *words: str) -> str:
        """Fail only when the time is over, which is said, with how long that was, and where."""
        words = (f"{HOST}:{self.port}", *words)
        return await self.hangs_somewhere(check, *words)

    async def hangs_somewhere(self, check: Check, *words: str) -> str:
        """The same of a check of which no address is to blame."""
        for seconds in PATIENCE_S:
            text = await self.fails(check, seconds)
            if all(each in text for each in words):
                break
        for each in (NAME, "still waiting for", *words):
            self.assertIn(each, text)
        self.assertLess(len(text), 900)
        found = re.search(r"nothing after (\d+\.\d) s", text)
        assert found is not None, text
        self.assertGreaterEqual(float(found[1]), seconds)
        return text


class HangingTests(FaultyNodeCase):
    """A node that stops answering: the run is cancelled, and says where."""

    def unaccepting(self) -> Node:
        """A node whose queue of new connections is full."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind((HOST, 0))
        listener.listen(0)
        self.port = listener.getsockname()[1]
        waiting = socket.create_connection((HOST, self.port))
        self.addCleanup(waiting.close)
        return self.node("900a", self.port, cert_name=PIN)

    async def test_connect(self) -> None:
        """Connections that are not accepted."""
        node = self.unaccepting()
        for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
            await self.hangs(check, "the TCP connection to", "open in its firewall")

    async def test_tls(self) -> None:
        """A port that accepts, and nothing more."""
        node = self.listen(lambda: Says(b""), tls=False)
        for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
            await self.hangs(check, "the TLS handshake", "speaks no TLS")

    async def test_upgrade(self) -> None:
        """A server with TLS that does not answer the request, or not to its end."""
        for answer in (b"", SWITCHING[:-2]):
            node = self.listen(lambda answer=answer: FakeRelay(answer=answer, greeting=b""))
            await self.hangs(self.mesh(node), "the HTTP answer", "proxy")
            self.setUp()

    async def test_greeting(self) -> None:
        """A server that switches protocols, and does not greet."""
        for greeting in (b"", GREETING[:-1]):
            node = self.listen(lambda greeting=greeting: FakeRelay(greeting=greeting))
            await self.hangs(self.mesh(node), "the relay's greeting", "proxy")
            self.setUp()

    async def test_login(self) -> None:
        """A relay that does not answer the login, with either way of starting."""
        for meta in (False, True):
            node = self.listen(Silent, meta=meta)
            await self.hangs(self.mesh(node), "the answer to the login", "verify its clients")
            self.setUp()

    async def test_first_packet(self) -> None:
        """A relay that admits clients and does not relay."""
        node = self.listen(FakeRelay, meta=True)
        words = f"the packet that was sent through {NAME}"
        text = await self.hangs_somewhere(self.mesh(node), words)
        self.assertRegex(text, r"^\[[\w+/]{5}\] to \[[\w+/]{5}\]: nothing after ")

    async def test_closing(self) -> None:
        """A relay that does not close when we do is left alone after a while."""
        self.patch(tls_peek, "CLOSE_S", 0.1)
        factory = over_tls(FakeRelayFactory(), ServerTLS(LONE))
        factory.protocol = NeverCloses
        port = self.closing(reactor.listenTCP(0, factory, interface=HOST))
        node = self.node("900a", port, cert_name=PIN)
        await self.passes(tls_check(self.targets(), self.region, node))

    async def test_one_of_two(self) -> None:
        """Of two nodes the one that hangs is named, and the other is not."""
        good = self.node_of(self.relay(stun=False), "900b")
        bad = self.listen(Silent)
        for pair in ((good, bad), (bad, good)):
            check = mesh_check(self.targets(), self.region, *pair)
            text = await self.hangs(check, "the answer to the login")
            self.assertNotIn("node 900b", text)

    async def test_other_fails(self) -> None:
        """If one node fails, the other one is not waited for, and nothing is left of it."""
        hanging, dead = self.unaccepting(), self.node("900b", 1)
        for pair in ((hanging, dead), (dead, hanging)):
            text = await self.fails(mesh_check(self.targets(), self.region, *pair))
            self.assertIn(
                "connect to node 900b (127.0.0.1): 127.0.0.1 port 1: Connection refused", text
            )


class SlowNameTests(SynchronousTestCase):
    """A name that is not resolved, in a time that is advanced by hand."""

    def test_resolve(self) -> None:
        """The name that is waited for is told, and nothing is left."""
        node = Node(name="900a", region_id=900, host_name="dns.slow", ipv6="none")
        region = Region(region_id=900, code="test", nodes=(node,))
        for make in (
            lambda targets: tls_check(targets, region, node),
            lambda targets: mesh_check(targets, region, node, node),
        ):
            dialing = DialReactor()
            derp_map = DERPMap(regions={900: region})
            check = make(Targets(reactor=dialing, current_map=lambda it=derp_map: it))
            running = Deferred.fromCoroutine(check.run())
            dialing.advance(9)
            self.assertNoResult(running)
            running.cancel()
            text = str(self.failureResultOf(running, ProbeFailed).value)
            self.assertIn("node 900a (dns.slow): ", text)
            self.assertIn("nothing after 9.0 s", text)
            self.assertIn("still waiting for", text)
            self.assertIn("an IPv4 address of dns.slow: is HostName right", text)
            self.assertEqual(dialing.getDelayedCalls(), [])


class GarbageTests(FaultyNodeCase):
    """A node that answers something else: told at once, with what it was."""

    async def test_nobody(self) -> None:
        """Nobody listens."""
        self.port = closed_tcp_port(self)
        node = self.node("900a", self.port)
        for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
            text = await self.fails(check)
            self.assertIn(f"cannot connect to {NAME}: ", text)
            self.assertIn(f"{HOST} port {self.port}: Connection refused", text)
            self.assertEqual(text.count(NAME), 1)

    async def test_no_host(self) -> None:
        """A host name that is none is the map's fault."""
        node = self.node("900a", 443, host_name="not a host")
        for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
            self.assertIn("'not a host' is no host name", await self.fails(check))

    async def test_no_family(self) -> None:
        """So is a node without any family."""
        node = self.node("900a", 443, host_name="derp.example.com", ipv4="none")
        for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
            self.assertIn("IPv4 and IPv6 are both turned off", await self.fails(check))

    async def test_tls(self) -> None:
        """A port that speaks something else than TLS, or hangs up."""
        for words in (BANNER, b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(500)):
            node = self.listen(lambda words=words: Says(words), tls=False)
            for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
                await self.says(check, "TLS handshake failed")
            self.setUp()

    async def test_hang_up(self) -> None:
        """A port that hangs up."""

        class HangsUp(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        node = self.listen(HangsUp, tls=False)
        for check in (tls_check(self.targets(), self.region, node), self.mesh(node)):
            await self.says(check, "the TLS handshake")

    async def test_certificate(self) -> None:
        """A certificate that is another one ends a client's connection too."""
        self.listen(FakeRelay)
        node = self.node("900b", self.port)
        text = await self.fails(self.mesh(node))
        self.assertIn(f"node 900b ({HOST}): expected a trusted certificate", text)
        self.assertIn("issued by CN=Root,O=Test Trust", text)
        self.assertIn(f"connected to {HOST}:{self.port}", text)

    async def test_upgrade(self) -> None:
        """Answers other than 101: pages, errors, other protocols, endless ones."""
        for answer, words in (
            (b"HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP 200 OK where 101"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP 502 Bad Gateway where 101"),
            (b"HTTP/2 what\r\n\r\n", "no HTTP"),
            (BANNER, 'no HTTP (b"SSH-2.0'),
            (b"HTTP/1.1 101 " + b"x" * 10_000, "has no end within 8192 bytes"),
        ):
            node = self.listen(lambda answer=answer: FakeRelay(answer=answer))
            await self.says(self.mesh(node), words)
            self.setUp()

    async def test_greeting(self) -> None:
        """Frames that are no greeting, and bytes that are no frames."""
        for greeting, words in (
            (encode_frame(FrameType.KEEP_ALIVE, b""), "not ServerKey"),
            (b"\x01\x00\x00\x00\x28" + bytes(40), "ServerKey"),
            (b"\xff" * 50, "frame"),
        ):
            node = self.listen(lambda greeting=greeting: FakeRelay(greeting=greeting))
            await self.says(self.mesh(node), words)
            self.setUp()

    async def test_fast_start_answered_in_http(self) -> None:
        """A relay that was started fast and has its DERP turned off."""

        class Refuses(FakeRelay):
            def dataReceived(self, data: bytes) -> None:
                self.send(b"HTTP/1.1 404 Not Found\r\n\r\n")

        await self.says(self.mesh(self.listen(Refuses, meta=True)), "HTTP 404 Not Found")

    async def test_login(self) -> None:
        """A box that is not sealed with the right key, and an endless frame."""
        for frame in (
            encode_frame(FrameType.SERVER_INFO, bytes(100)),
            b"\x05\xff\xff\xff\xff" + bytes(100),
        ):

            class Lies(FakeRelay):
                def _frame(self, frame_type: int, payload: bytes, frame: bytes = frame) -> None:
                    self.send(frame)

            await self.says(self.mesh(self.listen(Lies)))
            self.setUp()

    async def test_before_server_info(self) -> None:
        """The first message must be ServerInfo."""

        class Hasty(FakeRelay):
            def _frame(self, frame_type: int, payload: bytes) -> None:
                self.send(encode_frame(FrameType.PING, bytes(8)))
                super()._frame(frame_type, payload)

        await self.says(self.mesh(self.listen(Hasty)), "sent Ping before ServerInfo")

    async def test_refused(self) -> None:
        """A relay that does not admit us: what to do, with a mesh key and without."""
        node = self.listen(lambda: FakeRelay(admit=False))
        for key in (None, MESH_KEY):
            text = await self.says(self.mesh(node, mesh_key=key), "may not admit this key")
            self.assertIn("-mesh-psk-file", text)

    async def test_packet(self) -> None:
        """Packets that are not what was sent, or not from whom, and no packets at all."""
        for deliver, words in (
            (lambda source, packet: encode_recv_packet(bytes(32), packet), "mixes up its clients"),
            (lambda source, packet: encode_recv_packet(source, packet + b"x"), "came changed"),
            (lambda source, packet: encode_recv_packet(source, bytes(8)), "came changed: 00000"),
            (lambda source, packet: b"\x05\xff\xff\xff\xff" + packet, "frame"),
        ):
            node = self.listen(Room(deliver).enter)
            text = await self.fails(self.mesh(node))
            self.assertIn(words, text)
            self.assertIn(NAME, text)
            self.setUp()
