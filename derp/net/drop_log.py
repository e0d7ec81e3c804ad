"""
Log lines for lost packets.

==========================  ==========================================================
``TS_DEBUG_VERBOSE_DROPS``  those to chosen destinations, at a bounded rate
``DERP_DEBUG_LOGS``         every one
==========================  ==========================================================
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted.logger import Logger

from derp.core.stats import DropListener, PacketKind
from derp.wire.keys import format_node_public, short_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from derp.config import DebugKnobs
    from derp.core.stats import DropReason

log = Logger(namespace="derp")

BURST = 5.0
"""Equal lines that may be logged at once."""
REFILL_S = 30.0
"""Seconds until one more may be."""
TRACKED = 100
"""Distinct lines whose rate is known; the least recently logged is forgotten first."""


def drop_listener(knobs: DebugKnobs, seconds: Callable[[], float]) -> DropListener | None:
    """
    Make what logs drops as the environment wants it; ``None`` if it does not.

    :param seconds: the clock.
    """
    listeners: list[DropListener] = []
    if knobs.verbose_drops:
        listeners.append(DropLog(knobs.verbose_drops, seconds, unlimited=knobs.log_rate_all))
    if knobs.debug_logs:
        listeners.append(log_drop)
    if len(listeners) < 2:
        return listeners[0] if listeners else None

    def tell_all(reason: DropReason, kind: PacketKind, source: bytes, destination: bytes) -> None:
        for listener in listeners:
            listener(reason, kind, source, destination)

    return tell_all


def log_drop(reason: DropReason, kind: PacketKind, source: bytes, destination: bytes) -> None:
    """Log one drop in derper's words; see :attr:`derp.core.stats.Stats.drop_listener`."""
    log.info(
        "dropping packet reason={reason} dst={destination} disco={disco}",
        reason=reason.name.lower(),
        destination=format_node_public(destination),
        disco="true" if kind is PacketKind.DISCO else "false",
    )


class DropLog:
    """
    Logs drops to listed keys, each distinct line at a bounded rate.

    :param keys: raw keys of the destinations of interest.
    :param seconds: the clock.
    :param unlimited: log every one (``TS_DEBUG_LOG_RATE=all``).
    """

    def __init__(
        self, keys: frozenset[bytes], seconds: Callable[[], float], *, unlimited: bool = False
    ) -> None:
        self._keys = keys
        self._seconds = seconds
        self._unlimited = unlimited
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __call__(
        self, reason: DropReason, kind: PacketKind, source: bytes, destination: bytes
    ) -> None:
        """See :attr:`derp.core.stats.Stats.drop_listener`."""
        if destination not in self._keys:
            return
        line = f"drop ({short_key(source)}) {reason.name.lower()} -> {short_key(destination)}"
        if self._unlimited or self._may_log(line):
            log.info("{line}", line=line)

    def _may_log(self, line: str) -> bool:
        now = self._seconds()
        tokens, at = self._buckets.pop(line, (BURST, now))
        tokens = min(BURST, tokens + (now - at) / REFILL_S)
        allowed = tokens >= 1.0
        self._buckets[line] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > TRACKED:
            self._buckets.popitem(last=False)
        return allowed
