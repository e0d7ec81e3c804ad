"""A TLS client that tells everything about its handshake: chain, version, alert."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.tls_clients import chain_seen

_ALERT = 21
_ALERT_LEN = 7
"""Of a record with one alert that is not encrypted yet."""


class TLSProbe(Protocol):
    """
    The client's side of one handshake.

    :ivar done: fires with this probe when the handshake is finished, or refused.
    :ivar alert: the AlertDescription (RFC 8446 section 6) that came instead of an answer.
    :ivar refused: whether there is no connection, for whatever reason.
    """

    transport: Any

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self.done: Deferred[TLSProbe] = Deferred()
        self.alert: int | None = None
        self.refused = False
        self.closed: Deferred[None] = Deferred()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self._go_on()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self._incoming.write(data)
        if data[0] == _ALERT and len(data) == _ALERT_LEN:
            self.alert = data[-1]
        if not self.done.called:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return
        except ssl.SSLError:
            self.refused = True
        self._send()
        self.done.callback(self)

    def _send(self) -> None:
        data = self._outgoing.read()
        if data:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        if not self.done.called:
            self.refused = True
            self.done.callback(self)
        self.closed.callback(None)

    @property
    def chain(self) -> list[bytes]:
        """The certificates the relay showed, in DER."""
        return chain_seen(self.tls)
