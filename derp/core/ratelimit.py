"""
Token buckets: so much per second, and so much at once.

Time is an argument, in seconds on any clock that does not jump far; one that steps back counts
as one that stood still.
"""

from __future__ import annotations

from math import inf


class TokenBucket:
    """
    A bucket of tokens, full when it is made.

    :param rate: tokens that come in per second; infinite is no limit at all.
    :param burst: how many it holds. Nobody can ever take more than that at once.
    """

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def tokens(self, now: float) -> float:
        """What is in it."""
        if now > self._at and self.rate < inf:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return self._tokens

    def take(self, count: float, now: float) -> bool:
        """Take tokens if there are enough of them; otherwise leave them all."""
        if self.rate == inf:
            return True
        if self.tokens(now) < count:
            return False
        self._tokens -= count
        return True

    def wait_for(self, count: float, now: float) -> float:
        """
        Seconds until so many will be there; infinite if never.

        :param count: no more than :attr:`burst`.
        """
        short = count - self.tokens(now)
        if short <= 0 or self.rate == inf:
            return 0.0
        return short / self.rate if self.rate > 0 and count <= self.burst else inf
