"""Asks the sources of admission, and tells logins and re-checks what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger

from derp.core.admission import (
    AdmissionStats,
    Answer,
    Kind,
    Login,
    Outcome,
    Question,
    Rules,
    Verdict,
    best_of,
)
from derp.core.connection import RemoteAddress
from derp.core.session import LoginRequest
from derp.net.outcome import Outcome as Result
from derp.wire.keys import format_node_public

if TYPE_CHECKING:
    from derp.net.asked_source import Source

log = Logger(namespace="derp")


class Admission:
    """
    Who may use one relay.

    :param sources: all of them; of each kind any may admit.
    """

    def __init__(self, rules: Rules, sources: Sequence[Source], stats: AdmissionStats) -> None:
        self.rules = rules
        self.stats = stats
        self.sources = sources
        self._changes = 0
        self._kinds = {
            kind: [source for source in sources if source.kind is kind]
            for kind in Kind
            if any(source.kind is kind for source in sources)
        }

    def __call__(self, request: LoginRequest) -> Deferred[str | None]:
        """
        Decide on a login.

        :return: fires with the reason to refuse it, or ``None``.
        """
        question = question_about(request.key, request.remote)
        return Deferred.fromCoroutine(self._login(question))

    def judge_login(self, question: Question) -> Deferred[Login]:
        """Say what a login would come to, without counting it."""
        return Deferred.fromCoroutine(self._judge_login(question))

    def recheck(self, key: bytes, remote: RemoteAddress) -> Deferred[Verdict]:
        """Decide on a client that is connected; see :meth:`Rules.judge_connected`."""
        return Deferred.fromCoroutine(self._recheck(question_about(key, remote)))

    def expire(self) -> None:
        """What the sources say may have changed: logins on their way are judged anew."""
        self._changes += 1
        for source in self.sources:
            source.expire()

    def close(self) -> Deferred[Any]:
        """Let go of connections and timers."""
        return DeferredList([source.close() or succeed(None) for source in self.sources])

    # -- inside ----------------------------------------------------------------------------

    async def _login(self, question: Question) -> str | None:
        changes = -1
        while changes != self._changes:
            changes = self._changes
            login = await self._judge_login(question)
        self.stats.logins[login.outcome] += 1
        if login.outcome is Outcome.FAIL_OPEN:
            log.warn(
                "admission controller unreachable; allowing client {key}",
                key=format_node_public(question.key),
            )
        return login.refusal

    async def _judge_login(self, question: Question) -> Login:
        answers: list[tuple[Kind, Answer]] = []
        for kind, sources in self._kinds.items():
            answer = await _ask_any(sources, question)
            answers.append((kind, answer))
            if self.rules.ends_login(kind, answer):
                break
        return self.rules.judge_login(answers)

    async def _recheck(self, question: Question) -> Verdict:
        answers = [
            await _ask_any(sources, question, recheck=True) for sources in self._kinds.values()
        ]
        verdict = self.rules.judge_connected(answers)
        self.stats.rechecks[verdict] += 1
        return verdict


def question_about(key: bytes, remote: RemoteAddress) -> Question:
    """Word the question about a client."""
    return Question(key, "" if remote.ip is None else str(remote.ip))


def _ask_any(
    sources: Sequence[Source], question: Question, *, recheck: bool = False
) -> Deferred[Answer]:
    """Ask all sources of a kind at once; the first that admits settles it."""
    result: Result[Answer] = Result()
    answers: list[Answer] = []

    def answered(answer: Answer) -> None:
        answers.append(answer)
        if answer.verdict is Verdict.ALLOWED or len(answers) == len(sources):
            result.succeed(best_of(answers))

    for source in sources:
        source.ask(question, recheck=recheck).addCallback(answered)
    return result.when()
