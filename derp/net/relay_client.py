"""
One connection to a relay, as a client of DERP sees it.

Made by :mod:`derp.net.relay_connector`. *Connected* means that ClientInfo is on its way; that
the relay admits the client is known when ServerInfo comes (:meth:`RelayClient.when_logged_in`).
After any error the client is dead, and a new connection is the owner's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.core.client_session import ClientEvent, ClientSession, Phase
from derp.errors import ProtocolError
from derp.net.outcome import Outcome
from derp.net.ping_table import PingTable
from derp.net.relay_errors import ConnectFailed, LoginRefused, RelayError
from derp.net.server_check import CertificateRefused, ServerCheck, explain_tls_error, peer_chain
from derp.wire.frames import (
    KEEP_ALIVE_S,
    PING_LEN,
    WATCH_CONNS_FRAME,
    encode_close_peer,
    encode_forward_packet,
    encode_note_preferred,
    encode_ping,
    encode_pong,
)
from derp.wire.handshake import ServerInfo
from derp.wire.keys import format_node_public
from derp.wire.messages import Pong
from derp.wire.metacert import find_server_key
from derp.wire.upgrade import encode_upgrade_request

if TYPE_CHECKING:
    from derp.net.relay_dialer import RelayAddress

READ_TIMEOUT: Final = 2 * KEEP_ALIVE_S
"""Seconds without a frame after which the relay counts as dead."""
PING_TIMEOUT: Final = 5.0
FORWARD_TIMEOUT: Final = 5.0
"""How long a relay may take no bytes while it has packets to forward."""
CLOSE_TIMEOUT: Final = 2.0
"""How long :meth:`RelayClient.close` waits for what was sent to leave."""
MAX_PENDING: Final = 1 << 20
"""Bytes taken from the caller while the relay takes none from us; more are dropped."""


@implementer(IHandshakeListener, IPushProducer)
class RelayClient(Protocol):
    """
    A DERP client on a stream transport.

    Sending never blocks and never raises for a lost connection: each method says whether the
    relay was sent the frame. Watch :attr:`writable` to send no more than it takes.

    :param session: what to say, not started yet.
    :param check: judges the certificate; ``None`` on a transport without TLS.
    :param fast_start: start fast where the relay's certificate allows it.
    :param on_message: called with every message, ServerInfo first.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        relay: RelayAddress,
        session: ClientSession,
        *,
        check: ServerCheck | None = None,
        fast_start: bool = True,
        generation: int = 1,
        on_message: Callable[[ClientEvent], object] | None = None,
    ) -> None:
        self.relay = relay
        self.generation = generation
        """Which connection of its connector this is, counted from one."""
        self.on_message = on_message
        self.on_writable: Callable[[], object] | None = None
        """Called when :attr:`writable` has become true again."""
        self.writable = True
        """Whether the relay takes what we send; while not, sends are queued up to a bound."""
        self.preferred = False
        self.tls_version: str | None = None
        """``TLSv1.3`` or ``TLSv1.2``; ``None`` without TLS."""
        self.stage = "the TLS handshake" if check else "the HTTP upgrade"
        """What a connection that is not yet made is waiting for, for errors."""
        self._reactor = reactor
        self._session = session
        self.check = check
        self._fast_start = fast_start
        self._pending = 0
        self._pings = PingTable(reactor)
        self._timers: dict[str, IDelayedCall] = {}
        self._ending = False
        self._reason: RelayError | None = None
        self._connected: Outcome[RelayClient] = Outcome()
        self._logged_in: Outcome[ServerInfo] = Outcome()
        self._closed: Outcome[RelayError | None] = Outcome()

    # What is known about the connection.

    @property
    def public_key(self) -> bytes:
        """Our own node key."""
        return self._session.public_key

    @property
    def server_key(self) -> bytes | None:
        """The relay's node key, once known."""
        return self._session.server_key

    @property
    def server_info(self) -> ServerInfo | None:
        """What the relay answered to the login."""
        return self._session.server_info

    @property
    def peer_address(self) -> IAddress:
        """Where the connection goes."""
        assert self.transport is not None
        return self.transport.getPeer()

    def when_connected(self) -> Deferred[RelayClient]:
        """Fire with this client when ClientInfo is sent, or fail with :exc:`RelayError`."""
        return self._connected.when()

    def when_logged_in(self) -> Deferred[ServerInfo]:
        """Fire when the relay has admitted us, or fail with :exc:`RelayError`."""
        return self._logged_in.when()

    def when_closed(self) -> Deferred[RelayError | None]:
        """Fire when the connection has ended: with why, or ``None`` if we closed it."""
        return self._closed.when()

    # Sending.

    def send(self, destination: bytes, packet: bytes) -> bool:
        """
        Send a packet to a client of the relay, or of its mesh.

        :return: ``False`` if it was dropped: connection ended, queue full, or beyond the
            relay's sending limit.
        :raises ValueError: if the packet is longer than 65536 bytes.
        """
        frame = self._session.send_packet(destination, packet, self._reactor.seconds())
        return bool(frame) and self._write(frame)

    def forward(self, source: bytes, destination: bytes, packet: bytes) -> bool:
        """Send a packet on behalf of a client of ours. For mesh peers."""
        sent = self._write(encode_forward_packet(source, destination, packet))
        if not self.writable and not self._ending and "forward" not in self._timers:
            problem = f"took no packet to forward for {FORWARD_TIMEOUT:g} s"
            self._start_timer("forward", FORWARD_TIMEOUT, problem)
        return sent

    def ping(self, timeout: float = PING_TIMEOUT) -> Deferred[float]:
        """Measure the time to the relay and back, in seconds; fail with :exc:`RelayError`."""
        data = token_bytes(PING_LEN)
        if not self._write(encode_ping(data)):
            return fail(RelayError(f"{self.relay.label}: cannot ping, nothing can be sent"))
        problem = RelayError(f"{self.relay.label}: no pong within {timeout:g} s")
        return self._pings.wait(data, timeout, problem)

    def send_pong(self, data: bytes) -> bool:
        """Answer a Ping; nobody else does it."""
        return self._write(encode_pong(data))

    def note_preferred(self, preferred: bool) -> bool:
        """Say whether this relay is our home; saying the same again is left out."""
        if preferred == self.preferred:
            return True
        self.preferred = preferred
        return self._write(encode_note_preferred(preferred))

    def watch_conns(self) -> bool:
        """Ask for the relay's clients, now and from now on. For mesh peers."""
        return self._write(WATCH_CONNS_FRAME)

    def close_peer(self, key: bytes) -> bool:
        """Have the relay close a client's connections. For mesh peers."""
        return self._write(encode_close_peer(key))

    # Flow and end.

    def pause_receiving(self) -> None:
        """Stop reading; the relay gets TCP back-pressure, and is not timed meanwhile."""
        self._stop_timer("read")
        self._transport.pauseProducing()

    def resume_receiving(self) -> None:
        """Read again."""
        if not self._ending:
            self._restart_read_timer()
            self._transport.resumeProducing()

    def close(self) -> Deferred[RelayError | None]:
        """End the connection after what was sent has left; give :meth:`when_closed`."""
        if not self._ending and not self._closed.settled:
            self._ending = True
            self._transport.unregisterProducer()
            self._transport.loseConnection()
            self._timers["close"] = self._reactor.callLater(
                CLOSE_TIMEOUT, self._transport.abortConnection
            )
        return self.when_closed()

    def abort(self, problem: str) -> None:
        """End the connection at once, for this reason; one that is closing has its own."""
        if "close" in self._timers:
            self._stop_timer("close")
            self._transport.abortConnection()
        self._fail(self._error(problem))

    # What Twisted calls.

    def connectionMade(self) -> None:
        """See ``IProtocol``: TCP is there, TLS not yet."""
        if ITCPTransport.providedBy(self._transport):
            self._transport.setTcpNoDelay(True)
            self._transport.setTcpKeepAlive(True)
        if self.check is None:
            self._begin(None)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``: nothing has been sent or read inside TLS yet."""
        assert self.check is not None
        handle = self._transport.getHandle()
        chain = peer_chain(handle)
        try:
            self.check.check_handshake(chain)
        except CertificateRefused as problem:
            self.abort(str(problem))
            return
        self.tls_version = handle.get_protocol_version_name()
        # From TLS 1.3 on only, as in the reference.
        can_start_fast = self._fast_start and handle.get_protocol_version() >= SSL.TLS1_3_VERSION
        found = find_server_key(chain) if can_start_fast else None
        self._begin(found[0] if found is not None and found[1] else None)

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._ending:
            return
        session = self._session
        frames_before = session.frames_received
        events = session.receive(data)
        output = session.data_to_send()
        if output:
            self._transport.write(output)
        if session.frames_received != frames_before:
            self._restart_read_timer()
        self._note_phase()
        for event in events:
            self._deliver(event)
        if session.fault is not None:
            self._fail(self._error(str(session.fault)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        why = None if self._ending and self._reason is None else self._explain(reason)
        self._ending = True
        self.writable = False
        for name in list(self._timers):
            self._stop_timer(name)
        self._fail_waiting(why or RelayError(f"{self.relay.label}: the connection was closed"))
        self._closed.succeed(why)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: what we sent does not leave."""
        self.writable = False

    def resumeProducing(self) -> None:
        """See ``IPushProducer``: what we sent has left."""
        self._pending = 0
        self._stop_timer("forward")
        if not self.writable and not self._ending:
            self.writable = True
            if self.on_writable is not None:
                self.on_writable()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the connection is going; ``connectionLost`` says why."""
        self.writable = False

    # Inside.

    @property
    def _transport(self) -> Any:
        return self.transport

    def _begin(self, server_key: bytes | None) -> None:
        relay = self.relay
        request = encode_upgrade_request(
            relay.path,
            relay.host_header,
            fast_start=server_key is not None,
            ideal_node=relay.ideal_node,
        )
        try:
            first = self._session.start(request, server_key)
        except ProtocolError as problem:
            self.abort(str(problem))
            return
        self.stage = "the HTTP answer"
        self._transport.registerProducer(self, True)
        self._transport.write(first)
        self._restart_read_timer()
        self._note_phase()

    def _note_phase(self) -> None:
        if self._session.phase is Phase.GREETING:
            self.stage = "the relay's greeting"
        elif self._session.phase is Phase.OPEN and not self._connected.settled:
            self.stage = "the answer to the login"
            self._connected.succeed(self)

    def _deliver(self, event: ClientEvent) -> None:
        if self._ending:
            return
        if isinstance(event, Pong) and self._pings.answered(event.data):
            return
        if self.on_message is not None:
            self.on_message(event)
        if isinstance(event, ServerInfo):
            self._logged_in.succeed(event)

    def _write(self, frame: bytes) -> bool:
        if self._ending or self._session.phase is not Phase.OPEN:
            return False
        if not self.writable:
            if self._pending + len(frame) > MAX_PENDING:
                return False
            self._pending += len(frame)
        self._transport.write(frame)
        return True

    def _restart_read_timer(self) -> None:
        timer = self._timers.get("read")
        if timer is not None:
            timer.reset(READ_TIMEOUT)
        else:
            self._start_timer("read", READ_TIMEOUT, f"sent nothing for {READ_TIMEOUT:g} s")

    def _start_timer(self, name: str, seconds: float, problem: str) -> None:
        def expired() -> None:
            del self._timers[name]
            self.abort(problem)

        self._timers[name] = self._reactor.callLater(seconds, expired)

    def _stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _fail(self, error: RelayError) -> None:
        if not self._ending:
            self._ending = True
            self._reason = error
            self._transport.unregisterProducer()
            self._transport.abortConnection()

    def _error(self, problem: str) -> RelayError:
        kind = RelayError if self._connected.settled else ConnectFailed
        return kind(f"{self.relay.label}: {problem}")

    def _explain(self, reason: Failure) -> RelayError:
        """Say why the connection ended when we did not end it."""
        if self._reason is not None:
            return self._reason
        if self.check is not None and self.check.problem is not None:
            return self._error(str(self.check.problem))
        if isinstance(reason.value, SSL.Error):
            return self._error(explain_tls_error(reason.value))
        if self._session.server_info is not None:
            return self._error(f"connection lost: {reason.getErrorMessage()}")
        if self._connected.settled:
            return LoginRefused(
                f"{self.relay.label} closed the connection during login: it may not admit this"
                f" key ({format_node_public(self.public_key)})"
            )
        return self._error(f"closed the connection during {self.stage}")

    def _fail_waiting(self, error: RelayError) -> None:
        self._connected.fail(error)
        self._logged_in.fail(error)
        self._pings.fail(error)
