"""The clock on the wall: it goes with the clock of timers, until somebody sets it."""

from __future__ import annotations

from typing import Any


class WallClock:
    """
    A wall clock for tests in virtual time.

    :param clock: what timers go by.
    :param now: what the wall shows at the beginning, in Unix seconds.
    """

    def __init__(self, clock: Any, now: float = 0.0) -> None:
        self._clock = clock
        self._ahead = now - clock.seconds()

    def seconds(self) -> float:
        """What it shows."""
        shown: float = self._clock.seconds() + self._ahead
        return shown

    def set_by(self, seconds: float) -> None:
        """Set it forward, or back; no timer shall care."""
        self._ahead += seconds
