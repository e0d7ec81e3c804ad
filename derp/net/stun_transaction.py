"""
One STUN binding transaction over UDP: send, send again, know the answer (RFC 8489 section 6.2.1).

A request that is not answered is sent again with the same transaction id; an answer counts if
it has that id and comes from where the request went. Unlike the reference's ``stunc``, which
sends once and takes the first datagram of anybody.
"""

from __future__ import annotations

import errno
import os
import socket
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.durations import format_duration
from derp.errors import DERPError, ProtocolError
from derp.net.socket_address import host_port
from derp.quoting import quoted
from derp.wire import stun
from derp.wire.stun_error import parse_error_response

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime

    class TransactionReactor(IReactorFDSet, IReactorTime):
        """What a transaction asks of the reactor."""


RTO: Final = 0.5
"""Seconds before a request is sent again; doubled each time (RFC 8489 section 6.2.1)."""
MOST_SENDS: Final = 7
"""``Rc`` there."""
LAST_WAIT: Final = 16 * RTO
"""Seconds from the last sending to the end of the transaction, ``Rm * RTO`` there."""
FULL_TIMEOUT: Final = RTO * (2 ** (MOST_SENDS - 1) - 1) + LAST_WAIT
"""39.5 s: how long an unanswered transaction takes that nothing shortens."""
_LONGEST: Final = 2048
"""Bytes of a datagram that are read; answers have some 100."""
_READS_PER_TURN: Final = 16

_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
"""Linux: show the socket, though it is not connected, what ICMP says of its datagrams."""


class Endpoint(NamedTuple):
    """An address and a UDP port."""

    ip: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return host_port(str(self.ip), self.port)


class Binding(NamedTuple):
    """What one transaction found out."""

    mapped: Endpoint
    """Where the server sees us."""
    server: Endpoint
    """Who was asked, and has answered."""
    local: Endpoint
    """Where our socket was: ``mapped`` if no NAT is between."""
    rtt: float
    """Seconds since the first request: the round trip if :attr:`sent` is 1, else too much."""
    sent: int
    """Requests."""


class Cause(StrEnum):
    """Sorts of failure."""

    LOOKUP = "lookup"
    """The host has no address of the family."""
    UNREACHABLE = "unreachable"
    """This machine cannot send there."""
    REFUSED = "refused"
    """The host is there, and nobody listens on the port (ICMP port unreachable)."""
    TIMEOUT = "timeout"
    BAD_ANSWER = "bad answer"
    ERROR_RESPONSE = "error response"
    """The server says why it does not answer."""


class BindingFailed(DERPError):
    """
    No address was learned; the text says why, for people.

    :ivar cause: the same for programs.
    :ivar server: who was asked; ``None`` if the host has no address.
    :ivar sent: requests.
    """

    def __init__(
        self, sentence: str, cause: Cause, server: Endpoint | None = None, sent: int = 0
    ) -> None:
        super().__init__(sentence)
        self.cause = cause
        self.server = server
        self.sent = sent


