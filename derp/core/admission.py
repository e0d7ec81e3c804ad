"""
Who may use the relay: what sources of admission say, and what follows from it.

A *source* is one thing that can be asked about a key: the allow list, one tailscaled, one URL.
Sources of the same :class:`Kind` are alternatives: the kind admits if any of them does, and
refuses only if all of them do. Kinds are joined by the operator's :class:`Policy`:

==========  ==============================  ==============================================
policy      a login is admitted             a connected client is refused
==========  ==============================  ==============================================
``all``     if every kind admits            if some kind refuses
``any``     if some kind admits             if every kind refuses
==========  ==============================  ==============================================

To *refuse* is to say no: an error is not a refusal. At a login an error does not admit, with
one exception (``--verify-client-url-fail-open``); a connected client it does not concern.

Source: tailscale ``derpserver.verifyClient`` for one socket and one URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

STRIKES: Final = 2
"""Refusals in a row that a connected client is closed after."""


class Kind(StrEnum):
    """Kinds of sources, in the order they are asked: what costs nothing first, then as derper."""

    FILE = "file"
    SOCKET = "socket"
    URL = "url"


class Policy(StrEnum):
    """Values of ``--verify-policy``."""

    ALL = "all"
    ANY = "any"


class Verdict(Enum):
    """What a source, or a kind, says about a key."""

    ALLOWED = "allowed"
    DENIED = "denied"
    """It knows, and says no."""
    FAULT = "fault"
    """It answered, but not the question."""
    UNREACHABLE = "unreachable"
    """It did not answer."""


_BEST_FIRST: Final = (Verdict.ALLOWED, Verdict.UNREACHABLE, Verdict.FAULT, Verdict.DENIED)
"""
Of several alternatives the first of these counts. One that cannot be reached might have
admitted, so what another one refused is not refused by all.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict and, unless it is ``ALLOWED``, the reason in words."""

    verdict: Verdict
    reason: str = ""


ALLOWED: Final = Answer(Verdict.ALLOWED)


@dataclass(frozen=True, slots=True)
class Question:
    """Whom a source is asked about."""

    key: bytes
    ip: str
    """Where the client comes from, as text; empty if that is not an IP address."""


def best_of(answers: Iterable[Answer]) -> Answer:
    """
    Join the answers of one kind's sources.

    :param answers: at least one.
    """
    return min(answers, key=lambda answer: _BEST_FIRST.index(answer.verdict))


@dataclass(frozen=True, slots=True)
class Login:
    """Whether a client may log in."""

    refusal: str | None
    """Why not."""
    outcome: Outcome


class Outcome(StrEnum):
    """What became of a login, for metrics."""

    ADMITTED = "admitted"
    FAIL_OPEN = "fail_open"
    """Admitted since a URL could not be reached."""
    DENIED = "denied"
    FAULT = "fault"
    UNREACHABLE = "unreachable"


_REFUSED: Final = {
    Verdict.DENIED: Outcome.DENIED,
    Verdict.FAULT: Outcome.FAULT,
    Verdict.UNREACHABLE: Outcome.UNREACHABLE,
}


class Rules:
    """
    What follows from the answers.

    :param fail_open: whether a login passes the URLs while they cannot be reached.
    """

    def __init__(self, policy: Policy = Policy.ALL, *, fail_open: bool = True) -> None:
        self.policy = policy
        self.fail_open = fail_open

    def passes_open(self, kind: Kind, answer: Answer) -> bool:
        """Whether somebody passes a kind for lack of an answer."""
        return self.fail_open and kind is Kind.URL and answer.verdict is Verdict.UNREACHABLE

    def ends_login(self, kind: Kind, answer: Answer) -> bool:
        """Whether the other kinds need not be asked."""
        allowed = answer.verdict is Verdict.ALLOWED
        if self.policy is Policy.ANY:
            return allowed
        return not allowed and not self.passes_open(kind, answer)

    def judge_login(self, answers: Sequence[tuple[Kind, Answer]]) -> Login:
        """
        Decide on a login.

        Under ``any``, failing open is for those whom no other kind refused.

        :param answers: of each kind that was asked, in their order; at least one.
        """
        verdicts = {answer.verdict for _, answer in answers}
        opened = [self.passes_open(kind, answer) for kind, answer in answers]
        if self.policy is Policy.ANY:
            admitted = Verdict.ALLOWED in verdicts
            if not admitted and any(opened) and Verdict.DENIED not in verdicts:
                return Login(None, Outcome.FAIL_OPEN)
        else:
            admitted = all(
                answer.verdict is Verdict.ALLOWED or opens
                for (_, answer), opens in zip(answers, opened, strict=True)
            )
        if admitted:
            open_all = any(opened) and self.policy is Policy.ALL
            return Login(None, Outcome.FAIL_OPEN if open_all else Outcome.ADMITTED)
        refusing = [
            answer
            for (_, answer), opens in zip(answers, opened, strict=True)
            if answer.verdict is not Verdict.ALLOWED and not (opens and self.policy is Policy.ALL)
        ]
        worst = max(refusing, key=lambda answer: _BEST_FIRST.index(answer.verdict))
        return Login("; ".join(answer.reason for answer in refusing), _REFUSED[worst.verdict])

    def judge_connected(self, answers: Sequence[Answer]) -> Verdict:
        """
        Decide on a client that is connected.

        :param answers: of every kind, or of those up to one that refused.
        :return: ``DENIED`` only if it must not stay; ``UNREACHABLE`` if nobody knows.
        """
        verdicts = [answer.verdict for answer in answers]
        refused = Verdict.DENIED in verdicts
        allowed = all(verdict is Verdict.ALLOWED for verdict in verdicts)
        if self.policy is Policy.ANY:
            refused = all(verdict is Verdict.DENIED for verdict in verdicts)
            allowed = Verdict.ALLOWED in verdicts
        if allowed:
            return Verdict.ALLOWED
        return Verdict.DENIED if refused else Verdict.UNREACHABLE


class Strikes:
    """
    How often in a row a connected client was refused.

    Not knowing neither counts nor forgives.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def note(self, verdict: Verdict) -> bool:
        """Take note of a re-check; say whether the client must go."""
        if verdict is Verdict.ALLOWED:
            self.count = 0
        elif verdict is Verdict.DENIED:
            self.count += 1
        return self.count >= STRIKES


class AdmissionStats:
    """What is counted, as plain integers."""

    def __init__(self) -> None:
        self.answers = {(kind, verdict): 0 for kind in Kind for verdict in Verdict}
        """Of sources that were really asked."""
        self.logins = dict.fromkeys(Outcome, 0)
        """Mesh peers are not among them: nobody is asked about them."""
        self.cached = 0
        """Questions a fresh verdict answered."""
        self.stale = 0
        """Questions an old verdict answered since the source could not."""
        self.joined = 0
        """Questions that waited for the answer to the same one."""
        self.rechecks = dict.fromkeys(Verdict, 0)
        self.revoked = 0
        """Connections closed since their client is no longer admitted."""

    def count_answer(self, kind: Kind, answer: Answer) -> Answer:
        """Count what a source said."""
        self.answers[kind, answer.verdict] += 1
        return answer
