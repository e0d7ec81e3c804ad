"""Tests for :mod:`derp.net.relay_protocol` on the relay's own transport, over real sockets."""

from __future__ import annotations

import gc
import select
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from derp.net.relay_protocol import RelayProtocol, RelayServer
from derp.net.tls_transport import TLSTransport
from derp.wire.frames import FrameType, encode_frame, encode_ping, encode_send_packet
from tests.core.fakes import make_relay
from tests.net.relay_sides import PEER, Side
from tests.net.sockets import PlainClient
from tests.net.tls_peers import TLSClient
from tests.net.tls_pump import TLSPump

SMALL = 8192
PING = encode_ping(b"12345678")


class Guest:
    """A client over TLS: its side, its socket, the relay's end of it."""

    def __init__(self, case: RelayOnTransportTests, name: str, buffer: int, mesh: bool) -> None:
        pump = case.pump
        self.side = Side(name, mesh=mesh)
        self.protocol = case.server.accept(remote=PEER, fast_start=True)
        ours, theirs = pump.pair(buffer=buffer)
        self.transport: TLSTransport = pump.serve(ours, lambda _: self.protocol)
        self.client = TLSClient(theirs)
        pump.clients.append(self.client)
        pump.until(lambda: self.client.ready and self.protocol.transport)

    def got(self, frame_type: FrameType) -> list[bytes]:
        """Payloads of what came of one type, so far."""
        decoded = Side(self.side.name).frames(bytes(self.client.received))
        return [payload for kind, payload in decoded if kind == frame_type]


