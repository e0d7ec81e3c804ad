"""What stands in front of relays, or in their place, and does it badly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from derp.wire.stun import encode_binding_response, parse_binding_request
from tests.net.relay_fakes import ServerTLS

reactor: Any = global_reactor
HOST = "127.0.0.1"


class Front(Protocol):
    """
    A server that does something with the first request it gets, and collects what follows.

    :param behave: called with this connection once the head of the request is complete.
    """

    transport: Any

    def __init__(self, behave: Callable[[Front], object]) -> None:
        self.received = b""
        self.lost = False
        self._behave: Callable[[Front], object] | None = behave
        self.on_data: Callable[[bytes], None] | None = None

    @property
    def path(self) -> str:
        """What was asked for."""
        return self.received.split(b" ")[1].decode()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self.on_data is not None:
            self.on_data(data)
            return
        self.received += data
        if b"\r\n\r\n" in self.received and self._behave is not None:
            behave, self._behave = self._behave, None
            behave(self)

    def connectionLost(self, reason: Any = None) -> None:
        """See ``IProtocol``."""
        self.lost = True


def answers(text: str, *, then_close: bool = False) -> Callable[[Front], None]:
    """Behave so: the same answer to everything."""

    def behave(front: Front) -> None:
        front.transport.write(text.replace("\n", "\r\n").encode("latin-1"))
        if then_close:
            front.transport.loseConnection()

    return behave


class _Behind(Protocol):
    """The proxy's connection to the relay."""

    transport: Any

    def __init__(self, front: Front, hold: Callable[[bytes], bytes]) -> None:
        self._front = front
        self._hold = hold

    def dataReceived(self, data: bytes) -> None:
        self._front.transport.write(self._hold(data))

    def connectionLost(self, reason: Any = None) -> None:
        if not self._front.lost:
            self._front.transport.loseConnection()


def forwards(
    port: int,
    *,
    request: Callable[[bytes], bytes] = lambda head: head,
    answer: Callable[[bytes], bytes] = lambda data: data,
) -> Callable[[Front], None]:
    """
    Behave as a proxy of a relay that has no TLS.

    :param request: makes what the relay is asked of what was asked.
    :param answer: makes what is passed on of what the relay says, piece by piece.
    """

    def behave(front: Front) -> None:
        behind = _Behind(front, answer)
        connected = connectProtocol(TCP4ClientEndpoint(reactor, HOST, port), behind)

        def ready(_: Any) -> None:
            behind.transport.write(request(front.received))
            front.on_data = behind.transport.write

        connected.addCallback(ready)
        front.connectionLost = lambda reason=None: behind.transport.loseConnection()  # type: ignore[method-assign]

    return behave


def listen(
    case: Any,
    behave: Callable[[Front], object],
    tls: ServerTLS | None = None,
    place: tuple[str, int] = (HOST, 0),
) -> int:
    """Open such a server for the time of a test; gives its port."""
    factory: Any = Factory.forProtocol(lambda: Front(behave))
    factory.noisy = False
    if tls is not None:
        factory = TLSMemoryBIOFactory(tls, False, factory)
    port = reactor.listenTCP(place[1], factory, interface=place[0])
    case.addCleanup(port.stopListening)
    number: int = port.getHost().port
    return number


class STUNServer(DatagramProtocol):
    """
    Answers STUN wrongly.

    :param ip: 4 bytes, the address it says it sees; ``None`` never answers.
    :param drop: how many requests it does not answer at first.
    """

    def __init__(self, ip: bytes | None, *, drop: int = 0, garbage: bytes = b"") -> None:
        self.requests = 0
        self._ip = ip
        self._drop = drop
        self._garbage = garbage

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See ``DatagramProtocol``."""
        self.requests += 1
        if self._ip is None or self.requests <= self._drop:
            return
        transaction = parse_binding_request(datagram)
        answer = encode_binding_response(transaction, self._ip, addr[1])
        assert self.transport is not None
        self.transport.write(answer[:20] + self._garbage if self._garbage else answer, addr)


def listen_udp(case: Any, server: STUNServer) -> int:
    """Open it for the time of a test; gives its port."""
    port = reactor.listenUDP(0, server, interface=HOST)
    case.addCleanup(port.stopListening)
    number: int = port.getHost().port
    return number
