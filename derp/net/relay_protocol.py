"""
DERP on a transport: bytes to the session and back, and the session's timers.

The protocol prefers the relay's own transport, which hands it the shared buffer
(:meth:`RelayProtocol.bufferReceived`), and runs on any other of Twisted's through
:meth:`RelayProtocol.dataReceived`.
"""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from derp.core.session import Session
from derp.errors import ProtocolError
from derp.net.arena import MAX_HELD, RECV_SIZE
from derp.net.relay_endings import SESSION_OVER, describe_fault, describe_loss, remote_address
from derp.net.relay_login import LOGIN_S, RelayLogin
from derp.wire.frames import KEEP_ALIVE_FRAME, KEEP_ALIVE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from derp.core.connection import Connection, RemoteAddress
    from derp.core.intake import Intake
    from derp.core.relay import Relay
    from derp.core.session import LoginRequest
    from derp.net.relay_limits import RelayLimits
    from derp.net.timer_wheel import TimerWheel, WheelEntry

log = Logger(namespace="derp")

KEEP_ALIVE_JITTER_S = 4.75
"""
Chosen once per connection, so that clients that came together are not served together. A tick
of the wheel comes on top: together never more than the reference's 5 s.
"""
MESH_WRITE_TIMEOUT_S = 30.0
"""How long a mesh peer may take no byte; the flag is for clients only."""
GOODBYE_S = 5.0
"""For the last bytes to leave when we close; then the connection is cut."""
MAX_UNREAD = MAX_HELD + RECV_SIZE
"""Bytes kept while admission is asked, from transports that go on in spite of being paused."""


class RelayServer:
    """
    What all DERP connections of a relay share.

    :param relay: the state they work on.
    :param clock: where time comes from; also sets :attr:`Relay.now`.
    :param write_timeout_s: how long a client whose socket is full may take no byte
        (``--tcp-write-timeout``); 0 is for ever.
    :param limits: how much there is for whom; without them as much as anybody wants.
    :param admission: asked for each login but a mesh peer's; fires with ``None`` to admit or
        with the reason to refuse. Without it everybody is admitted.
    :param protocol_class: serves each connection (:mod:`derp.net.frame_log` has others).
    """

    def __init__(
        self,
        relay: Relay,
        clock: IReactorTime,
        wheel: TimerWheel,
        *,
        write_timeout_s: float = 2.0,
        limits: RelayLimits | None = None,
        admission: Callable[[LoginRequest], Deferred[str | None]] | None = None,
        protocol_class: type[RelayProtocol] | None = None,
    ) -> None:
        self.relay = relay
        self.wheel = wheel
        self.clock = clock
        self.write_timeout_s = write_timeout_s
        self.limits = limits
        self.admission = admission
        self.protocol_class = protocol_class or RelayProtocol
        self.stopping = False
        self.draining = False
        """Nobody is let in any more; see :mod:`derp.net.drain`."""
        self.protocols: set[RelayProtocol] = set()
        self._random = Random()  # noqa: S311 - spreads keepalives, guards nothing

    def keep_alive_period_s(self) -> float:
        """A connection's own keepalive period."""
        return KEEP_ALIVE_S + self._random.uniform(0, KEEP_ALIVE_JITTER_S)

    def accept(
        self,
        *,
        remote: IAddress,
        fast_start: bool = False,
        not_ideal: bool = False,
        head: bytes = b"",
    ) -> RelayProtocol:
        """
        Make the protocol for one connection that was handed to DERP.

        :param head: HTTP response to be sent in one write with the greeting; none in fast start.
        :param not_ideal: the client named another node as its ideal one.
        """
        self.relay.stats.accepts += 1
        head = b"" if fast_start else head
        return self.protocol_class(self, remote_address(remote), not_ideal, head)

    def close_all(self) -> None:
        """Cut every connection (the service stops)."""
        self.stopping = True
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()


