"""One connection under a limit: its socket is not read while its next frame must wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from derp.core.intake import Intake
    from derp.core.session import Session


class ThrottledProtocol(Protocol):
    """What a limit asks of a connection (:class:`derp.net.relay_protocol.RelayProtocol`)."""

    @property
    def session(self) -> Session:
        """The session its bytes are for."""

    def set_intake(self, intake: Intake | None) -> None:
        """Let an intake have what comes from now on, or the session itself."""

    def hold_back(self) -> None:
        """Stop reading. What is unconsumed is kept."""

    def read_on(self) -> None:
        """Offer what was kept once more, then read again."""


class Throttle:
    """
    Holds a connection back and lets it go on; one timer, and only while it waits.

    :param waited: called each time it begins to wait; the argument is whether for the rate
        that all share.
    """

    __slots__ = ("_clock", "_held", "_timer", "_waited", "intake", "protocol")

    def __init__(
        self, protocol: ThrottledProtocol, clock: IReactorTime, waited: Callable[[bool], None]
    ) -> None:
        self.protocol = protocol
        self.intake: Intake | None = None
        self._clock = clock
        self._waited = waited
        self._timer: IDelayedCall | None = None
        self._held = False

    def hold(self, seconds: float | None) -> None:
        """See :class:`derp.core.intake.MeteredIntake`."""
        if not self._held:
            self._held = True
            self._waited(seconds is None)
            self.protocol.hold_back()
        if self._timer is None and seconds is not None:
            self._timer = self._clock.callLater(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self.open()

    def open(self) -> None:
        """Go on; the intake holds it again if that is too early."""
        if self._held:
            self._held = False
            self.protocol.read_on()

    def stop(self) -> bool:
        """
        It is no longer used.

        :return: whether it leaves its connection held back.
        """
        held, self._held = self._held, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.intake is not None:
            self.intake.stop()
            self.intake = None
        return held
