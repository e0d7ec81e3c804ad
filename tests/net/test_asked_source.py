"""Tests of :mod:`derp.net.asked_source`: how often somebody is asked."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from derp.core.admission import ALLOWED, AdmissionStats, Answer, Kind, Question, Verdict
from derp.core.verdict_cache import FRESH_S, STALE_S
from derp.net import asked_source
from derp.net.asked_source import AT_ONCE, SELDOM_S, TIMEOUT_S, AskedSource
from derp.wire.keys import format_node_public

NO = Answer(Verdict.DENIED, "no")
BAD = Answer(Verdict.FAULT, "bad")
GONE = Answer(Verdict.UNREACHABLE, "gone")


def who(number: int = 1, ip: str = "192.0.2.1") -> Question:
    return Question(number.to_bytes(32, "big"), ip)


class FakeSource:
    """Is asked, and answers when the test says."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.label = "the oracle"
        self.asked: list[tuple[Question, bool]] = []
        self.open: list[Deferred[Answer]] = []
        self.closed = False

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        self.asked.append((question, recheck))
        answer: Deferred[Answer] = Deferred(lambda it: it.callback(GONE))
        self.open.append(answer)
        return answer

    def answer(self, answer: Answer) -> None:
        self.open.pop(0).callback(answer)

    def expire(self) -> None:
        """Keeps nothing."""

    def close(self) -> None:
        self.closed = True


