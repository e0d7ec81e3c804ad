"""
From a connection's first byte to an open TLS connection.

=========  ==================================================================================
hello      the ClientHello is collected; nothing is decided, no engine exists
choosing   the certificate is being fetched; the socket is not read
handshake  OpenSSL's, through the arena's BIOs
=========  ==================================================================================

All of it has one deadline. A client that cannot be served gets a fatal alert: in a record of
our own while there is no engine, the engine's afterwards.
"""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from derp.errors import ProtocolError
from derp.net.certificates import CertificateChooser, HandshakeRefused
from derp.net.hub import HubMember
from derp.net.proxy_header import V1_START, V2_START
from derp.net.socket_address import peer_name
from derp.net.tls_engine import Engine, error_text, says_nothing, server_engine
from derp.wire.client_hello import RECORD_HEADER_LEN, ClientHello, parse_client_hello

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from derp.core.listener_stats import ListenerStats
    from derp.net.hub import Hub
    from derp.net.timer_wheel import TimerWheel, WheelEntry

HANDSHAKE_S: Final = 30.0
"""ClientHello and handshake together (the reference: its HTTP read timeout)."""
MAX_SPLIT_READS: Final = 256
"""
Reads a ClientHello in more than one record may take. Each walks all its records so far, so
dripping in a hello of thousands of records would cost seconds; no client that exists splits so.
"""
DECODE_ERROR: Final = 50
INTERNAL_ERROR: Final = 80
STRAY_HEADER: Final = (
    "it begins with a PROXY header, which is not read: if it is a proxy of yours, add it to "
    "--trusted-proxies"
)


def alert_record(alert: int) -> bytes:
    """A fatal alert, unencrypted: ``15 | 0303 | 0002 | 02 | description`` (RFC 8446 section 6)."""
    return bytes((21, 3, 3, 0, 2, 2, alert))


class OpeningTransport(HubMember, Protocol):
    """What is opened: see :class:`derp.net.tls_transport.TLSTransport`."""

    def answer(self, data: bytes) -> None:
        """Send a flight of the handshake."""

    def opened(self, engine: Engine, build: Callable[[Any], Any]) -> None:
        """The handshake is done."""

    def refused(self, last_words: bytes) -> None:
        """The handshake failed: send this, then end."""

    def pauseProducing(self) -> None:
        """Read no more."""

    def resumeProducing(self) -> None:
        """Read again."""

    def abortConnection(self) -> None:
        """End now."""

    def getHost(self) -> Any:
        """Our address."""

    def getPeer(self) -> Any:
        """The client's."""


