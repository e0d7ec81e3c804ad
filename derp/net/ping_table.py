"""Pings that wait for their pongs."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class PingTable:
    """
    The pings of one connection, by their eight bytes.

    :param clock: measures the round trips and limits the wait.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[bytes, tuple[float, Deferred[float]]] = {}

    def wait(self, data: bytes, timeout: float, problem: Exception) -> Deferred[float]:
        """
        Note a ping that was just sent.

        :return: fires with the seconds until its pong, or fails with ``problem``.
        """

        def timed_out(result: object, seconds: float) -> float:
            raise problem

        answer: Deferred[float] = Deferred(lambda _: self._forget(data))
        self._waiting[data] = (self._clock.seconds(), answer)
        return answer.addTimeout(timeout, self._clock, timed_out)

    def answered(self, data: bytes) -> bool:
        """Take a pong; tell whether a ping waited for it."""
        if data not in self._waiting:
            return False
        sent_at, answer = self._waiting.pop(data)
        answer.callback(self._clock.seconds() - sent_at)
        return True

    def fail(self, error: Exception) -> None:
        """No pong will come any more."""
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            answer.errback(error)

    def _forget(self, data: bytes) -> None:
        self._waiting.pop(data, None)
