"""What a relay behind a proxy is asked for, whichever proxy it is."""

from __future__ import annotations

import ssl
import time
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from derp.config import CertMode
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import RelayConnector
from derp.net.relay_dialer import RelayAddress
from derp.net.relay_errors import ConnectFailed
from derp.net.server_check import peer_chain
from derp.net.trusted_proxies import parse_proxies
from derp.wire.keys import generate_private
from derp.wire.messages import PeerPresent, ReceivedPacket
from derp.wire.metacert import find_server_key
from derp.wire.node_json import pin_of
from tests.certificate_files import NOW, Issued, issue
from tests.free_ports import free_ports
from tests.integration.proxy_child import ProxyChild, listens, recipe
from tests.integration.relay_case import HOST, MESH_KEY, Heard, RelayTestCase, reactor
from tests.integration.waiting import PATIENCE_S, in_time
from tests.integration.websocket_client import WebSocketClient
from tests.net.http_exchange import Answer, Exchange

NAME = "derp.example.com"
OTHER_NAME = "www.example.com"
CLIENTS = "127.0.0.2"
"""Where clients connect from; the proxy has another address, to be told from them."""
SIZES = (0, 1, 1400, 20_000, 65_536)
SOON = "300ms"
"""What a test makes of a timeout that is to pass, as all of these proxies write it."""
_TRIES = 10


def certificate_for(name: str) -> Issued:
    """One that is valid today."""
    shift = timedelta(seconds=time.time() - NOW)
    begins, ends = shift - timedelta(days=1), shift + timedelta(days=90)
    return issue([name], common_name=name, begins=begins, ends=ends)


def header(answer: Answer, name: str) -> str | None:
    """A header by its name in any case; proxies write them as they please."""
    return {known.lower(): value for known, value in answer.headers}.get(name.lower())


@implementer(IOpenSSLClientConnectionCreator)
class NamedTLS:
    """TLS with a server name, that checks nothing."""

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        connection.set_tlsext_host_name(self._name)
        return connection


