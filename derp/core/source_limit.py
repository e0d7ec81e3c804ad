"""
So many answers per second to each source of datagrams, whose addresses may be forged.

The table of sources is bounded: the one longest unheard of makes room. So that a flood of
forged sources cannot use that to give one of them a full bucket again and again, all together
have a bucket, too, which is asked first: at its rate the table turns over slower than any
bucket in it fills.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from derp.core.ratelimit import TokenBucket

RATE: Final = 10.0
"""Answers per second and source. A client sends up to 7 requests in 32 s; behind one address
there may be many."""
BURST: Final = 20.0
TOTAL_RATE: Final = 1000.0
"""Answers per second in all: 44 kB/s at most."""
MOST_SOURCES: Final = 4096
"""Some 1.2 MB."""


class SourceLimit:
    """
    Token buckets by source.

    :ivar sources: how many are known.
    """

    def __init__(
        self,
        now: float,
        *,
        rate: float = RATE,
        burst: float = BURST,
        total_rate: float = TOTAL_RATE,
        most_sources: int = MOST_SOURCES,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most_sources
        self._total = TokenBucket(total_rate, total_rate, now)
        self._buckets: OrderedDict[int, TokenBucket] = OrderedDict()

    @property
    def sources(self) -> int:
        return len(self._buckets)

    def allow(self, source: int, now: float) -> bool:
        """
        Whether there is an answer for this source now; counts it if so.

        :param source: :func:`derp.core.occupancy.network_of` its address.
        """
        if self._total.tokens(now) < 1:
            return False
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        return bucket.take(1, now) and self._total.take(1, now)
