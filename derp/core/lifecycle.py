"""
Where the relay is in its life, and whether it should be given work.

=========  ==========  ========================================================================
phase      event       next phase
=========  ==========  ========================================================================
STARTING   STARTED     READY
STARTING   STOP        STOPPED
READY      DRAIN       DRAINING
READY      STOP        STOPPED
DRAINING   STOP        STOPPED
=========  ==========  ========================================================================

DRAIN and STOP may come again, and DRAIN may come too late: such events change nothing. Any
other combination is our own fault.

A relay that is READY may still be unfit, for the reasons of :class:`Unfit`: whoever finds one
out notes it here, and takes it back. Clients are then served as before; what changes is what
``/readyz`` says, and with ``--stun-follows-readiness`` whether clients can measure this relay.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import Final


class Phase(StrEnum):
    """How far a relay's life has come; the value is the word strangers are told."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


class Event(Enum):
    """What moves it on."""

    STARTED = auto()
    DRAIN = auto()
    STOP = auto()


class Unfit(StrEnum):
    """Why a relay that serves should not be given more; the value is what strangers are told."""

    CERTIFICATE = "certificate invalid"
    OVERLOAD = "overloaded"
    QUOTA = "over quota"


TRANSITIONS: Final[dict[Phase, dict[Event, Phase]]] = {
    Phase.STARTING: {Event.STARTED: Phase.READY, Event.STOP: Phase.STOPPED},
    Phase.READY: {Event.DRAIN: Phase.DRAINING, Event.STOP: Phase.STOPPED},
    Phase.DRAINING: {
        Event.DRAIN: Phase.DRAINING,
        Event.STOP: Phase.STOPPED,
    },
    Phase.STOPPED: {
        Event.DRAIN: Phase.STOPPED,
        Event.STOP: Phase.STOPPED,
    },
}


class Lifecycle:
    """
    One relay's phase, and what makes it unfit.

    :param stun_follows_readiness: whether clients may not measure an unfit relay either.
    """

    def __init__(self, *, stun_follows_readiness: bool = False) -> None:
        self.phase = Phase.STARTING
        self.unfit: dict[Unfit, None] = {}
        """The reasons that hold now, oldest first."""
        self.unfit_counts: dict[Unfit, int] = dict.fromkeys(Unfit, 0)
        """How often each began."""
        self._stun_follows = stun_follows_readiness
        self._listeners: list[Callable[[], object]] = []

    def when_changed(self, listener: Callable[[], object]) -> None:
        """Call this after every change from now on."""
        self._listeners.append(listener)

    def enter(self, event: Event) -> None:
        """
        Move on.

        :raises ValueError: if that cannot happen in this phase.
        """
        phase = TRANSITIONS[self.phase].get(event)
        if phase is None:
            raise ValueError(f"{event.name} while {self.phase.name}")
        if phase is not self.phase:
            self.phase = phase
            self._changed()

    def note(self, reason: Unfit, holds: bool) -> None:
        """Say whether a reason holds; saying it again changes nothing."""
        if holds == (reason in self.unfit):
            return
        if holds:
            self.unfit[reason] = None
            self.unfit_counts[reason] += 1
        else:
            del self.unfit[reason]
        self._changed()

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    @property
    def is_ready(self) -> bool:
        """Whether it should be given work."""
        return self.phase is Phase.READY and not self.unfit

    @property
    def is_serving(self) -> bool:
        """Whether it takes clients, fit or not."""
        return self.phase is Phase.READY

    @property
    def word(self) -> str:
        """What ``/readyz`` says: the phase, or the oldest reason of an unfit relay."""
        if self.phase is Phase.READY and self.unfit:
            return next(iter(self.unfit))
        return self.phase

    @property
    def is_measurable(self) -> bool:
        """
        Whether STUN and the probe paths answer.

        Clients that get no answer make another region their home by themselves. An unfit relay
        answers unless the operator wants otherwise: it may be the only one its network has.
        """
        return self.phase is Phase.READY and not (self._stun_follows and self.unfit)


def always_ready() -> Lifecycle:
    """Make one for parts that are used by themselves."""
    lifecycle = Lifecycle()
    lifecycle.enter(Event.STARTED)
    return lifecycle
