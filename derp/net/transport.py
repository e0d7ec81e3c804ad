"""
The relay's own stream transport: sockets served by the hub, plaintext in shared buffers.

A drop-in ``ITransport`` with everything twisted.web asks of one, so HTTP is served on it by an
unmodified ``HTTPChannel``. A protocol that has ``bufferReceived`` gets more: the bytes where
they lie, and the right to leave some unconsumed::

    bufferReceived(buf, view, end) -> consumed      and the attribute   wanted

``view[:end]`` is valid, and may be written into, during the call only. What is not consumed is
kept by the transport and offered again, in front of new bytes, once there are ``wanted``.

Writing appends; the hub sends each transport's output once, at the end of the turn. A socket
that is full makes the transport *blocked*: its streaming producer is paused until all that was
handed over is gone.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.net.arena import RECV_SIZE
from derp.net.hub import READ, WRITE, Hub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from derp.net.timer_wheel import TimerWheel, WheelEntry

FLUSH_AT = 64 << 10
"""Bytes written within one turn after which they are sent at once, not at its end."""
LINGER_S = 1.0
"""
How long a closed connection is still read after our FIN. Closing with unread input makes the
kernel send RST, which may overtake and destroy what we sent last (an alert, an answer).
"""
CLOSING_STALL_S = 30.0
"""How long a closing connection may take no byte of what it is still owed."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


