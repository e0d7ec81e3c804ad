"""
Taking a connection over from twisted.web: the only code that does.

``GET /derp`` turns an HTTP connection into a DERP one (or a WebSocket, or a CONNECT tunnel).
A client in fast start sends its ClientInfo right behind the request, often in the same packet,
so bytes behind the request belong to the new protocol and none may be lost. While a request
is answered the channel is in raw mode; what is left behind the request therefore arrives at
``rawDataReceived`` in the same turn of :class:`~twisted.protocols.basic.LineReceiver`'s loop,
after ``render`` has returned. What came in one piece with a request's body, or while a taker
was still to be found, the channel keeps back and replays in ``requestDone``. That is all that is
relied on: nothing private is read.

On our own transport (``setProtocol``) the channel is left behind and freed; on Twisted's it
stays as a shim that passes everything on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.net.http_channel import BoundedChannel
from derp.net.http_deadlines import HTTPTiming
from derp.net.proxy_header import V1_START, V2_START


@implementer(IProtocol)
class LossWatcher:
    """
    A protocol that tells somebody else, too, when its connection is lost.

    For takers without an ``on_lost`` of their own (the relay's have it: an object less each).

    The receiving methods are the inner protocol's own, so the packet path does not notice.
    """

    __slots__ = ("_inner", "_lost", "dataReceived", "bufferReceived")

    factory = None

    def __init__(self, inner: IProtocol, lost: Callable[[], None]) -> None:
        self._inner = inner
        self._lost = lost
        self.dataReceived = inner.dataReceived
        buffer_received = getattr(inner, "bufferReceived", None)
        if buffer_received is not None:
            self.bufferReceived = buffer_received

    @property
    def wanted(self) -> int:
        """See :mod:`derp.net.transport`."""
        wanted: int = self._inner.wanted  # type: ignore[attr-defined]
        return wanted

    def makeConnection(self, transport: ITransport) -> None:
        self._inner.makeConnection(transport)

    def connectionMade(self) -> None:
        """Never called: the inner protocol's own ``makeConnection`` does it."""

    def logPrefix(self) -> str:
        return type(self._inner).__name__

    def connectionLost(self, reason: Failure) -> None:
        try:
            self._inner.connectionLost(reason)
        finally:
            self._lost()


def watch_loss(taker: Any, lost: Callable[[], None]) -> Any:
    """Have ``lost`` called after this protocol was told that its connection is lost."""
    if hasattr(taker, "on_lost"):
        taker.on_lost = lost
        return taker
    return LossWatcher(taker, lost)


class UpgradableChannel(BoundedChannel):
    """An HTTP connection that may become another protocol's."""

    site: Any
    client_named = False
    """Whether a PROXY header of a proxy we trust has said who the client is."""

    def __init__(self, timing: HTTPTiming) -> None:
        super().__init__(timing)
        self._taker: IProtocol | None = None
        self._silent = True

    @property
    def taken_over(self) -> bool:
        """Whether the connection is no longer HTTP's."""
        return self._taker is not None

    def take_over(self, taker: IProtocol, lost: Callable[[], None] | None = None) -> None:
        """
        Give the connection away; HTTP has no more part in it, nor have its deadlines.

        To be called while a request is being answered, at once or later; it must not have
        written anything, and its ``render`` returns ``NOT_DONE_YET``.

        :param lost: called when the connection is lost, after the taker was told.
        """
        transport = self.transport
        self.deadlines.stop()
        transport.unregisterProducer()
        if lost is not None:
            taker = watch_loss(taker, lost)
        self._taker = taker
        taker.makeConnection(transport)
        swap = getattr(transport, "setProtocol", None)
        if swap is not None:
            swap(taker)
        self._leave_http()

    def _leave_http(self) -> None:
        # Requests piled up behind this one may have made the channel stop reading. (First: the
        # taker may stop it again.)
        self.transport.resumeProducing()
        # Being done with the request, the channel replays what it has kept back behind it: to
        # ``dataReceived``, so to the taker.
        self.persistent = True
        self.requestDone(self.requests[0])
        # The rest of the piece that is being worked on is for ``rawDataReceived``.
        self.setRawMode()

    def dataReceived(self, data: bytes) -> None:
        if self._taker is not None:
            self._taker.dataReceived(data)
        else:
            if self._silent:
                self._silent = False
                self._look_for_proxy(data)
            super().dataReceived(data)

    def _look_for_proxy(self, start: bytes) -> None:
        """Explain the error to come, if this is a PROXY header of somebody we do not trust."""
        proxies = self.site.proxies
        if proxies is not None and start.startswith((V1_START, V2_START)):
            proxies.hints.stray_header(self.transport.getPeer())

    def rawDataReceived(self, data: bytes) -> None:
        if self._taker is not None:
            self._taker.dataReceived(data)
        else:
            super().rawDataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._taker is not None:
            taker, self._taker = self._taker, None
            taker.connectionLost(reason)
        else:
            super().connectionLost(reason)
