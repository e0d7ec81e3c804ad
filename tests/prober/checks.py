"""Checks that do what a test tells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from derp.prober.check import Check
from derp.prober.probe import Probe


class FakeCheck:
    """
    A check whose runs end when the test says so.

    :ivar begun: when each run began.
    :ivar open: of those that have not ended: what ends them.
    :ivar cancelled: how many were cancelled.
    """

    def __init__(self, clock: Clock, probe_class: str = "fake", **labels: str) -> None:
        self.clock = clock
        self.begun: list[float] = []
        self.open: list[Deferred[None]] = []
        self.cancelled = 0
        self.stubborn = False
        """Do not end when cancelled."""
        self.at_once: Callable[[], None] | None = None
        """End every run as it begins: by this returning, or by its exception."""
        self.found: dict[str, str | int | float] = {}
        self.check = Check(
            probe_class=probe_class, labels=labels, run=self.run, findings=lambda: self.found
        )

    async def run(self) -> None:
        """See :class:`Check`."""
        self.begun.append(self.clock.seconds())
        if self.at_once is not None:
            self.at_once()
            return
        while True:
            waiting: Deferred[None] = Deferred(self._cancel)
            self.open.append(waiting)
            try:
                await waiting
                return
            except Exception:
                if not self.stubborn:
                    raise

    def _cancel(self, waiting: Deferred[None]) -> None:
        self.cancelled += 1
        self.open.remove(waiting)

    def succeed(self) -> None:
        """End the oldest run well."""
        self.open.pop(0).callback(None)

    def fail(self, error: Exception) -> None:
        """End the oldest run badly."""
        self.open.pop(0).errback(error)


class Heard:
    """What a prober told its listeners: name, and what became of the probe."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __call__(self, probe: Probe) -> None:
        self.events.append((probe.name, "removed" if probe.removed else probe.history.status))


def nothing() -> None:
    """A run that succeeds."""


def failing(error: BaseException) -> Callable[[], Any]:
    """A run that fails with an exception."""

    def fail() -> None:
        raise error

    return fail
