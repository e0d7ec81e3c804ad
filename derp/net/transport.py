"""
The relay's own stream transport: sockets served by the hub, plaintext in shared buffers.

A drop-in ``ITransport`` with everything twisted.web asks of one, so HTTP is served on it by an
unmodified ``HTTPChannel``. A protocol that has ``bufferReceived`` gets more: the bytes where
they lie, and the right to leave some unconsumed::

    bufferReceived(buf, view, end) -> consumed      and the attribute   wanted

``view[:end]`` is valid, and may be written into, during the call only. What is not consumed is
kept by the transport and offered again, in front of new bytes, once there are ``wanted``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface import implementer

from derp.net.arena import MAX_HELD
from derp.net.hub import READ, WRITE, Hub
from derp.net.socket_address import address_of
from derp.net.socket_closing import ClosableSocket

if TYPE_CHECKING:
    from derp.net.timer_wheel import TimerWheel


@implementer(ITCPTransport, IConsumer, IPushProducer)
class StreamTransport(ClosableSocket):
    """
    One accepted TCP (or unix) connection without TLS.

    :param hub: whose turns serve it.
    :param wheel: for the deadlines of its end.
    :param sock: the connected socket, non-blocking.
    :param peer: its remote address, as ``accept`` gave it.
    """

    __slots__ = ("_peer", "_resuming")

    tls_version: str | None = None
    """``"1.2"`` or ``"1.3"`` once a handshake is done."""
    TLS = False

    def __init__(self, hub: Hub, wheel: TimerWheel, sock: socket.socket, peer: Any) -> None:
        super().__init__(hub, wheel, sock)
        self._peer = peer
        self._resuming = False

    def start(self, protocol: Any) -> None:
        """Enter the hub and connect the protocol."""
        self._hub.add(self._fd, self)
        self.setProtocol(protocol)
        try:
            protocol.makeConnection(self)
        except Exception:
            self._hub.give_up(self)

    def setProtocol(self, protocol: Any) -> None:
        """Let another protocol have what comes from now on (after an HTTP upgrade)."""
        self.protocol = protocol
        self._receive = getattr(protocol, "bufferReceived", None)

    # -- reading ---------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """See :meth:`derp.net.hub.HubMember.ready`. **HOT**"""
        if events & WRITE and self._blocked:
            self._resume_output()
        if events & ~WRITE:
            if self._reading:
                self._read()
            elif events & ~(READ | WRITE):
                self._lost(ConnectionLost("the connection broke while it was not read"))

    def _read(self) -> None:
        """Take what arrived, straight to where the protocol gets it."""
        arena = self._hub.arena
        start = len(self._held) if self._held else 0
        try:
            count = self._sock.recv_into(arena.plain_view[start : start + arena.quantum])
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(ConnectionLost(str(error)))
            return
        if count >= arena.quantum:
            self._hub.note_heavy(self._fd)
        if not count:
            self._peer_finished()
        elif not self._told:
            self._deliver(start, start + count)

    def _deliver(self, start: int, end: int) -> None:
        """
        Hand plaintext to the protocol. **HOT**

        :param start: where it begins in the shared buffer; what is held belongs before it.
        :param end: where it ends.
        """
        arena = self._hub.arena
        view = arena.plain_view
        receive = self._receive
        if receive is None:
            self.protocol.dataReceived(bytes(view[start:end]))
            return
        held = self._held
        if held:
            if end < self.protocol.wanted:  # not enough yet: keep what is new, copy it once
                self._check_held(end)
                held += view[start:end]
                return
            view[:start] = held
        consumed = receive(arena.plain, view, end)
        self._held = None
        if consumed < end:
            self._hold(view[consumed:end])

    def _hold(self, rest: memoryview) -> None:
        """Keep what the protocol has not consumed."""
        self._check_held(len(rest))
        self._held = bytearray(rest)

    def _check_held(self, size: int) -> None:
        """A protocol that consumes nothing, waits for nothing and is not paused is at fault."""
        if size > MAX_HELD and self._reading:
            raise ValueError(f"{self.protocol!r} leaves {size} bytes unconsumed")

    # -- pausing ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """See ``IPushProducer.pauseProducing``: stop reading this socket."""
        self._resuming = False
        if self._reading and not self.disconnecting:
            self._reading = False
            self._watch()

    def resumeProducing(self) -> None:
        """
        See ``IPushProducer.resumeProducing``: read again.

        What a protocol left while it was paused comes first, and the socket is not read before
        that is taken: what is held stays bounded by one turn's worth.
        """
        if self._reading or self._resuming or self.disconnecting:
            return
        if self._held:
            self._resuming = True
            self._hub.call_soon(self, self._resume_held)
        else:
            self._read_again()

    def _resume_held(self) -> None:
        if not self._resuming or self.disconnecting:
            return  # paused again, or gone
        self._resuming = False
        held, self._held = self._held, None
        self._reading = True  # so that the protocol can pause from within
        if held:
            self._hub.arena.plain_view[: len(held)] = held
            self._deliver(0, len(held))
        self._watch()

    def _read_again(self) -> None:
        self._reading = True
        self._watch()

    def stopProducing(self) -> None:
        """See ``IProducer.stopProducing``."""
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """See ``ITCPTransport.loseWriteConnection``: no half-close; all of it ends."""
        self.loseConnection()

    # -- what it is ------------------------------------------------------------------------

    def getPeer(self) -> Any:
        """See ``ITransport.getPeer``; a ``UNIXAddress`` on a unix socket."""
        return address_of(self._peer)

    def getHost(self) -> Any:
        """See ``ITransport.getHost``; unknown once the socket is closed."""
        try:
            return address_of(self._sock.getsockname())
        except OSError:
            return address_of(("0.0.0.0", 0))  # noqa: S104 - names nothing

    @property
    def silent(self) -> bool:
        """Whether nothing of what it is there for has come yet (:mod:`derp.net.on_their_way`)."""
        return getattr(self.protocol, "silent", False)

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
