"""
The reactor's time, independent of the wall clock.

Twisted's ``reactor.seconds()`` is ``time.time()``: if somebody sets the clock (NTP at the boot of a
machine without a battery, a resumed virtual machine, ``date -s``), an hour back stops every timer
for an hour, and an hour forward lets every deadline pass at once, so that everybody is cut off.
Nothing demands that: ``IReactorTime`` promises a number that grows, and a process whose reactor is
its own may say which. What means the time of day is given a ``wall_time`` beside the reactor.

CLOCK_MONOTONIC, as Go's timers, and not CLOCK_BOOTTIME: a machine that slept for an hour has asked
nobody for an hour, and nobody shall be cut off for having been silent. The kernel's ``epoll_wait``
counts by it as well, so that timers by the other one would be late anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def keep_steady_time(reactor: Any, seconds: Callable[[], float] = time.monotonic) -> None:
    """
    Let a reactor's timers follow a clock that nobody sets.

    Done before the reactor runs, by whoever owns the process; harmless twice. Calls that are
    pending already keep what is left of their time.

    :param reactor: any of Twisted's: each asks its own ``seconds`` wherever it needs the time.
    """
    before = reactor.seconds()
    reactor.seconds = seconds
    for call in reactor.getDelayedCalls():
        left = call.getTime() - before
        call.seconds = seconds
        call.reset(max(0.0, left))
