"""A TLS client that looks at the certificate it gets, and goes."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.integration.waiting import in_time


def peek(reactor: Any, host: str, port: int, name: str | None) -> Deferred[x509.Certificate]:
    """
    Shake hands.

    :param name: what is asked for by SNI; ``None`` asks for nothing.
    :returns: the leaf; fails if the handshake does.
    """
    seen: Deferred[x509.Certificate] = Deferred()
    factory = Factory.forProtocol(lambda: _Peek(seen))
    factory.noisy = False
    wrapped = TLSMemoryBIOFactory(_Asking(name), True, factory)
    wrapped.noisy = False
    TCP4ClientEndpoint(reactor, host, port).connect(wrapped).addErrback(seen.errback)
    return in_time(reactor, seen, "a handshake")


@implementer(IOpenSSLClientConnectionCreator)
class _Asking:
    """TLS of a client that asks for a name and checks nothing."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._context = ssl.CertificateOptions().getContext()

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection


@implementer(IHandshakeListener)
class _Peek(Protocol):
    """Gives the leaf, or why there is none, once the connection is gone."""

    def __init__(self, seen: Deferred[x509.Certificate]) -> None:
        self._seen = seen
        self._leaf: x509.Certificate | None = None

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        self._leaf = transport.getPeerCertificate().to_cryptography()
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._leaf is not None:
            self._seen.callback(self._leaf)
        else:
            self._seen.errback(reason)
