"""
The relay's own listening port, served by the hub.

Socket options are set once, on the listening socket: Linux hands ``TCP_NODELAY``,
``TCP_USER_TIMEOUT`` and the keepalive settings on to what it accepts.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from derp.errors import ConfigError
from derp.net.socket_address import address_of, host_port, peer_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

    from derp.core.listener_stats import ListenerStats
    from derp.net.hub import Hub

BACKLOG = 4096
"""Connections that may wait to be accepted (the kernel caps it at net.core.somaxconn)."""
ACCEPTS_PER_TURN = 16
"""Each costs 10 µs before its first byte; packets wait meanwhile."""
PAUSE_S = 1.0
"""How long nothing is accepted after descriptors or memory ran out."""
KEEPALIVE_INTERVAL_S = 15
KEEPALIVE_PROBES = 9
_MAX_KEEPIDLE_S = 32767
"""The kernel's own limit (MAX_TCP_KEEPIDLE); more than nine hours."""
_MAX_INT = 2**31 - 1
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_CURES = {
    errno.EADDRINUSE: "another process ('ss -ltnp' names it) or another flag has that port; "
    "stop the one or choose another",
    errno.EACCES: "ports below 1024 need root, the capability CAP_NET_BIND_SERVICE (cap_add in a "
    "container), or the sysctl net.ipv4.ip_unprivileged_port_start=0",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


@dataclass(frozen=True)
class TCPOptions:
    """What the flags say about each connection's TCP."""

    keepalive_time_s: float = 600.0
    """Idle time before the first probe; 0 is Go's default of 15 s, negative is off."""
    user_timeout_s: float = 15.0
    """How long sent data may stay unacknowledged; 0 leaves it to the kernel."""

    def apply(self, sock: socket.socket) -> None:
        """Set them on a listening socket."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        user_timeout_ms = min(int(self.user_timeout_s * 1000), _MAX_INT)
        if user_timeout_ms > 0 and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
        if self.keepalive_time_s < 0:
            return
        idle = max(1, round(self.keepalive_time_s)) if self.keepalive_time_s else 15
        idle = min(idle, _MAX_KEEPIDLE_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def open_listener(host: str, port: int, options: TCPOptions, *, flag: str) -> socket.socket:
    """
    Bind and listen.

    :param host: an address, or empty for all: IPv6 and IPv4 on one socket, and IPv4 alone
        where IPv6 is switched off. ``0.0.0.0`` and ``::`` are both families, too, as in Go.
    :param flag: the command line's name for this port, for the error.
    :raises ConfigError: naming flag, address, what was wrong and the cure.
    """
    if host == "0.0.0.0":  # noqa: S104 - it is what was asked for
        host = ""
    if host:
        families = [socket.AF_INET6 if ":" in host else socket.AF_INET]
    else:
        families = [socket.AF_INET6, socket.AF_INET]
    failure: OSError | None = None
    for family in families:
        try:
            return _listen(family, host, port, options)
        except OSError as error:
            failure = error
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or host:
                break
    assert failure is not None
    where = host_port(host, port)
    cure = _CURES.get(failure.errno or 0, "choose another address or port")
    reason = (failure.strerror or str(failure)).lower()
    raise ConfigError(f"{flag}: cannot listen on {where}: {reason}; {cure}") from failure


def _listen(family: int, host: str, port: int, options: TCPOptions) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            all_families = host in ("", "::")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not all_families)
        options.apply(sock)
        sock.bind((host, port))  # "" is every address of the family
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class Greeter(Protocol):
    """Makes a transport of an accepted socket."""

    def __call__(self, sock: socket.socket, peer: Any) -> None:
        """Take the socket over; it is non-blocking."""


class RelayPort:
    """
    A listening socket in the hub.

    :param sock: bound, listening and non-blocking (:func:`open_listener`), or inherited.
    :param greet: takes each accepted connection.
    :param stats: what this listener counts.
    :param opens: asked for each connection; one that it does not open to is closed at once.
    """

    log = Logger()

    def __init__(
        self,
        hub: Hub,
        sock: socket.socket,
        greet: Greeter,
        stats: ListenerStats,
        opens: Callable[[], bool] = lambda: True,
    ) -> None:
        self._hub = hub
        self._sock = sock
        self._fd = sock.fileno()
        self._greet = greet
        self._stats = stats
        self._opens = opens
        self._resume: Any = None
        self._listening = False
        self.exhausted = False
        """Descriptors or memory ran out; until everybody who waits could be accepted again."""
        self.when_exhausted: Callable[[], None] = lambda: None
        """Called when :attr:`exhausted` changes."""

    def start(self) -> None:
        """Accept from now on."""
        self._hub.add(self._fd, self)
        self._listening = True

    def stop(self) -> Deferred[None]:
        """Accept no more and close the socket. Accepted connections live on."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        elif self._listening:
            self._hub.remove(self._fd)
        self._listening = False
        self._sock.close()
        return succeed(None)

    @property
    def listening_socket(self) -> socket.socket:
        """What it listens on, for a successor."""
        return self._sock

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """See ``IListeningPort.getHost``."""
        return address_of(self._sock.getsockname())

    def ready(self, events: int) -> None:
        """See :meth:`derp.net.hub.HubMember.ready`: take what waits, a few at a time."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                self._set_exhausted(False)
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._set_exhausted(True)
                    self._pause(error)
                    return
                continue  # that one is gone already (ECONNABORTED and its kin)
            if not self._opens():
                self._stats.rejected_connections += 1
                sock.close()
                continue
            sock.setblocking(False)
            self._stats.accepted_connections += 1
            try:
                self._greet(sock, peer)
            except Exception:
                self.log.failure("a connection could not be started; it is closed")
                self._hub.remove(sock.fileno())
                sock.close()

    def _set_exhausted(self, exhausted: bool) -> None:
        if exhausted != self.exhausted:
            self.exhausted = exhausted
            self.when_exhausted()

    def _pause(self, error: OSError) -> None:
        """Descriptors ran out: stop spinning on a queue that cannot be served."""
        self._stats.accept_paused += 1
        self.log.error(
            "no connection is accepted on {address} for {pause} s: {reason}. Raise the limit on"
            " open files (LimitNOFILE= in a systemd unit, --ulimit nofile= in Docker)",
            address=peer_name(self.getHost()),
            pause=PAUSE_S,
            reason=os.strerror(error.errno or 0).lower(),
        )
        self._hub.remove(self._fd)  # nothing else would do: it stays readable
        self._resume = self._hub.reactor.callLater(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._hub.add(self._fd, self)

    def flush(self) -> None:
        """See :meth:`derp.net.hub.HubMember.flush`: a listener writes nothing."""

    def end(self) -> None:
        """See :meth:`derp.net.hub.HubMember.end`: the hub closes."""
        self.stop()

    def failed(self) -> None:
        """See :meth:`derp.net.hub.HubMember.failed`: it was logged; go on listening."""
