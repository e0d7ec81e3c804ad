"""
The STUN server's socket: binding it, hanging it on the reactor, outliving its errors.

What is answered and how is :mod:`derp.wire.stun`; doing it fast :mod:`derp.net.stun_responder`.
"""

from __future__ import annotations

import errno
import os
import socket
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net.datagram_batch import open_batch
from derp.net.generic_stun import GenericAnswers
from derp.net.socket_address import host_port
from derp.net.stun_responder import BatchResponder, Responder, SingleResponder

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from twisted.internet.interfaces import IDelayedCall

    class STUNReactor(Protocol):
        """What the server asks of the reactor, or of the hub in its place."""

        def addReader(self, reader: Any) -> Any:
            """See ``IReactorFDSet.addReader``."""

        def removeReader(self, reader: Any) -> Any:
            """See ``IReactorFDSet.removeReader``."""

        def callLater(self, delay: float, call: Callable[..., Any], *args: Any) -> IDelayedCall:
            """See ``IReactorTime.callLater``."""


SOCKET_BUFFER_LEN = 1 << 20
"""Asked of the kernel in both directions, unless it is less than sockets have by default
(``net.core.rmem_default``); it may give less (``net.core.rmem_max``, usually 208 KiB). A waiting
request takes some 770 bytes of it: 1 MiB is a burst of 1,300."""
PAUSE_AFTER_ERROR_S = 1.0
"""How long a socket that fails to read is left alone; derper's pause."""

_ABOUT_AN_ANSWER = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EMSGSIZE,
    }
)
"""Errors that an ICMP message about an earlier answer leaves at the socket, where a system does
so for unconnected ones: reading takes them off, and anybody can send them, so no pause."""

_CURES = {
    errno.EADDRINUSE: "stop the program that uses it ('ss -ulpn' names it) or choose another port",
    errno.EACCES: "choose a port from 1024 up, or run with CAP_NET_BIND_SERVICE or as root",
    errno.EPERM: "choose a port from 1024 up, or run with CAP_NET_BIND_SERVICE or as root",
    errno.EADDRNOTAVAIL: "set -a to an address of this machine ('ip address' lists them)",
    errno.EAFNOSUPPORT: "turn IPv6 on or set -a to an IPv4 address",
}
_OTHER_CURE = "choose another port, or turn STUN off with --stun=false"

