"""
TLS on the relay's transport: a pump through shared memory BIOs.

::

    recv → incoming BIO → shared plaintext buffer → protocol
    protocol's writes of a turn, joined → outgoing BIO → send

How a connection gets here is :mod:`derp.net.tls_opening`; it ends with close_notify.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from zope.interface import implementer

from derp.net.hub import READ
from derp.net.tls_engine import Engine, error_text, version_of
from derp.net.tls_opening import TLSOpening
from derp.net.transport import StreamTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from derp.core.listener_stats import ListenerStats
    from derp.net.certificates import CertificateChooser
    from derp.net.hub import Hub
    from derp.net.timer_wheel import TimerWheel

_WANTED = 1 << 20
"""More than any record has: read what there is."""


@implementer(ISSLTransport)
class TLSTransport(StreamTransport):
    """
    One accepted TLS connection.

    :param chooser: picks the context once the ClientHello is known.
    :param build: makes the protocol once the handshake is done; ``None`` refuses.
    :param stats: counters of the listener.
    """

    __slots__ = ("_opening", "_tls", "tls_version")

    TLS = True

    def __init__(
        self,
        hub: Hub,
        wheel: TimerWheel,
        sock: socket.socket,
        peer: Any,
        *,
        chooser: CertificateChooser,
        build: Callable[[Any], Any],
        stats: ListenerStats,
    ) -> None:
        super().__init__(hub, wheel, sock, peer)
        self._opening: TLSOpening | None = TLSOpening(
            self, hub, chooser=chooser, build=build, stats=stats
        )
        self._tls: Engine | None = None
        """There from the end of the handshake to our close_notify."""
        self.tls_version: str | None = None

    def begin(self) -> None:
        """Enter the hub, at its door, and wait for the ClientHello."""
        self._hub.add(self._fd, self, at_door=True)
        assert self._opening is not None
        self._opening.start(self._wheel)

    # -- reading ---------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """See :meth:`derp.net.hub.HubMember.ready`: one ``recv``, and all it brings. **HOT**"""
        if events != READ or not self._reading:
            super().ready(events)
            return
        arena = self._hub.arena
        try:
            count = self._sock.recv_into(arena.room)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(ConnectionLost(str(error)))
            return
        if count >= arena.quantum:
            self._hub.note_heavy(self._fd)
        if not count:
            self._peer_finished()
        elif self._tls is not None:
            arena.incoming.write(arena.raw_view[:count])
            self._decrypt()
        elif self._opening is not None:
            self._opening.receive(arena.raw_view[:count])
        # else it is closing, and what still comes is nobody's

    def _read(self) -> None:
        self.ready(READ)

    def _decrypt(self) -> None:
        """Read the incoming BIO's records into the shared buffer, then deliver them. **HOT**"""
        assert self._tls is not None
        arena = self._hub.arena
        incoming = arena.incoming
        view = arena.plain_view
        read = self._tls.read
        held = self._held
        start = end = len(held) if held else 0
        ending: Exception | None = None
        try:
            while incoming.pending:
                count = read(_WANTED, view[end:])
                if not count:
                    ending = ConnectionDone()  # close_notify
                    break
                end += count
        except ssl.SSLWantReadError:
            pass  # OpenSSL keeps the partial record itself
        except ssl.SSLZeroReturnError:
            ending = ConnectionDone()
        except (ssl.SSLError, OSError) as error:
            ending = ConnectionLost(error_text(error))
        if ending is not None:
            self._end_input(start, end, ending)
            return
        if incoming.pending:
            arena.assert_clean()  # OpenSSL takes every byte; if not, better stop here
        if arena.outgoing.pending:  # the answer to a key update
            self._send_answer(arena.outgoing.read())
        if end > start:
            receive = self._receive
            if held or receive is None:
                self._deliver(start, end)
            else:
                consumed = receive(arena.plain, view, end)
                if consumed < end:
                    self._hold(view[consumed:end])

    def _end_input(self, start: int, end: int, ending: Exception) -> None:
        """Deliver what came before the end: a close_notify, or an error of the peer's."""
        arena = self._hub.arena
        arena.incoming.read()
        if arena.outgoing.pending:  # an alert
            self._send_answer(arena.outgoing.read())
        if end > start:
            self._deliver(start, end)
        if isinstance(ending, ConnectionDone):
            self._peer_done()
        else:
            self._lost(ending)

    # -- writing ---------------------------------------------------------------------------

    def _send_plain(self, data: bytes | memoryview) -> None:
        """Encrypt and send. **HOT**"""
        tls = self._tls
        if tls is None:
            return
        outgoing = self._hub.arena.outgoing
        try:
            written = tls.write(data)
            while written < len(data):
                written += tls.write(memoryview(data)[written:])
        except (ssl.SSLError, OSError) as error:
            outgoing.read()
            self._break_output(ConnectionLost(error_text(error)))
            return
        records = outgoing.read()
        try:  # what _send does, without two calls
            sent = self._sock.send(records)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break_output(ConnectionLost(str(error)))
            return
        if sent < len(records):
            self._unsent = memoryview(records)[sent:]
            self._block()

    # -- what the opening asks -------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        """Send a flight of the handshake."""
        self._send_answer(data)

    def opened(self, engine: Engine, build: Callable[[Any], Any]) -> None:
        """The handshake is done: the connection is the protocol's."""
        arena = self._hub.arena
        self._opening = None
        self._tls = engine
        self.tls_version = version_of(engine)
        self._send_answer(arena.outgoing.read())
        self._hub.let_in(self._fd, self._watched)
        protocol = build(self.getPeer())
        if protocol is None:
            self.loseConnection()
        else:
            self.setProtocol(protocol)
            protocol.makeConnection(self)
        if self.disconnecting:
            arena.incoming.read()
        elif arena.incoming.pending:  # the first request came along with the Finished
            self._decrypt()

    def refused(self, last_words: bytes) -> None:
        """The handshake failed: say so, and end."""
        self._opening = None
        self._send_answer(last_words)
        self.loseConnection()

    # -- the end ---------------------------------------------------------------------------

    def _say_goodbye(self) -> None:
        tls, self._tls = self._tls, None
        if tls is None:
            return
        arena = self._hub.arena
        with suppress(ssl.SSLError, OSError):  # "want read": the peer's is not waited for
            tls.shutdown()
        self._send_answer(arena.outgoing.read())

    def _tell_lost(self, reason: Exception) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.abandon()
        super()._tell_lost(reason)

    def end(self) -> None:
        """See :meth:`derp.net.hub.HubMember.end`."""
        super().end()
        self._tls = None

    @property
    def silent(self) -> bool:
        """See :attr:`StreamTransport.silent`."""
        opening = self._opening
        return super().silent if opening is None else opening.silent

    def getPeerCertificate(self) -> None:
        """See ``ISSLTransport.getPeerCertificate``: clients show none."""