class RelayOnTransportTests(SynchronousTestCase):
    """Whole connections on a hub that is turned by hand."""

    def setUp(self) -> None:
        self.pump = TLSPump(self)
        self.relay = make_relay()
        self.server = self.make_server()
        self.pump.hub.timed = self.relay

    def make_server(self, **options: Any) -> RelayServer:
        return RelayServer(self.relay, self.pump.reactor, self.pump.wheel, **options)

    def guest(
        self, name: str, *, buffer: int = 0, mesh: bool = False, behind: bytes = b""
    ) -> Guest:
        """A client that has sent its login."""
        guest = Guest(self, name, buffer, mesh)
        guest.client.write(guest.side.login(self.relay.public) + behind)
        return guest

    def log_in(self, name: str, *, buffer: int = 0, mesh: bool = False) -> Guest:
        """One that is in."""
        guest = self.guest(name, buffer=buffer, mesh=mesh)
        self.pump.until(lambda: guest.got(FrameType.SERVER_INFO))
        return guest

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever has something to do does it."""
        for _ in range(int(seconds / 0.25)):
            self.pump.reactor.advance(0.25)
            self.pump.turn()

    def test_packets(self) -> None:
        """Packets of all sizes in one stream arrive whole and in order."""
        alice, bob = self.log_in("alice"), self.log_in("bob")
        packets = [bytes((n,)) * (n * 2_621 % 65_537) for n in range(100)]
        stream = b"".join(encode_send_packet(bob.side.key, packet) for packet in packets)
        for start in range(0, len(stream), 50_000):
            alice.client.write(stream[start : start + 50_000])
            self.pump.turn()
        self.pump.until(lambda: len(bob.got(FrameType.RECV_PACKET)) == 100)
        self.assertEqual(
            bob.got(FrameType.RECV_PACKET), [alice.side.key + packet for packet in packets]
        )

    def test_receiver_that_stops_reading(self) -> None:
        """
        It loses its own packets only and is cut after two seconds; the sender and another
        receiver do not notice.
        """
        alice, carol = self.log_in("alice"), self.log_in("carol")
        bob = self.log_in("bob", buffer=SMALL)
        bob.client.reading = False
        to_bob = encode_send_packet(bob.side.key, bytes(1200)) * 10
        to_carol = encode_send_packet(carol.side.key, bytes(100))
        for _ in range(100):
            alice.client.write(to_bob + to_carol)
            self.pump.turn()
        self.pump.until(lambda: len(carol.got(FrameType.RECV_PACKET)) == 100)
        self.assertTrue(bob.transport._blocked)
        self.assertLess(bob.transport._pending_size, 70_000)
        self.advance(1.5)
        self.assertIn(bob.protocol, self.server.protocols)
        self.advance(1)
        self.assertNotIn(bob.protocol, self.server.protocols)
        stats = self.relay.stats
        self.assertEqual(stats.sclient_write_timeouts, 1)
        self.assertEqual(stats.packets_received, stats.packets_sent + stats.dropped)
        alice.client.write(PING)
        self.pump.until(lambda: alice.got(FrameType.PONG))

    def test_receiver_that_reads_slowly(self) -> None:
        """One that takes some within two seconds stays, and gets the newest packets in order."""
        alice, bob = self.log_in("alice"), self.log_in("bob", buffer=SMALL)
        for second in range(6):
            bob.client.reading = False
            for n in range(40):
                packet = bytes((second, n)) + bytes(3_000)
                alice.client.write(encode_send_packet(bob.side.key, packet))
                self.pump.turn()
            self.advance(1.5)
            bob.client.reading = True
            self.pump.until(lambda: not bob.transport._blocked)
        self.pump.until(lambda: bob.got(FrameType.RECV_PACKET)[-1][32:34] == b"\x05\x27")
        order = [payload[32:34] for payload in bob.got(FrameType.RECV_PACKET)]
        self.assertEqual(order, sorted(order))
        stats = self.relay.stats
        self.assertEqual(stats.packets_sent, len(order))
        self.assertEqual(stats.packets_received, stats.packets_sent + stats.dropped)
        self.assertGreater(stats.dropped, 0)

    def test_admission(self) -> None:
        """What comes behind a login waits in the transport until admission has answered."""
        answer: Deferred[str | None] = Deferred()
        self.server = self.make_server(admission=lambda _: answer)
        guest = self.guest("alice", behind=PING + PING[:4])
        self.pump.settle()
        guest.client.write(PING[4:])
        self.pump.settle()
        self.assertEqual(guest.client.received, self.relay.greeting)
        answer.callback(None)
        self.pump.until(lambda: len(guest.got(FrameType.PONG)) == 2)

    def test_admission_at_once(self) -> None:
        """An answer from within the call does as well, however the login was cut."""
        for cut in (0, 1, 40, 100):
            answer: Deferred[str | None] = Deferred()
            answer.callback(None)
            self.server = self.make_server(admission=lambda _, a=answer: a)  # type: ignore[misc]
            guest = Guest(self, f"cut at {cut}", 0, False)
            login = guest.side.login(self.relay.public) + PING
            guest.client.write(login[:cut])
            self.pump.settle()
            guest.client.write(login[cut:])
            self.pump.until(lambda g=guest: g.got(FrameType.PONG))  # type: ignore[misc]

    def test_refusal(self) -> None:
        """A refused client sees a clean end, whatever it has sent behind its login."""
        answer: Deferred[str | None] = Deferred()
        self.server = self.make_server(admission=lambda _: answer)
        guest = self.guest("alice", behind=bytes(50_000))
        self.pump.settle()
        answer.callback("no")
        self.pump.until(lambda: guest.client.ended)
        self.assertEqual((guest.client.ended, guest.client.closed), ("eof", True))

    def test_fault(self) -> None:
        """A fault ends cleanly behind what was answered before it."""
        guest = self.log_in("alice")
        guest.client.write(PING + encode_frame(FrameType.PING, b"short") + PING * 1000)
        self.pump.until(lambda: guest.client.ended)
        self.assertEqual(len(guest.got(FrameType.PONG)), 1)
        self.assertEqual((guest.client.ended, guest.client.closed), ("eof", True))

    def test_packets_write_without_a_detour(self) -> None:
        """On the packet path the transport is called directly (one call less per run)."""
        guest = self.log_in("alice")
        conn = self.relay.registry.active[guest.side.key]
        self.assertEqual(conn.write, guest.transport.write)

    def test_after_an_upgrade(self) -> None:
        """
        A rest that came before the transport knew the protocol goes before what the transport
        reads then.
        """
        protocol = self.server.accept(remote=PEER, fast_start=True)

        class Upgrading:
            """Gives the connection away at the first bytes, as an HTTP channel does."""

            def makeConnection(self, transport: Any) -> None:
                self.transport = transport

            def dataReceived(self, data: bytes) -> None:
                protocol.makeConnection(self.transport)
                self.transport.setProtocol(protocol)
                protocol.dataReceived(data)

        _, client = self.pump.connect(Upgrading())
        side = Side("alice")
        stream = side.login(self.relay.public) + PING + PING
        for start, end in ((0, 50), (50, 60), (60, len(stream) - 3), (len(stream) - 3, None)):
            client.send(stream[start:end])
            self.pump.turn(2)
        self.pump.until(lambda: len(client.received) > 44 + 58)
        types = side.types(bytes(client.received))
        self.assertEqual(
            types,
            [FrameType.SERVER_KEY, FrameType.SERVER_INFO, FrameType.PONG, FrameType.PONG],
        )

    def test_close_all(self) -> None:
        """The service's end leaves no connection and no protocol."""
        guests = [self.log_in(name) for name in "abc"]
        self.server.close_all()
        self.pump.hub.close()
        self.assertEqual(self.server.protocols, set())
        self.assertEqual(self.relay.registry.active, {})
        for guest in guests:
            select.select([guest.client.sock], [], [], 60)
            guest.client.pump()
            self.assertIsNotNone(guest.client.ended)

    def test_nothing_piles_up(self) -> None:
        """After many logins and ends nothing of them is left, without the garbage collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        kinds = (RelayProtocol, TLSTransport)

        def alive() -> int:
            return sum(isinstance(each, kinds) for each in gc.get_objects())

        before = alive()
        for n in range(20):
            guest = self.log_in(f"guest {n}")
            if n % 3 == 0:
                guest.protocol.close("enough")
            elif n % 3 == 1:
                guest.transport.abortConnection()
            guest.client.close()
            self.pump.clients.remove(guest.client)
            self.pump.until(lambda: len(self.pump.hub) == 0)
            del guest
        self.assertEqual(alive(), before)
        self.pump.reactor.advance(100)
        self.assertEqual(self.pump.wheel._buckets, {})
        self.assertEqual(self.server.protocols, set())

    def test_plain(self) -> None:
        """Without TLS (behind a proxy that ends it) all is the same."""
        protocol = self.server.accept(remote=PEER, head=b"HTTP/1.1 101 X\r\n\r\n")
        _, client = self.pump.connect(protocol)
        assert isinstance(client, PlainClient)
        self.pump.until(lambda: client.received)
        self.assertEqual(client.received, b"HTTP/1.1 101 X\r\n\r\n" + self.relay.greeting)
        client.send(Side("alice").login(self.relay.public) + PING)
        self.pump.until(lambda: client.received.endswith(b"12345678"))
