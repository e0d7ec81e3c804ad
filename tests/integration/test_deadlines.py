"""Who is slow, silent or stops half-way is cut at his deadline, over real sockets."""

from __future__ import annotations

from derp.services import RelayService
from derp.wire.frames import encode_ping
from derp.wire.handshake import ClientInfo, encode_client_info, shared_key
from derp.wire.keys import generate_private, public_of
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.virtual_time import VirtualTime
from tests.net.http_exchange import Exchange
from tests.tls_clients import client_context, client_hello

HANDSHAKE_S = 30.0
REQUEST_S = 30.0
LOGIN_S = 10.0
EARLY_S = 0.25
LATE_S = 3.0
"""Bytes under way take no time, but time may be moved meanwhile."""

REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n"
UPGRADE = f"GET /derp HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: DERP\r\n\r\n".encode()
FAST_START = UPGRADE.replace(b"\r\n\r\n", b"\r\nDerp-Fast-Start: 1\r\n\r\n")
WEBSOCKET = (
    f"GET /derp HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Protocol: derp\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AO4Th0Yw+7dDDj70xYC4fQ==\r\n\r\n"
).encode()


class DeadlineTests(RelayTestCase):
    """Each wait of the relay's for a stranger ends."""

    def setUp(self) -> None:
        super().setUp()
        self.time = VirtualTime(reactor)
        self.lines = self.log_lines()
        self.service: RelayService = self.start_relay(self.config(stun=False), self.time)

    async def cut_after(self, wire: Exchange, seconds: float, *, since: float = 0.0) -> None:
        """Assert that it is open until so many seconds have passed, and closed soon after."""
        began = self.time.seconds() - since
        await self.time.pass_to(began + seconds - EARLY_S)
        self.assertFalse(wire.closed, "cut too early")
        await self.time.pass_to(began + seconds + LATE_S)
        await self.until(lambda: wire.closed, f"a cut after {seconds:g} s")

    async def accepted(self, *, flag: str = "-a", tls: bool = False) -> Exchange:
        """A connection the relay has accepted, so that its deadline runs."""
        stats = next(each.stats for each in self.service.listeners if each.flag == flag)
        before = stats.accepted_connections
        wire = await self.wire(self.port_of(self.service, flag), tls=tls)
        await self.until(lambda: stats.accepted_connections > before, "an accepted connection")
        return wire

    # -- TLS -------------------------------------------------------------------------------

    async def test_silent_tls(self) -> None:
        """A TCP connection that never says hello."""
        await self.cut_after(await self.accepted(), HANDSHAKE_S)

    async def test_half_a_hello(self) -> None:
        """A ClientHello that stops half-way, dripped in so that there is always some news."""
        wire = await self.accepted()
        hello = client_hello(client_context(), HOST)
        for at in range(25):
            wire.transport.write(hello[at : at + 1])
            await self.time.pass_by(1.0)
        await self.cut_after(wire, HANDSHAKE_S, since=25.0)

    async def test_half_a_handshake(self) -> None:
        """A client that said hello and leaves the relay's answer without a reply."""
        wire = await self.accepted()
        wire.transport.write(client_hello(client_context(), HOST))
        await self.until(lambda: wire.buffer, "the relay's half of a handshake")
        await self.cut_after(wire, HANDSHAKE_S)
        self.assertEqual(self.service.listeners[0].stats.handshake_timeouts, 1)

    async def test_not_tls(self) -> None:
        """Whoever speaks something else is told so and closed at once."""
        wire = await self.accepted()
        wire.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual((await wire.end())[:1], b"\x15")

    # -- HTTP ------------------------------------------------------------------------------

    async def test_silent_http(self) -> None:
        """A finished handshake, or a plain connection, without a request."""
        await self.cut_after(await self.accepted(flag="--http-port"), REQUEST_S)
        wire = await self.accepted(tls=True)
        await self.served(wire)
        await self.cut_after(wire, REQUEST_S)

    async def served(self, wire: Exchange) -> None:
        """Ask for a page, so that the handshake is surely done."""
        wire.transport.write((REQUEST + "\r\n").encode())
        self.assertIn((await wire.answer()).status, (200, 302))

    async def test_dripped_header(self) -> None:
        """A header that comes byte by byte has 30 s in all, on either port."""
        for flag, tls in (("--http-port", False), ("-a", True)):
            wire = await self.accepted(flag=flag, tls=tls)
            await self.served(wire)
            for byte in REQUEST[:29].encode():
                wire.transport.write(bytes((byte,)))
                await self.time.pass_by(1.0)
            await self.cut_after(wire, REQUEST_S, since=29.0)

    async def test_dripped_body(self) -> None:
        """A body that does not come is waited for as long as a header."""
        wire = await self.accepted(flag="--http-port")
        wire.transport.write((REQUEST + "Content-Length: 1000\r\n\r\n").encode())
        for _ in range(20):
            wire.transport.write(b"x")
            await self.time.pass_by(1.0)
        await self.cut_after(wire, REQUEST_S, since=20.0)

    # -- the login -------------------------------------------------------------------------

    def client_info(self) -> bytes:
        """A ClientInfo that would do."""
        private = generate_private()
        shared = shared_key(private, self.service.relay.public)
        return encode_client_info(public_of(private), shared, bytes(24), ClientInfo())

    async def test_silent_login(self) -> None:
        """Upgraded in any of three ways, greeted, and then silent: 10 s, and a log line."""
        for count, request in enumerate((UPGRADE, FAST_START, WEBSOCKET), 1):
            wire = await self.accepted(tls=True)
            wire.transport.write(request)
            await self.until(lambda: b"DERP\xf0\x9f\x94\x91" in wire.buffer, "a greeting")  # noqa: B023
            await self.cut_after(wire, LOGIN_S)
            self.assertEqual(self.service.relay.stats.login_timeouts, count)
            self.assertIn("receive client key", self.lines[-1])

    async def test_dripped_login(self) -> None:
        """A ClientInfo byte by byte has 10 s in all."""
        wire = await self.accepted(tls=True)
        wire.transport.write(UPGRADE)
        await self.until(lambda: b"DERP\xf0\x9f\x94\x91" in wire.buffer, "a greeting")
        info = self.client_info()
        for byte in info[:9]:
            wire.transport.write(bytes((byte,)))
            await self.time.pass_by(1.0)
        await self.cut_after(wire, LOGIN_S, since=9.0)

    async def test_logged_in(self) -> None:
        """Once logged in a client may be silent for ever, even inside a frame."""
        wire = await self.accepted(tls=True)
        wire.transport.write(FAST_START + self.client_info() + encode_ping(bytes(8)))
        await self.until(lambda: wire.buffer.endswith(b"\x13\0\0\0\x08" + bytes(8)), "a pong")
        wire.transport.write(encode_ping(bytes(8))[:7])
        await self.time.pass_by(600.0)
        self.assertFalse(wire.closed)
        wire.buffer = b""
        wire.transport.write(encode_ping(bytes(8))[7:])
        await self.until(lambda: wire.buffer.endswith(b"\x13\0\0\0\x08" + bytes(8)), "a pong")
