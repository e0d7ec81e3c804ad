"""
How a connection ends.

==================  =================================================================
``loseConnection``  reading stops; all is sent; goodbye and FIN; the protocol is told;
                    what still comes is read and thrown away for a moment; closed
the peer's end      the protocol is told; what it is owed is sent; goodbye; closed
it broke, or abort  the protocol is told; closed
==================  =================================================================

The protocol is told once and from outside, never from within a call of its own. Nothing points
to it afterwards. Sockets are closed at the end of a turn (see :meth:`derp.net.hub.Hub.end_later`).
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.net.socket_output import SocketOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from derp.net.hub import Hub
    from derp.net.timer_wheel import TimerWheel, WheelEntry

LINGER_S = 1.0
"""
How long a closed connection is still read after our FIN. Closing with unread input makes the
kernel send RST, which may overtake and destroy what we sent last (an alert, an answer).
"""
CLOSING_STALL_S = 30.0
"""How long a closing connection may take no byte of what it is still owed."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class ClosableSocket(SocketOutput):
    """
    A connection's output, and its end.

    :param wheel: for the deadlines of the end.
    """

    __slots__ = (
        "_closing_deadline",
        "_ended",
        "_held",
        "_peer_ended",
        "_receive",
        "_told",
        "_wheel",
        "on_end",
        "protocol",
    )

    log = Logger()

    def __init__(self, hub: Hub, wheel: TimerWheel, sock: socket.socket) -> None:
        super().__init__(hub, sock)
        self._wheel = wheel
        self.protocol: Any = None
        self._receive: Callable[[bytearray, memoryview, int], int] | None = None
        """The protocol's ``bufferReceived``, if it has one."""
        self.on_end: Callable[[], None] | None = None
        """Called once the socket is closed, whatever became of it."""
        self._held: bytearray | None = None
        """What the protocol has not consumed."""
        self._peer_ended = False
        """Its FIN is here."""
        self._told = False
        """The protocol, if there was one, knows that the connection is lost."""
        self._ended = False
        self._closing_deadline: WheelEntry | None = None

    def loseConnection(self) -> None:
        """
        See ``ITransport.loseConnection``: end once everything written is sent.

        Reading stops, as in Twisted: a peer that half-closes meanwhile must get all of it.
        """
        if self.disconnecting:
            return
        self.disconnecting = True
        self._reading = False
        self._flush_later()

    def _limit_closing(self) -> None:
        """The socket is full: a peer that never reads must not keep it for ever."""
        self._watch()
        if self._closing_deadline is None:
            self.bytes_moved_at = max(self.bytes_moved_at, self._hub.reactor.seconds())
            self._closing_deadline = self._wheel.schedule(CLOSING_STALL_S, self._closing_stalled)

    def _closing_stalled(self) -> None:
        left = self.bytes_moved_at + CLOSING_STALL_S - self._hub.reactor.seconds()
        if left > 0:
            self._closing_deadline = self._wheel.schedule(left, self._closing_stalled)
        else:
            self.abortConnection()

    def _finish_output(self) -> None:
        """All is sent: say goodbye, then read on for a moment so that it arrives."""
        self._say_goodbye()
        if self._blocked:
            self._limit_closing()  # it did not quite fit: flush comes again
        if self._blocked or self._output_over:
            return
        self._output_over = True
        if self._peer_ended:
            self._hub.end_later(self)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._hub.end_later(self)
            return
        self._cancel_closing_deadline()
        self._closing_deadline = self._wheel.schedule(LINGER_S, self._linger_over)
        self._reading = True
        self._watch()
        self._tell_lost(ConnectionDone())

    def _say_goodbye(self) -> None:
        """What TLS sends last, once."""

    def _linger_over(self) -> None:
        self._hub.end_later(self)

    def _peer_finished(self) -> None:
        """The peer sends no more; what it is owed still goes out."""
        self._peer_ended = True
        self._peer_done()

    def _peer_done(self) -> None:
        """Nothing that comes from now on matters."""
        if self._output_over:
            self._hub.end_later(self)
            return
        self._reading = False
        self.disconnecting = True
        self._tell_lost(ConnectionDone())
        self._flush_later()

    def abortConnection(self) -> None:
        """See ``ITCPTransport.abortConnection``: end now, what is unsent is lost."""
        if self._told and self._output_over:
            return  # it is over but for a last moment
        self.disconnecting = True
        self._reading = False
        self._drop_output()
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._hub.end_later(self)

    def _lost(self, reason: Exception) -> None:
        """The connection broke."""
        self._drop_output()
        self._tell_lost(reason)
        self._hub.end_later(self)

    def _tell_lost(self, reason: Exception) -> None:
        """Tell producer and protocol, once. Nothing of ours points to them afterwards."""
        if self._told:
            return
        self._told = True
        self.disconnecting = True
        self._held = None
        producer, self._producer = self._producer, None
        protocol, self.protocol = self.protocol, None
        self._receive = None
        try:
            if producer is not None:
                producer.stopProducing()
        except Exception:
            self.log.failure("a producer failed to stop")
        try:
            if protocol is not None:
                protocol.connectionLost(Failure(reason))
        except Exception:
            self.log.failure("a protocol failed at the loss of its connection")

    def failed(self) -> None:
        """See :meth:`derp.net.hub.HubMember.failed`."""
        self.abortConnection()
        self._hub.end_later(self)

    def end(self) -> None:
        """See :meth:`derp.net.hub.HubMember.end`."""
        if self._ended:
            return
        self._ended = True
        self._drop_output()
        self._cancel_closing_deadline()
        self._tell_lost(self._broken_by or ConnectionAborted())
        self._hub.remove(self._fd)
        self._fd = -1
        self._sock.close()
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def _cancel_closing_deadline(self) -> None:
        if self._closing_deadline is not None:
            self._closing_deadline.cancel()
            self._closing_deadline = None