@implementer(IProtocol, IPushProducer)
class RelayProtocol(RelayLogin):
    """One DERP connection on a transport."""

    __slots__ = (
        "_head",
        "_keep_alive",
        "_keep_alive_s",
        "_receive",
        "_socket_full",
        "on_lost",
        "write",
        "write_through",
    )

    def __init__(
        self, server: RelayServer, remote: RemoteAddress, not_ideal: bool, head: bytes
    ) -> None:
        super().__init__()
        self._server: RelayServer = server
        self._head = head
        self._keep_alive: WheelEntry | None = None
        self._keep_alive_s = 0.0
        self._socket_full = False
        self.on_lost: Callable[[], None] | None = None
        """Called when the connection is lost and the books are in order."""
        self._session = Session(
            server.relay,
            self,
            remote,
            not_ideal=not_ideal,
            new_nonce=_new_nonce,
            ask_admission=self._ask_admission,
        )
        self._receive: Callable[[bytearray, memoryview, int], int] = self._session.receive
        """Where bytes go: to the session, or to what limits it."""

    # -- connecting ------------------------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """See ``IProtocol.makeConnection``: greet."""
        server = self._server
        self.transport = transport
        # The core writes to the transport itself: a call less for every run of packets.
        self.write: Callable[[bytes], None] = transport.write
        self.write_through: Callable[[memoryview], None] = (
            getattr(transport, "write_through", None) or self._write_copy
        )
        server.protocols.add(self)
        if server.limits is not None:
            server.limits.met(self)
        transport.registerProducer(self, True)
        head, self._head = self._head, b""
        transport.write(head + server.relay.greeting)
        self._set_deadline(LOGIN_S, self._login_timed_out)

    def connectionMade(self) -> None:
        """See ``IProtocol.connectionMade``: all is done in :meth:`makeConnection`."""

    def _entered(self, conn: Connection) -> None:
        if self._socket_full:
            self._block(conn)  # the greeting has not left yet
        self._keep_alive_s = self._server.keep_alive_period_s()
        self._schedule_keep_alive()

    def _schedule_keep_alive(self) -> None:
        self._keep_alive = self._server.wheel.schedule(self._keep_alive_s, self._send_keep_alive)

    def _send_keep_alive(self) -> None:
        if self._session.conn is not None:
            self._session.conn.send_control(KEEP_ALIVE_FRAME)
            self._schedule_keep_alive()

    # -- bytes in --------------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """See :mod:`derp.net.transport`."""
        return self._session.wanted

    def bufferReceived(self, buf: bytearray, view: memoryview, end: int) -> int:
        """Take one turn's bytes from our own transport. **HOT**"""
        if self._goodbye is not None:
            return end  # closing: what still comes is nobody's
        if self._held:  # a rest from before the transport knew us
            self.dataReceived(bytes(view[:end]))
            return end
        try:
            return self._receive(buf, view, end)
        except ProtocolError as error:
            self._server.relay.stats.protocol_errors += 1
            self.close(describe_fault(self._session, error))
            return end

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol.dataReceived``, for transports other than ours."""
        if self._goodbye is not None:
            return
        self._server.relay.now = self._server.clock.seconds()
        held = self._held
        if held is None:
            held = bytearray(data)
        else:
            held += data
            if len(held) < self._session.wanted:
                return
        self._held = None
        with memoryview(held) as view:
            consumed = self.bufferReceived(held, view, len(held))
        if consumed < len(held):
            del held[:consumed]
            self._held = held
            if len(held) > MAX_UNREAD:
                self.close(f"client sent {len(held)} bytes more before it was admitted")

    # -- what limits ask -------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """See :class:`derp.net.throttle.ThrottledProtocol`."""
        return self._session

    def set_intake(self, intake: Intake | None) -> None:
        """See :class:`derp.net.throttle.ThrottledProtocol`."""
        self._receive = self._session.receive if intake is None else intake.receive

    def hold_back(self) -> None:
        """See :class:`derp.net.throttle.ThrottledProtocol`."""
        self.transport.pauseProducing()

    def read_on(self) -> None:
        """See :class:`derp.net.throttle.ThrottledProtocol`."""
        if self._goodbye is None and self._admission is None:
            self.transport.resumeProducing()
            if self._held:
                self.dataReceived(b"")  # which may hold back again

    # -- what the core asks (PeerSink) -----------------------------------------------------

    def _write_copy(self, data: memoryview) -> None:
        """``write_through`` for transports that keep what they are given."""
        self.transport.write(data.tobytes())

    def close(self, reason: str) -> None:
        """See :meth:`derp.core.connection.PeerSink.close`."""
        if self._goodbye is not None:
            return
        self._goodbye = reason
        self._held = None
        transport = self.transport
        if self._socket_full:
            self._cancel_deadline()
            transport.abortConnection()
            return
        conn = self._session.conn
        if conn is not None:
            conn.block()  # nobody watches a full socket now: the outbox is bounded
        self._set_deadline(GOODBYE_S, transport.abortConnection)
        transport.unregisterProducer()
        transport.loseConnection()

    # -- the full socket (IPushProducer) ---------------------------------------------------

    def pauseProducing(self) -> None:
        """The socket is full: packets queue from now on, for a while."""
        self._socket_full = True
        conn = self._session.conn
        if conn is not None:  # otherwise the login's deadline is running
            self._block(conn)

    def _block(self, conn: Connection) -> None:
        conn.block()
        timeout_s = self._write_timeout_s(conn)
        if timeout_s > 0:
            self._set_deadline(timeout_s, self._write_stalled)

    def resumeProducing(self) -> None:
        """The socket takes bytes again."""
        self._socket_full = False
        conn = self._session.conn
        if conn is not None and self._goodbye is None:
            self._cancel_deadline()
            conn.unblock(self._server.clock.seconds())

    def stopProducing(self) -> None:
        """See ``IProducer.stopProducing``: the transport's end comes by itself."""

    def _write_timeout_s(self, conn: Connection) -> float:
        return MESH_WRITE_TIMEOUT_S if conn.is_mesh else self._server.write_timeout_s

    def _write_stalled(self) -> None:
        """Cut a client that took no byte for too long; one that takes some may go on."""
        server = self._server
        conn = self._session.conn
        if conn is None:
            return
        timeout_s = self._write_timeout_s(conn)
        moved_at = getattr(self.transport, "bytes_moved_at", None)
        if moved_at is not None:
            left = timeout_s - (server.clock.seconds() - moved_at)
            if left > 0:
                self._set_deadline(left, self._write_stalled)
                return
        server.relay.stats.sclient_write_timeouts += 1
        self.close(f"sender failed: took no byte for {timeout_s:g} s (--tcp-write-timeout)")

    # -- the end ---------------------------------------------------------------------------

    def connectionLost(self, reason: Failure) -> None:
        """See ``IProtocol.connectionLost``: log once, leave the books in order."""
        server = self._server
        server.protocols.discard(self)
        session, self._session = self._session, SESSION_OVER
        self._receive = SESSION_OVER.receive
        if server.limits is not None:
            server.limits.left(self, session.conn)
        text = self._goodbye
        if text is None:
            text = self._goodbye = describe_loss(session, reason)
        if text and not server.stopping:
            log.info("derp: {remote}: {reason}", remote=session.remote, reason=text)
        self._cancel_deadline()
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._held = self._keep_alive = None
        server.relay.now = server.clock.seconds()
        self.write, self.write_through = _ignore, _ignore  # they hold on to the transport
        try:
            session.lost()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Tell whoever else waits for the end."""
        asked, self._admission = self._admission, None
        on_lost, self.on_lost = self.on_lost, None
        if asked is not None:
            asked.cancel()
        if on_lost is not None:
            on_lost()


def _ignore(data: bytes | memoryview) -> None:
    """Stands where the transport's methods stood once the connection is lost."""


def _new_nonce() -> bytes:
    return os.urandom(24)
