"""
How long things took: a histogram for ever, and percentiles of the latest.

Both have a bound: the histogram is some counters, and of the latest :data:`LATEST` are kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

QUEUE_DELAY_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds in seconds of ``derp_qd_probe_delays_seconds`` (Go ``prober/derp.go``)."""
LATEST: Final = 1000


class DelayHistogram:
    """
    Counts values by size.

    :param bounds: upper bounds of the buckets, ascending; each belongs to its bucket.
    """

    def __init__(self, bounds: Sequence[float] = QUEUE_DELAY_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"bounds must ascend: {bounds}")
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one."""
        self.sum += value
        self._counts[bisect_left(self.bounds, value)] += 1

    @property
    def count(self) -> int:
        """How many were counted, those above every bound included."""
        return sum(self._counts)

    @property
    def buckets(self) -> dict[float, int]:
        """How many are at most as large as each bound."""
        return dict(zip(self.bounds, accumulate(self._counts), strict=False))


class LatestDelays:
    """What became of the latest packets: their delay, or that they were lost."""

    def __init__(self, size: int = LATEST) -> None:
        self._outcomes: deque[float | None] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._outcomes)

    def arrived(self, delay: float) -> None:
        """Note a packet that took so long."""
        self._outcomes.append(delay)

    def lost(self) -> None:
        """Note one that never came."""
        self._outcomes.append(None)

    @property
    def losses(self) -> int:
        """How many of the latest were lost."""
        return self._outcomes.count(None)

    def percentiles(self, *percents: float) -> list[float]:
        """
        Give the delays that so many percent do not exceed (nearest rank).

        :return: empty if none has arrived.
        """
        delays = sorted(delay for delay in self._outcomes if delay is not None)
        if not delays:
            return []
        ranks = (-(-percent * len(delays) // 100) for percent in percents)
        return [delays[max(0, min(len(delays), int(rank)) - 1)] for rank in ranks]