@implementer(IReadDescriptor)
class Transaction:
    """
    One request, its repetitions, and who answers.

    :ivar outcome: fires with the :class:`Binding`, or fails with :exc:`BindingFailed`.
    """

    def __init__(
        self, reactor: TransactionReactor, server: Endpoint, request: bytes, sends: int
    ) -> None:
        self.outcome: Deferred[Binding] = Deferred(lambda _: self.stop())
        self._reactor = reactor
        self._server = server
        self._request = request
        self._most_sends = sends
        self._sent = 0
        self._first_sent = 0.0
        self._next: IDelayedCall | None = None
        self._udp: socket.socket | None = None
        self._remarks: dict[str, None] = {}
        """What came instead of an answer, for the words of a failure; few, each once."""

    # -- sending ---------------------------------------------------------------------------

    def start(self) -> None:
        """
        Send the first request.

        :raises BindingFailed: there is no way to the server.
        """
        version6 = self._server.ip.version == 6
        family = socket.AF_INET6 if version6 else socket.AF_INET
        host, port = str(self._server.ip), self._server.port
        try:
            self._to = socket.getaddrinfo(
                host, port, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )[0][4]
            self._local_ip = _local_ip(family, self._to)
            self._udp = socket.socket(family, socket.SOCK_DGRAM)
            self._udp.setblocking(False)
            self._udp.bind(("::" if version6 else "0.0.0.0", 0))  # noqa: S104 - to hear answers
            if hasattr(socket, "MSG_ERRQUEUE"):
                level = socket.IPPROTO_IPV6 if version6 else socket.IPPROTO_IP
                self._udp.setsockopt(level, _IPV6_RECVERR if version6 else _IP_RECVERR, 1)
        except OSError as error:
            raise self._unreachable(error) from error
        self._reactor.addReader(self)
        self._first_sent = self._reactor.seconds()
        self._send()

    def _send(self) -> None:
        """Send the request, and see to what is done if nothing comes."""
        self._next = None
        if self._udp is None:
            return
        if self._sent == self._most_sends:
            self._fail(self.unanswered(self._reactor.seconds() - self._first_sent))
            return
        self._sent += 1
        wait = LAST_WAIT if self._sent == self._most_sends else RTO * 2 ** (self._sent - 1)
        self._next = self._reactor.callLater(wait, self._send)
        try:
            self._udp.sendto(self._request, self._to)
        except (BlockingIOError, InterruptedError):
            pass  # as lost as it could be on its way
        except OSError as error:
            self._note_error(error.errno or 0)

    def stop(self) -> None:
        """Leave nothing behind; may be called at any time."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._udp is not None:
            self._reactor.removeReader(self)
            self._udp.close()
            self._udp = None

    # -- receiving -------------------------------------------------------------------------

    def fileno(self) -> int:
        """See ``IFileDescriptor.fileno``."""
        return self._udp.fileno() if self._udp else -1

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "STUN client"

    def doRead(self) -> None:
        """See ``IReadDescriptor.doRead``."""
        for _ in range(_READS_PER_TURN):
            if self._udp is None:
                return
            try:
                packet, peer = self._udp.recvfrom(_LONGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._note_error(error.errno or 0)
                continue
            self._received(packet, Endpoint(ip_address(peer[0]), peer[1]))

    def connectionLost(self, reason: Failure) -> None:
        """
        See ``IFileDescriptor.connectionLost``; the reactor has removed this reader.

        It calls this also for an error of the socket with nothing to read, as ICMP leaves it.
        """
        if self._udp is None:
            return
        code = self._udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if reason.check(ConnectionLost):
            self._remark("interrupted")
            self._fail(self.unanswered(self._reactor.seconds() - self._first_sent))
            return
        self._note_error(code)
        if self._udp is not None:
            self._reactor.addReader(self)

    def _received(self, packet: bytes, peer: Endpoint) -> None:
        expected = peer.ip.packed == self._server.ip.packed and peer.port == self._server.port
        if packet[:4] == self._request[:4] or packet[8:20] != self._request[8:20]:
            self._remark(f"{peer} sent something else")
        elif not expected:
            self._remark(f"an answer came from {peer}, which was not asked")
        else:
            self._answered(packet)

    def _answered(self, packet: bytes) -> None:
        waited = self._reactor.seconds() - self._first_sent
        assert self._udp is not None
        try:
            refusal = parse_error_response(packet)
            if refusal is not None:
                reason = f" {quoted(refusal.reason)}" if refusal.reason else ""
                sentence = f"{self._server} answers with STUN error {refusal.code}{reason}"
                self._fail(self._failed(sentence, Cause.ERROR_RESPONSE))
                return
            response = stun.parse_binding_response(packet)
        except ProtocolError as error:
            sentence = f"{self._server} answers what cannot be read: {error}"
            self._fail(self._failed(sentence, Cause.BAD_ANSWER))
            return
        found = Binding(
            mapped=Endpoint(response.ip, response.port),
            server=self._server,
            local=Endpoint(self._local_ip, self._udp.getsockname()[1]),
            rtt=max(waited, 0.0),
            sent=self._sent,
        )
        self.stop()
        self._fire(found)

    # -- failing ---------------------------------------------------------------------------

    def unanswered(self, seconds: float) -> BindingFailed:
        """Say that nothing came."""
        waited = format_duration(round(seconds, 3))
        requests = "1 request" if self._sent == 1 else f"{self._sent} requests"
        sentence = f"no STUN answer from {self._server} within {waited} ({requests} sent)"
        return self._failed("; ".join([sentence, *self._remarks]), Cause.TIMEOUT)

    def _note_error(self, code: int) -> None:
        """
        Take an error that the socket shows.

        Refusals end the transaction; what ICMP else tells may pass (RFC 1122 section 4.1.3.3).
        """
        self._drop_error_queue()
        if code == errno.ECONNREFUSED:
            sentence = f"nobody listens on UDP {self._server}: is STUN on there, and on this port?"
            self._fail(self._failed(sentence, Cause.REFUSED))
        elif code in (errno.EPERM, errno.EACCES, errno.EINVAL):
            self._fail(self._unreachable(OSError(code, os.strerror(code))))
        elif code:
            self._remark(f"the network says: {os.strerror(code)}")

    def _drop_error_queue(self) -> None:
        """Take off what makes the reactor see an error again and again."""
        for _ in range(_READS_PER_TURN):
            try:
                assert self._udp is not None
                self._udp.recvmsg(0, 0, socket.MSG_ERRQUEUE)
            except (OSError, AttributeError):
                return

    def _unreachable(self, error: OSError) -> BindingFailed:
        hint = ""
        if error.errno in (errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            hint = f": has this machine IPv{self._server.ip.version}?"
        elif error.errno in (errno.EPERM, errno.EACCES):
            hint = ": does a firewall of this machine forbid it?"
        sentence = f"cannot send to {self._server}: {error.strerror or error}{hint}"
        return self._failed(sentence, Cause.UNREACHABLE)

    def _failed(self, sentence: str, cause: Cause) -> BindingFailed:
        return BindingFailed(sentence, cause, self._server, self._sent)

    def _remark(self, words: str) -> None:
        if len(self._remarks) < 3:
            self._remarks[words] = None

    def _fail(self, failure: BindingFailed) -> None:
        self.stop()
        self._fire(Failure(failure))

    def _fire(self, result: Binding | Failure) -> None:
        if not self.outcome.called:
            self.outcome.callback(result)


def _local_ip(family: socket.AddressFamily, to: tuple[object, ...]) -> IPv4Address | IPv6Address:
    """
    Which of our addresses the kernel sends from; nothing is sent.

    :raises OSError: there is no way there.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(to)
        return ip_address(probe.getsockname()[0])
