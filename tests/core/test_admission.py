"""Tests of :mod:`derp.core.admission`: what follows from the answers."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.admission import (
    ALLOWED,
    AdmissionStats,
    Answer,
    Kind,
    Outcome,
    Policy,
    Rules,
    Strikes,
    Verdict,
    best_of,
)

YES = ALLOWED
NO = Answer(Verdict.DENIED, "no")
BAD = Answer(Verdict.FAULT, "bad")
GONE = Answer(Verdict.UNREACHABLE, "gone")
ANSWERS = (YES, NO, BAD, GONE)


class KindTests(SynchronousTestCase):
    """:func:`derp.core.admission.best_of`: sources of one kind."""

    def test_any_admits(self) -> None:
        """One that admits is enough, whatever the others say."""
        for other in ANSWERS:
            self.assertIs(best_of([other, YES]), YES)
            self.assertIs(best_of([YES, other]), YES)

    def test_all_must_refuse(self) -> None:
        """Who was refused by one may be known to another that cannot be asked."""
        self.assertIs(best_of([NO, NO]), NO)
        for other in (BAD, GONE):
            self.assertIs(best_of([NO, other]), other)
        self.assertIs(best_of([BAD, GONE]), GONE)


class LoginTests(SynchronousTestCase):
    """:meth:`derp.core.admission.Rules.judge_login`."""

    def judge(self, rules: Rules, **answers: Answer) -> tuple[str | None, Outcome]:
        """Ask as an adapter does: in order, until the rest does not matter."""
        asked = []
        for kind in Kind:
            if kind.value in answers:
                asked.append((kind, answers[kind.value]))
                if rules.ends_login(*asked[-1]):
                    break
        login = rules.judge_login(asked)
        return login.refusal, login.outcome

    def test_one_source(self) -> None:
        """As derper: only an unreachable URL may be passed by."""
        outcomes = {YES: Outcome.ADMITTED, NO: Outcome.DENIED, BAD: Outcome.FAULT}
        for policy, fail_open, kind in product(Policy, (True, False), Kind):
            rules = Rules(policy, fail_open=fail_open)
            for answer, outcome in outcomes.items():
                judged = self.judge(rules, **{kind.value: answer})
                self.assertEqual(judged, (answer.reason or None, outcome))
            opens = fail_open and kind is Kind.URL
            expected = (None, Outcome.FAIL_OPEN) if opens else ("gone", Outcome.UNREACHABLE)
            self.assertEqual(self.judge(rules, **{kind.value: GONE}), expected)

    def test_all(self) -> None:
        """Each kind must admit; the first that does not is the reason."""
        rules = Rules(Policy.ALL)
        self.assertEqual(self.judge(rules, file=YES, socket=YES, url=YES)[0], None)
        self.assertEqual(self.judge(rules, file=NO, socket=BAD), ("no", Outcome.DENIED))
        self.assertEqual(self.judge(rules, socket=YES, url=NO), ("no", Outcome.DENIED))
        self.assertEqual(self.judge(rules, socket=YES, url=GONE), (None, Outcome.FAIL_OPEN))
        self.assertEqual(self.judge(rules, socket=GONE, url=YES), ("gone", Outcome.UNREACHABLE))

    def test_when_to_stop(self) -> None:
        """No more is asked than matters: under ``all`` up to a no, under ``any`` to a yes."""
        ends = Rules(Policy.ALL).ends_login
        self.assertFalse(ends(Kind.URL, YES) or ends(Kind.URL, GONE))
        self.assertTrue(ends(Kind.URL, NO) and ends(Kind.URL, BAD) and ends(Kind.SOCKET, GONE))
        self.assertTrue(Rules(Policy.ALL, fail_open=False).ends_login(Kind.URL, GONE))
        ends = Rules(Policy.ANY).ends_login
        self.assertEqual([ends(Kind.URL, answer) for answer in ANSWERS], [True] + [False] * 3)

    def test_any(self) -> None:
        """One kind that admits is enough; else all reasons are given."""
        rules = Rules(Policy.ANY, fail_open=False)
        self.assertEqual(self.judge(rules, file=NO, url=YES), (None, Outcome.ADMITTED))
        self.assertEqual(self.judge(rules, file=YES, url=NO), (None, Outcome.ADMITTED))
        self.assertEqual(self.judge(rules, file=NO, url=GONE), ("no; gone", Outcome.DENIED))

    def test_any_opens_for_nobody_refused(self) -> None:
        """Failing open does not overrule another kind's no."""
        rules = Rules(Policy.ANY, fail_open=True)
        self.assertEqual(self.judge(rules, file=NO, url=GONE), ("no; gone", Outcome.DENIED))
        self.assertEqual(self.judge(rules, socket=GONE, url=GONE), (None, Outcome.FAIL_OPEN))
        self.assertEqual(self.judge(rules, socket=YES, url=GONE), (None, Outcome.ADMITTED))

    @given(
        st.sampled_from(Policy),
        st.booleans(),
        st.dictionaries(
            st.sampled_from([k.value for k in Kind]), st.sampled_from(ANSWERS), min_size=1
        ),
    )
    def test_sound(self, policy: Policy, fail_open: bool, answers: dict[str, Answer]) -> None:
        """Nobody gets in whom no kind admits, but for failing open; a refusal has a reason."""
        refusal, outcome = self.judge(Rules(policy, fail_open=fail_open), **answers)
        admitted = outcome in (Outcome.ADMITTED, Outcome.FAIL_OPEN)
        self.assertEqual(refusal is None, admitted)
        self.assertNotEqual(refusal, "")
        if policy is Policy.ALL and NO in answers.values():
            self.assertFalse(admitted)
        if YES not in answers.values() and admitted:
            self.assertTrue(fail_open and answers.get("url") is GONE)


