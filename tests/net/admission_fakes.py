"""A relay under admission, those it asks, and its clients, all on real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from derp.config import Config
from derp.core.client_session import ClientEvent
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import RelayConnector
from derp.services import RelayService, build
from derp.wire.keys import parse_node_private
from tests.net.unhurried import Unhurried
from tests.vectors import load

VECTORS: dict[str, Any] = load("admission.json")
PRIVATE = parse_node_private(VECTORS["client_private"])
KEY: str = VECTORS["client_public"]
MESH_KEY = bytes(range(32))

ALLOW = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"Allow":true}'
DENY = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"Allow":false}'
KNOWN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
UNKNOWN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 21\r\n\r\nno match for IP:port\n"
CLOSE = b"(closed)"
SILENCE = b""


def respond(body: bytes, status: str = "200 OK") -> bytes:
    """A whole response."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(Protocol):
    """Takes requests, and answers each as its server says."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._data = b""

    def connectionMade(self) -> None:
        self._server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            lengths = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            ]
            size = lengths[0] if lengths else 0
            if len(rest) < size:
                return
            self._data = rest[size:]
            self._answer(head + b"\r\n\r\n" + rest[:size])

    def _answer(self, request: bytes) -> None:
        server = self._server
        server.requests.append(request)
        answer = server.answer_to(request)
        assert self.transport is not None
        if answer == CLOSE:
            self.transport.loseConnection()
        elif answer.endswith(CLOSE):
            self.transport.write(answer.removesuffix(CLOSE))
            self.transport.loseConnection()
        else:
            self.transport.write(answer)
        server.tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.connections.remove(self)
        self._server.tell()


class FakeServer(Factory):
    """
    Somebody who is asked: answers every request with the same bytes, until told otherwise.

    :data:`CLOSE` closes instead, or behind what stands before it; :data:`SILENCE` does nothing.
    """

    noisy = False

    def __init__(self, answer: bytes = ALLOW) -> None:
        self.answer_to: Callable[[bytes], bytes] = lambda request: self.answer
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections: list[_Connection] = []
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._port: Any = None

    def buildProtocol(self, addr: IAddress | None) -> _Connection:
        return _Connection(self)

    @property
    def url(self) -> str:
        """Where it listens on TCP."""
        return f"http://127.0.0.1:{self._port.getHost().port}/admit?x=1"

    async def listen(self, path: str = "") -> FakeServer:
        """Listen on a unix socket, or on a TCP port of its own."""
        from twisted.internet import reactor

        endpoint = UNIXServerEndpoint(reactor, path) if path else TCP4ServerEndpoint(reactor, 0)
        self._port = await endpoint.listen(self)
        return self

    async def stop(self) -> None:
        """Stop listening, close what is open, remove the socket's file."""
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        for connection in list(self.connections):
            assert connection.transport is not None
            connection.transport.abortConnection()  # type: ignore[attr-defined]
        await self.when(lambda: not self.connections)

    def when(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Wait for something to be so after a request or a connection's end."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        self.tell()
        return waiting

    def tell(self) -> None:
        for entry in [entry for entry in self._waiting if entry[0]()]:
            self._waiting.remove(entry)
            entry[1].callback(None)


class AdmissionTestCase(TestCase):
    """Has relays, clients and a log, and leaves nothing of them behind."""

    timeout = 60

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.relays: list[RelayService] = []
        self.clients: list[RelayClient] = []
        self.messages: list[ClientEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    async def fake(self, answer: bytes = ALLOW, path: str = "") -> FakeServer:
        server = await FakeServer(answer).listen(path)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def relay(self, **flags: Any) -> RelayService:
        """Start a relay on a port of its own."""
        from twisted.internet import reactor

        config = Config(dev=True, port=0, stun=False, tls=False, **flags)
        service = build(config, Unhurried(reactor))
        service.startService()
        self.relays.append(service)
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: RelayService) -> Deferred[Any]:
        closed = DeferredList([client.close() for client in self.clients])
        return closed.addCallback(lambda _: service.stopService())

    def port_of(self, service: RelayService) -> int:
        opened: Any = service.listeners[0].opened
        return int(opened.getHost().port)

    async def login(self, service: RelayService, **options: Any) -> RelayClient:
        """
        Connect and be admitted.

        :raises RelayError: if that is refused.
        """
        from twisted.internet import reactor

        options = {"private_key": PRIVATE, **options}
        url = f"http://127.0.0.1:{self.port_of(service)}/derp"
        connector = RelayConnector(reactor=reactor, target=url, **options)
        client = await connector.connect(self.messages.append)
        self.clients.append(client)
        await client.when_logged_in()
        return client

    def logged(self, needle: str) -> list[str]:
        """Lines of the log that contain this."""
        lines = [formatEvent(event) for event in self.events]
        return [line for line in lines if needle in line]


class TunnelTo:
    """A proxy that connects everybody to one place, and remembers where they wanted to go."""

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self.asked: list[bytes] = []
        self._endpoint = HostnameEndpoint(reactor, host, port)

    def __call__(self, addr: IAddress | None) -> Protocol:
        return _TunnelEnd(self)

    def connect(self, end: _TunnelEnd) -> Deferred[Any]:
        return connectProtocol(self._endpoint, _FarEnd(end))


class _TunnelEnd(Protocol):
    far: Any = None

    def __init__(self, proxy: TunnelTo) -> None:
        self._proxy = proxy

    def dataReceived(self, data: bytes) -> None:
        if self.far is not None:
            self.far.transport.write(data)
            return
        self._proxy.asked.append(data.partition(b"\r\n")[0])
        self._proxy.connect(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.far is not None:
            self.far.transport.loseConnection()


class _FarEnd(Protocol):
    def __init__(self, near: _TunnelEnd) -> None:
        self._near: Any = near

    def connectionMade(self) -> None:
        self._near.far = self
        self._near.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self._near.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._near.transport.loseConnection()
