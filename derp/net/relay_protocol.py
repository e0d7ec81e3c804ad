"""
DERP on a transport: bytes to the session and back, and the session's timers.

The protocol prefers the relay's own transport, which hands it the shared buffer
(:meth:`RelayProtocol.bufferReceived`), and runs on any other of Twisted's through
:meth:`RelayProtocol.dataReceived`.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from derp.core.connection import RemoteAddress
from derp.core.session import LoginRequest, Session, State
from derp.errors import ProtocolError
from derp.wire.frames import KEEP_ALIVE_FRAME, KEEP_ALIVE_S
from derp.wire.keys import format_node_public, short_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from derp.core.relay import Relay
    from derp.net.timer_wheel import TimerWheel, WheelEntry

LOGIN_S = 10.0
"""For the greeting to leave, and then again for the whole ClientInfo to come."""
KEEP_ALIVE_JITTER_S = 5.0
"""Chosen once per connection, so that clients that came together are not served together."""
MESH_WRITE_TIMEOUT_S = 30.0
"""How long a mesh peer may take no byte; the flag is for clients only."""


class RelayServer:
    """
    What all DERP connections of a relay share.

    :param relay: the state they work on.
    :param clock: where time comes from; also sets :attr:`Relay.now`.
    :param write_timeout_s: how long a client whose socket is full may take no byte
        (``--tcp-write-timeout``); 0 is for ever.
    :param admission: asked for each login but a mesh peer's; fires with ``None`` to admit or
        with the reason to refuse. Without it everybody is admitted.
    """

    log = Logger(namespace="derp")

    def __init__(
        self,
        relay: Relay,
        clock: IReactorTime,
        wheel: TimerWheel,
        *,
        write_timeout_s: float = 2.0,
        admission: Callable[[LoginRequest], Deferred[str | None]] | None = None,
        debug_logs: bool = False,
        prober_debug_logs: bool = False,
    ) -> None:
        self.relay = relay
        self.wheel = wheel
        self.clock = clock
        self.write_timeout_s = write_timeout_s
        self.admission = admission
        self.debug_logs = debug_logs
        self.prober_debug_logs = prober_debug_logs
        self.stopping = False
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
        return RelayProtocol(self, remote_address(remote), not_ideal, b"" if fast_start else head)

    def close_all(self) -> None:
        """Cut every connection (the service stops)."""
        self.stopping = True
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()


def remote_address(address: IAddress) -> RemoteAddress:
    """Read Twisted's address; one that is not ip:port gives the empty one."""
    try:
        ip = ip_address(address.host.partition("%")[0])  # type: ignore[attr-defined]
        return RemoteAddress(ip, address.port)  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return RemoteAddress()


