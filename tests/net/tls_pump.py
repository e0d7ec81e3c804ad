"""TLS connections on a hub that is turned by hand."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from derp.core.listener_stats import ListenerStats
from derp.net.tls_contexts import server_context
from derp.net.tls_transport import TLSTransport
from derp.wire.client_hello import ClientHello
from derp.wire.metacert import build_metacert
from tests.certificate_files import NOW, issue
from tests.net.sockets import Echo, Pump, Recorder
from tests.net.tls_peers import RecordClient, TLSClient

Choice = ssl.SSLContext | Deferred[ssl.SSLContext] | Exception


def make_context() -> ssl.SSLContext:
    """A server's context with a fresh certificate."""
    issued = issue(["a.example"])
    metacert = build_metacert(bytes(range(32)), NOW)
    return server_context(issued.pem, issued.key_pem(), metacert.pem)


_CONTEXT = make_context()


class Chooser:
    """Answers every ClientHello alike."""

    def __init__(self, choice: Choice | Callable[[], Choice]) -> None:
        self.choice = choice
        self.asked: list[tuple[ClientHello, str]] = []

    def pick(self, hello: ClientHello, local_ip: str) -> Any:
        self.asked.append((hello, local_ip))
        choice = self.choice() if callable(self.choice) else self.choice
        if isinstance(choice, Exception):
            raise choice
        return choice


class TLSPump(Pump):
    """A pump whose connections speak TLS."""

    def __init__(self, case: SynchronousTestCase) -> None:
        super().__init__(case)
        self.context = _CONTEXT
        self.stats = ListenerStats()

    def serve(
        self,
        sock: socket.socket,
        build: Callable[[Any], Any],
        chooser: Chooser | None = None,
    ) -> TLSTransport:
        """Start TLS on the relay's end of a connection."""
        transport = TLSTransport(
            self.hub,
            self.wheel,
            sock,
            ("192.0.2.1", 4321),
            chooser=chooser or Chooser(self.context),
            build=build,
            stats=self.stats,
        )
        transport.begin()
        return transport

    def connect_tls(
        self,
        protocol: Recorder | None = None,
        *,
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        chooser: Chooser | None = None,
        tcp: bool = True,
        buffer: int = 0,
        wait: bool = True,
    ) -> tuple[TLSTransport, TLSClient]:
        """Make a connection to a protocol, an echo if none is given, with a stock client."""
        ours, theirs = self.pair(tcp=tcp, buffer=buffer)
        echo = protocol or Echo()
        transport = self.serve(ours, lambda _: echo, chooser)
        client = TLSClient(theirs, context, server_name)
        self.clients.append(client)
        if wait:
            self.until(lambda: client.ready and echo.transport, f"no handshake: {client.error}")
        return transport, client

    def connect_records(
        self, protocol: Recorder | None = None, *, tls12: bool = False, buffer: int = 0
    ) -> tuple[TLSTransport, RecordClient]:
        """The same with a client that makes its own records."""
        ours, theirs = self.pair(buffer=buffer)
        echo = protocol or Echo()
        transport = self.serve(ours, lambda _: echo)
        client = RecordClient(theirs, self._case.mktemp(), tls12=tls12)
        self.clients.append(client)
        self.until(lambda: client.ready and echo.transport, f"no handshake: {client.error}")
        return transport, client
