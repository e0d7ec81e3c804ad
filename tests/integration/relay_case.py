"""A relay under test: the whole service in this process, or a child; and clients for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet import ssl
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from derp.config import CertMode, Config
from derp.net import relay_connector, relay_dialer
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import connect
from derp.services import RelayService, build
from derp.wire.handshake import ServerInfo
from derp.wire.keys import generate_private
from derp.wire.messages import KeepAlive
from tests.exposition import Exposition
from tests.integration.child import RelayChild
from tests.integration.waiting import PATIENCE_S, in_time, until
from tests.net.http_exchange import Answer, Exchange
from tests.net.unhurried import Unhurried

reactor: Any = global_reactor
HOST = "127.0.0.1"
MESH_KEY = bytes.fromhex("0123456789abcdef" * 4)
IN_CI = bool(os.environ.get("CI"))
STANDSTILL_S = 0.1
"""A turn of the reactor that takes longer is none of its own doing."""


class Heard:
    """What a client was told, in order; keep-alives left out."""

    def __init__(self) -> None:
        self._queue: DeferredQueue[Any] = DeferredQueue()

    def __call__(self, message: Any) -> None:
        if not isinstance(message, KeepAlive):
            self._queue.put(message)

    @property
    def waiting(self) -> list[Any]:
        """What came and was not taken."""
        return list(self._queue.pending)

    def take(self) -> list[Any]:
        """Take all that came."""
        taken, self._queue.pending = list(self._queue.pending), []
        return taken

    async def next(self) -> Any:
        """Take the next message."""
        return await in_time(reactor, self._queue.get(), "a message to a client")


class RelayTestCase(TestCase):
    """Starts what a test asks for, and ends it all with the test."""

    timeout = 240

    # -- relays ----------------------------------------------------------------------------

    def config(self, **fields: Any) -> Config:
        """A relay on loopback, every port chosen by the kernel, TLS in manual mode."""
        place = Path(self.mktemp()).absolute()
        config = Config(
            host=HOST,
            port=0,
            http_port=0,
            stun_port=0,
            key_file=str(place / "derper.key"),
            certmode=CertMode.MANUAL,
            certdir=str(place / "certs"),
            hostname=HOST,
        )
        return replace(config, **fields)

    def start_relay(self, config: Config, clock: Any = None) -> RelayService:
        """
        Start a relay in this process.

        :param clock: the reactor it runs in, if it is another than ours.
        """
        service = build(config, clock or reactor)
        self.addCleanup(service.stopService)
        service.startService()
        return service

    def port_of(self, service: RelayService, flag: str = "-a") -> int:
        """The port a relay in this process listens on, by the flag that asks for it."""
        if flag == "--stun-port":
            assert service.stun is not None
            return service.stun.port
        listener = next(each for each in service.listeners if each.flag == flag)
        opened: Any = listener.opened
        port: int = opened.getHost().port
        return port

    def start_child(self, *flags: str, **options: Any) -> RelayChild:
        """Start a relay in a process of its own; killed and reaped with the test."""
        child = RelayChild(reactor, self.mktemp(), *flags, **options)
        self.addCleanup(child.end)
        return child

    def steady_time(self) -> Unhurried:
        """A reactor whose time goes on all through the test, but while the machine stands still."""
        time = Unhurried(reactor, step_s=STANDSTILL_S)
        self.addCleanup(time.callLater(86400, lambda: None).cancel)
        return time

    # -- clients ---------------------------------------------------------------------------

    async def wire(self, port: int, *, tls: bool = False, host: str = HOST) -> Exchange:
        """Connect and send nothing yet."""
        return await self.connect(Exchange(), port, tls=tls, host=host)

    async def connect(
        self, protocol: Any, port: int, *, tls: bool = False, host: str = HOST
    ) -> Any:
        """Connect a protocol; its connection is cut with the test."""
        endpoint: Any = (TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint)(
            reactor, host, port
        )
        if tls:
            endpoint = _OverTLS(endpoint)
        await in_time(reactor, connectProtocol(endpoint, protocol), f"a connection to {port}")
        socket = protocol.transport.transport if tls else protocol.transport
        self.addCleanup(socket.abortConnection)  # TLS of Twisted's cannot be aborted twice
        return protocol

    async def client(
        self, port: int, *, tls: bool = True, host: str = HOST, **options: Any
    ) -> tuple[RelayClient, Heard]:
        """A DERP client that is logged in, and what it hears from then on."""
        heard = Heard()
        options.setdefault("private_key", generate_private())
        options.setdefault("insecure_for_tests", tls)
        options.setdefault("timeout", PATIENCE_S)
        target = options.pop("target", None)
        if target is None:
            scheme, name = ("https" if tls else "http"), f"[{host}]" if ":" in host else host
            target = f"{scheme}://{name}:{port}/derp"
        self.patch(relay_connector, "NODE_TIMEOUT", PATIENCE_S)
        self.patch(relay_dialer, "CONNECT_TIMEOUT", PATIENCE_S)
        client = await connect(reactor, target, on_message=heard, **options)
        self.addCleanup(client.close)
        await in_time(reactor, client.when_logged_in(), "a login")
        self.assertEqual(await heard.next(), ServerInfo(2), "the first message")
        return client, heard

    async def get(
        self, port: int, path: str, *headers: str, tls: bool = False, host: str = HOST
    ) -> Answer:
        """Ask one page over a connection of its own."""
        exchange = await self.wire(port, tls=tls, host=host)
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", *headers, "", ""]
        exchange.transport.write("\r\n".join(lines).encode("latin-1"))
        answer: Answer = await in_time(reactor, exchange.answer(), f"an answer to GET {path}")
        exchange.transport.abortConnection()
        return answer

    async def varz(self, port: int, *, tls: bool = False, host: str = HOST) -> Exposition:
        """What the relay shows of itself."""
        answer = await self.get(port, "/debug/varz", tls=tls, host=host)
        self.assertEqual(answer.status, 200)
        return Exposition.parse(answer.body.decode())

    def log_lines(self) -> list[str]:
        """What our own loggers say from now on to the end of the test."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace", "").startswith("derp"):
                lines.append(formatEvent(event))

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return lines

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """See :func:`tests.integration.waiting.until`."""
        return await until(reactor, condition, what)


class _OverTLS:
    """An endpoint that speaks TLS to whoever is there, and checks no certificate."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Factory) -> Any:
        options = ssl.CertificateOptions()
        connected = self._endpoint.connect(TLSMemoryBIOFactory(options, True, factory))
        return connected.addCallback(lambda outer: outer.wrappedProtocol)
