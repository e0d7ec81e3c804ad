"""A DERP client inside a WebSocket, as browsers are."""

from __future__ import annotations

from secrets import token_bytes
from typing import Any

from twisted.internet.protocol import Protocol
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, BytesMessage, Event, Request

from derp.core.client_session import ClientSession
from derp.wire.frames import NONCE_LEN, PROTOCOL_VERSION
from derp.wire.handshake import ClientInfo
from derp.wire.keys import generate_private
from tests.integration.relay_case import Heard

_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
"""What stands before DERP elsewhere; the session expects it."""


class WebSocketClient(Protocol):
    """
    Logs in as soon as it is connected.

    :ivar heard: what it was told.
    :ivar subprotocol: what the server agreed to speak.
    """

    transport: Any

    def __init__(self, host: str) -> None:
        self.heard = Heard()
        self.subprotocol: str | None = None
        self._host = host
        self._frames = WSConnection(ConnectionType.CLIENT)
        info = ClientInfo(version=PROTOCOL_VERSION)
        self._session = ClientSession(generate_private(), info, token_bytes(NONCE_LEN))
        self.public_key = self._session.public_key

    def connectionMade(self) -> None:
        request = Request(host=self._host, target="/derp", subprotocols=["derp"])
        self.transport.write(self._frames.send(request))
        self._session.start(b"")
        self._session.receive(_SWITCHED)

    def dataReceived(self, data: bytes) -> None:
        self._frames.receive_data(data)
        for event in self._frames.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, AcceptConnection):
            self.subprotocol = event.subprotocol
        elif isinstance(event, BytesMessage):
            for message in self._session.receive(bytes(event.data)):
                self.heard(message)
            self._write(self._session.data_to_send())

    def _write(self, data: bytes) -> None:
        if data:
            self.transport.write(self._frames.send(BytesMessage(data=data)))

    def send(self, destination: bytes, packet: bytes) -> None:
        """Send a packet."""
        self._write(self._session.send_packet(destination, packet, 0.0))