class TLSOpening:
    """
    One connection's way in. It is dropped when the connection is open, or has failed.

    :param chooser: picks the context once the ClientHello is known.
    :param build: makes the protocol of an open connection.
    """

    __slots__ = (
        "_build",
        "_chooser",
        "_deadline",
        "_engine",
        "_hub",
        "_outcome_known",
        "_reads",
        "_received",
        "_stats",
        "_transport",
        "_waiting",
    )

    log = Logger()

    def __init__(
        self,
        transport: OpeningTransport,
        hub: Hub,
        *,
        chooser: CertificateChooser,
        build: Callable[[Any], Any],
        stats: ListenerStats,
    ) -> None:
        self._transport = transport
        self._hub = hub
        self._chooser = chooser
        self._build = build
        self._stats = stats
        self._received: bytearray | None = None
        """The hello so far; ``None`` while nothing had to be kept."""
        self._reads = 0
        self._engine: Engine | None = None
        self._waiting: Deferred[ssl.SSLContext] | None = None
        self._deadline: WheelEntry | None = None
        self._outcome_known = False

    def start(self, wheel: TimerWheel) -> None:
        """Let the deadline run."""
        self._deadline = wheel.schedule(HANDSHAKE_S, self._timed_out)

    @property
    def silent(self) -> bool:
        """Whether not a byte has come yet."""
        return not self._reads

    def receive(self, data: memoryview) -> None:
        """Take what one read brought; ``data`` is the arena's and valid during the call."""
        self._reads += 1
        if self._engine is None:
            self._collect(data)
        else:
            self._hub.arena.incoming.write(data)
            self._step(self._engine)

    # -- hello -----------------------------------------------------------------------------

    def _collect(self, data: memoryview) -> None:
        hello_bytes: bytearray | memoryview = data
        if self._received is not None:
            self._received += data
            hello_bytes = self._received
        try:
            hello = parse_client_hello(hello_bytes)
            if hello is None:
                self._check_patience(hello_bytes)
        except ProtocolError as error:
            stray = bytes(hello_bytes[: len(V2_START)]).startswith((V1_START, V2_START))
            self._refuse(DECODE_ERROR, STRAY_HEADER if stray else str(error), quiet=not stray)
            return
        if hello is not None:
            self._choose(hello, hello_bytes)
        elif self._received is None:
            self._received = bytearray(data)

    def _check_patience(self, hello_bytes: bytearray | memoryview) -> None:
        if self._reads <= MAX_SPLIT_READS:
            return
        first_record = RECORD_HEADER_LEN + int.from_bytes(hello_bytes[3:RECORD_HEADER_LEN], "big")
        if len(hello_bytes) > first_record:
            raise ProtocolError(f"ClientHello in several records and {self._reads} pieces")

    def _choose(self, hello: ClientHello, hello_bytes: bytearray | memoryview) -> None:
        transport = self._transport
        try:
            choice = self._chooser.pick(hello, getattr(transport.getHost(), "host", ""))
        except HandshakeRefused as refusal:
            self._refuse(refusal.alert, refusal.reason)
            return
        if isinstance(choice, ssl.SSLContext):
            self._begin_handshake(choice, hello_bytes)
            return
        self._received = bytearray(hello_bytes)
        transport.pauseProducing()
        self._waiting = choice
        choice.addCallbacks(self._chosen, self._choice_failed)

    # -- choosing --------------------------------------------------------------------------

    def _chosen(self, context: ssl.SSLContext) -> None:
        # The buffers may be somebody else's right now.
        self._hub.call_soon(self._transport, partial(self._go_on, context))

    def _go_on(self, context: ssl.SSLContext) -> None:
        self._waiting = None
        if not self._outcome_known:
            received = self._received
            assert received is not None
            self._transport.resumeProducing()
            self._begin_handshake(context, received)

    def _choice_failed(self, failure: Failure) -> None:
        self._waiting = None
        if self._outcome_known:
            return  # the client has gone; this is our own cancellation
        if isinstance(failure.value, HandshakeRefused):
            self._refuse(failure.value.alert, failure.value.reason)
        else:
            self._refuse(INTERNAL_ERROR, f"no certificate: {failure.getErrorMessage()}")

    # -- handshake -------------------------------------------------------------------------

    def _begin_handshake(self, context: ssl.SSLContext, received: bytearray | memoryview) -> None:
        self._engine = engine = server_engine(context, self._hub.arena)
        self._hub.arena.incoming.write(received)
        self._received = None
        self._step(engine)

    def _step(self, engine: Engine) -> None:
        """Go one step on; the BIOs are empty afterwards, whatever happened."""
        arena = self._hub.arena
        try:
            engine.do_handshake()
        except ssl.SSLWantReadError:
            self._transport.answer(arena.outgoing.read())
        except (ssl.SSLError, OSError) as error:
            self._fail(arena.outgoing.read(), error_text(error), quiet=says_nothing(error))
            arena.incoming.read()
        else:
            self._end()
            self._transport.opened(engine, self._build)
        arena.assert_clean()

    # -- the outcome -----------------------------------------------------------------------

    def _refuse(self, alert: int, reason: str, *, quiet: bool = False) -> None:
        self._fail(alert_record(alert), reason, quiet=quiet)

    def _fail(self, last_words: bytes, reason: str, *, quiet: bool) -> None:
        self._end()
        self._stats.handshake_failures += 1
        transport = self._transport
        if not quiet:
            self.log.info(
                "TLS handshake error from {peer}: {reason}",
                peer=peer_name(transport.getPeer()),
                reason=reason,
            )
        transport.refused(last_words)

    def _timed_out(self) -> None:
        self._end()
        self._stats.handshake_timeouts += 1
        self._transport.abortConnection()

    def abandon(self) -> None:
        """The connection is lost. One that never said a word was no handshake."""
        if not self._outcome_known:
            self._end()
            self._stats.handshake_failures += bool(self._reads)

    def _end(self) -> None:
        self._outcome_known = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
