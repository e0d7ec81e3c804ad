"""
A probe: a check that runs again and again, and what came of it.

A periodic probe runs every interval, after a first delay, each run within 80 % of it. One with
a negative interval is continuous: its check ends only when it fails, and is begun anew after
that many seconds. Nothing a check does can stop the schedule: its exceptions are failures, and
a run that goes on when it should have stopped is a failure of every run that it keeps from
beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from derp.core.probe_history import ProbeHistory
from derp.errors import DERPError
from derp.prober.run import Run, RunResult

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from derp.prober.check import Check

log = Logger(namespace="derp")

TIMEOUT_SHARE: Final = 0.8
"""Of the interval, for one run (tailscale ``prober``)."""
CLOSE_S: Final = 5.0
"""Seconds that a run has to end when its probe is closed."""
STILL_RUNNING: Final = "the run before it was told to stop and has not ended yet"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO_TIME: Final = "0001-01-01T00:00:00Z"
"""What Go's zero time looks like in JSON."""


class ProbeBusy(DERPError):
    """A run that was asked for could not begin, or the probe is gone."""


class Probe:
    """
    One probe of a prober, which makes and removes it.

    :param wall_time: Unix seconds, for the history.
    :param interval: seconds; negative is continuous.
    :param delay: seconds before the first run.
    :param once: run once and no more; a number is after how many seconds a continuous check
        is stopped and has succeeded.
    :param changed: called with the probe when a run began or ended.
    :ivar labels: name, class and the check's own.
    :ivar history: of its runs.
    :ivar removed: whether it belongs to no prober any more.
    """

    def __init__(
        self,
        reactor: Any,
        wall_time: Callable[[], float],
        name: str,
        interval: float,
        check: Check,
        *,
        delay: float = 0.0,
        once: float | None = None,
        timeout: float | None = None,
        concurrency: int = 1,
        changed: Callable[[Probe], object],
    ) -> None:
        self.name = name
        self.interval = interval
        self.check = check
        self.labels = {"name": name, "class": check.probe_class, **check.labels}
        self.history = ProbeHistory()
        self.removed = False
        self.once = once is not None
        self._reactor = reactor
        self._wall_time = wall_time
        self._delay = delay
        self._once_s = once
        self._timeout = interval * TIMEOUT_SHARE if timeout is None else timeout
        self._concurrency = concurrency
        self._changed = changed
        self._runs: list[Run] = []
        self._asked: list[Deferred[RunResult]] = []
        self._takers: dict[Run, list[Deferred[RunResult]]] = {}
        self._closed: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._patience: IDelayedCall | None = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor

    @property
    def continuous(self) -> bool:
        """Whether its check is meant to run without end."""
        return self.interval < 0

    @property
    def in_flight(self) -> int:
        """How many runs are going on."""
        return len(self._runs)

    @property
    def lasted(self) -> float:
        """Seconds since the run began that began last; 0 if none goes on."""
        return self._runs[-1].lasted if self._runs else 0.0

    def start(self) -> None:
        """Begin the schedule."""
        if self._delay > 0:
            self._timer = self._reactor.callLater(self._delay, self._first)
        else:
            self._first()

    def run_now(self) -> Deferred[RunResult]:
        """
        Run out of turn: at once, or when there is room for a run.

        Those who ask while there is none share one run. Fails with :exc:`ProbeBusy` if there
        is none for a whole interval, or the probe is removed.
        """
        asking: Deferred[RunResult] = Deferred(self._no_more_asked)
        if len(self._runs) < self._concurrency:
            self._begin([asking])
        else:
            self._asked.append(asking)
            if self._patience is None:
                self._patience = self._reactor.callLater(abs(self.interval), self._give_up)
        return asking

    def close(self) -> Deferred[None]:
        """Stop the schedule and what is running; fires when nothing is left of it."""
        self.removed = True
        if self._ticking.running:
            self._ticking.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._refuse_asked("the probe was removed")
        for run in list(self._runs):
            run.call_off()
        if not self._runs:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        return closed.addTimeout(CLOSE_S, self._reactor, self._not_closed)

    def info(self) -> dict[str, Any]:
        """What JSON says of it (tailscale ``prober.ProbeInfo``)."""
        history = self.history
        return {
            "Name": self.name,
            "Class": self.check.probe_class,
            "Interval": _nanoseconds(self.interval),
            "Labels": dict(self.labels),
            "Start": _go_time(history.started),
            "End": _go_time(history.ended),
            "Latency": _nanoseconds(history.latency or 0.0),
            "Status": history.status,
            "Error": history.error,
            "RecentResults": list(history.results) or None,
            "RecentLatencies": [_nanoseconds(each) for each in history.latencies] or None,
        }

    # -- the schedule ----------------------------------------------------------------------

    def _first(self) -> None:
        self._timer = None
        if self.once or self.continuous:
            self._begin([])
        else:
            self._ticking.start(self.interval)

    def _tick(self) -> None:
        overdue = [run for run in self._runs if run.overdue]
        for run in overdue:
            run.cancel()
        if len(self._runs) < self._concurrency:
            self._begin([])
        elif overdue:
            now = self._wall_time()
            self.history.begin(now)
            self._record(RunResult(now, 0.0, STILL_RUNNING))

    def _begin(self, takers: list[Deferred[RunResult]]) -> None:
        timeout: float | None = self._timeout
        if self.continuous:
            timeout = self._once_s
        run = Run(
            self._reactor,
            self._wall_time,
            self.check,
            timeout,
            enough=self.continuous,
            when_settled=self._settled,
            when_ended=self._ended,
        )
        self._runs.append(run)
        self._takers[run] = takers
        self.history.begin(run.started)
        self._changed(self)
        run.begin()

    # -- runs ------------------------------------------------------------------------------

    def _settled(self, run: Run, result: RunResult) -> None:
        takers = self._takers.pop(run)
        if self.removed:
            self.history.withdraw()
            for taker in takers:
                taker.errback(ProbeBusy("the probe was removed"))
            return
        self._record(result)
        for taker in takers:
            taker.callback(result)

    def _record(self, result: RunResult) -> None:
        self.history.end(result.ended, result.latency, result.error)
        if result.error:
            log.warn("probe {name}: {error}", name=self.name, error=self.history.error)
        self._changed(self)

    def _ended(self, run: Run) -> None:
        self._runs.remove(run)
        if self.removed:
            if not self._runs:
                closed, self._closed = self._closed, []
                for each in closed:
                    each.callback(None)
            return
        if self.continuous and not self.once:
            self._timer = self._reactor.callLater(-self.interval, self._first)
        if self._asked and len(self._runs) < self._concurrency:
            asked, self._asked = self._asked, []
            self._stop_patience()
            self._begin(asked)

    # -- runs out of turn ------------------------------------------------------------------

    def _no_more_asked(self, asking: Deferred[RunResult]) -> None:
        """Who asked does not want to know any more; the run goes on."""
        for takers in (self._asked, *self._takers.values()):
            if asking in takers:
                takers.remove(asking)
        if not self._asked:
            self._stop_patience()

    def _give_up(self) -> None:
        self._patience = None
        self._refuse_asked("the run before has not ended within an interval")

    def _refuse_asked(self, why: str) -> None:
        self._stop_patience()
        asked, self._asked = self._asked, []
        for asking in asked:
            asking.errback(ProbeBusy(why))

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _not_closed(self, result: object, seconds: float) -> None:
        self._closed.clear()
        log.error("probe {name}: a run does not end; it is left behind", name=self.name)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def _go_time(unix: float | None) -> str:
    """RFC 3339 with as many digits as needed, as Go's ``time.Time`` in JSON."""
    if unix is None:
        return _ZERO_TIME
    time = _EPOCH + timedelta(seconds=unix)
    fraction = f".{time.microsecond:06}".rstrip("0").rstrip(".")
    return f"{time:%Y-%m-%dT%H:%M:%S}{fraction}Z"
