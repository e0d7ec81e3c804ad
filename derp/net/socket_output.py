"""
The way out of one socket: collected during a turn, sent once at its end, held while it is full.

Bytes pass through two stations::

    _pending    written by the protocol, not yet encrypted: pieces, joined when they are sent
    _unsent     what the socket did not take of one send; leaves unchanged before anything else

While there is something in ``_unsent`` the output is *blocked*: the push producer is paused,
and nothing more is taken from ``_pending``. Who writes on regardless has ``_pending`` grow; the
relay's connections queue in their bounded outbox instead.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionLost

from derp.net.hub import READ, WRITE, Hub

if TYPE_CHECKING:
    from collections.abc import Iterable

FLUSH_AT = 64 << 10
"""Bytes written within one turn after which they are sent at once, not at its end."""
MAX_ANSWERS = 4 << 10
"""
Bytes of TLS's own answers (to key updates, to tries to renegotiate) that wait behind a full
socket. A peer that asks for more of them and reads none is up to no good.
"""


class SocketOutput(ABC):
    """
    Output half of a connection.

    :param hub: whose turns it is flushed by.
    :param sock: connected and non-blocking.
    """

    __slots__ = (
        "_answers",
        "_blocked",
        "_broken_by",
        "_dirty",
        "_fd",
        "_hub",
        "_output_over",
        "_pending",
        "_pending_size",
        "_producer",
        "_producer_paused",
        "_reading",
        "_sock",
        "_unsent",
        "_watched",
        "bytes_moved_at",
        "disconnecting",
    )

    def __init__(self, hub: Hub, sock: socket.socket) -> None:
        self._hub = hub
        self._sock = sock
        self._fd = sock.fileno()
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._unsent: bytes | memoryview = b""
        self._blocked = False
        self._answers = 0
        self._dirty = False
        self._output_over = False
        """Our FIN is sent, or the socket is broken: nothing more goes out."""
        self._broken_by: Exception | None = None
        self._producer: Any = None
        self._producer_paused = False
        self._reading = True
        self._watched = READ
        self.disconnecting = False
        """No more is read; once everything written is sent, the connection ends."""
        self.bytes_moved_at = 0.0
        """When the socket, full, last took a byte (reactor seconds)."""

    # -- writing ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """
        See ``ITransport.write``: append; the end of the turn sends. **HOT**

        It never raises and never calls the protocol: a broken socket is noticed when the turn
        is over.
        """
        self._pending.append(data)
        size = self._pending_size + len(data)
        self._pending_size = size
        if not self._dirty:
            self._dirty = True
            self._hub.mark_dirty(self)
        elif size > FLUSH_AT and not self._blocked:
            self._send_pending()

    def write_through(self, data: memoryview) -> None:
        """
        Send a large piece now, from where it lies, if nothing is before it. **HOT**

        It is as large as what the end of the turn would send in one piece; to keep it until
        then would be a copy for nothing.
        """
        if self._pending or self._blocked or self.disconnecting:
            self.write(data.tobytes())
        elif not self._output_over:
            self._send_plain(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See ``ITransport.writeSequence``."""
        self.write(b"".join(data))

    def flush(self) -> None:
        """See :meth:`derp.net.hub.HubMember.flush`. **HOT**"""
        self._dirty = False
        pending = self._pending
        if pending and not self._blocked:
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            self._pending_size = 0
            if not self._output_over:
                self._send_plain(data)
        if self.disconnecting and not self._output_over:
            if self._blocked:
                self._limit_closing()
            else:
                self._finish_output()

    def _send_pending(self) -> None:
        """Send what was written, in one piece."""
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        if not self._output_over:
            self._send_plain(data)

    def _send_plain(self, data: bytes | memoryview) -> None:
        """Send plaintext, encrypted or not; nothing of it is kept unless it is copied."""
        sent = self._try_send(data)
        if sent < len(data):
            self._unsent = bytes(data[sent:])
            self._block()

    def _try_send(self, data: bytes | memoryview) -> int:
        """
        Offer bytes to the socket.

        :return: how many it took; all, if it is broken and none will ever go.
        """
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._break_output(ConnectionLost(str(error)))
            return len(data)

    def _send(self, data: bytes) -> None:
        """Give bytes to the socket as they are; what it does not take makes us blocked."""
        sent = self._try_send(data)
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._block()

    def _send_answer(self, data: bytes) -> None:
        """Send what no protocol wrote (TLS's own records), even past a full socket."""
        if not data or self._output_over:
            return
        if not self._blocked:
            self._send(data)
            return
        self._answers += len(data)
        if self._answers > MAX_ANSWERS:
            self._break_output(ConnectionLost("it asks for TLS answers and reads none"))
        else:
            self._unsent = b"".join((self._unsent, data))

    @abstractmethod
    def _finish_output(self) -> None:
        """All is sent, and nothing more will be written."""

    @abstractmethod
    def _limit_closing(self) -> None:
        """The connection is to end, but the socket is full."""

    # -- the full socket -------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the hub watch for what matters now."""
        events = (READ if self._reading else 0) | (WRITE if self._blocked else 0)
        if events != self._watched:
            self._watched = events
            self._hub.watch(self._fd, events)

    def _block(self) -> None:
        self._blocked = True
        self.bytes_moved_at = self._hub.reactor.seconds()
        self._watch()
        if self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def _resume_output(self) -> None:
        """The socket takes bytes again."""
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._break_output(ConnectionLost(str(error)))
            return
        self.bytes_moved_at = self._hub.reactor.seconds()
        if sent < len(self._unsent):
            self._unsent = memoryview(self._unsent)[sent:]
            return
        self._unsent = b""
        self._blocked = False
        self._answers = 0
        if self._pending:
            self._send_pending()
        self._watch()
        if self._blocked:
            return
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        if self.disconnecting:
            self._flush_later()

    def _flush_later(self) -> None:
        """Have :meth:`flush` called though nothing was written."""
        if not self._dirty:
            self._dirty = True
            self._hub.mark_dirty(self)

    def _break_output(self, reason: Exception) -> None:
        """The socket is broken for writing; tell the protocol when the turn is over."""
        self._broken_by = self._broken_by or reason
        self._drop_output()
        self._hub.end_later(self)

    def _drop_output(self) -> None:
        """Send nothing any more."""
        self._output_over = True
        self._pending.clear()
        self._pending_size = 0
        self._unsent = b""
        self._blocked = False

    @abstractmethod
    def end(self) -> None:
        """See :meth:`derp.net.hub.HubMember.end`."""

    @abstractmethod
    def ready(self, events: int) -> None:
        """See :meth:`derp.net.hub.HubMember.ready`."""

    @abstractmethod
    def failed(self) -> None:
        """See :meth:`derp.net.hub.HubMember.failed`."""

    # -- producers -------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        See ``IConsumer.registerProducer``.

        :raises ValueError: for a pull producer; twisted.web wraps those itself.
        """
        if not streaming:
            raise ValueError("only push producers are served")
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already")
        if self._output_over:
            producer.stopProducing()
            return
        self._producer = producer
        self._producer_paused = self._blocked
        if self._blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer.unregisterProducer``."""
        self._producer = None
