"""
Whether a mesh link is alive, how far away its peer is, and what the peer has surely read.

A relay answers Ping in order with everything else it reads, so each pong proves three things:
the peer lives, the round trip took so long, and whatever was sent before the ping has arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError

from derp.net.relay_errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from derp.net.relay_client import RelayClient

PING_S: Final = 5.0
"""Between two pings, and for each to be answered."""
DEAD_S: Final = 3 * PING_S
"""A link on which nothing was heard for so long, no pong either, is dead."""


class LinkPulse:
    """
    Pings one connection from :meth:`start` to :meth:`stop`.

    :param sent: says how much has been sent on the connection by now.
    """

    def __init__(self, reactor: Any, client: RelayClient, sent: Callable[[], int]) -> None:
        self.round_trip_s: float | None = None
        """The last one measured."""
        self.proven = sent()
        """How much of what was sent has surely been read."""
        self._reactor = reactor
        self._client = client
        self._sent = sent
        self._heard_at = reactor.seconds()
        self._timer: IDelayedCall | None = None
        self._waiting: Deferred[None] | None = None

    def start(self) -> None:
        """Ping now, and from now on."""
        self._ping()

    def stop(self) -> None:
        """Ping no more. What is still unanswered proves nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting is not None:
            self._waiting.cancel()

    def heard(self) -> None:
        """The peer has sent something, whatever it was."""
        self._heard_at = self._reactor.seconds()

    def _ping(self) -> None:
        sent = self._sent()

        def answered(seconds: float) -> None:
            self.round_trip_s = seconds
            self.proven = sent
            self.heard()

        self._waiting = self._client.ping(PING_S).addCallbacks(answered, _unanswered)
        self._timer = self._reactor.callLater(PING_S, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._reactor.seconds() - self._heard_at >= DEAD_S:
            self._client.abort(f"sent nothing for {DEAD_S:g} s, and answered no ping")
            return
        self._ping()


def _unanswered(failure: Failure) -> None:
    failure.trap(RelayError, CancelledError)
