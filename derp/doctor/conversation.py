"""A connection that is watched byte by byte: said and heard, over TCP or TLS, in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.errors import DERPError
from derp.net.outcome import Outcome
from derp.net.server_check import (
    CertificateRefused,
    ServerCheck,
    explain_tls_error,
    is_ip_literal,
    peer_chain,
)

MAX_HEARD: Final = 1 << 18
"""Bytes kept of what a server says; more of it ends the conversation."""

T = TypeVar("T")


class Unreachable(DERPError):
    """
    There is no conversation; the text says why.

    :ivar refused: whether somebody said no, as opposed to nobody saying anything.
    """

    def __init__(self, sentence: str, *, refused: bool = False) -> None:
        super().__init__(sentence)
        self.refused = refused


class HandshakeFailed(Unreachable):
    """TCP is there, TLS is not."""


@dataclass(frozen=True, slots=True)
class TLSSeen:
    """What a handshake showed."""

    version: str
    """``TLSv1.3``"""
    cipher: str
    chain: list[bytes]
    """In DER, leaf first, meta certificate included."""
    alpn: str


@implementer(IOpenSSLClientConnectionCreator)
class LenientTLS:
    """
    A client that takes any certificate, to look at it.

    :param server_name: to be sent; empty sends none.
    """

    def __init__(self, server_name: str, alpn: tuple[bytes, ...] = ()) -> None:
        self._server_name = "" if is_ip_literal(server_name) else server_name.removesuffix(".")
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_verify(SSL.VERIFY_NONE)
        if alpn:
            self._context.set_alpn_protos(list(alpn))

    def clientConnectionForTLS(self, tlsProtocol: Protocol) -> SSL.Connection:
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = SSL.Connection(self._context, None)
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name.encode("idna"))
        return connection


@implementer(IHandshakeListener)
class Conversation(Protocol):
    """One connection, from its opening to its end."""

    transport: Any

    def __init__(self, check: ServerCheck | None, *, tls: bool) -> None:
        self.heard = b""
        self.over = ""
        """``closed`` once they have; see :func:`derp.doctor.upgrade_answer.judge_upgrade`."""
        self.tls: TLSSeen | None = None
        self.opened: Outcome[Conversation] = Outcome()
        self._check = check
        self._uses_tls = tls
        self._waiting: list[Deferred[None]] = []

    # -- what Twisted calls ----------------------------------------------------------------

    def connectionMade(self) -> None:
        """See ``IProtocol``: TCP is there, TLS not yet."""
        if not self._uses_tls:
            self.opened.succeed(self)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        handle = self.transport.getHandle()
        chain = peer_chain(handle)
        self.tls = TLSSeen(
            handle.get_protocol_version_name(),
            handle.get_cipher_name() or "",
            chain,
            handle.get_alpn_proto_negotiated().decode("ascii", "replace"),
        )
        try:
            if self._check is not None:
                self._check.check_handshake(chain)
        except CertificateRefused as problem:
            self.opened.fail(problem)
            self.end()
            return
        self.opened.succeed(self)

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self.heard += data
        if len(self.heard) > MAX_HEARD:
            self.end()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self.over = "closed"
        if self._check is not None and self._check.problem is not None:
            self.opened.fail(self._check.problem)
        elif isinstance(reason.value, SSL.Error):
            self.opened.fail(HandshakeFailed(explain_tls_error(reason.value), refused=True))
        else:
            self.opened.fail(HandshakeFailed("the server closes during the TLS handshake"))
        self._wake()

    # -- what examinations call ------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Send."""
        self.transport.write(data)

    def forget(self) -> None:
        """Drop what was heard so far."""
        self.heard = b""

    async def until(
        self, judge: Callable[[bytes, str], T | None], reactor: Any, seconds: float
    ) -> T:
        """
        Listen until there is a judgement of what was heard.

        :param judge: gets all that was heard, and why nothing more will come: ``closed``,
            ``silent`` (after ``seconds``), or an empty text while it may. It must decide once
            that is not empty.
        """
        give_up_at = reactor.seconds() + seconds
        over = ""
        while True:
            judgement = judge(self.heard, over or self.over)
            if judgement is not None:
                return judgement
            if over or self.over:
                raise AssertionError("an examination that does not end")
            news: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(news)
            try:
                await news.addTimeout(max(0.0, give_up_at - reactor.seconds()), reactor)
            except TimeoutError:
                over = "silent"

    def end(self) -> None:
        """
        Close, without waiting for anybody.

        TCP's own end and no reset, so that servers have nothing to log; TLS's goodbye is left
        out, since some wait for an answer to theirs.
        """
        if self.over or self.transport is None:
            return
        socket = self.transport.transport if self._uses_tls else self.transport
        socket.loseConnection()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


async def open_conversation(
    reactor: Any,
    ip: str,
    port: int,
    seconds: float,
    tls: LenientTLS | ServerCheck | None = None,
) -> Conversation:
    """
    Connect, and end the handshake.

    :param tls: who looks at the certificate; ``None`` talks without TLS.
    :raises Unreachable: there is no TCP connection.
    :raises HandshakeFailed: there is one, and no TLS.
    :raises CertificateRefused: by a :class:`ServerCheck`.
    """
    give_up_at = reactor.seconds() + seconds
    check = tls if isinstance(tls, ServerCheck) else None
    made: list[Conversation] = []

    def build() -> Conversation:
        made.append(Conversation(check, tls=tls is not None))
        return made[0]

    factory: IProtocolFactory = _Factory(build)
    if tls is not None:
        factory = TLSMemoryBIOFactory(tls, True, factory, clock=reactor)
    endpoint_for = TCP6ClientEndpoint if ":" in ip else TCP4ClientEndpoint
    try:
        await endpoint_for(reactor, ip, port, seconds).connect(factory)
    except error.ConnectError as problem:
        raise _unreachable(problem, seconds) from problem
    conversation = made[0]
    opened = conversation.opened.when()
    try:
        return await opened.addTimeout(max(0.0, give_up_at - reactor.seconds()), reactor)
    except TimeoutError:
        conversation.end()
        raise HandshakeFailed(f"the TLS handshake is not answered within {seconds:g} s") from None
    except BaseException:
        conversation.end()
        raise


def _unreachable(problem: error.ConnectError, seconds: float) -> Unreachable:
    if isinstance(problem, error.TimeoutError):
        return Unreachable(f"no answer within {seconds:g} s")
    if isinstance(problem, error.ConnectionRefusedError):
        return Unreachable("connection refused", refused=True)
    if isinstance(problem, error.NoRouteError):
        return Unreachable("no route to it")
    return Unreachable(str(problem))


class _Factory(Factory):
    noisy = False

    def __init__(self, build: Callable[[], Conversation]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> Conversation:
        """See ``IProtocolFactory``."""
        return self._build()
