"""
Many coarse timers for the price of one.

Every connection has a deadline or a keepalive pending at all times. One ``DelayedCall`` each
would cost a kilobyte per client and a heap operation per change; here an entry is a slot in
the bucket of its tick, and the reactor holds a single call for the next tick that has any. A
bucket is a dictionary for its order and because a connection cancels three deadlines on its way in:
those leave at once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

GRANULARITY_S = 0.25
"""An entry fires up to this much late, never early."""


class WheelEntry:
    """A pending call; :meth:`cancel` is all there is to do with it."""

    __slots__ = ("_bucket", "_call")

    def __init__(self, call: Callable[[], None], bucket: dict[WheelEntry, None]) -> None:
        self._call: Callable[[], None] | None = call
        self._bucket = bucket
        bucket[self] = None

    @property
    def active(self) -> bool:
        """Whether it is still to fire."""
        return self._call is not None

    def cancel(self) -> None:
        """Never fire, and take no more room. Harmless when it has fired or was cancelled."""
        self._call = None
        self._bucket.pop(self, None)

    def fire(self) -> None:
        """Run the call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class TimerWheel:
    """
    Coarse one-shot timers on one clock.

    :param clock: where time comes from.
    :param granularity_s: the length of a tick in seconds.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, granularity_s: float = GRANULARITY_S) -> None:
        self._clock = clock
        self._granularity_s = granularity_s
        self._buckets: dict[int, dict[WheelEntry, None]] = {}
        self._next: IDelayedCall | None = None
        self._next_tick = 0

    def schedule(self, delay_s: float, call: Callable[[], None]) -> WheelEntry:
        """Call ``call`` in ``delay_s`` seconds, or up to one tick later."""
        tick = ceil((self._clock.seconds() + delay_s) / self._granularity_s)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            if self._next is None or tick < self._next_tick:
                self._arm(tick)
        return WheelEntry(call, bucket)

    def _arm(self, tick: int) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next_tick = tick
        delay = tick * self._granularity_s - self._clock.seconds()
        self._next = self._clock.callLater(max(0.0, delay), self._turn)

    def _turn(self) -> None:
        self._next = None
        now = self._clock.seconds() / self._granularity_s
        for tick in sorted(tick for tick in self._buckets if tick <= now):
            bucket = self._buckets.pop(tick)
            entries = list(bucket)  # one that fires may cancel another
            bucket.clear()  # they refer to it
            for entry in entries:
                try:
                    entry.fire()
                except Exception:
                    self.log.failure("a timer failed")
        # An empty wheel holds no call: nothing keeps an idle reactor, or a test's, busy.
        # A timer that set the next one while it fired has armed the wheel for that already;
        # others may be due before it.
        if self._buckets:
            first = min(self._buckets)
            if self._next is None or first < self._next_tick:
                self._arm(first)

    def stop(self) -> None:
        """Forget everything that is pending."""
        for bucket in self._buckets.values():
            bucket.clear()
        self._buckets.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None