class ConnectedTests(SynchronousTestCase):
    """:meth:`derp.core.admission.Rules.judge_connected`."""

    def test_all(self) -> None:
        """One refusal is one, whatever else cannot be asked."""
        judge = Rules(Policy.ALL).judge_connected
        self.assertIs(judge([YES, YES]), Verdict.ALLOWED)
        for other in ANSWERS:
            self.assertIs(judge([other, NO]), Verdict.DENIED)
        for doubt in (BAD, GONE):
            self.assertIs(judge([YES, doubt]), Verdict.UNREACHABLE)

    def test_any(self) -> None:
        """Everybody must refuse."""
        judge = Rules(Policy.ANY).judge_connected
        self.assertIs(judge([NO, NO]), Verdict.DENIED)
        self.assertIs(judge([NO, YES]), Verdict.ALLOWED)
        for doubt in (BAD, GONE):
            self.assertIs(judge([NO, doubt]), Verdict.UNREACHABLE)


class StrikesTests(SynchronousTestCase):
    """:class:`derp.core.admission.Strikes`."""

    def run_of(self, *verdicts: Verdict) -> bool:
        strikes = Strikes()
        return [strikes.note(verdict) for verdict in verdicts][-1]

    def test_two_in_a_row(self) -> None:
        """One refusal may be a mistake; one that was taken back was."""
        denied, allowed, gone = Verdict.DENIED, Verdict.ALLOWED, Verdict.UNREACHABLE
        self.assertFalse(self.run_of(denied))
        self.assertTrue(self.run_of(denied, denied))
        self.assertFalse(self.run_of(denied, allowed, denied))
        self.assertFalse(self.run_of(*[gone] * 50))
        self.assertTrue(self.run_of(denied, gone, denied))


class StatsTests(SynchronousTestCase):
    """:class:`derp.core.admission.AdmissionStats`."""

    def test_count(self) -> None:
        """An answer is counted under its kind and verdict, and handed on."""
        stats = AdmissionStats()
        self.assertIs(stats.count_answer(Kind.URL, NO), NO)
        counted = {key: count for key, count in stats.answers.items() if count}
        self.assertEqual(counted, {(Kind.URL, Verdict.DENIED): 1})