def address_of(sockname: Any) -> Any:
    """
    Make Twisted's address of the socket module's; v4-mapped IPv6 becomes IPv4.

    :return: an ``IPv4Address``, ``IPv6Address`` or ``UNIXAddress``.
    """
    if isinstance(sockname, str | bytes):
        return UNIXAddress(sockname or None)
    host, port = sockname[0], sockname[1]
    if host.startswith("::ffff:") and "." in host:
        return IPv4Address("TCP", host[7:], port)
    if ":" in host:
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host, port)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class StreamTransport:
    """
    One accepted TCP (or unix) connection without TLS.

    :param hub: whose turns serve it.
    :param wheel: for the deadlines of its end.
    :param sock: the connected socket, non-blocking.
    :param peer: its remote address, as ``accept`` gave it.
    """

    __slots__ = (
        "_blocked",
        "_broken_by",
        "_closing_deadline",
        "_dirty",
        "_ended",
        "_fd",
        "_held",
        "_hub",
        "_output_over",
        "_peer",
        "_pending",
        "_pending_size",
        "_producer",
        "_reading",
        "_resuming",
        "_shut",
        "_sock",
        "_streaming",
        "_unsent",
        "_wheel",
        "bytes_moved_at",
        "disconnecting",
        "protocol",
    )

    tls_version: str | None = None
    """``"1.2"`` or ``"1.3"`` once a handshake is done."""
    TLS = False

    def __init__(self, hub: Hub, wheel: TimerWheel, sock: socket.socket, peer: Any) -> None:
        self._hub = hub
        self._wheel = wheel
        self._sock: socket.socket = sock
        self._fd = sock.fileno()
        self._peer = peer
        self.protocol: Any = None
        self.disconnecting = False
        self.bytes_moved_at = 0.0
        """When the socket last took a byte while it was full (reactor seconds)."""
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._unsent: bytes | memoryview = b""
        """What the socket did not take, on its way out unchanged."""
        self._blocked = False
        self._dirty = False
        self._held: bytearray | None = None
        self._producer: Any = None
        self._streaming = False
        self._reading = True
        self._resuming = False
        self._output_over = False
        """Our FIN is sent, or the socket is broken: nothing more goes out."""
        self._shut = False
        """The protocol has been told of its end."""
        self._ended = False
        self._broken_by: Exception | None = None
        self._closing_deadline: WheelEntry | None = None

    def start(self, protocol: Any) -> None:
        """Enter the hub and connect the protocol."""
        self._hub.add(self._fd, self)
        self.protocol = protocol
        protocol.makeConnection(self)

    def setProtocol(self, protocol: Any) -> None:
        """Let another protocol have what comes from now on (after an HTTP upgrade)."""
        self.protocol = protocol

    # -- reading ---------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """See :meth:`derp.net.hub.HubMember.ready`."""
        if events & WRITE and not self._output_over:
            self._resume_output()
        if events & ~WRITE:
            if self._reading or self._shut:
                self._read()
            elif events & ~(READ | WRITE):
                self._lost(ConnectionLost("the connection broke while it was not read"))

    def _read(self) -> None:
        """Take what arrived. See :class:`derp.net.tls_transport.TLSTransport` for the other."""
        arena = self._hub.arena
        held = self._held
        start = len(held) if held else 0
        try:
            count = self._sock.recv_into(arena.plain_view[start : start + RECV_SIZE])
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(ConnectionLost(str(error)))
            return
        if not count:
            self._lost(ConnectionDone())
        elif not self._shut:
            self._deliver(start, start + count)

    def _deliver(self, start: int, end: int) -> None:
        """
        Hand plaintext to the protocol.

        :param start: where it begins in the shared buffer; what is held belongs before it.
        :param end: where it ends.
        """
        protocol = self.protocol
        arena = self._hub.arena
        receive = getattr(protocol, "bufferReceived", None)
        if receive is None:
            protocol.dataReceived(bytes(arena.plain_view[start:end]))
            return
        view = arena.plain_view
        held = self._held
        if held:
            if end < protocol.wanted:  # not enough yet: keep only what is new, copy it once
                held += view[start:end]
                return
            view[:start] = held
        consumed = receive(arena.plain, view, end)
        self._held = bytearray(view[consumed:end]) if consumed < end else None

    # -- writing ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """
        See ``ITransport.write``: append; the end of the turn sends. **HOT**

        It never fails and never calls back into the protocol's end: a broken socket is noticed
        when the turn is over.
        """
        self._pending.append(data)
        size = self._pending_size + len(data)
        self._pending_size = size
        if not self._dirty:
            self._dirty = True
            self._hub.mark_dirty(self)
        elif size > FLUSH_AT and not self._blocked:
            self._send_pending()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See ``ITransport.writeSequence``."""
        self.write(b"".join(data))

    def flush(self) -> None:
        """See :meth:`derp.net.hub.HubMember.flush`."""
        self._dirty = False
        if self._pending and not self._blocked:
            self._send_pending()
        if self.disconnecting and not self._blocked and not self._shut:
            self._finish_output()

    def _send_pending(self) -> None:
        """Send what was written, in one piece."""
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self._pending_size = 0
        if not self._output_over:
            self._send(data)

    def _send(self, data: bytes) -> None:
        """Give bytes to the socket as they are; what it does not take makes us blocked."""
        if self._blocked:
            self._unsent = b"".join((self._unsent, data))
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break_output(ConnectionLost(str(error)))
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._block()

    def _block(self) -> None:
        self._blocked = True
        self.bytes_moved_at = self._hub.reactor.seconds()
        self._hub.watch(self._fd, WRITE | (READ if self._reading else 0))
        if self._producer is not None and self._streaming:
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
        self._hub.watch(self._fd, READ if self._reading else 0)
        if self._pending:
            self._send_pending()
        if self._blocked:
            return
        if self._producer is not None:
            self._producer.resumeProducing()
        if self.disconnecting and not self._dirty:
            self._dirty = True
            self._hub.mark_dirty(self)

    def _break_output(self, reason: Exception) -> None:
        """The socket is broken for writing; tell the protocol when the turn is over."""
        self._output_over = True
        self._broken_by = reason
        self._pending.clear()
        self._pending_size = 0
        self._unsent = b""
        self._blocked = False
        self._hub.end_later(self)

    # -- producers -------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See ``IConsumer.registerProducer``."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already")
        if self._shut:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        if not streaming:
            producer.resumeProducing()
        elif self._blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer.unregisterProducer``."""
        self._producer = None

    def pauseProducing(self) -> None:
        """See ``IPushProducer.pauseProducing``: stop reading this socket."""
        self._resuming = False
        if self._reading and not self._shut:
            self._reading = False
            self._hub.watch(self._fd, WRITE if self._blocked else 0)

    def resumeProducing(self) -> None:
        """
        See ``IPushProducer.resumeProducing``: read again.

        What a protocol left while it was paused comes first, and the socket is not read before
        that is taken: what is held stays bounded by one turn's worth.
        """
        if self._reading or self._shut or self._resuming:
            return
        if self._held:
            self._resuming = True
            self._hub.reactor.callLater(0, self._resume_held)
        else:
            self._read_again()

    def _resume_held(self) -> None:
        if not self._resuming or self._shut:
            return  # paused again, or gone
        self._resuming = False
        held = self._held
        self._reading = True  # so that the protocol can pause from within
        if held:
            self._held = None
            self._hub.arena.plain_view[: len(held)] = held
            self._deliver(0, len(held))
        if self._reading:
            self._reading = False
            self._read_again()

    def _read_again(self) -> None:
        if not self._shut:
            self._reading = True
            self._hub.watch(self._fd, READ | (WRITE if self._blocked else 0))

    def stopProducing(self) -> None:
        """See ``IProducer.stopProducing``."""
        self.loseConnection()

    # -- the end ---------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """See ``ITransport.loseConnection``: end once everything written is sent."""
        if self.disconnecting or self._shut:
            return
        self.disconnecting = True
        self._watch_closing()
        if not self._dirty:
            self._dirty = True
            self._hub.mark_dirty(self)

    def _watch_closing(self) -> None:
        """A peer that never reads must not keep a closing connection for ever."""
        self.bytes_moved_at = max(self.bytes_moved_at, self._hub.reactor.seconds())
        self._closing_deadline = self._wheel.schedule(CLOSING_STALL_S, self._closing_stalled)

    def _closing_stalled(self) -> None:
        moved = self._hub.reactor.seconds() - self.bytes_moved_at
        if moved < CLOSING_STALL_S:
            left = CLOSING_STALL_S - moved
            self._closing_deadline = self._wheel.schedule(left, self._closing_stalled)
        else:
            self.abortConnection()

    def abortConnection(self) -> None:
        """See ``ITCPTransport.abortConnection``: end now, what is unsent is lost."""
        if self._shut and self._output_over:
            return
        self._output_over = True
        self._pending.clear()
        self._pending_size = 0
        self._unsent = b""
        if self._fd >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._hub.end_later(self)

    def _finish_output(self) -> None:
        """All is sent: say goodbye, then read on for a moment so that it arrives."""
        self._say_goodbye()
        if self._output_over:
            return
        self._output_over = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._hub.end_later(self)
            return
        self._cancel_closing_deadline()
        self._closing_deadline = self._wheel.schedule(LINGER_S, self._linger_over)
        self._hub.watch(self._fd, READ)
        self._reading = True
        self._tell_lost(ConnectionDone())

    def _say_goodbye(self) -> None:
        """What TLS sends last."""

    def _linger_over(self) -> None:
        self._hub.end_later(self)

    def _lost(self, reason: Exception) -> None:
        """The other side ended the connection, or it broke."""
        self._output_over = True
        self._tell_lost(reason)
        self._hub.end_later(self)

    def _tell_lost(self, reason: Exception) -> None:
        """Tell the protocol, once. Nothing of ours points to it afterwards."""
        if self._shut:
            return
        self._shut = True
        self.disconnecting = True
        self._pending.clear()
        self._pending_size = 0
        self._held = None
        self._producer = None
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(reason))

    def failed(self) -> None:
        """See :meth:`derp.net.hub.HubMember.failed`."""
        self.abortConnection()

    def end(self) -> None:
        """See :meth:`derp.net.hub.HubMember.end`."""
        if self._ended:
            return
        self._ended = True
        self._output_over = True
        self._cancel_closing_deadline()
        self._hub.remove(self._fd)
        self._fd = -1
        self._sock.close()
        self._tell_lost(self._broken_by or ConnectionAborted())
        self._release()

    def _release(self) -> None:
        """Drop what could keep memory alive."""

    def _cancel_closing_deadline(self) -> None:
        if self._closing_deadline is not None:
            self._closing_deadline.cancel()
            self._closing_deadline = None

    def connectionLost(self, reason: Failure) -> None:
        """End for a reason of the service's (it is stopping)."""
        self._tell_lost(ConnectionLost(reason.getErrorMessage()))
        self._hub.end_later(self)

    # -- what it is ------------------------------------------------------------------------

    def getPeer(self) -> Any:
        """See ``ITransport.getPeer``."""
        return address_of(self._peer)

    def getHost(self) -> Any:
        """See ``ITransport.getHost``."""
        return address_of(self._sock.getsockname())

    def getHandle(self) -> socket.socket:
        """The socket, for its options and TCP_INFO."""
        return self._sock

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ``ITCPTransport.setTcpNoDelay``: on from the listening socket."""

    def getTcpNoDelay(self) -> bool:
        """See ``ITCPTransport.getTcpNoDelay``."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See ``ITCPTransport.setTcpKeepAlive``: set on the listening socket."""

    def getTcpKeepAlive(self) -> bool:
        """See ``ITCPTransport.getTcpKeepAlive``."""
        return bool(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def loseWriteConnection(self) -> None:
        """See ``ITCPTransport.loseWriteConnection``: no half-close; all of it ends."""
        self.loseConnection()