class ProxyTestCase(RelayTestCase):
    """
    A relay in this process, a proxy in front of it, clients in front of that.

    :ivar front: the proxy's port for TLS.
    :ivar plain: its port for plain HTTP.
    :ivar extra: a port for a changed configuration.
    :ivar sites: where other sites are.
    """

    recipe_name: str
    passes_tls: bool
    """Whether clients see the relay's own certificate, or the proxy's."""

    def machine(self) -> dict[str, str]:
        """What of the recipe belongs to the machine it is for, and what takes its place."""
        raise NotImplementedError

    def install(self, text: str) -> list[str]:
        """Write the configuration; give the command that runs it in the foreground."""
        raise NotImplementedError

    # -- parts -----------------------------------------------------------------------------

    def configure(self, replaced: dict[str, str] | None = None) -> list[str]:
        """Install the recipe, with more of it replaced than must be."""
        replaced, machine = replaced or {}, self.machine()
        assert not replaced.keys() & machine.keys()
        return self.install(recipe(self.recipe_name, replaced | machine))

    async def start_proxy(self, replaced: dict[str, str] | None = None) -> ProxyChild:
        """Start the proxy, and wait for it."""
        child = ProxyChild(reactor, self.place, *self.configure(replaced))
        self.addCleanup(lambda: Deferred.fromCoroutine(child.kill()))
        await child.listening(self.front, self.plain)
        return child

    def start_behind(self, **fields: Any) -> None:
        """Start the relay, set up for where it stands, and draw ports for the proxy."""
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir(parents=True)
        self.front, self.plain, self.extra, self.sites = free_ports(4)
        self.issued = certificate_for(NAME)
        trusted, _ = parse_proxies("--trusted-proxies", HOST)
        own: dict[str, Any] = {"trusted_proxies": trusted, "mesh_key": MESH_KEY, "hostname": NAME}
        if not self.passes_tls:
            own |= {"tls": False, "certmode": CertMode.LETSENCRYPT}
        config = self.config(**own | fields)
        certificates = Path(config.certdir) if self.passes_tls else self.place
        certificates.mkdir(parents=True, exist_ok=True)
        self.certificate = certificates / f"{NAME}.crt"
        self.certificate.write_bytes(self.issued.pem)
        self.key = self.certificate.with_suffix(".key")
        self.key.write_bytes(self.issued.key_pem())
        self.logged = self.log_lines()
        self.relay = self.start_relay(config)

    def relay_port(self, flag: str = "-a") -> int:
        """Where the relay listens."""
        return self.port_of(self.relay, flag)

    async def through(self, port: int | None = None, **options: Any) -> tuple[RelayClient, Heard]:
        """Log in through the proxy, as one who trusts nothing but the certificate he expects."""
        port = port or self.front
        pin = pin_of(ssl.PEM_cert_to_DER_cert(self.issued.pem.decode()))
        address = RelayAddress(label="the proxy", host=NAME, port=port, cert_name=pin)
        heard = Heard()
        connector = RelayConnector(
            reactor=reactor, target=address, private_key=generate_private(), **options
        )
        client = connector.make_client(address, 1, heard)
        self.addCleanup(client.close)
        await self._connect_from(CLIENTS, port, client, client.check)
        await in_time(reactor, client.when_logged_in(), "a login through a proxy")
        await heard.next()  # ServerInfo
        return client, heard

    async def over_websocket(self) -> WebSocketClient:
        """Log in through the proxy inside a WebSocket."""
        client = WebSocketClient(NAME)
        await self._connect_from(CLIENTS, self.front, client, NamedTLS(NAME))
        await client.heard.next()
        return client

    async def ask(self, path: str, *headers: str, tls: bool = True, name: str = NAME) -> Answer:
        """Ask the proxy for a page."""
        exchange = Exchange()
        port = self.front if tls else self.plain
        await self._connect_from(CLIENTS, port, exchange, NamedTLS(name) if tls else None)
        lines = [f"GET {path} HTTP/1.1", f"Host: {name}", *headers, "", ""]
        exchange.transport.write("\r\n".join(lines).encode("latin-1"))
        answer: Answer = await in_time(reactor, exchange.answer(), f"an answer to GET {path}")
        exchange.transport.abortConnection()
        return answer

    async def _connect_from(self, address: str, port: int, protocol: Any, tls: Any) -> None:
        factory: Any = Factory.forProtocol(lambda: protocol)
        if tls is not None:
            factory = TLSMemoryBIOFactory(tls, True, factory)
        endpoint = TCP4ClientEndpoint(reactor, HOST, port, bindAddress=(address, 0))
        await in_time(reactor, endpoint.connect(factory), "a connection to a proxy")
        socket = protocol.transport.transport if tls else protocol.transport
        self.addCleanup(socket.abortConnection)

    def said(self, *words: str) -> bool:
        """Whether one line of the relay's log has all of these."""
        return any(all(word in line for word in words) for line in self.logged)

    # -- what is asked -----------------------------------------------------------------------

    async def check_all(self) -> None:
        """What every recipe is for; one that does not pass TLS on also keeps debug pages away."""
        self.start_behind()
        await self.start_proxy()
        await self.check_login()
        await self.check_relaying()
        await self.check_address()
        await self.check_websocket()
        await self.check_pages()
        if not self.passes_tls:
            await self.check_debug_pages()

    async def check_relaying(self) -> None:
        """Packets of all sizes pass unharmed, both ways."""
        (one, one_heard), (two, two_heard) = await self.through(), await self.through()
        for sender, receiver, heard in ((one, two, two_heard), (two, one, one_heard)):
            for size in SIZES:
                packet = bytes(size % 251 for size in range(size))
                self.assertTrue(sender.send(receiver.public_key, packet))
                expected = ReceivedPacket(sender.public_key, packet)
                self.assertEqual(await heard.next(), expected, f"{size} bytes")

    async def check_login(self) -> None:
        """
        The certificate is whose it should be, and fast start what follows from that.

        That the client accepted the certificate it knows, and no other, is in :meth:`through`.
        """
        client, _ = await self.through()
        own = find_server_key(peer_chain(client.transport.getHandle()))
        self.assertEqual(own is not None, self.passes_tls)
        self.assertEqual(client.server_key, self.relay.relay.public)

    async def check_address(self) -> None:
        """The relay knows its clients by their own addresses."""
        scheme = "https" if self.passes_tls else "http"
        _, heard = await self.client(
            self.relay_port(),
            target=f"{scheme}://{NAME}:{self.relay_port()}/derp",
            dial_host=HOST,
            tls=self.passes_tls,
            mesh_key=MESH_KEY,
            watch_conns=True,
        )
        client, _ = await self.through()
        while True:
            present = await heard.next()
            if isinstance(present, PeerPresent) and present.key == client.public_key:
                break
        self.assertEqual(present.ip, ip_address(CLIENTS))
        self.assertFalse(self.said(CLIENTS, "--trusted-proxies"))

    async def check_websocket(self) -> None:
        """Browsers get through, and reach the others."""
        client, heard = await self.through()
        browser = await self.over_websocket()
        self.assertEqual(browser.subprotocol, "derp")
        browser.send(client.public_key, b"from the browser")
        expected = ReceivedPacket(browser.public_key, b"from the browser")
        self.assertEqual(await heard.next(), expected)
        client.send(browser.public_key, b"x" * 30_000)
        expected = ReceivedPacket(client.public_key, b"x" * 30_000)
        self.assertEqual(await browser.heard.next(), expected)

    async def check_pages(self) -> None:
        """Captive portal checks are the relay's to answer on both ports; HTTP leads to HTTPS."""
        for tls in (True, False):
            answer = await self.ask("/generate_204", "X-Tailscale-Challenge: abc", tls=tls)
            self.assertEqual(answer.status, 204)
            self.assertEqual(header(answer, "X-Tailscale-Response"), "response abc")
        answer = await self.ask("/derp/probe")
        self.assertEqual((answer.status, answer.body), (200, b""))
        answer = await self.ask("/x?y=1", tls=False)
        self.assertIn(answer.status, (301, 302))
        self.assertEqual(header(answer, "Location"), f"https://{NAME}/x?y=1")

    async def check_debug_pages(self) -> None:
        """Nobody gets to the debug pages by way of the proxy's address, or by lying."""
        for tls in (True, False):
            for path in ("/debug/", "/debug/varz"):
                answer = await self.ask(path, f"X-Forwarded-For: {HOST}", tls=tls)
                self.assertIn(answer.status, (302, 403, 404), (path, tls))

    async def reload(self, child: ProxyChild) -> None:
        """Have the proxy read its configuration again."""
        child.send("HUP")

    async def check_reload(self, child: ProxyChild, changed: dict[str, str]) -> None:
        """
        Who is connected stays, and reaches those who come by a new configuration.

        :param changed: makes it listen on the extra port, too.
        """
        client, heard = await self.through()
        self.configure(changed)
        await self.reload(child)
        await self.until(lambda: listens(self.extra), "the new configuration")
        await in_time(reactor, client.ping(PATIENCE_S), "a pong to who stayed")
        other, _ = await self.through(self.extra)
        other.send(client.public_key, b"by the new way")
        self.assertEqual((await heard.next()).packet, b"by the new way")

    async def through_in_time(self) -> RelayClient:
        """Log in where timeouts are so short that a machine at a standstill exceeds them."""
        for _ in range(_TRIES):
            try:
                client, _ = await self.through()
            except ConnectFailed:
                continue
            return client
        raise AssertionError(f"cut {_TRIES} times before it was logged in")

    async def check_cut(self) -> None:
        """A client is cut without having done anything."""
        client = await self.through_in_time()
        await self.check_ends(client)

    async def check_ends(self, client: RelayClient) -> None:
        """A client loses its connection."""
        await in_time(reactor, client.when_closed(), "the end of a client")

    async def check_outlives_silence(self, said: bytes = b"") -> None:
        """
        A client that is silent for longer than a stranger may be is still connected.

        :param said: by the stranger, before.
        """
        client = await self.through_in_time()
        stranger = Exchange()
        await self._connect_from(CLIENTS, self.plain, stranger, None)
        stranger.transport.write(said)
        await in_time(reactor, stranger.end(), "the end of a silent stranger")
        await in_time(reactor, client.ping(PATIENCE_S), "a pong")
