"""
Looks at what is really served, whoever was to renew it.

Every quarter of a minute, and whenever a certificate changes: due certificates are renewed
(:meth:`derp.net.acme_certificates.ACMECertificates.tick`), clients are told of one that is
about to end, or has ended, and the log once a day. A self-signed one is announced 60 days
ahead: every pinned client has to learn the new pin, and it is never replaced by itself.

Dates are judged by the wall clock. When somebody has set that, the next look finds it out, and
whatever failed before may be tried again at once: a machine without a battery boots in 1970, when
no certificate is valid yet, and neither is an authority's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from derp.core.health import Health
from derp.core.renewal import DAY_S, validity_problem
from derp.net.certificate_status import CertificateStatus, moment

LOOK_S: Final = 15.0
ANNOUNCE_S: Final = 60 * DAY_S
SET_S: Final = 60.0
"""By how much the wall clock must have been set to count; less is slewing, or a late look."""
_AGAIN_S: Final = DAY_S
_MAKE_ANOTHER: Final = (
    "move its .crt and .key out of --certdir and start anew to make another, then change CertName "
    "in the DERP map; clients that are pinned to the old one are cut off until they have it"
)

log = Logger()


class CertificateWatchdog(Service):
    """
    :param clock: how often to look.
    :param wall_time: Unix seconds.
    :param statuses: gives what is served now.
    :param health: tells clients.
    :param tick: renews what is due.
    :ivar when_judged: told each time whether one of those that are served is invalid now; one
        that is still to come is none.
    :ivar when_clock_was_set: told before the look that has found it out.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall_time: Callable[[], float],
        statuses: Callable[[], Sequence[CertificateStatus]],
        health: Health,
        tick: Callable[[], None],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._statuses = statuses
        self._health = health
        self._tick = tick
        self.when_judged: Callable[[bool], object] = lambda invalid: None
        self.when_clock_was_set: Callable[[], object] = lambda: None
        self._offset = self._measure()
        self._look_s = look_s
        self._said: dict[str, float] = {}
        self._looping = LoopingCall(self._look)
        self._looping.clock = clock

    def startService(self) -> None:
        """Look now, and from now on."""
        super().startService()
        self._looping.start(self._look_s).addErrback(
            lambda failure: log.failure("the watch on certificates has ended", failure)
        )

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()
        if self._looping.running:
            self._looping.stop()

    def _look(self) -> None:
        try:
            self._see_clock_set()
            self._tick()
        except Exception:
            log.failure("looking for due certificates failed; it is done again")
        self.check()

    def _see_clock_set(self) -> None:
        before, self._offset = self._offset, self._measure()
        change = self._offset - before
        if abs(change) >= SET_S:
            log.info("the clock of this machine was set by {change:+.0f} s", change=change)
            self.when_clock_was_set()

    def _measure(self) -> float:
        """What is between the two clocks; it changes when one of them is set."""
        return self._wall_time() - self._clock.seconds()

    def check(self) -> None:
        """Tell clients and log how things are."""
        now = self._wall_time()
        problems = []
        invalid = False
        for status in self._statuses():
            if status.not_after is None or status.not_before is None:
                continue
            invalid |= not status.not_before <= now < status.not_after
            problem = validity_problem(status.name, status.not_before, status.not_after, now)
            if problem:
                problems.append(problem)
                self._say(status.name, f"{expiry_note(status, now)}; {status.describe()}")
            elif status.source == "self-signed" and status.not_after - now < ANNOUNCE_S:
                self._say(status.name, announcement(status))
            else:
                self._said.pop(status.name, None)
        self._health.report("certificate", "; ".join(problems))
        self.when_judged(invalid)

    def _say(self, name: str, text: str) -> None:
        now = self._clock.seconds()
        if now >= self._said.get(name, -inf) + _AGAIN_S:
            self._said[name] = now
            log.warn("{text}", text=text)


def announcement(status: CertificateStatus) -> str:
    """Say what has to be done before a self-signed certificate ends."""
    assert status.not_after is not None
    end = moment(status.not_after)
    return f"the self-signed certificate for {status.name} ends on {end}: {_MAKE_ANOTHER}"


def expiry_note(status: CertificateStatus, now: float) -> str:
    """What ``/debug/`` shows of a certificate beyond its description; empty if all is well."""
    if status.not_before is None or status.not_after is None:
        return ""
    problem = validity_problem(status.name, status.not_before, status.not_after, now)
    if status.source == "self-signed" and status.not_after - now < ANNOUNCE_S:
        return f"{problem}: {_MAKE_ANOTHER}" if problem else announcement(status)
    return problem
