"""A connection from a trusted proxy, until its PROXY header has been read or found missing."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from derp.errors import ProtocolError
from derp.net.proxy_header import MAX_HEADER, header_length
from derp.net.proxy_source import parse_header
from derp.net.socket_address import address_of, peer_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from derp.net.hub import Hub
    from derp.net.timer_wheel import TimerWheel
    from derp.net.trusted_proxies import ProxyStats

GREETING_S: Final = 5.0
"""For the whole header to come; proxies send it at once."""


class ProxyGreeting:
    """
    Reads the header off the socket and not a byte more; what follows is for the transport.

    :param peer: the proxy, as ``accept`` gave it.
    :param greet: takes the socket over, with the client's address.
    :param closed: called if the connection ends here.
    """

    log = Logger(namespace="derp")

    def __init__(
        self,
        hub: Hub,
        wheel: TimerWheel,
        sock: socket.socket,
        peer: Any,
        *,
        stats: ProxyStats,
        greet: Callable[[socket.socket, Any], None],
        closed: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._sock = sock
        self._peer = peer
        self._stats = stats
        self._greet = greet
        self._closed = closed
        self._taken = b""
        self._over = False
        hub.add(sock.fileno(), self, at_door=True)
        self._deadline = wheel.schedule(GREETING_S, self._timed_out)

    def ready(self, events: int) -> None:
        """See :meth:`derp.net.hub.HubMember.ready`."""
        try:
            seen = self._sock.recv(MAX_HEADER, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            seen = b""
        if not seen:
            self.end()
            return
        try:
            self._look(seen)
        except (ProtocolError, OSError) as error:
            self._stats.bad_proxy_headers += 1
            self.log.info(
                "{peer}: {error}; closed", peer=peer_name(address_of(self._peer)), error=str(error)
            )
            self.end()

    def _look(self, seen: bytes) -> None:
        start = self._taken + seen
        length = header_length(start)
        if length is None or length > len(start):
            # All of it belongs to the header: leaving it there would wake us for ever.
            self._taken += self._sock.recv(len(seen))
        elif length:
            self._sock.recv(length - len(self._taken))
            client = parse_header(start[:length])
            self._stats.proxy_headers += 1
            self._go_on(self._peer if client is None else client)
        elif self._taken:
            raise ProtocolError(f"PROXY header that makes no sense: {start[:64]!r}")
        else:
            self._go_on(self._peer)

    def _go_on(self, client: Any) -> None:
        self._leave()
        self._greet(self._sock, client)

    def _leave(self) -> None:
        self._over = True
        self._deadline.cancel()
        self._hub.remove(self._sock.fileno())

    def _timed_out(self) -> None:
        self._stats.slow_proxy_headers += 1
        self.end()

    def flush(self) -> None:
        """See :meth:`derp.net.hub.HubMember.flush`: nothing is written here."""

    def end(self) -> None:
        """See :meth:`derp.net.hub.HubMember.end`."""
        if not self._over:
            self._leave()
            self._sock.close()
            self._closed()

    def failed(self) -> None:
        """See :meth:`derp.net.hub.HubMember.failed`."""
        self.end()
