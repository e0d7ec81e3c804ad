"""
DERP over WebSocket, for browsers: the byte stream cut into binary messages.

The relay protocol talks to a :class:`~derp.net.websocket_transport.WebSocketTransport`, which
looks like any transport; :class:`WebSocketProtocol` stands between that and the real one.
Message boundaries mean nothing in either direction. The framing is wsproto's: a sans-I/O state
machine that hands out a message's bytes as they come, so that nothing waits for a whole one.

Limits are those of derper's library: a client's message may hold 32768 bytes. Of a longer one
32769 bytes still enter the stream, then the connection is closed with 1009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from zope.interface import implementer

from derp.net.websocket_transport import WebSocketTransport

MAX_RECEIVED: Final = 32768
"""Bytes one incoming message may hold (``coder/websocket``: ``defaultReadLimit``)."""
MAX_SENT: Final = 16384
"""Bytes per message of ours; the clients' library has the same limit as derper's."""
CLOSE_S: Final = 5.0
"""For the peer to answer our Close, and for the last bytes to leave (``coder/websocket``)."""

_UNREADABLE: Final = (CloseReason.PROTOCOL_ERROR, CloseReason.INVALID_FRAME_PAYLOAD_DATA)

Schedule = Callable[[float, Callable[[], None]], Any]


@implementer(IPushProducer)
class WebSocketProtocol(Protocol):
    """
    Frames on the real transport.

    :param head: the 101, to be sent first.
    :param relay: what talks DERP inside; ``None`` refuses the connection with 1008, the
        client not having offered the subprotocol.
    :param schedule: :meth:`derp.net.timer_wheel.TimerWheel.schedule`.
    """

    transport: Any

    def __init__(self, head: bytes, relay: IProtocol | None, schedule: Schedule) -> None:
        self._head = head
        self._relay = relay
        self._schedule = schedule
        self._frames = Connection(ConnectionType.SERVER)
        self._message_size = 0
        self._ending = False
        self._deaf = False
        self._paused = False
        self._producer: Any = None
        self._deadline: Any = None

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.transport.write(self._head)
        if self._relay is not None:
            self._relay.makeConnection(WebSocketTransport(self))
        else:
            reason = "client must speak the derp subprotocol"
            self._end(CloseConnection(CloseReason.POLICY_VIOLATION, reason))

    # -- in --------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._deaf:
            return
        self._frames.receive_data(data)
        if self._ending:
            self._await_close()
            return
        payload: list[bytes] = []
        ping: Ping | None = None
        end: CloseConnection | None = None
        for event in self._frames.events():
            if isinstance(event, Ping):
                ping = event
            else:
                end = self._take(event, payload)
                if end is not None:
                    break
        if payload and self._relay is not None:
            self._relay.dataReceived(b"".join(payload))
        # The last ping stands for all (RFC 6455 §5.5.3), and for a peer that reads nothing
        # we pile up no answers.
        if self._ending:
            return
        if end is not None:
            self._end(end)
        elif ping is not None and not self._paused:
            self.transport.write(bytes(self._frames.send(ping.response())))

    def _await_close(self) -> None:
        """Read over what was under way to us, up to the answer to our Close."""
        if any(isinstance(event, CloseConnection) for event in self._frames.events()):
            self._deaf = True
            self.transport.loseConnection()

    def _take(self, event: Event, payload: list[bytes]) -> CloseConnection | None:
        """
        Collect the stream's bytes.

        :returns: how the connection ends, if it does.
        """
        if isinstance(event, BytesMessage):
            room = MAX_RECEIVED + 1 - self._message_size
            self._message_size += len(event.data)
            payload.append(bytes(event.data[:room]))
            if self._message_size > MAX_RECEIVED:
                reason = f"read limited at {MAX_RECEIVED + 1} bytes"
                return CloseConnection(CloseReason.MESSAGE_TOO_BIG, reason)
            if event.message_finished:
                self._message_size = 0
        elif isinstance(event, TextMessage):
            return CloseConnection(CloseReason.UNSUPPORTED_DATA, "DERP is binary, not text")
        elif isinstance(event, CloseConnection):
            return event
        return None

    # -- out -------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """
        Send a piece of the stream, in as many messages as it takes.

        Nothing goes to a client that has closed, which the relay may not know yet: what came with
        the Close is delivered first, and answered perhaps.
        """
        if self._ending or self._frames.state is not ConnectionState.OPEN:
            return
        frames = [
            self._frames.send(BytesMessage(data=data[start : start + MAX_SENT]))
            for start in range(0, len(data), MAX_SENT)
        ]
        self.transport.write(b"".join(frames))

    def set_producer(self, producer: Any) -> None:
        """Pass back-pressure on to the relay protocol, or (``None``) to nobody."""
        self._producer = producer
        if producer is not None and self._paused:
            producer.pauseProducing()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The end comes with :meth:`connectionLost`."""

    # -- the end ---------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """Whether a Close has been sent."""
        return self._ending

    def close(self) -> None:
        """End at the relay's wish. It does not wait for the client's Close."""
        if not self._ending:
            self._send_close(CloseConnection(CloseReason.NORMAL_CLOSURE, ""))
            self._deaf = True
            self.transport.loseConnection()

    def _end(self, event: CloseConnection) -> None:
        """
        End at the client's wish or through its fault.

        For the relay it is over at once; on the wire the client's own Close is waited for, so
        that ours is not lost to a reset.
        """
        by_client = self._frames.state is ConnectionState.REMOTE_CLOSING
        # After a violation of the protocol wsproto reads nothing any more, only keeps it.
        self._deaf = by_client or event.code in _UNREADABLE
        self._send_close(event.response())
        if by_client:
            self.transport.loseConnection()
        relay, self._relay = self._relay, None
        if relay is not None:
            clean = by_client and event.code in (1000, 1001)
            text = f"WebSocket closed with {int(event.code)} {event.reason or ''}".rstrip()
            relay.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost(text)))

    def _send_close(self, event: CloseConnection) -> None:
        self._ending = True
        self._producer = None
        self._deadline = self._schedule(CLOSE_S, self._cut)
        self.transport.unregisterProducer()
        self.transport.write(bytes(self._frames.send(event)))

    def _cut(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._deaf = self._ending = True
        if self._deadline is not None:
            self._deadline.cancel()
        relay, self._relay = self._relay, None
        self._producer = None
        if relay is not None:
            relay.connectionLost(reason)
