"""``/derp``: from an HTTP request to a DERP connection, directly or inside a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from derp.net.answers import first_header, plain_error
from derp.net.timer_wheel import TimerWheel
from derp.net.websocket import WebSocketProtocol
from derp.net.websocket_handshake import SUBPROTOCOL, accept_head, find_fault, speaks_derp
from derp.wire.frames import PROTOCOL_VERSION

if TYPE_CHECKING:
    from derp.net.web_request import WebRequest

_MAX_LOGGED = 64


class RelayDoor(Protocol):
    """Where connections are handed to the relay (:class:`derp.net.relay_protocol.RelayServer`)."""

    def accept(
        self, *, remote: IAddress, fast_start: bool, not_ideal: bool, head: bytes = b""
    ) -> IProtocol:
        """Make the protocol of one connection; it sends ``head`` with its greeting."""


class WebSocketStats:
    """The counter ``derp_websocket_accepts``."""

    def __init__(self) -> None:
        self.accepts = 0


def upgrade_head(server_key: bytes) -> bytes:
    """
    Compose the 101 of a plain upgrade.

    :param server_key: the relay's raw public key.
    """
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: DERP\r\n"
        "Connection: Upgrade\r\n"
        f"Derp-Version: {PROTOCOL_VERSION}\r\n"
        f"Derp-Public-Key: {server_key.hex()}\r\n\r\n"
    ).encode("ascii")


class DERPResource(Resource):
    """
    The upgrade. Neither the method nor the Connection header matters, as with derper.

    :param relay: gets every connection that is taken over.
    :param server_key: the relay's raw public key.
    :param wheel: for the end of WebSockets.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self, relay: RelayDoor, server_key: bytes, wheel: TimerWheel, stats: WebSocketStats
    ) -> None:
        super().__init__()
        self._relay = relay
        self._head = upgrade_head(server_key)
        self._wheel = wheel
        self._stats = stats

    def render(self, request: WebRequest) -> bytes | int:
        upgrade = first_header(request, b"Upgrade").lower()
        if upgrade in (b"derp", b"websocket"):
            request.judge_client()
        offered = first_header(request, b"Sec-WebSocket-Protocol")
        # Very old clients ask for a WebSocket but talk plain DERP; the subprotocol tells.
        if upgrade == b"websocket" and SUBPROTOCOL in offered:
            return self._accept_websocket(request)
        if upgrade not in (b"derp", b"websocket"):
            if upgrade:
                self.log.info("weird upgrade: {upgrade!r}", upgrade=upgrade[:_MAX_LOGGED])
            else:
                request.judge_plain_visit()
            return plain_error(request, 426, "DERP requires connection upgrade")
        connection = self.accept(
            request.getClientAddress(),
            fast_start=first_header(request, b"Derp-Fast-Start") == b"1",
            not_ideal=bool(first_header(request, b"Ideal-Node")),
        )
        request.channel.take_over(connection, request.hand_over_tls_count())
        return NOT_DONE_YET

    def accept(self, client: IAddress, *, fast_start: bool, not_ideal: bool) -> IProtocol:
        """Make the protocol that answers a plain upgrade, and then talks DERP."""
        return self._relay.accept(
            remote=client,
            fast_start=fast_start,
            not_ideal=not_ideal,
            head=b"" if fast_start else self._head,
        )

    def _accept_websocket(self, request: WebRequest) -> bytes | int:
        fault = find_fault(request)
        if fault is not None:
            self.log.info("WebSocket not accepted: {fault}", fault=fault.message[:200])
            for name, value in fault.headers.items():
                request.setHeader(name, value)
            return plain_error(request, fault.status, fault.message)
        connection = None
        if speaks_derp(request):
            self._stats.accepts += 1
            connection = self._relay.accept(
                remote=request.getClientAddress(), fast_start=False, not_ideal=False
            )
        websocket = WebSocketProtocol(accept_head(request), connection, self._wheel.schedule)
        request.channel.take_over(websocket, request.hand_over_tls_count())
        return NOT_DONE_YET
