"""Places to listen, and real addresses behind proxies, on a whole relay with real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from derp.config import ListeningPlace, PlaceKind
from derp.errors import ConfigError
from derp.net.proxy_greeting import GREETING_S
from derp.net.trusted_proxies import parse_proxies
from derp.services import RelayService
from tests.integration.relay_case import HOST, RelayTestCase
from tests.integration.virtual_time import VirtualTime
from tests.integration.waiting import in_time
from tests.net.http_exchange import Answer, Exchange
from tests.net.test_proxy_header import NONSENSE, V1, V2_LOCAL, V2_TCP4, V2_TCP6

_reactor: Any = reactor
LOOPBACK, _ = parse_proxies("--x", "127.0.0.0/8")
GET = b"GET /debug/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%s\r\n"


class Reader(Protocol):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class PlaceCase(RelayTestCase):
    def relay(self, clock: Any = None, *, tls: bool = False, **flags: Any) -> RelayService:
        config = self.config(tls=tls, stun=False, http_port=-1, **flags)
        relay = self.start_relay(config, clock)
        self.ports = [listener.opened.getHost() for listener in relay.listeners]  # type: ignore[union-attr]
        return relay

    async def say(self, data: bytes, *more: bytes, port: int | None = None) -> Reader:
        """Connect and send, each piece in a packet of its own; give what came until the end."""
        reader: Reader = await self.connect(Reader(), port or self.ports[0].port)
        reader.transport.setTcpNoDelay(True)
        reader.transport.write(data)
        for piece in more:
            await deferLater(_reactor, 0.001)  # else it would be one segment
            reader.transport.write(piece)
        return reader

    async def answer_to(self, data: bytes, *more: bytes) -> bytes:
        reader = await self.say(data, *more)
        await self.until(lambda: reader.lost, "the answer's end")
        return reader.data


class ListeningTests(PlaceCase):
    async def test_tcp_and_tls(self) -> None:
        """Clients of every place meet, and each place has TLS as asked for."""
        relay = self.relay(
            tls=True,
            listen=(
                ListeningPlace(PlaceKind.TCP, HOST),
                ListeningPlace(PlaceKind.TLS, HOST, tls=True),
            ),
        )
        main, plain, secure = self.ports
        first, heard = await self.client(main.port)
        for port, tls in (plain.port, False), (secure.port, True):
            client, _ = await self.client(port, tls=tls)
            client.send(first.public_key, b"hello")
            self.assertEqual((await heard.next()).source, client.public_key)
        self.assertEqual([each.where() for each in relay.listeners][1], f"{HOST}:{plain.port}")

    async def unix_answer(self, path: str, request: bytes) -> Answer:
        exchange = Exchange()
        endpoint = UNIXClientEndpoint(reactor, path)
        await in_time(reactor, connectProtocol(endpoint, exchange), "a unix connection")
        self.addCleanup(exchange.transport.abortConnection)
        exchange.transport.write(request)
        answer: Answer = await in_time(reactor, exchange.answer(), "an answer")
        return answer

    def unix_path(self) -> str:
        directory = mkdtemp()
        self.addCleanup(os.rmdir, directory)
        return os.path.join(directory, "s")

    async def test_unix(self) -> None:
        """A unix socket serves; it replaces what a dead process left, and goes with us."""
        path = self.unix_path()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        relay = self.relay(listen=(ListeningPlace(PlaceKind.UNIX, path=path),))
        answer = await self.unix_answer(path, b"GET /derp/probe HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(answer.status, 200)
        self.assertEqual(relay.listeners[1].where(), path)
        answer = await self.unix_answer(path, GET % b"")
        self.assertEqual(answer.status, 403, "a unix peer has no address that may see this")
        await relay.stopService()
        self.assertFalse(os.path.exists(path))

    async def test_unix_taken(self) -> None:
        """A socket that is in use, or a file, is left alone and named."""
        path = self.unix_path()
        place = ListeningPlace(PlaceKind.UNIX, path=path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            other.listen()
            error = self.assertRaises(ConfigError, self.relay, listen=(place,))
            self.assertIn("another process listens there", str(error))
        os.unlink(path)
        Path(path).write_text("mine")
        error = self.assertRaises(ConfigError, self.relay, listen=(place,))
        self.assertIn("there is something that is no socket", str(error))
        self.assertEqual(Path(path).read_text(), "mine")
        os.unlink(path)

    async def test_unix_trusted(self) -> None:
        """Behind a proxy on a unix socket the client's own address counts."""
        path = self.unix_path()
        self.relay(listen=(ListeningPlace(PlaceKind.UNIX, path=path),), trust_unix_sockets=True)
        for client, status in (b"127.0.0.1", 200), (b"192.0.2.7", 403):
            answer = await self.unix_answer(path, GET % (b"X-Forwarded-For: %s\r\n" % client))
            self.assertEqual(answer.status, status, client)

    async def test_inherited(self) -> None:
        """A listening socket that was passed to us serves, and speaks TLS if the main port does."""
        with socket.create_server((HOST, 0)) as passed:
            place = ListeningPlace(PlaceKind.FD, fd=passed.fileno(), tls=True)
            self.relay(tls=True, listen=(place,))
            self.assertEqual(self.ports[1].port, passed.getsockname()[1])
            await self.client(self.ports[1].port)

    def test_not_inherited(self) -> None:
        """A descriptor that is no listening socket stops the start."""
        with socket.socket() as idle, open(os.devnull) as file:
            for fd in idle.fileno(), file.fileno(), 99999:
                place = ListeningPlace(PlaceKind.FD, fd=fd)
                error = self.assertRaises(ConfigError, self.relay, listen=(place,))
                self.assertRegex(str(error), "^--listen: .* is no (listening stream )?socket")

    async def test_limits_hold_everywhere(self) -> None:
        """The places share the limits of the main port."""
        relay = self.relay(
            listen=(ListeningPlace(PlaceKind.TCP, HOST),),
            accept_connection_limit=0.001,
            accept_connection_burst=1,
        )
        await self.say(b"")
        second = await self.say(b"", port=self.ports[1].port)
        await self.until(lambda: second.lost, "the refusal")
        self.assertEqual(relay.listeners[1].stats.rejected_connections, 1)


