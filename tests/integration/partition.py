"""A wire between two relays that a test can cut and mend."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

HOST = "127.0.0.1"


class Wire(Factory):
    """
    Listens on a port of its own and passes on what comes, to wherever the other end is now.

    :ivar port: where to connect instead of the other end.
    :ivar leads_to: the other end's port.
    :ivar delay_s: how long it takes whatever comes, in either direction, from now on.
    """

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.leads_to = 0
        self.is_cut = False
        self.delay_s = 0.0
        self.taken = 0
        """Connections that were asked for, cut or not."""
        self.reactor = reactor
        self.ends: set[_End] = set()
        self._listening = reactor.listenTCP(0, self, interface=HOST)
        self.port: int = self._listening.getHost().port

    def buildProtocol(self, addr: Any) -> _End:
        self.taken += 1
        return _End(self)

    def cut(self) -> None:
        """Break what there is, with all that is under way on it, and let nothing through."""
        self.is_cut = True
        for end in list(self.ends):
            end.transport.abortConnection()

    def mend(self) -> None:
        """Let connections through from now on."""
        self.is_cut = False

    async def close(self) -> None:
        """Cut it for good."""
        self.cut()
        await self._listening.stopListening()


class _End(Protocol):
    """One of the two sockets of a connection that is passed on."""

    transport: Any

    def __init__(self, wire: Wire, other: _End | None = None) -> None:
        self._wire = wire
        self._other = other
        self._under_way: deque[tuple[bytes, Any]] = deque()

    def connectionMade(self) -> None:
        wire = self._wire
        if wire.is_cut:
            self.transport.abortConnection()
            return
        wire.ends.add(self)
        if self._other is not None:
            self._other.join(self)
            return
        self.transport.pauseProducing()
        endpoint = TCP4ClientEndpoint(wire.reactor, HOST, wire.leads_to)
        connecting = endpoint.connect(Factory.forProtocol(lambda: _End(wire, self)))
        connecting.addErrback(lambda _: self.transport.abortConnection())

    def join(self, other: _End) -> None:
        """The other socket is there."""
        self._other = other
        self.transport.registerProducer(other.transport, True)
        other.transport.registerProducer(self.transport, True)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        wire = self._wire
        if not wire.delay_s and not self._under_way:
            self._pass_on(data)
            return
        self._under_way.append((data, wire.reactor.callLater(wire.delay_s, self._next)))

    def _next(self) -> None:
        self._pass_on(self._under_way.popleft()[0])

    def _pass_on(self, data: bytes) -> None:
        assert self._other is not None
        self._other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._wire.ends.discard(self)
        for _, call in self._under_way:
            call.cancel()
        if self._other is not None and self._other.transport is not None:
            self._other.transport.unregisterProducer()
            self._other.transport.loseConnection()
