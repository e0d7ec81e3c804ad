"""Every probe once: when all have ended, and what is said then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from derp.durations import format_duration

if TYPE_CHECKING:
    from derp.prober.probe import Probe
    from derp.prober.prober import Prober

log = Logger(namespace="derp")


class OnceReport:
    """
    Waits until every probe has had its run, those that other probes have added as well.

    :ivar done: fires then, with the exit code: 1 if one is bad, or there is none.
    """

    def __init__(self, prober: Prober) -> None:
        self.done: Deferred[int] = Deferred()
        self._prober = prober
        prober.listeners.append(self._look)

    def report(self) -> int:
        """Log the good ones, then the bad ones, by name; give the exit code."""
        good, bad = [], []
        for name, probe in sorted(self._prober.probes.items()):
            history = probe.history
            if history.ended is None:
                continue
            if history.error:
                bad.append(f"bad: {name}: {history.error}")
            else:
                good.append(f"good: {name}: {format_duration(round(history.latency or 0.0, 6))}")
        for line in good + bad:
            log.info("{line}", line=line)
        return 1 if bad or not good else 0

    def _look(self, probe: Probe) -> None:
        if probe.removed:  # as all are when the process is told to end, which is no result
            return
        probes = self._prober.probes.values()
        if probes and all(each.history.ended is not None for each in probes):
            self._prober.listeners.remove(self._look)
            self.done.callback(self.report())
