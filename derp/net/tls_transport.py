"""
TLS on the relay's transport: the ClientHello first, then a pump through shared memory BIOs.

Life of a connection::

    hello      collect the ClientHello (bounded in size and time), choose a context by it
    handshake  OpenSSL's, through the arena's BIOs
    open       recv → incoming BIO → plaintext; writes → outgoing BIO → send
    closed     close_notify, FIN, a moment's grace

The standard library's engine is driven through ``ssl.SSLContext.wrap_bio``. Its inner object
saves a Python call per read and write; it is private, so :func:`_engine` is the one place that
touches it and the public object stands in where it is missing.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.errors import ProtocolError
from derp.net.certificates import HandshakeRefused
from derp.net.hub import READ
from derp.net.transport import StreamTransport
from derp.wire.client_hello import ClientHello, parse_client_hello

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from derp.core.listener_stats import ListenerStats
    from derp.net.hub import Hub
    from derp.net.timer_wheel import TimerWheel, WheelEntry

HANDSHAKE_S = 30.0
"""ClientHello and handshake together (the reference: its HTTP read timeout)."""
_DECODE_ERROR = 50
_INTERNAL_ERROR = 80
_WANTED = 1 << 20
"""More than any record has: read what there is."""
_VERSIONS = {"TLSv1.2": "1.2", "TLSv1.3": "1.3"}
_QUIET = ("EOF", "UNEXPECTED_EOF", "ALERT_BAD_CERTIFICATE", "HTTP_REQUEST", "WRONG_VERSION_NUMBER")
"""Handshake failures that say nothing but "scanner" or "changed its mind"; not logged."""


class ContextChooser(Protocol):
    """Decides with which certificate a ClientHello is answered."""

    def pick(self, hello: ClientHello, local_ip: str) -> ssl.SSLContext | Deferred[ssl.SSLContext]:
        """
        Choose, at once or later.

        :raises HandshakeRefused: with the alert to send.
        """


def _engine(tls: ssl.SSLObject) -> Any:
    """The C object behind an ``SSLObject``, or that itself where it is not there."""
    return getattr(tls, "_sslobj", None) or tls


@implementer(ISSLTransport)
class TLSTransport(StreamTransport):
    """
    One accepted TLS connection.

    :param chooser: picks the context once the ClientHello is known.
    :param build: makes the protocol once the handshake is done; ``None`` refuses.
    :param stats: counters of the listener.
    """

    __slots__ = ("_build", "_chooser", "_deadline", "_on_read", "_stats", "_tls", "tls_version")

    TLS = True
    log = Logger()

    def __init__(
        self,
        hub: Hub,
        wheel: TimerWheel,
        sock: socket.socket,
        peer: Any,
        *,
        chooser: ContextChooser,
        build: Callable[[Any], Any],
        stats: ListenerStats,
    ) -> None:
        super().__init__(hub, wheel, sock, peer)
        self._chooser = chooser
        self._build = build
        self._stats = stats
        self._tls: Any = None
        self._on_read: Callable[[], None] = self._read_hello
        self._deadline: WheelEntry | None = None
        self.tls_version: str | None = None

    def begin(self) -> None:
        """Enter the hub and wait for the ClientHello."""
        self._hub.add(self._fd, self)
        self._deadline = self._wheel.schedule(HANDSHAKE_S, self._handshake_timed_out)

    def _read(self) -> None:
        self._on_read()

    def _recv(self) -> int:
        """
        Fill the raw buffer.

        :return: how much came; 0 if nothing did, and then the end, if it was one, is dealt with.
        """
        try:
            count = self._sock.recv_into(self._hub.arena.raw)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lost(ConnectionLost(str(error)))
            return 0
        if not count:
            self._lost(ConnectionDone())
        return count

    # -- hello and handshake ---------------------------------------------------------------

    def _read_hello(self) -> None:
        if self._hub.handshakes_left <= 0:
            return  # level-triggered: the next turn sees it again
        self._hub.handshakes_left -= 1
        count = self._recv()
        if not count:
            return
        received: bytearray | memoryview = self._hub.arena.raw_view[:count]
        if self._held is not None:
            self._held += received
            received = self._held
        try:
            hello = parse_client_hello(received)
            if hello is None:
                if self._held is None:
                    self._held = bytearray(received)
                return
            self._choose(hello, received)
        except ProtocolError as error:
            self._stats.handshake_failures += 1
            self._refuse(_DECODE_ERROR, f"not a TLS ClientHello: {error}", quiet=True)
        except HandshakeRefused as refusal:
            self._stats.handshake_failures += 1
            self._refuse(refusal.alert, refusal.reason)

    def _choose(self, hello: ClientHello, received: bytearray | memoryview) -> None:
        context = self._chooser.pick(hello, getattr(self.getHost(), "host", ""))
        if isinstance(context, ssl.SSLContext):
            self._begin_handshake(context, received)
            return
        # A certificate is being fetched: hold the bytes, stop reading, and go on when it came.
        self._held = bytearray(received)
        self.pauseProducing()
        context.addCallbacks(self._chosen, self._choice_failed)

    def _chosen(self, context: ssl.SSLContext) -> None:
        if self._shut:
            return
        held = self._held
        assert held is not None
        self._reading = True
        self._hub.watch(self._fd, READ)
        self._begin_handshake(context, held)

    def _choice_failed(self, failure: Failure) -> None:
        if self._shut:
            return
        self._stats.handshake_failures += 1
        if isinstance(failure.value, HandshakeRefused):
            self._refuse(failure.value.alert, failure.value.reason)
        else:
            self._refuse(_INTERNAL_ERROR, failure.getErrorMessage())

    def _begin_handshake(self, context: ssl.SSLContext, received: bytearray | memoryview) -> None:
        arena = self._hub.arena
        self._tls = _engine(context.wrap_bio(arena.incoming, arena.outgoing, server_side=True))
        self._on_read = self._read_handshake
        arena.incoming.write(received)
        self._held = None
        self._handshake()

    def _read_handshake(self) -> None:
        if self._hub.handshakes_left <= 0:
            return
        self._hub.handshakes_left -= 1
        count = self._recv()
        if count:
            arena = self._hub.arena
            arena.incoming.write(arena.raw_view[:count])
            self._handshake()

    def _handshake(self) -> None:
        """Go one step on; the BIOs are empty afterwards, whatever happened."""
        arena = self._hub.arena
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send(arena.outgoing.read())
        except (ssl.SSLError, OSError) as error:
            self._stats.handshake_failures += 1
            self._fail(f"TLS handshake error: {_text(error)}", quiet=_is_quiet(error))
        else:
            self._handshake_done()
        arena.assert_clean()

    def _handshake_done(self) -> None:
        arena = self._hub.arena
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.tls_version = _VERSIONS.get(self._tls.version() or "", "unknown")
        if arena.outgoing.pending:
            self._send(arena.outgoing.read())
        self._on_read = self._read_open
        build, self._build = self._build, _forget
        protocol = build(self.getPeer())
        if protocol is None:
            self._drain_incoming()
            self.loseConnection()
            return
        self.protocol = protocol
        protocol.makeConnection(self)
        if arena.incoming.pending:  # the first request came along with the Finished
            self._decrypt()

    def _drain_incoming(self) -> None:
        self._hub.arena.incoming.read()

    def _handshake_timed_out(self) -> None:
        self._deadline = None
        self._stats.handshake_timeouts += 1
        self.abortConnection()

    # -- open ------------------------------------------------------------------------------

    def _read_open(self) -> None:
        """**HOT**: one ``recv`` per readiness, then everything it decrypts to."""
        arena = self._hub.arena
        try:
            count = self._sock.recv_into(arena.raw)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(ConnectionLost(str(error)))
            return
        if not count:
            self._lost(ConnectionDone())
            return
        if self._shut:
            return  # lingering: what comes now is nobody's
        arena.incoming.write(arena.raw_view[:count])
        self._decrypt()

    def _decrypt(self) -> None:
        """Read all records of the incoming BIO into the shared buffer, then deliver them."""
        arena = self._hub.arena
        incoming = arena.incoming
        view = arena.plain_view
        read = self._tls.read
        held = self._held
        start = end = len(held) if held else 0
        over: Exception | None = None
        try:
            while incoming.pending:
                count = read(_WANTED, view[end:])
                if not count:
                    over = ConnectionDone()
                    break
                end += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            over = ConnectionDone()
        except (ssl.SSLError, OSError) as error:
            over = ConnectionLost(_text(error))
        if over is not None:
            incoming.read()
        if arena.outgoing.pending:  # an alert, or the answer to a key update
            self._send(arena.outgoing.read())
        if end > start:
            self._deliver(start, end)
        if over is not None:
            self._lost(over)

    def _send_pending(self) -> None:
        """Encrypt what was written and send it. **HOT**"""
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        size, self._pending_size = self._pending_size, 0
        if self._output_over:
            return
        outgoing = self._hub.arena.outgoing
        try:
            written = self._tls.write(data)
            while written < size:
                written += self._tls.write(memoryview(data)[written:])
        except (ssl.SSLError, OSError) as error:
            outgoing.read()
            self._break_output(ConnectionLost(_text(error)))
            return
        self._send(outgoing.read())

    # -- the end ---------------------------------------------------------------------------

    def _refuse(self, alert: int, reason: str, quiet: bool = False) -> None:
        """Answer a ClientHello with a fatal alert in a record of our own."""
        self._send(bytes((21, 3, 3, 0, 2, 2, alert)))
        self._fail(reason, quiet=quiet)

    def _fail(self, reason: str, *, quiet: bool) -> None:
        """End a connection that did not get through its handshake."""
        arena = self._hub.arena
        arena.incoming.read()
        if arena.outgoing.pending:
            self._send(arena.outgoing.read())
        self._tls = None
        self._held = None
        self._on_read = self._read_discard
        if not quiet:
            self.log.info(
                "TLS handshake error from {peer}: {reason}", peer=_host_port(self), reason=reason
            )
        self.loseConnection()

    def _read_discard(self) -> None:
        """Read on for a refused connection, so that the alert is not lost to a reset."""
        self._recv()

    def _say_goodbye(self) -> None:
        if self._tls is None or self._on_read != self._read_open:
            return
        arena = self._hub.arena
        with suppress(ssl.SSLError, OSError):  # "want read": the peer's is not waited for
            self._tls.shutdown()
        arena.incoming.read()
        goodbye = arena.outgoing.read()
        if goodbye:
            self._send(goodbye)

    def _release(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._tls = None
        self._build = _forget
        self._on_read = _nothing

    def getPeerCertificate(self) -> None:
        """See ``ISSLTransport.getPeerCertificate``: clients show none."""


def _forget(address: Any) -> None:
    """Stands where the protocol's builder stood: it is needed once."""


def _nothing() -> None:
    """Stands where the reader stood: nothing comes any more."""


def _text(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error)


def _is_quiet(error: BaseException) -> bool:
    reason = getattr(error, "reason", None) or ""
    return any(quiet in reason for quiet in _QUIET)


def _host_port(transport: StreamTransport) -> str:
    peer = transport.getPeer()
    return f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}"
