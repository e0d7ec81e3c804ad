"""
CONNECT: a way to the control server for clients that can reach nothing but the relay.

(derper's ``--ace``.) On the TLS port only, to ports 80 and 443 of hosts of tailscale.com that
are no DERP servers, so it is no open proxy. Source: tailscale ``cmd/derper/ace.go`` and
``net/connectproxy``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from derp.net.answers import plain_error
from derp.net.timer_wheel import TimerWheel

if TYPE_CHECKING:
    from derp.net.web_request import WebRequest

DIAL_S: Final = 15.0
"""For the name to resolve and the target to answer (derper: ``connectproxy``)."""
CLOSE_S: Final = 30.0
"""For the last bytes to leave once the other end has gone."""

_TARGET: Final = re.compile(r"([A-Za-z0-9._-]*\.tailscale\.com):(443|80)")
_MAX_LOGGED: Final = 100

EndpointFor = Callable[[str, int], IStreamClientEndpoint]


def parse_target(target: bytes) -> tuple[str, int] | None:
    """Read a request target; ``None`` if this is not a place to be connected to."""
    match = _TARGET.fullmatch(target.decode("latin-1"))
    if match is None or "derp" in match[1]:
        return None
    return match[1], int(match[2])


class TunnelEnd(Protocol):
    """
    One end of a tunnel: passes on what comes, and its end.

    Each end's transport produces for the other's, so that a slow reader slows its writer.
    An idle tunnel lasts for as long as TCP's keepalive finds both ends there.
    """

    transport: Any

    def __init__(self, wheel: TimerWheel) -> None:
        self._wheel = wheel
        self._other: TunnelEnd | None = None
        self._deadline: Any = None

    def join(self, other: TunnelEnd) -> None:
        """Connect two ends whose connections are made."""
        for end, opposite in ((self, other), (other, self)):
            end._other = opposite
            end.transport.registerProducer(opposite.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if self._other is not None:
            self._other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        other, self._other = self._other, None
        if other is not None:
            other.finish()

    def finish(self) -> None:
        """End this side once what it was given has left."""
        self._other = None
        self._deadline = self._wheel.schedule(CLOSE_S, self.transport.abortConnection)
        self.transport.unregisterProducer()
        self.transport.loseConnection()


class ClientEnd(TunnelEnd):
    """The end towards the client, on the connection taken over from HTTP."""

    def __init__(self, wheel: TimerWheel, back: TunnelEnd) -> None:
        super().__init__(wheel)
        self._back = back

    def connectionMade(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.join(self._back)


class ConnectResource(Resource):
    """
    Answers CONNECT.

    :param endpoint_for: host and port to where to dial.
    """

    isLeaf = True
    log = Logger()

    def __init__(self, clock: IReactorTime, wheel: TimerWheel, endpoint_for: EndpointFor) -> None:
        super().__init__()
        self._clock = clock
        self._wheel = wheel
        self._endpoint_for = endpoint_for

    def render(self, request: WebRequest) -> bytes | int:
        # An error answer ends the connection: who knows what already follows the request.
        request.close_after_answer()
        target = parse_target(request.uri)
        if target is None:
            self.log.info("CONNECT to {target!r} not allowed", target=request.uri[:_MAX_LOGGED])
            return plain_error(request, 403, "Invalid CONNECT target")
        back = TunnelEnd(self._wheel)
        dialing = self._endpoint_for(*target).connect(Factory.forProtocol(lambda: back))
        dialing.addTimeout(DIAL_S, self._clock)
        request.notifyFinish().addErrback(lambda _: dialing.cancel())
        dialing.addCallback(lambda _: self._connected(back, request))
        dialing.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _connected(self, back: TunnelEnd, request: WebRequest) -> None:
        back.transport.setTcpKeepAlive(True)
        lost = request.hand_over_tls_count()
        request.channel.take_over(ClientEnd(self._wheel, back), lost)

    def _failed(self, failure: Failure, request: WebRequest) -> None:
        if failure.check(CancelledError) and request.channel is None:
            return  # the client did not wait
        target = request.uri[:_MAX_LOGGED]
        fault = failure.getErrorMessage()
        self.log.info("CONNECT to {target!r} failed: {fault}", target=target, fault=fault)
        request.answer(plain_error(request, 502, "Connect failure"))


class ConnectDisabled(Resource):
    """CONNECT without ``--ace``."""

    isLeaf = True

    def render(self, request: WebRequest) -> bytes:
        request.close_after_answer()
        return plain_error(request, 403, "CONNECT not enabled")


def hostname_endpoints(reactor: Any) -> EndpointFor:
    """Dial by name, over IPv6 and IPv4."""
    from twisted.internet.endpoints import HostnameEndpoint  # not for those who never dial

    def endpoint_for(host: str, port: int) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, host, port, timeout=DIAL_S)
        return endpoint

    return endpoint_for
