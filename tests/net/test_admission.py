"""Tests of :mod:`derp.net.admission`: who is asked, and when the answer is enough."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from derp.core.admission import (
    ALLOWED,
    AdmissionStats,
    Answer,
    Kind,
    Outcome,
    Policy,
    Question,
    Rules,
    Verdict,
)
from derp.core.connection import RemoteAddress
from derp.core.session import LoginRequest
from derp.net.admission import Admission
from derp.wire.handshake import ClientInfo

KEY = bytes([7]) * 32
NO = Answer(Verdict.DENIED, "no")
GONE = Answer(Verdict.UNREACHABLE, "gone")
REMOTE = RemoteAddress(ip_address("2001:db8::1"), 4711)


class FakeSource:
    """Answers when the test says."""

    def __init__(self, kind: Kind) -> None:
        self.kind = self.label = kind
        self.asked: list[tuple[Question, bool]] = []
        self.open: list[Deferred[Answer]] = []
        self.expired = 0

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        self.asked.append((question, recheck))
        self.open.append(Deferred())
        return self.open[-1]

    def answer(self, answer: Answer) -> None:
        self.open.pop(0).callback(answer)

    def expire(self) -> None:
        self.expired += 1

    def close(self) -> None:
        """Nothing is open."""


class AdmissionTests(SynchronousTestCase):
    """:class:`derp.net.admission.Admission`."""

    def make(self, *kinds: Kind, policy: Policy = Policy.ALL) -> Admission:
        self.sources = [FakeSource(kind) for kind in kinds]
        return Admission(Rules(policy), self.sources, AdmissionStats())

    def login(self, admission: Admission) -> Deferred[str | None]:
        return admission(LoginRequest(KEY, ClientInfo(), REMOTE, False))

    def asked(self) -> list[int]:
        return [len(source.asked) for source in self.sources]

    def test_question(self) -> None:
        """The address without its port; nothing if there is none."""
        admission = self.make(Kind.URL)
        self.login(admission)
        admission(LoginRequest(KEY, ClientInfo(), RemoteAddress(), False))
        self.assertEqual(
            self.sources[0].asked,
            [(Question(KEY, "2001:db8::1"), False), (Question(KEY, ""), False)],
        )

    def test_order(self) -> None:
        """File, then tailscaled, then URL, however they were given, and no more than needed."""
        admission = self.make(Kind.URL, Kind.SOCKET, Kind.FILE)
        login = self.login(admission)
        self.assertEqual(self.asked(), [0, 0, 1])
        self.sources[2].answer(ALLOWED)
        self.assertEqual(self.asked(), [0, 1, 1])
        self.sources[1].answer(NO)
        self.assertEqual(self.successResultOf(login), "no")
        self.assertEqual(self.asked(), [0, 1, 1])
        self.assertEqual(admission.stats.logins[Outcome.DENIED], 1)

    def test_alternatives(self) -> None:
        """Several of a kind are asked at once, and the first that admits is enough."""
        admission = self.make(Kind.SOCKET, Kind.SOCKET, Kind.SOCKET)
        login = self.login(admission)
        self.assertEqual(self.asked(), [1, 1, 1])
        self.sources[1].answer(NO)
        self.assertNoResult(login)
        self.sources[2].answer(ALLOWED)
        self.assertIsNone(self.successResultOf(login))
        self.sources[0].answer(GONE)
        self.assertEqual(sum(admission.stats.logins.values()), 1)

    def test_change_meanwhile(self) -> None:
        """What changes while a login is on its way counts for it."""
        admission = self.make(Kind.FILE, Kind.URL)
        login = self.login(admission)
        self.sources[0].answer(ALLOWED)
        admission.expire()
        self.sources[1].answer(ALLOWED)
        self.assertNoResult(login)
        self.sources[0].answer(NO)
        self.assertEqual(self.successResultOf(login), "no")
        self.assertEqual([source.expired for source in self.sources], [1, 1])
        self.assertEqual(sum(admission.stats.logins.values()), 1)

    def test_given_up(self) -> None:
        """A client that leaves is counted nowhere, and whom it asked may answer late."""
        admission = self.make(Kind.URL)
        login = self.login(admission)
        login.cancel()
        self.failureResultOf(login)
        self.sources[0].answer(ALLOWED)
        self.assertEqual(sum(admission.stats.logins.values()), 0)

    def test_recheck(self) -> None:
        """Of a connected client every kind is asked, past what is in doubt."""
        admission = self.make(Kind.FILE, Kind.URL)
        checked = admission.recheck(KEY, REMOTE)
        self.sources[0].answer(GONE)
        self.sources[1].answer(NO)
        self.assertIs(self.successResultOf(checked), Verdict.DENIED)
        self.assertEqual(self.sources[1].asked, [(Question(KEY, "2001:db8::1"), True)])
        self.assertEqual(admission.stats.rechecks[Verdict.DENIED], 1)