_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@implementer(IReadDescriptor)
class STUNServer:
    """
    Answers binding requests, as a rule only Tailscale's, on one UDP socket.

    :param reactor: anything with readers and ``callLater``.
    :param host: host part of ``-a``, an IP address. Empty, and as in derper also ``0.0.0.0``
        and ``::``, means every address, IPv4 and IPv6.
    :param port: ``--stun-port``; 0 lets the kernel choose.
    :param generic: answers others' requests, too (``--stun-generic``).
    :ivar answering: switched off, everything received is thrown away: clients then measure no
        latency here and move to another region, while the port stays ours.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: STUNReactor,
        host: str,
        port: int,
        stats: STUNStats,
        generic: GenericAnswers | None = None,
    ) -> None:
        self.answering = True
        self._generic = generic
        self._reactor = reactor
        self._host = host
        self._wanted_port = port
        self._stats = stats
        self._udp: socket.socket | None = None
        self._responder: Responder | None = None
        self._resume_call: IDelayedCall | None = None
        self._address = ""
        self._inherited: socket.socket | None = None

    @property
    def key(self) -> str:
        """Names the place as it was asked for: the same in two processes with the same flags."""
        return f"--stun-port [{self._host}]:{self._wanted_port}"

    @property
    def bound_socket(self) -> socket.socket | None:
        """What it answers on, for a successor."""
        return self._udp

    def inherit(self, udp: socket.socket) -> None:
        """Use this socket, bound by others, at the next :meth:`start`."""
        self._inherited = udp

    @property
    def port(self) -> int:
        """The UDP port it is bound to; as wanted while it is not."""
        return int(self._udp.getsockname()[1]) if self._udp else self._wanted_port

    def start(self) -> None:
        """
        Bind and begin to answer; does nothing when started already.

        :raises ConfigError: the address or port cannot be had.
        """
        if self._udp is not None:
            return
        inherited, self._inherited = self._inherited, None
        udp = bind_udp(self._host, self._wanted_port) if inherited is None else inherited
        udp.setblocking(False)
        self._udp = udp
        self._address = host_port(*udp.getsockname()[:2])
        batch = open_batch(udp)
        others = partial(self._generic.answer, udp) if self._generic else None
        self._responder = (
            SingleResponder(udp, self._stats, others)
            if batch is None
            else BatchResponder(udp, batch, self._stats, others)
        )
        self._reactor.addReader(self)
        self._log.info("STUN server listening on {address}", address=self._address)

    def stop(self) -> None:
        """Close the socket; what waits in it is lost. May be called at any time."""
        if self._resume_call is not None:
            self._resume_call.cancel()
            self._resume_call = None
        if self._udp is None:
            return
        self._reactor.removeReader(self)
        self._udp.close()
        self._udp = self._responder = None

    def fileno(self) -> int:
        """See ``IFileDescriptor.fileno``."""
        return self._udp.fileno() if self._udp else -1

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "STUN"

    def doRead(self) -> None:
        """See ``IReadDescriptor.doRead``."""
        if self._responder is None:
            return
        try:
            self._responder.respond(self.answering)
        except OSError as error:
            self._stats.read_error += 1
            if error.errno not in _ABOUT_AN_ANSWER:
                self._pause(error.strerror or str(error))

    def connectionLost(self, reason: Failure) -> None:
        """
        See ``IFileDescriptor.connectionLost``; the reactor has removed this reader.

        ``ConnectionLost`` means that the reactor stops. Else the socket shows an error and
        nothing to read, or our own code raised, which the reactor has logged.
        """
        if self._udp is None:
            return
        if reason.check(ConnectionLost):
            self.stop()
            return
        self._stats.read_error += 1
        code = self._udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._pause(os.strerror(code) if code else reason.getErrorMessage())

    def _pause(self, problem: str) -> None:
        """Do not spin on an error that may stay."""
        self._log.error(
            "STUN server on {address} cannot read: {problem}; trying again in {seconds} s",
            address=self._address,
            problem=problem,
            seconds=PAUSE_AFTER_ERROR_S,
        )
        self._reactor.removeReader(self)
        self._resume_call = self._reactor.callLater(PAUSE_AFTER_ERROR_S, self._resume)

    def _resume(self) -> None:
        self._resume_call = None
        self._reactor.addReader(self)


def bind_udp(host: str, port: int) -> socket.socket:
    """
    Bind a non-blocking UDP socket.

    :param host: an IP address; unspecified or empty is both families on one socket where IPv6
        is on, so that IPv4 peers show as ``::ffff:a.b.c.d``, and IPv4 alone elsewhere.
    :raises ConfigError: naming ``--stun-port``, the address and the cure.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--stun-port {port} is not a port; choose one from 1 to 65535")
    if host and not _is_unspecified(host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return _bound(family, host, port)
        except OSError as error:
            raise _bind_error(error, host, port) from error
    try:
        try:
            return _bound(socket.AF_INET6, "::", port)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        return _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - it is what was asked for
    except OSError as error:
        raise _bind_error(error, "::", port) from error


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError as error:
        raise ConfigError(
            f"-a: {host!r} is no IP address, so --stun-port has none to listen on; "
            "give -a an address or just :port"
        ) from error


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            if udp.getsockopt(socket.SOL_SOCKET, option) < SOCKET_BUFFER_LEN:
                udp.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_LEN)
        flags = socket.AI_NUMERICHOST  # resolves no name, but a scope: fe80::1%eth0
        udp.bind(socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, flags=flags)[0][4])
    except BaseException:
        udp.close()
        raise
    return udp


def _bind_error(error: OSError, host: str, port: int) -> ConfigError:
    """One sentence for the operator."""
    problem = error.strerror or str(error)
    cure = _CURES.get(error.errno or 0, _OTHER_CURE)
    return ConfigError(
        f"--stun-port {port}: cannot listen on UDP {host_port(host, port)}: {problem}; {cure}"
    )
