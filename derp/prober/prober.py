"""All probes of a process: their names, their schedules, and who hears of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from derp.core.probe_spread import initial_delay
from derp.prober.check import Check
from derp.prober.probe import Probe
from derp.prober.run import RunResult

log = Logger(namespace="derp")

ONCE_CONTINUOUS_S: Final = 15.0
"""
How long a continuous check is watched when everything runs only once: longer than it may take
to begin to measure.
"""


class Prober:
    """
    The probes.

    :param spread: begin each probe after a delay of its own, instead of all at once.
    :param once: run each probe once.
    :param wall_time: Unix seconds, for histories.
    :ivar probes: by name.
    :ivar listeners: called with a probe after a run of it began or ended, and when it was
        added or removed.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        spread: bool,
        once: bool = False,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self.probes: dict[str, Probe] = {}
        self.listeners: list[Callable[[Probe], object]] = []
        self.once = once
        self._reactor = reactor
        self._wall_time = wall_time
        self._spread = spread

    def add(
        self,
        name: str,
        interval: float,
        check: Check,
        *,
        timeout: float | None = None,
        concurrency: int = 1,
    ) -> Probe:
        """
        Begin to probe.

        :param interval: seconds; negative is continuous.
        :param timeout: of one run, seconds; without it 80 % of the interval.
        :param concurrency: how many runs may be under way at the same time.
        :raises ValueError: if there is a probe of this name.
        """
        if name in self.probes:
            raise ValueError(f"there is a probe {name} already")
        if not interval:
            raise ValueError(f"probe {name} has no interval")
        delay = initial_delay(name, interval) if self._spread and interval > 0 else 0.0
        probe = Probe(
            self._reactor,
            self._wall_time,
            name,
            interval,
            check,
            delay=delay,
            once=ONCE_CONTINUOUS_S if self.once else None,
            timeout=timeout,
            concurrency=concurrency,
            changed=self._tell,
        )
        self.probes[name] = probe
        self._tell(probe)
        probe.start()
        return probe

    def remove(self, name: str) -> Deferred[None]:
        """
        Probe no more; fires when a run that was under way has ended.

        :raises KeyError: if there is no such probe.
        """
        probe = self.probes.pop(name)
        closed = probe.close()
        self._tell(probe)
        return closed

    def run_now(self, name: str) -> Deferred[RunResult]:
        """
        Run a probe out of turn; see :meth:`Probe.run_now`.

        :raises KeyError: if there is no such probe, or it is continuous.
        """
        probe = self.probes[name]
        if probe.continuous:
            raise KeyError(name)
        return probe.run_now()

    def stop(self) -> Deferred[Any]:
        """Remove all probes."""
        return DeferredList([self.remove(name) for name in list(self.probes)])

    def _tell(self, probe: Probe) -> None:
        for listener in list(self.listeners):
            try:
                listener(probe)
            except Exception:
                log.failure("a listener of probe {name} failed", name=probe.name)