class ForwardedTests(PlaceCase):
    async def test_trusted(self) -> None:
        """A trusted proxy's word decides who sees the debug pages, both ways."""
        relay = self.relay(trusted_proxies=LOOPBACK)
        for client, status in (b"127.0.0.1", b"200"), (b"192.0.2.7", b"403"):
            for header in b"X-Forwarded-For", b"X-Real-IP":
                answer = await self.answer_to(GET % (b"%s: %s\r\n" % (header, client)))
                self.assertEqual(answer.split()[1], status, (header, client))
        self.assertEqual(relay.proxies.stats.believed, 4)

    async def test_not_trusted(self) -> None:
        """A spoofed header gives nothing, and X-Forwarded-For denies, as in derper."""
        relay = self.relay()
        answer = await self.answer_to(GET % b"X-Forwarded-For: 127.0.0.1\r\n")
        self.assertEqual(answer.split()[1], b"403")
        answer = await self.answer_to(GET % b"X-Real-IP: 192.0.2.7\r\n")
        self.assertEqual(answer.split()[1], b"200", "ignored: the peer itself is allowed")
        self.assertEqual(relay.proxies.stats.ignored, 2)

    async def test_relay_sees_it(self) -> None:
        """A client's own address is what the relay knows it by, and counts it by."""
        relay = self.relay(trusted_proxies=LOOPBACK, max_clients_per_ip=1)
        request = (
            b"GET /derp HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
            b"X-Forwarded-For: 192.0.2.7:51\r\n\r\n"
        )
        await self.say(request)
        await self.until(lambda: relay.server.protocols, "the connection")
        (protocol,) = relay.server.protocols
        self.assertEqual(str(protocol.session.remote), "192.0.2.7:51")


