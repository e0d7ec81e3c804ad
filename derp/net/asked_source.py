"""A source of admission that is asked over the network, spared as many questions as possible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.core.admission import AdmissionStats, Answer, Kind, Question, Verdict
from derp.core.verdict_cache import VerdictCache
from derp.net.bounded_http import TIMEOUT_S
from derp.net.outcome import Outcome
from derp.wire.keys import format_node_public

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

log = Logger(namespace="derp")

AT_ONCE: Final = 128
"""Questions one source is asked at the same time."""
MAX_WAITING: Final = 1024
"""Questions that wait for those; more are not asked."""

_CROWDED: Final = Answer(Verdict.FAULT, "too many others wait to be admitted")
"""
For want of a turn, or of time after it, with a source that answers. Not ``UNREACHABLE``: to fail
open would let those in who make the crowd. Who was admitted lately does not suffer from it.
"""


SELDOM_S: Final = 10.0
"""How soon another trouble of the same source is worth a line."""

_FLAGS: Final = {Kind.SOCKET: "--verify-clients", Kind.URL: "--verify-client-url"}
_TROUBLES: Final = {
    Verdict.UNREACHABLE: "cannot be reached",
    Verdict.FAULT: "answers, but not what it is asked",
}
_STAYS: Final = "who needs its yes is refused meanwhile; who is connected stays"
_OPEN: Final = (
    "whom it has not refused lately is admitted meanwhile (--verify-client-url-fail-open)"
)


_Flight = tuple[Question, bool, int]
"""What is asked, whether again, and after how many changes."""


class Source(Protocol):
    """Something that can be asked whether a client may use the relay."""

    kind: Kind
    label: str
    """What it is, for the log; without secrets."""

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        """
        Ask; within a bounded time there is an answer.

        :param recheck: the client is connected: an answer that is not certain is no refusal.
        """

    def expire(self) -> None:
        """Forget what need not be asked again."""

    def close(self) -> Deferred[None] | None:
        """Let go of connections and timers."""


class AskedSource:
    """
    A source behind a cache.

    The same question is asked once at a time, and at a login not again for a few seconds. While
    the source cannot be reached, or too many ask, what it said before stands. A re-check is
    always asked, and what it brings is remembered.

    :param fails_open: whether logins pass while it cannot be reached, for the log.
    """

    def __init__(
        self,
        source: Source,
        stats: AdmissionStats,
        clock: IReactorTime,
        *,
        fails_open: bool = False,
    ) -> None:
        self.kind = source.kind
        self.label = source.label
        self._fails_open = fails_open
        self._gone = False
        """Whether the last one who asked got no answer."""
        self._told: Verdict | None = None
        """The trouble the operator was told of last, until it is over."""
        self._told_at = -math.inf
        self.source = source
        self._stats = stats
        self._clock = clock
        self._cache = VerdictCache()
        self._turns = DeferredSemaphore(AT_ONCE)
        self._flights: dict[_Flight, Outcome[Answer]] = {}
        self._generation = 0
        self._asked: set[Deferred[Answer]] = set()
        self._closed = False

    @property
    def asking(self) -> int:
        """Questions without an answer yet."""
        return len(self._flights)

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        """See :class:`Source`; never fails."""
        if self.kind is Kind.SOCKET:
            question = Question(question.key, "")  # it is the same from everywhere
        if recheck:
            return self._fly(question, recheck)
        fresh = self._cache.fresh(question, self._clock.seconds())
        if fresh is not None:
            self._stats.cached += 1
            return succeed(fresh)
        return self._fly(question, recheck).addCallback(self._or_stale, question)

    def expire(self) -> None:
        """Things have changed: ask anew at the next login, and believe no answer on its way."""
        self._generation += 1
        self._cache.expire(self._clock.seconds())

    def close(self) -> Deferred[None] | None:
        """See :class:`Source`. Who still waits is refused."""
        self._closed = True
        for asked in list(self._asked):
            asked.cancel()
        return self.source.close()

    def _fly(self, question: Question, recheck: bool) -> Deferred[Answer]:
        flight = (question, recheck, self._generation)
        if flight in self._flights:
            self._stats.joined += 1
            return self._flights[flight].when()
        if len(self._turns.waiting) >= MAX_WAITING:
            return succeed(self._stats.count_answer(self.kind, _CROWDED))
        begun_at = math.inf

        def begin() -> Deferred[Answer]:
            nonlocal begun_at
            begun_at = self._clock.seconds()
            return self.source.ask(question, recheck=recheck)

        def timed_out(result: Answer | Failure, seconds: float) -> Answer | Failure:
            had_time = self._clock.seconds() - begun_at >= seconds / 2
            return result if had_time or self._gone else _CROWDED

        outcome: Outcome[Answer] = Outcome()
        self._flights[flight] = outcome
        answered = outcome.when()
        asked: Deferred[Any] = self._turns.run(begin)
        self._asked.add(asked)
        # To wait for one's turn counts as well: whoever logs in has no more time than that.
        asked.addTimeout(TIMEOUT_S, self._clock, onTimeoutCancel=timed_out)
        asked.addErrback(self._failed)
        asked.addCallback(self._landed, flight)
        asked.addBoth(lambda _: self._asked.discard(asked))
        return answered

    def _failed(self, failure: Failure) -> Answer:
        if failure.check(CancelledError):
            reason = f"nobody could be asked within {TIMEOUT_S:g} s"
            return Answer(Verdict.UNREACHABLE, reason)
        log.failure("asking for admission failed", failure)
        return Answer(Verdict.FAULT, "admission could not be asked")

    def _landed(self, answer: Answer, flight: _Flight) -> None:
        question, _, generation = flight
        if self._closed:
            answer = Answer(Verdict.FAULT, "this relay is stopping")
        self._stats.count_answer(self.kind, answer)
        if not self._closed and answer is not _CROWDED:
            self._gone = answer.verdict is Verdict.UNREACHABLE
            self._tell(answer, question)
        if generation == self._generation:
            self._cache.remember(question, answer, self._clock.seconds())
        self._flights.pop(flight).succeed(answer)

    def _tell(self, answer: Answer, question: Question) -> None:
        """Tell the operator once of a trouble, what it means, and once when it is over."""
        trouble = _TROUBLES.get(answer.verdict)
        now = self._clock.seconds()
        if trouble is None:
            if self._told is not None:
                self._told = None
                log.warn("admission: {source} answers again", source=self.label)
        elif answer.verdict is not self._told and now - self._told_at >= SELDOM_S:
            self._told, self._told_at = answer.verdict, now
            opens = self._fails_open and answer.verdict is Verdict.UNREACHABLE
            log.warn(
                "admission: {source} ({flag}) {trouble}: {reason}; {meanwhile}",
                source=self.label,
                flag=_FLAGS[self.kind],
                trouble=trouble,
                reason=answer.reason.replace(f" for {format_node_public(question.key)}", ""),
                meanwhile=_OPEN if opens else _STAYS,
            )

    def _or_stale(self, answer: Answer, question: Question) -> Answer:
        if answer.verdict is not Verdict.UNREACHABLE and answer is not _CROWDED:
            return answer
        stale = self._cache.stale(question, self._clock.seconds())
        if stale is None:
            return answer
        self._stats.stale += 1
        return stale
