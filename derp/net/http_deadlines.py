"""
How long a stranger may take over HTTP.

twisted.web's idle timeout starts anew at every byte, so that a header dripped in byte by byte
holds a connection for ever. The deadlines here are absolute, as Go's ``http.Server`` has them:
a request (header and body) has its time, an idle kept-alive connection has the same, and
a response has to be written, and read by the peer, within another. None of them applies once
the connection was taken over (:mod:`derp.net.upgrade`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from derp.net.timer_wheel import TimerWheel, WheelEntry

READ_S = 30.0
"""For one request, and for the silence before it (derper: ``ReadTimeout``, both ports)."""
MAIN_RESPONSE_S = 30.0
"""derper's ``WriteTimeout`` of the main port."""
PLAIN_RESPONSE_S = 300.0
"""The same of the plain port: long enough for a long profile."""
LINGER_S = 5.0
"""For a connection that was told to close to do so, before it is cut off."""


@dataclass(frozen=True)
class HTTPTiming:
    """The deadlines of one port, and what measures them."""

    clock: IReactorTime
    wheel: TimerWheel
    response_s: float = MAIN_RESPONSE_S
    read_s: float = READ_S


class HTTPDeadlines:
    """
    The one deadline a connection has at any time.

    A deadline that moves back leaves its timer alone, which looks again when it fires: requests
    in quick succession cost the wheel nothing.

    :param expired: called when the deadline has passed.
    """

    __slots__ = ("_timing", "_expired", "_entry", "_fires_at", "_expires_at")

    def __init__(self, timing: HTTPTiming, expired: Callable[[], None]) -> None:
        self._timing = timing
        self._expired: Callable[[], None] | None = expired
        self._entry: WheelEntry | None = None
        self._fires_at = 0.0
        self._expires_at = 0.0

    def await_request(self, left_s: float | None = None) -> None:
        """
        The peer is to send a request, or the rest of it.

        :param left_s: what it has left of its time for that; ``None`` is all of it.
        """
        self._set(self._timing.read_s if left_s is None else left_s)

    def left(self) -> float:
        """Seconds until the deadline there is."""
        return self._expires_at - self._timing.clock.seconds()

    def await_response(self) -> None:
        """We are to answer, and the peer to take the answer."""
        self._set(self._timing.response_s)

    def await_close(self) -> None:
        """The connection is closing."""
        self._set(LINGER_S)

    def stop(self) -> None:
        """No deadline any more, ever."""
        self._expired = None
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _set(self, delay_s: float) -> None:
        self._expires_at = self._timing.clock.seconds() + delay_s
        if self._entry is None or self._expires_at < self._fires_at:
            self._arm(delay_s)

    def _arm(self, delay_s: float) -> None:
        if self._expired is None:
            return
        if self._entry is not None:
            self._entry.cancel()
        self._fires_at = self._expires_at
        self._entry = self._timing.wheel.schedule(delay_s, self._fire)

    def _fire(self) -> None:
        self._entry = None
        left_s = self._expires_at - self._timing.clock.seconds()
        if left_s > 0:
            self._arm(left_s)
        elif self._expired is not None:
            self._expired()