@implementer(IProtocol, IPushProducer)
class RelayProtocol:
    """One DERP connection on a transport."""

    __slots__ = (
        "_deadline",
        "_goodbye",
        "_head",
        "_held",
        "_keep_alive",
        "_keep_alive_s",
        "_server",
        "_session",
        "_socket_full",
        "transport",
    )

    def __init__(
        self, server: RelayServer, remote: RemoteAddress, not_ideal: bool, head: bytes
    ) -> None:
        self._server = server
        self._head = head
        self._held: bytearray | None = None
        self._goodbye: str | None = None
        """Why we closed the connection; an empty text ends it without a log line."""
        self._deadline: WheelEntry | None = None
        """Login first, afterwards the write timeout while the socket is full."""
        self._keep_alive: WheelEntry | None = None
        self._keep_alive_s = 0.0
        self._socket_full = False
        self.transport: Any = None
        self._session = Session(
            server.relay,
            self,
            remote,
            not_ideal=not_ideal,
            new_nonce=_new_nonce,
            ask_admission=self._ask_admission,
        )

    # -- connecting ------------------------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """See ``IProtocol.makeConnection``: greet."""
        server = self._server
        self.transport = transport
        server.protocols.add(self)
        transport.registerProducer(self, True)
        head, self._head = self._head, b""
        transport.write(head + server.relay.greeting)
        self._deadline = server.wheel.schedule(LOGIN_S, self._login_timed_out)

    def connectionMade(self) -> None:
        """See ``IProtocol.connectionMade``: all is done in :meth:`makeConnection`."""

    def _login_timed_out(self) -> None:
        self._server.relay.stats.login_timeouts += 1
        self.close(f"receive client key: nothing complete within {LOGIN_S:.0f} s")

    def _ask_admission(self, request: LoginRequest) -> None:
        admission = self._server.admission
        if request.is_mesh or admission is None:
            self._session.admit()
            return
        self.transport.pauseProducing()
        admission(request).addCallbacks(self._admission_answered, self._admission_failed)

    def _admission_answered(self, refusal: str | None) -> None:
        session = self._session
        if session.state is not State.ADMITTING:
            return  # it went away while we asked
        self._server.relay.now = self._server.clock.seconds()
        if refusal is not None:
            session.refuse(refusal)
            return
        session.admit()
        self._logged_in()
        self.transport.resumeProducing()
        if self._held:
            self.dataReceived(b"")

    def _admission_failed(self, failure: Failure) -> None:
        self._server.log.failure("asking for admission failed", failure)
        self._admission_answered("admission could not be asked")

    def _logged_in(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._keep_alive_s = self._server.keep_alive_period_s()
        if self._socket_full:
            self.pauseProducing()  # the greeting has not left yet
        self._schedule_keep_alive()

    def _schedule_keep_alive(self) -> None:
        self._keep_alive = self._server.wheel.schedule(self._keep_alive_s, self._send_keep_alive)

    def _send_keep_alive(self) -> None:
        conn = self._session.conn
        if conn is not None:
            conn.send_control(KEEP_ALIVE_FRAME)
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
        session = self._session
        try:
            consumed = session.receive(buf, view, end)
        except ProtocolError as error:
            self._remote_fault(error)
            return end
        if self._keep_alive is None and session.conn is not None:
            self._logged_in()
        return consumed

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol.dataReceived``, for transports other than ours."""
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
            self._held = held[consumed:]

    def _remote_fault(self, error: ProtocolError) -> None:
        self._server.relay.stats.protocol_errors += 1
        session = self._session
        if session.conn is None:
            self.close(f"receive client key: {error}")
        else:
            self.close(f"client {format_node_public(session.conn.key)}: recvPacket: {error}")

    # -- what the core asks (PeerSink) -----------------------------------------------------

    def write(self, data: bytes) -> None:
        """See :meth:`derp.core.connection.PeerSink.write`."""
        self.transport.write(data)

    def close(self, reason: str) -> None:
        """See :meth:`derp.core.connection.PeerSink.close`."""
        if self._goodbye is None:
            self._goodbye = reason
        conn = self._session.conn
        if conn is not None and conn.blocked:
            self.transport.abortConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    # -- the full socket (IPushProducer) ---------------------------------------------------

    def pauseProducing(self) -> None:
        """The socket is full: packets queue from now on, for a while."""
        self._socket_full = True
        conn = self._session.conn
        if conn is None:
            return  # the login's deadline is running
        conn.block()
        timeout_s = self._write_timeout_s()
        if timeout_s > 0:
            self._deadline = self._server.wheel.schedule(timeout_s, self._write_stalled)

    def resumeProducing(self) -> None:
        """The socket takes bytes again."""
        self._socket_full = False
        conn = self._session.conn
        if conn is None:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        conn.unblock(self._server.clock.seconds())

    def stopProducing(self) -> None:
        """See ``IProducer.stopProducing``: the transport's end comes by itself."""

    def _write_timeout_s(self) -> float:
        conn = self._session.conn
        if conn is not None and conn.is_mesh:
            return MESH_WRITE_TIMEOUT_S
        return self._server.write_timeout_s

    def _write_stalled(self) -> None:
        """Cut a client that took no byte for too long; one that takes some may go on."""
        server = self._server
        timeout_s = self._write_timeout_s()
        moved_at = getattr(self.transport, "bytes_moved_at", None)
        if moved_at is not None:
            left = timeout_s - (server.clock.seconds() - moved_at)
            if left > 0:
                self._deadline = server.wheel.schedule(left, self._write_stalled)
                return
        server.relay.stats.sclient_write_timeouts += 1
        self.close(f"sender failed: took no byte for {timeout_s:g} s (--tcp-write-timeout)")

    # -- the end ---------------------------------------------------------------------------

    def connectionLost(self, reason: Failure) -> None:
        """See ``IProtocol.connectionLost``: log once, leave the books in order."""
        server = self._server
        server.protocols.discard(self)
        for entry in (self._deadline, self._keep_alive):
            if entry is not None:
                entry.cancel()
        self._deadline = self._keep_alive = None
        session = self._session
        self._log_end(session, reason)
        server.relay.now = server.clock.seconds()
        session.lost()
        self._held = None

    def _log_end(self, session: Session, reason: Failure) -> None:
        """A clean end between frames is not worth a line; everything else is worth one."""
        server = self._server
        text = self._goodbye
        if text is None:
            text = self._how_it_broke(session, reason)
        if text and not server.stopping:
            server.log.info("derp: {remote}: {reason}", remote=session.remote, reason=text)

    def _how_it_broke(self, session: Session, reason: Failure) -> str:
        clean = reason.check(ConnectionDone) is not None
        if session.state is State.AWAIT_CLIENT_INFO:
            how = "the client closed the connection" if clean else reason.getErrorMessage()
            return f"receive client key: {how}"
        conn = session.conn
        if conn is None or (clean and not session.mid_frame):
            return ""
        name = short_key(conn.key)
        if clean:
            return f"client {name}: the connection ended inside a frame"
        return f"client {name}: {reason.getErrorMessage()}"


def _new_nonce() -> bytes:
    return os.urandom(24)
