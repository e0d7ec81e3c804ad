"""
When certificates are renewed, when a failure is tried again, and when clients are told.

All times are seconds and given by the caller, as is chance (``luck``, evenly spread over
``[0, 1)``): a certificate's in Unix time, those of :class:`Backoff` by any clock that only grows.
Sources: Go ``autocert`` (renewal and its jitter), tailscale ``ipcert.go`` (back-off), RFC 9773 (a
window chosen by the authority).
"""

from __future__ import annotations

from typing import Final

DAY_S: Final = 86400.0
MOST_BEFORE_S: Final = 30 * DAY_S
"""However long a certificate lasts, its last 30 days are early enough."""
LEAST_RETRY_S: Final = 60.0
MOST_RETRY_S: Final = 1800.0
MOST_ASKED_RETRY_S: Final = DAY_S
"""How long an authority may tell us to stay away."""
NEARLY_OVER_S: Final = DAY_S
"""Remaining time at which clients are told."""
MOST_CHECK_S: Final = 3600.0
LEAST_CHECK_S: Final = 1.0
MOST_REST_S: Final = 6 * 3600.0
_MOST_JITTER_S: Final = 3600.0
_CHECKS_PER_LIFE: Final = 24


def renew_before(not_before: float, not_after: float) -> float:
    """Seconds before its end at which a certificate is due: a third of its life, at most 30 d."""
    return min(MOST_BEFORE_S, max(0.0, not_after - not_before) / 3)


def renewal_time(not_before: float, not_after: float, luck: float) -> float:
    """When to renew; by chance up to a tenth of the margin earlier, an hour at most."""
    before = renew_before(not_before, not_after)
    return not_after - before - luck * min(before / 10, _MOST_JITTER_S)


def rest_after_renewal(not_before: float, not_after: float) -> float:
    """
    Seconds for which a new certificate is left alone: a tenth of its life, at most 6 h.

    Where the clock is ahead, or an authority advises what has passed, one is due as soon as it is
    there; without a rest it would be renewed until the authority's limits are reached.
    """
    return min(MOST_REST_S, max(0.0, not_after - not_before) / 10)


def time_in_window(start: float, end: float, luck: float) -> float:
    """A moment of the window an authority suggests (RFC 9773 section 4.2)."""
    return start + luck * max(0.0, end - start)


def check_interval(not_before: float, not_after: float) -> float:
    """How often to look whether a certificate of this lifetime is due."""
    often = max(0.0, not_after - not_before) / _CHECKS_PER_LIFE
    return min(MOST_CHECK_S, max(LEAST_CHECK_S, often))


class Backoff:
    """
    How long to stay away after failures in a row: one minute, doubled up to half an hour.

    :ivar failures: how many there were since the last success.
    :ivar retry_at: when the next attempt may be made; 0 at once.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.retry_at = 0.0

    def failed(self, now: float, luck: float, asked: float = 0.0) -> float:
        """
        Note a failure.

        :param luck: up to a tenth is added by chance.
        :param asked: seconds the authority wants us to wait (Retry-After).
        :returns: seconds until the next attempt.
        """
        delay = min(MOST_RETRY_S, LEAST_RETRY_S * 2.0 ** min(self.failures, 10))
        delay = max(delay, min(asked, MOST_ASKED_RETRY_S))
        delay += luck * delay / 10
        self.failures += 1
        self.retry_at = now + delay
        return delay

    def succeeded(self) -> None:
        """Note a success: nothing is held against the name any more."""
        self.failures = 0
        self.retry_at = 0.0

    def holds(self, now: float) -> bool:
        """Whether an attempt would come too early."""
        return now < self.retry_at


def validity_problem(name: str, not_before: float, not_after: float, now: float) -> str:
    """
    What a client should be told of a certificate; empty if all is well.

    The text is shown by ``tailscale status``.
    """
    remaining = not_after - now
    if now < not_before:
        return f"the TLS certificate of this relay ({name}) is not valid yet"
    if remaining <= 0:
        return f"the TLS certificate of this relay ({name}) has expired"
    if remaining <= min(NEARLY_OVER_S, renew_before(not_before, not_after) / 2):
        hours = int(remaining // 3600)
        left = f"in {hours} h" if hours else "within the hour"
        return f"the TLS certificate of this relay ({name}) expires {left} and is not renewed"
    return ""
