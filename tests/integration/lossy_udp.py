"""A way for datagrams that a test can make lossy, or take away."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import DatagramProtocol

HOST = "127.0.0.1"


class LossyUDP(DatagramProtocol):
    """
    Passes datagrams on to a server, and its answers back.

    :ivar port: where to send instead of the server's port.
    :ivar loses: whether a datagram that comes is lost, by its number.
    """

    noisy = False

    def __init__(self, reactor: Any, server_port: int) -> None:
        self.loses: Any = lambda number: False
        self._reactor = reactor
        self._server = (HOST, server_port)
        self._count = 0
        self._ways: dict[Any, Any] = {}
        self._listening = reactor.listenUDP(0, self, interface=HOST)
        self.port: int = self._listening.getHost().port

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._count += 1
        if self.loses(self._count):
            return
        if addr not in self._ways:
            self._ways[addr] = self._reactor.listenUDP(0, _Back(self, addr), interface=HOST)
        self._ways[addr].write(datagram, self._server)

    async def close(self) -> None:
        """Be there no more: whoever sends now is told that nobody listens."""
        ports, self._ways = [self._listening, *self._ways.values()], {}
        for port in ports:
            await maybeDeferred(port.stopListening)


class _Back(DatagramProtocol):
    """Answers to one sender."""

    noisy = False

    def __init__(self, front: LossyUDP, addr: Any) -> None:
        self._front = front
        self._addr = addr

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self._front.transport is not None:
            self._front.transport.write(datagram, self._addr)
