"""
A DERP connection until it is let in, and the one deadline it has at any time.

The login must come within its deadline; then draining, the limits and admission are asked, the
latter with time to answer. Meanwhile the transport is not read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from derp.core.session import LoginRequest, Session, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from derp.core.connection import Connection
    from derp.core.relay import Relay
    from derp.net.relay_limits import RelayLimits
    from derp.net.timer_wheel import TimerWheel, WheelEntry

log = Logger(namespace="derp")

LOGIN_S = 10.0
"""For the greeting to leave, and then again for the whole ClientInfo to come."""
ADMISSION_S = 30.0
"""For admission to answer. It has deadlines of its own; this one is for its bugs."""


class LoginDesk(Protocol):
    """What logins need of :class:`derp.net.relay_protocol.RelayServer`."""

    relay: Relay
    clock: IReactorTime
    wheel: TimerWheel
    limits: RelayLimits | None
    admission: Callable[[LoginRequest], Deferred[str | None]] | None
    draining: bool


class RelayLogin(ABC):
    """The half of a DERP connection that decides whether there will be another half."""

    __slots__ = (
        "_admission",
        "_deadline",
        "_goodbye",
        "_held",
        "_server",
        "_session",
        "transport",
    )

    _server: LoginDesk
    _session: Session

    def __init__(self) -> None:
        self.transport: Any = None
        self._held: bytearray | None = None
        """Unconsumed bytes from :meth:`dataReceived`."""
        self._goodbye: str | None = None
        """Why the connection ends; an empty text ends it without a log line."""
        self._deadline: WheelEntry | None = None
        """One at a time: login, then admission, then the write timeout, then the goodbye's."""
        self._admission: Deferred[Any] | None = None

    @abstractmethod
    def close(self, reason: str) -> None:
        """See :meth:`derp.core.connection.PeerSink.close`."""

    @abstractmethod
    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol.dataReceived``."""

    @abstractmethod
    def _entered(self, conn: Connection) -> None:
        """It has been let in."""

    def _set_deadline(self, delay_s: float, call: Callable[[], None]) -> None:
        self._cancel_deadline()
        self._deadline = self._server.wheel.schedule(delay_s, call)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _login_timed_out(self) -> None:
        self._server.relay.stats.login_timeouts += 1
        self.close(f"receive client key: nothing complete within {LOGIN_S:.0f} s")

    def _ask_admission(self, request: LoginRequest) -> None:
        admission = self._server.admission
        refusal = self._judge(request)
        if refusal is not None:
            self._session.refuse(refusal)
            return
        if request.is_mesh or admission is None:
            self._admit()
            return
        self._set_deadline(ADMISSION_S, self._admission_timed_out)
        self.transport.pauseProducing()
        self._admission = asked = maybeDeferred(admission, request)
        asked.addErrback(self._admission_failed)
        asked.addCallback(self._admission_answered, request)
        asked.addErrback(self._failed)

    def _judge(self, request: LoginRequest) -> str | None:
        """Say why somebody is refused who may use the relay, if so."""
        if self._server.draining:
            return "the relay is draining"
        limits = self._server.limits
        return None if limits is None else limits.judge(request)

    def _admission_answered(self, refusal: str | None, request: LoginRequest) -> None:
        self._admission = None
        session = self._session
        if session.state is not State.ADMITTING or self._goodbye is not None:
            return  # it went away while we asked
        self._server.relay.now = self._server.clock.seconds()
        if refusal is None:
            refusal = self._judge(request)  # others were let in meanwhile
        if refusal is not None:
            session.refuse(refusal)
            return
        self._admit()
        self.transport.resumeProducing()
        if self._held:
            self.dataReceived(b"")

    def _admission_failed(self, failure: Failure) -> str:
        if self._goodbye is None:
            log.failure("asking for admission failed", failure)
        return "admission could not be asked"

    def _admission_timed_out(self) -> None:
        self._session.refuse(f"admission did not answer within {ADMISSION_S:.0f} s")

    def _failed(self, failure: Failure) -> None:
        log.failure("serving a client failed; it is cut", failure)
        self.transport.abortConnection()

    def _admit(self) -> None:
        session = self._session
        session.admit()
        conn = session.conn
        if conn is None:
            return
        if self._server.limits is not None:
            self._server.limits.entered(conn)
        self._cancel_deadline()
        self._entered(conn)
