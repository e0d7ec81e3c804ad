"""One run of a check: whatever happens, it has one result, and that within its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.durations import format_duration
from derp.errors import DERPError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from derp.prober.check import Check

log = Logger(namespace="derp")

_CALLED_OFF: Final = "it was called off"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    ended: float
    """Unix seconds."""
    latency: float
    """How long it took, in seconds."""
    error: str = ""
    """Empty if it succeeded."""

    @property
    def succeeded(self) -> bool:
        """Whether what was probed works."""
        return not self.error


def describe(error: BaseException) -> str:
    """Say why a run failed: a sentence of ours as it is, anything else with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, DERPError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Run:
    """
    A check that is being run.

    :param wall_time: Unix seconds.
    :param timeout: seconds; ``None`` is for ever.
    :param enough: whether a run that is stopped by its timeout has succeeded if it has found
        something by then: one of a continuous check has, which would go on.
    :param when_settled: called once with the result.
    :param when_ended: called once, when nothing of the run is left: with the result, or later
        if the check does not stop when it is cancelled.
    """

    def __init__(
        self,
        reactor: Any,
        wall_time: Callable[[], float],
        check: Check,
        timeout: float | None,
        *,
        enough: bool = False,
        when_settled: Callable[[Run, RunResult], object],
        when_ended: Callable[[Run], object],
    ) -> None:
        self.result: RunResult | None = None
        self.started = wall_time()
        """Unix seconds."""
        self.overdue = False
        """It has its result, and goes on all the same."""
        self._reactor = reactor
        self._wall_time = wall_time
        self._began: float = reactor.seconds()
        self._check = check
        self._timeout = timeout
        self._enough = enough
        self._when_settled = when_settled
        self._when_ended = when_ended
        self._deadline: IDelayedCall | None = None
        self._work: Deferred[None] | None = None

    @property
    def lasted(self) -> float:
        """Seconds since it began."""
        lasted: float = self._reactor.seconds() - self._began
        return lasted

    def begin(self) -> None:
        """Run the check; the result may be there at once."""
        if self._timeout is not None:
            self._deadline = self._reactor.callLater(self._timeout, self._expire)
        self._work = Deferred.fromCoroutine(self._perform())
        self._work.addCallbacks(lambda _: self._end(""), self._failed)

    def call_off(self) -> None:
        """Stop it; what comes of it does not matter any more."""
        self._settle(_CALLED_OFF)
        self.cancel()

    def cancel(self) -> None:
        """Tell the check to stop, perhaps not for the first time."""
        if self._work is not None:
            self._work.cancel()

    async def _perform(self) -> None:
        await self._check.run()

    def _expire(self) -> None:
        self._deadline = None
        self.cancel()
        if self.result is None:  # it does not stop
            self.overdue = True
            self._settle("" if self._was_enough() else self._too_late())

    def _failed(self, failure: Failure) -> None:
        expired = self._timeout is not None and self._deadline is None
        if expired and self._was_enough():
            self._end("")
        elif failure.check(CancelledError):
            self._end(self._too_late() if expired else _CALLED_OFF)
        else:
            error = failure.value
            if not isinstance(error, DERPError | OSError):  # ours to mend, most likely
                log.error("{traceback}", traceback=failure.getTraceback())
            self._end(describe(error) if error is not None else "it failed")

    def _was_enough(self) -> bool:
        return self._enough and bool(self._check.findings())

    def _too_late(self) -> str:
        return f"deadline exceeded: no result within {format_duration(self._timeout or 0.0)}"

    def _end(self, error: str) -> None:
        self._settle(error)
        self._when_ended(self)

    def _settle(self, error: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self.result is None:
            self.result = RunResult(self._wall_time(), self.lasted, error)
            self._when_settled(self, self.result)
