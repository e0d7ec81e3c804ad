"""Connections through an HTTP proxy's CONNECT."""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.net.bounded_http import NoAnswer, explain, shortened
from derp.net.socket_address import host_port

MAX_HEAD: Final = 16384
"""Bytes of the proxy's answer."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3}[^\r\n]*)")


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    Connects to a target through a proxy.

    Whoever waits sets the deadline, by cancelling.

    :param proxy: leads to the proxy.
    :param authorization: value of ``Proxy-Authorization``, if any.
    """

    def __init__(
        self, proxy: IStreamClientEndpoint, host: str, port: int, authorization: str | None
    ) -> None:
        target = host_port(host, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if authorization is not None:
            lines.append(f"Proxy-Authorization: {authorization}")
        self._request = "\r\n".join([*lines, "", ""]).encode("utf-8")
        self._proxy = proxy

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See ``IStreamClientEndpoint``: give the protocol, connected to the target."""
        opening: _Opening | None = None

        def build() -> _Opening:
            nonlocal opening
            opening = _Opening(self._request, protocolFactory, connected)
            return opening

        def cancel(_: Deferred[Any]) -> None:
            dialing.cancel()
            if opening is not None:
                opening.give_up()

        connected: Deferred[Any] = Deferred(cancel)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        factory.protocol = build
        dialing = self._proxy.connect(factory)
        dialing.addErrback(self._failed, connected)
        return connected

    def _failed(self, failure: Failure, connected: Deferred[Any]) -> None:
        if not connected.called and not failure.check(CancelledError):
            connected.errback(NoAnswer(f"proxy: {explain(failure.value)}"))


class _Opening(Protocol):
    """Asks for the tunnel; afterwards passes on what comes to the protocol inside."""

    def __init__(self, request: bytes, factory: IProtocolFactory, connected: Deferred[Any]) -> None:
        self._request = request
        self._factory = factory
        self._connected = connected
        self._head = b""
        self._inner: Any = None
        self._given_up = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._given_up:
            return
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        self._head = head
        if not end:
            if len(head) > MAX_HEAD:
                self._refuse("its answer is too long")
            return
        status = _STATUS.match(head)
        if status is None:
            self._refuse("its answer is no HTTP")
        elif not status[1].startswith(b"2"):
            self._refuse(shortened(status[1].decode("latin-1")))
        else:
            self._open(rest)

    def _open(self, rest: bytes) -> None:
        transport: Any = self.transport
        self._inner = self._factory.buildProtocol(transport.getPeer())
        self._inner.makeConnection(transport)
        self._connected.callback(self._inner)
        if rest:
            self._inner.dataReceived(rest)

    def _refuse(self, problem: str) -> None:
        self.give_up()
        self._connected.errback(NoAnswer(f"proxy: {problem}"))

    def give_up(self) -> None:
        """Close the connection to the proxy, if there is one."""
        self._given_up = True
        if self.transport is not None and self._inner is None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self._given_up:
            self._refuse_lost(reason)

    def _refuse_lost(self, reason: Failure) -> None:
        self._given_up = True
        how = "closed the connection" if reason.check(ConnectionDone) else explain(reason.value)
        self._connected.errback(NoAnswer(f"proxy: {how}"))
