"""
One attempt per name at a time, however many wait for it.

A *flight* is one attempt to get a certificate. Whoever asks while it is under way joins it, and
may leave it without ending it. After a failure the name rests (:class:`Backoff`), and who asks
meanwhile is told when the next attempt may be made. A flight has a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.core.renewal import Backoff
from derp.net.acme_problem import ACMEError, printable
from derp.net.certificate_status import moment

MOST_NAMES: Final = 256
"""Names that failures are remembered of; only names a policy lets pass come here."""
MOST_WAITING: Final = 1024
"""Who waits for one flight; clients come as fast as they like, and flights last minutes."""

log = Logger()


class Flights:
    """
    Attempts by name.

    :param wall_time: Unix seconds, to tell people when the next one is made.
    :param work: begins an attempt, which must be cancellable.
    :param limit_s: how long one may take.
    :param luck: chance in ``[0, 1)``.
    :param ended: told the name and the error (empty after a success) of each attempt.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall_time: Callable[[], float],
        work: Callable[[str], Deferred[None]],
        *,
        limit_s: float,
        luck: Callable[[], float],
        ended: Callable[[str, str], None],
    ) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._work = work
        self._limit_s = limit_s
        self._luck = luck
        self._ended = ended
        self._flights: dict[str, tuple[Deferred[None], list[Deferred[None]]]] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._stopped = False

    def board(self, name: str) -> Deferred[None]:
        """
        Wait for the flight of a name, which begins now if none is under way.

        :returns: fails with :exc:`ACMEError`; cancelling it ends only this wait.
        """
        if name not in self._flights:
            backoff = self._backoffs.get(name)
            if self._stopped:
                return fail(ACMEError("the relay is stopping"))
            if backoff is not None and backoff.holds(self._clock.seconds()):
                again = self._moment(backoff)
                return fail(ACMEError(f"the last attempt failed; the next is made after {again}"))
            if backoff is None and len(self._backoffs) >= MOST_NAMES:
                return fail(ACMEError("too many names fail"))
            self._begin(name)
        if len(self._flights[name][1]) >= MOST_WAITING:
            return fail(ACMEError("too many wait for it"))
        waiting: Deferred[None] = Deferred(lambda gone: self._leave(name, gone))
        self._flights[name][1].append(waiting)
        return waiting

    def may_begin(self, name: str) -> bool:
        """Whether a flight would begin: none is under way and nothing is held against it."""
        backoff = self._backoffs.get(name)
        resting = backoff is not None and backoff.holds(self._clock.seconds())
        return name not in self._flights and not resting

    def forgive(self) -> None:
        """Let the next attempts be made at once: the operator says that something has changed."""
        for backoff in self._backoffs.values():
            backoff.retry_at = 0.0

    def failures(self, name: str) -> int:
        """Failures in a row."""
        backoff = self._backoffs.get(name)
        return backoff.failures if backoff is not None else 0

    def stop(self) -> None:
        """Cancel everything; nothing is waited for."""
        self._stopped = True
        for flight, _ in list(self._flights.values()):
            flight.cancel()

    def _begin(self, name: str) -> None:
        # In a later turn, so that even what ends at once ends after everybody boarded.
        turn: Deferred[None] = deferLater(self._clock, 0)
        flight = turn.addCallback(lambda _: self._work(name))
        flight.addTimeout(self._limit_s, self._clock)
        self._flights[name] = (flight, [])
        flight.addCallbacks(lambda _: self._landed(name), self._crashed, errbackArgs=(name,))
        flight.addErrback(lambda failure: log.failure("a flight's end failed", failure))

    def _leave(self, name: str, gone: Deferred[None]) -> None:
        flight = self._flights.get(name)
        if flight is not None and gone in flight[1]:
            flight[1].remove(gone)

    def _landed(self, name: str) -> None:
        self._backoffs.pop(name, None)
        _, waiting = self._flights.pop(name)
        self._ended(name, "")
        for each in waiting:
            each.callback(None)

    def _crashed(self, failure: Failure, name: str) -> None:
        error = self._reason(failure)
        _, waiting = self._flights.pop(name)
        if not self._stopped:
            backoff = self._backoffs.setdefault(name, Backoff())
            asked = error.retry_after
            delay = backoff.failed(self._clock.seconds(), self._luck(), asked)
            log.error(
                "cannot get a certificate for {name}: {error}; next attempt in {delay:.0f} s "
                "or later ({when})",
                name=name,
                error=error,
                delay=delay,
                when=self._moment(backoff),
            )
            self._ended(name, str(error))
        for each in waiting:
            each.errback(error)

    def _moment(self, backoff: Backoff) -> str:
        """When the next attempt may be made, by the clock on the wall."""
        return moment(self._wall_time() + backoff.retry_at - self._clock.seconds())

    def _reason(self, failure: Failure) -> ACMEError:
        error: Any = failure.value
        if isinstance(error, ACMEError):
            return error
        if isinstance(error, TimeoutError):
            return ACMEError(f"it took longer than {self._limit_s:g} s")
        if isinstance(error, CancelledError):
            return ACMEError("it was called off")
        log.failure("an attempt to get a certificate failed in an unforeseen way", failure)
        return ACMEError(printable(f"{type(error).__name__}: {error}"))