class AskedSourceTests(SynchronousTestCase):
    """:class:`derp.net.asked_source.AskedSource`."""

    def setUp(self) -> None:
        self.make(Kind.URL)

    def make(self, kind: Kind) -> None:
        self.fake = FakeSource(kind)
        self.clock = Clock()
        self.clock.advance(1000)
        self.stats = AdmissionStats()
        self.source = AskedSource(self.fake, self.stats, self.clock)

    def say(self, answer: Answer, question: Question | None = None) -> Answer:
        """Ask and answer at once."""
        asked = self.source.ask(question or who())
        self.fake.answer(answer)
        return self.successResultOf(asked)

    def test_fresh(self) -> None:
        """What was said just now is not asked again, then it is."""
        for verdict in (ALLOWED, NO):
            self.make(Kind.URL)
            self.say(verdict)
            self.assertIs(self.successResultOf(self.source.ask(who())), verdict)
            self.assertEqual((len(self.fake.asked), self.stats.cached), (1, 1))
            self.clock.advance(FRESH_S[verdict.verdict])
            self.assertIs(self.say(NO), NO)
            self.assertEqual(len(self.fake.asked), 2)

    def test_errors_are_not_kept(self) -> None:
        """A source that recovers is asked at once."""
        for answer in (BAD, GONE):
            self.assertIs(self.say(answer), answer)
        self.assertIs(self.say(ALLOWED), ALLOWED)

    def test_stale(self) -> None:
        """While nobody answers, what was said before stands; a broken answer is one."""
        for said in (ALLOWED, NO):
            self.make(Kind.URL)
            self.say(said)
            self.clock.advance(STALE_S - 1)
            self.assertIs(self.say(BAD), BAD)
            self.assertIs(self.say(GONE), said)
            self.assertEqual(self.stats.stale, 1)
            self.clock.advance(1)
            self.assertIs(self.say(GONE), GONE)

    def test_log(self) -> None:
        """It is told once that nobody answers, what it means, and once when somebody does again."""
        with capturedLogs() as events:
            for answer in (ALLOWED, GONE, GONE, BAD, NO, GONE):
                self.clock.advance(STALE_S)
                self.say(answer)
        gone = "admission: the oracle (--verify-client-url) cannot be reached: gone; "
        bad = "admission: the oracle (--verify-client-url) answers, but not what it is asked: bad; "
        refused = "who needs its yes is refused meanwhile; who is connected stays"
        back = "admission: the oracle answers again"
        self.assertEqual(
            [formatEvent(event) for event in events],
            [gone + refused, bad + refused, back, gone + refused],
        )

    def test_log_of_fail_open(self) -> None:
        """That strangers are admitted is said; of a broken answer that is not so."""
        self.source = AskedSource(self.fake, self.stats, self.clock, fails_open=True)
        with capturedLogs() as events:
            for answer in (GONE, BAD):
                self.clock.advance(STALE_S)
                self.say(answer)
        gone, bad = map(formatEvent, events)
        self.assertTrue(gone.endswith("is admitted meanwhile (--verify-client-url-fail-open)"))
        self.assertTrue(bad.endswith("who is connected stays"))

    def test_log_names_no_client(self) -> None:
        """What is wrong with a source is no matter of the client it was asked about."""
        name = format_node_public(who().key)
        with capturedLogs() as events:
            self.say(Answer(Verdict.FAULT, f"failed to query for {name}: 403 Forbidden"))
        self.assertIn(": failed to query: 403 Forbidden; ", str(formatEvent(events[0])))

    def test_log_of_flapping(self) -> None:
        """Trouble that comes and goes fills no log; trouble that stays is told in the end."""
        with capturedLogs() as events:
            for number in range(20):
                self.say(BAD)
                self.say(NO, who(10 + number))
                self.clock.advance(2)
            self.assertEqual(len(events), 2 * 40 / SELDOM_S)
            for _ in range(20):
                self.say(BAD)
                self.clock.advance(2)
        self.assertEqual(len(events), 2 * 40 / SELDOM_S + 1)

    def test_recheck(self) -> None:
        """A re-check is asked whatever is known, is never answered stale, and is remembered."""
        self.say(ALLOWED)
        asked = self.source.ask(who(), recheck=True)
        self.fake.answer(GONE)
        self.assertIs(self.successResultOf(asked), GONE)
        asked = self.source.ask(who(), recheck=True)
        self.fake.answer(NO)
        self.assertIs(self.successResultOf(asked), NO)
        self.assertIs(self.successResultOf(self.source.ask(who())), NO)
        self.assertEqual([recheck for _, recheck in self.fake.asked], [False, True, True])

    def test_single_flight(self) -> None:
        """The same question is on its way once; who gives up does not disturb the others."""
        asked = [self.source.ask(who()) for _ in range(3)]
        other = self.source.ask(who(2))
        self.assertEqual((len(self.fake.asked), self.source.asking, self.stats.joined), (2, 2, 2))
        asked[0].cancel()
        self.failureResultOf(asked[0])
        self.fake.answer(ALLOWED)
        self.assertEqual([self.successResultOf(each) for each in asked[1:]], [ALLOWED, ALLOWED])
        self.assertNoResult(other)
        self.fake.answer(NO)
        self.assertIs(self.successResultOf(other), NO)
        self.assertEqual(self.source.asking, 0)

    def test_place(self) -> None:
        """Where from matters to a URL, and not to tailscaled."""
        for kind, asked in ((Kind.URL, 2), (Kind.SOCKET, 1)):
            self.make(kind)
            self.say(ALLOWED, who(1, "192.0.2.1"))
            self.source.ask(who(1, "192.0.2.2"))
            self.assertEqual(len(self.fake.asked), asked)

    def test_crowd(self) -> None:
        """Only so many are asked at once, so many wait, and the rest is refused for good."""
        self.patch(asked_source, "MAX_WAITING", 10)
        asked = [self.source.ask(who(number)) for number in range(AT_ONCE + 12)]
        self.assertEqual(len(self.fake.asked), AT_ONCE)
        for refused in asked[-2:]:
            self.assertIs(self.successResultOf(refused).verdict, Verdict.FAULT)
        while self.fake.open:
            self.fake.answer(ALLOWED)
        self.assertEqual(len(self.fake.asked), AT_ONCE + 10)
        for admitted in asked[:-2]:
            self.assertIs(self.successResultOf(admitted), ALLOWED)
        counted = {verdict: n for (_, verdict), n in self.stats.answers.items() if n}
        self.assertEqual(counted, {Verdict.ALLOWED: AT_ONCE + 10, Verdict.FAULT: 2})

    def test_no_turn(self) -> None:
        """Who does not get a turn in time is told that nobody answered, as who got one."""
        for number in range(AT_ONCE):
            self.source.ask(who(number))
        late = self.source.ask(who(AT_ONCE))
        self.clock.advance(TIMEOUT_S)
        self.assertIs(self.successResultOf(late).verdict, Verdict.UNREACHABLE)
        self.assertEqual(self.source.asking, 0)
        self.fake.open.clear()
        self.assertIs(self.say(ALLOWED), ALLOWED)
        self.clock.advance(TIMEOUT_S)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_time(self) -> None:
        """Whom a crowd leaves no time is refused, not admitted as if nobody answered."""
        crowd = [self.source.ask(who(number)) for number in range(2 * AT_ONCE + 1)]
        self.clock.advance(TIMEOUT_S - 1)
        for _ in range(AT_ONCE):
            self.fake.answer(ALLOWED)
        self.clock.advance(1)
        self.assertEqual(self.source.asking, 0)
        verdicts = [self.successResultOf(each).verdict for each in crowd]
        self.assertEqual(verdicts[:AT_ONCE], [Verdict.ALLOWED] * AT_ONCE)
        self.assertEqual(verdicts[AT_ONCE:], [Verdict.FAULT] * (AT_ONCE + 1))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_admitted_lately(self) -> None:
        """Who comes back among too many others is judged by what was said before."""
        self.patch(asked_source, "MAX_WAITING", 1)
        self.say(ALLOWED, who(1))
        self.say(NO, who(2))
        self.clock.advance(60)
        for number in range(AT_ONCE + 1):
            self.source.ask(who(100 + number))
        said = [self.successResultOf(self.source.ask(who(number))) for number in (1, 2, 3)]
        self.assertEqual(said[:2], [ALLOWED, NO])
        self.assertIs(said[2].verdict, Verdict.FAULT)
        self.assertEqual(self.stats.stale, 2)

    def test_expire(self) -> None:
        """After a change everything is asked again; an answer from before is not kept."""
        self.say(ALLOWED)
        before = self.source.ask(who(2))
        self.source.expire()
        self.clock.advance(1)
        joined = self.source.ask(who(2))
        self.assertEqual(len(self.fake.asked), 3)
        self.fake.answer(ALLOWED)
        self.assertIs(self.successResultOf(before), ALLOWED)
        self.assertNoResult(joined)
        self.fake.answer(NO)
        self.assertIs(self.successResultOf(joined), NO)
        self.assertIs(self.successResultOf(self.source.ask(who(2))), NO)
        self.assertIs(self.say(NO), NO)

    def test_bug(self) -> None:
        """An exception of ours is logged, refuses this one login, and leaves the turn free."""
        self.fake.ask = lambda *_, **__: fail(ZeroDivisionError("x"))  # type: ignore[method-assign]
        answer = self.successResultOf(self.source.ask(who()))
        self.assertIs(answer.verdict, Verdict.FAULT)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.fake.ask = lambda *_, **__: succeed(ALLOWED)  # type: ignore[method-assign]
        self.assertIs(self.successResultOf(self.source.ask(who())), ALLOWED)

    def test_close(self) -> None:
        """The end refuses who still waits, whatever is open to fail, and logs nothing."""
        asked = [self.source.ask(who(number)) for number in range(AT_ONCE + 3)]
        self.source.close()
        self.assertTrue(self.fake.closed)
        for each in asked:
            self.assertIs(self.successResultOf(each).verdict, Verdict.FAULT)
        self.assertEqual(self.source.asking, 0)
