"""
What is remembered of a probe's runs, in bounded memory however long it is watched.

=============  ======================================================================
what           how much
=============  ======================================================================
the last run   start, end, latency or error
results        the last 10
latencies      the last 10 of runs that succeeded
minutes        6 hours: runs, failures and some latencies of each minute that had any
failures       the last 20, with their time and sentence
counters       runs and seconds, by outcome, since the beginning
=============  ======================================================================

Times are Unix seconds, latencies seconds.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from math import ceil
from typing import Final

RECENT: Final = 10
"""Results and latencies kept one by one (tailscale ``prober.recentHistSize``)."""
MINUTES: Final = 360
FAILURES: Final = 20
SAMPLE: Final = 16
"""Latencies kept of one minute at most."""
MAX_ERROR: Final = 1000
"""Characters of an error that are kept."""

_MINUTE_S: Final = 60.0


def _no_latencies() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Minute:
    """The runs that ended in one minute."""

    start: float
    runs: int = 0
    failures: int = 0
    latencies: array[float] = field(default_factory=_no_latencies)
    """Of the runs that succeeded, in time order: all, or every second, fourth…"""
    _stride: int = 1

    def add(self, latency: float | None) -> None:
        """Count a run; ``None`` is a failure."""
        self.runs += 1
        if latency is None:
            self.failures += 1
            return
        if (self.runs - self.failures - 1) % self._stride:
            return
        if len(self.latencies) == SAMPLE:
            del self.latencies[1::2]
            self._stride *= 2
            if (self.runs - self.failures - 1) % self._stride:
                return
        self.latencies.append(latency)


class ProbeHistory:
    """
    The history of one probe.

    :ivar started: when the last run began, ``None`` before the first.
    :ivar ended: when the last run that ended did.
    :ivar latency: how long that took, if it succeeded.
    :ivar error: why it failed; empty if it succeeded.
    :ivar running: how many runs are under way.
    :ivar ok_runs: how many have succeeded since the beginning, and so on.
    """

    def __init__(self) -> None:
        self.started: float | None = None
        self.ended: float | None = None
        self.latency: float | None = None
        self.error = ""
        self.running = 0
        self.results: deque[bool] = deque(maxlen=RECENT)
        self.latencies: deque[float] = deque(maxlen=RECENT)
        self.minutes: deque[Minute] = deque(maxlen=MINUTES)
        self.failures: deque[tuple[float, str]] = deque(maxlen=FAILURES)
        self.ok_runs = self.failed_runs = 0
        self.ok_seconds = self.failed_seconds = 0.0
        self._sorted: list[float] | None = None

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed`` or ``unknown``."""
        if self.running:
            return "running"
        return self.last_status

    @property
    def last_status(self) -> str:
        """What came of the last run that ended: ``succeeded``, ``failed`` or ``unknown``."""
        if self.ended is None:
            return "unknown"
        return "failed" if self.error else "succeeded"

    def begin(self, now: float) -> None:
        """A run begins."""
        self.started = now
        self.running += 1

    def end(self, now: float, latency: float, error: str = "") -> None:
        """
        A run ends.

        :param latency: how long it took; not from the time of day, which somebody may have set.
        :param error: why it failed; empty if it did not.
        """
        self.running = max(0, self.running - 1)
        self.ended = now
        self.error = _shortened(error)
        self.results.append(not error)
        if error:
            self.latency = None
            self.failed_runs += 1
            self.failed_seconds += latency
            self.failures.append((now, self.error))
        else:
            self.latency = latency
            self.ok_runs += 1
            self.ok_seconds += latency
            self.latencies.append(latency)
        self._minute(now).add(self.latency)
        self._sorted = None

    def withdraw(self) -> None:
        """A run ends without a result: it was called off."""
        self.running = max(0, self.running - 1)

    def percentile(self, p: float) -> float | None:
        """
        The latency that ``p`` percent of the remembered runs did not exceed (nearest rank).

        :param p: 0 to 100.
        :return: ``None`` if none has succeeded.
        """
        if self._sorted is None:
            self._sorted = sorted(each for minute in self.minutes for each in minute.latencies)
        if not self._sorted:
            return None
        rank = ceil(len(self._sorted) * p / 100)
        return self._sorted[min(max(rank, 1), len(self._sorted)) - 1]

    @property
    def success_ratio(self) -> float:
        """Of the recent results; 0 if there are none."""
        return sum(self.results) / len(self.results) if self.results else 0.0

    @property
    def middle_latency(self) -> float:
        """
        The one in the middle of :attr:`latencies` in time order, 0 if there are none.

        What the reference calls the median, without sorting.
        """
        return self.latencies[len(self.latencies) // 2] if self.latencies else 0.0

    def _minute(self, now: float) -> Minute:
        """The minute ``now`` is in, or the last one there is if the clock was set back."""
        start = now - now % _MINUTE_S
        last = self.minutes[-1] if self.minutes else None
        if last is None or last.start < start:
            while self.minutes and self.minutes[0].start <= start - MINUTES * _MINUTE_S:
                self.minutes.popleft()
            last = Minute(start)
            self.minutes.append(last)
        return last


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_ERROR else line[: MAX_ERROR - 3] + "..."
