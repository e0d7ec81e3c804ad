"""The inside of a WebSocket, as a transport for the relay protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITransport
from zope.interface import implementer


class Frames(Protocol):
    """What the transport is the inside of."""

    transport: Any
    """The real one."""

    @property
    def ending(self) -> bool:
        """Whether a Close has been sent."""

    def send(self, data: bytes) -> None:
        """Send a piece of the stream."""

    def set_producer(self, producer: Any) -> None:
        """Pass back-pressure on to a push producer, or (``None``) to nobody."""

    def close(self) -> None:
        """End at the relay's wish."""


@implementer(ITransport, IConsumer, IPushProducer)
class WebSocketTransport:
    """
    What the relay protocol writes to.

    It has no ``getHandle``: there is no TCP round-trip time of the stream inside.
    """

    def __init__(self, websocket: Frames) -> None:
        self._websocket = websocket

    @property
    def _real(self) -> Any:
        return self._websocket.transport

    @property
    def disconnecting(self) -> bool:
        """Whether writing is of no use any more."""
        return self._websocket.ending

    @property
    def bytes_moved_at(self) -> float | None:
        """See :class:`derp.net.transport.StreamTransport`; other transports do not know."""
        moved_at: float | None = getattr(self._real, "bytes_moved_at", None)
        return moved_at

    def write(self, data: bytes) -> None:
        self._websocket.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self._websocket.send(b"".join(data))

    def loseConnection(self) -> None:
        self._websocket.close()

    def abortConnection(self) -> None:
        """End now; what is unsent is lost."""
        self._real.abortConnection()

    def getPeer(self) -> IAddress:
        peer: IAddress = self._real.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self._real.getHost()
        return host

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Take a push producer.

        :raises ValueError: for a pull producer: the relay protocol is none.
        """
        if not streaming:
            raise ValueError("only push producers are served")
        self._websocket.set_producer(producer)

    def unregisterProducer(self) -> None:
        self._websocket.set_producer(None)

    def pauseProducing(self) -> None:
        self._real.pauseProducing()

    def resumeProducing(self) -> None:
        self._real.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()