class ProxyProtocolTests(PlaceCase):
    async def test_address(self) -> None:
        """The header's address decides; LOCAL is the proxy itself."""
        relay = self.relay(trusted_proxies=LOOPBACK)
        for header, status in (V1, 403), (V2_TCP4, 403), (V2_TCP6, 403), (V2_LOCAL, 200):
            answer = await self.answer_to(header + GET % b"")
            self.assertEqual(int(answer.split()[1]), status, header)
        self.assertEqual(relay.proxies.stats.proxy_headers, 4)

    async def test_split(self) -> None:
        """A header may come in any pieces; not a byte behind it is lost."""
        self.relay(trusted_proxies=LOOPBACK)
        for header in V1, V2_TCP4:
            for cut in (1, 5, 12, 14, 16, len(header) - 1, len(header)):
                answer = await self.answer_to(header[:cut], header[cut:] + GET % b"")
                self.assertEqual(answer.split()[1], b"403", (header, cut))
            pieces = [bytes((byte,)) for byte in header]
            answer = await self.answer_to(b"", *pieces, GET % b"")
            self.assertEqual(answer.split()[1], b"403", header)

    async def test_missing(self) -> None:
        """A trusted proxy need not send one."""
        self.relay(trusted_proxies=LOOPBACK)
        self.assertEqual((await self.answer_to(GET % b"")).split()[1], b"200")

    async def test_before_tls(self) -> None:
        """The header comes before the ClientHello, and the client is known by it."""
        relay = self.relay(tls=True, trusted_proxies=LOOPBACK)
        reader = await self.say(V2_TCP4)
        await self.until(lambda: relay.proxies.stats.proxy_headers, "the header")
        reader.transport.write(b"no hello\r\n\r\n")
        await self.until(lambda: reader.lost, "the end")
        self.assertEqual(reader.data[:1], b"\x15", "an alert")
        await self.client(self.ports[0].port)

    async def test_nonsense(self) -> None:
        """A header that makes no sense closes the connection; the place is given back."""
        relay = self.relay(trusted_proxies=LOOPBACK)
        huge = (b"PROXY " + b"x" * 200, V2_LOCAL[:14] + b"\xff\xff")
        for header in (*NONSENSE, *huge):
            reader = await self.say(header[:6], header[6:])
            await self.until(lambda reader=reader: reader.lost, "the end")
            self.assertEqual(reader.data, b"", header)
        self.assertEqual(relay.proxies.stats.bad_proxy_headers, len(NONSENSE) + 2)
        await self.until(lambda: not relay.limits.door.handshakes, "the places")

    async def test_change_of_mind(self) -> None:
        """What began like a header and is none cannot be put back, so it is closed."""
        relay = self.relay(trusted_proxies=LOOPBACK)
        reader = await self.say(b"PROX")
        members = relay.hub._members.values()
        await self.until(
            lambda: any(getattr(member, "_taken", b"") for member in members), "its first bytes"
        )
        reader.transport.write(b"?")
        await self.until(lambda: reader.lost, "the end")
        self.assertEqual(relay.proxies.stats.bad_proxy_headers, 1)

    async def test_slow(self) -> None:
        """A header has its time, however its bytes drip in."""
        clock = VirtualTime(reactor)
        relay = self.relay(clock, trusted_proxies=LOOPBACK)
        reader = await self.say(V1[:10])
        await clock.pass_by(GREETING_S - 1)
        reader.transport.write(V1[10:20])
        await clock.pass_by(2.0)
        await self.until(lambda: reader.lost, "the end")
        self.assertEqual(relay.proxies.stats.slow_proxy_headers, 1)

    async def test_not_trusted(self) -> None:
        """From anybody else it is no header at all, but a bad request."""
        networks, _ = parse_proxies("--x", "10.0.0.0/8")
        relay = self.relay(trusted_proxies=networks)
        answer = await self.answer_to(V1 + GET % b"")
        self.assertEqual(answer.split()[1], b"400")
        self.assertEqual(relay.proxies.stats.proxy_headers, 0)

    async def test_gone(self) -> None:
        """Who leaves before its header is complete leaves nothing behind."""
        relay = self.relay(trusted_proxies=LOOPBACK)
        reader = await self.say(V1[:10])
        await self.until(lambda: relay.limits.door.handshakes, "its coming")
        reader.transport.abortConnection()
        await self.until(lambda: not relay.limits.door.handshakes, "its going")
