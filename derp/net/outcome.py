"""Something that happens once, for any number of those who wait for it."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

T = TypeVar("T")


class Outcome(Generic[T]):
    """
    A result that comes at most once: a value, or why there is none.

    Unlike a :class:`~twisted.internet.defer.Deferred` it may be asked for any number of times,
    before and after, and nobody has to ask.
    """

    def __init__(self) -> None:
        self._settled: tuple[T] | Exception | None = None
        self._waiting: list[Deferred[T]] = []

    @property
    def settled(self) -> bool:
        return self._settled is not None

    def when(self) -> Deferred[T]:
        """Give a Deferred of the result; cancelling it concerns nobody else."""
        if isinstance(self._settled, Exception):
            return fail(self._settled)
        if self._settled is not None:
            return succeed(self._settled[0])
        waiting: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def succeed(self, value: T) -> None:
        """Settle with a value; only the first time counts."""
        if self._settled is None:
            self._settled = (value,)
            for waiting in self._take_waiting():
                waiting.callback(value)

    def fail(self, error: Exception) -> None:
        """Settle with an error; only the first time counts."""
        if self._settled is None:
            self._settled = error
            for waiting in self._take_waiting():
                waiting.errback(error)

    def _take_waiting(self) -> list[Deferred[T]]:
        waiting, self._waiting = self._waiting, []
        return waiting
