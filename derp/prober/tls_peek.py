"""Connect to a relay, shake hands, see what it presents, and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IAddress, IDelayedCall, IHandshakeListener, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.net.outcome import Outcome
from derp.net.relay_dialer import DialError, DialStage, RelayAddress, dial
from derp.net.server_check import CertificateRefused, ServerCheck, explain_tls_error, peer_chain
from derp.net.socket_address import peer_name
from derp.prober.check import ProbeFailed
from derp.prober.node_client import cure_for

CLOSE_S: Final = 2.0
"""How long the relay may take to close too."""


@dataclass
class Presented:
    """What a relay has shown of itself."""

    address: str = ""
    """``192.0.2.1:443``."""
    tls_version: str = ""
    """``TLSv1.3``; empty if the handshake failed."""
    chain: list[bytes] = field(default_factory=list)
    """Certificates in DER, as they came."""
    problem: str = ""
    """Why a client would not take this for the relay; empty if it would."""


async def peek(reactor: Any, relay: RelayAddress, wall_time: Callable[[], float]) -> Presented:
    """
    Shake hands with a relay once.

    :raises ProbeFailed: if it does not come to a handshake, or not to its end before this is
        cancelled.
    """
    began = reactor.seconds()
    stage = DialStage()
    visit = _Visit(reactor, relay, wall_time)
    try:
        await dial(reactor, [relay], visit.factory_for, None, stage)
        await visit.over.when()
    except DialError as problem:
        reason = str(problem).removeprefix(f"{relay.label}: ")
        raise ProbeFailed(f"cannot connect to {relay.label}: {reason}") from problem
    except CancelledError:
        place, waiting = visit.give_up(), visit.stage or str(stage)
        raise ProbeFailed(
            f"{relay.label}{place}: nothing after {reactor.seconds() - began:.1f} s: still"
            f" waiting for {waiting}: {cure_for(waiting)}"
        ) from None
    return visit.presented


@implementer(IHandshakeListener)
class _Visit(Protocol):
    """One connection."""

    def __init__(self, reactor: Any, relay: RelayAddress, wall_time: Callable[[], float]) -> None:
        self.presented = Presented()
        self.stage = ""
        """What is waited for, once there is a connection."""
        self.over: Outcome[None] = Outcome()
        self._reactor = reactor
        self._check = ServerCheck(
            relay.host, cert_name=relay.cert_name, insecure=relay.insecure, wall_time=wall_time
        )
        self._closing: IDelayedCall | None = None

    def factory_for(self, relay: RelayAddress) -> IProtocolFactory:
        """Make the factory that gives this protocol its connection."""
        factory: IProtocolFactory = TLSMemoryBIOFactory(
            self._check, True, _Only(self), clock=self._reactor
        )
        return factory

    def give_up(self) -> str:
        """Cut the connection, if there is one; give where it went, for a sentence."""
        if not self.stage:
            return ""
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._transport.abortConnection()
        return f" at {self.presented.address}"

    def connectionMade(self) -> None:
        """See ``IProtocol``: TCP is there, TLS not yet."""
        self.stage = "the TLS handshake"
        self.presented.address = peer_name(self._transport.getPeer())

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        handle = self._transport.getHandle()
        self.stage = "the relay to close the connection"
        self.presented.tls_version = handle.get_protocol_version_name()
        self.presented.chain = peer_chain(handle)
        try:
            self._check.check_handshake(self.presented.chain)
        except CertificateRefused as problem:
            self.presented.problem = str(problem)
        self._transport.loseConnection()
        self._closing = self._reactor.callLater(CLOSE_S, self._transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        if not self.presented.tls_version:
            self.presented.chain = peer_chain(self._transport.getHandle())
            self.presented.problem = self._explain(reason)
        self.over.succeed(None)

    @property
    def _transport(self) -> Any:
        return self.transport

    def _explain(self, reason: Failure) -> str:
        if self._check.problem is not None:
            return str(self._check.problem)
        if isinstance(reason.value, SSL.Error):
            return explain_tls_error(reason.value)
        return (
            f"the connection ended during the TLS handshake: {reason.getErrorMessage()}"
            " (does something else than a relay listen there?)"
        )


class _Only(Factory):
    """Gives one protocol to one connection."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See ``IProtocolFactory``."""
        return self._protocol
