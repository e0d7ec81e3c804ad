"""Tests of :mod:`derp.core.alert_state`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.alert_state import AlertBook, AlertRule, AlertState, Change, Notice

INTERVAL = 15.0
RULE = AlertRule(failures=2, successes=2, repeat_s=3600)


def told(runs: str, rule: AlertRule = RULE, interval: float = INTERVAL) -> list[tuple[int, Change]]:
    """What is told in the course of runs, ``x`` failing and ``.`` not, by the run's number."""
    state = AlertState(rule)
    changes = []
    for number, run in enumerate(runs):
        at = number * interval
        change = state.observe(succeeded=run == ".", now=at, reason=f"reason {number}")
        if change is not None:
            changes.append((number, change))
    return changes


class HysteresisTests(SynchronousTestCase):
    """A change has to last."""

    def test_fires(self) -> None:
        """The second failure in a row is told, the third is not."""
        self.assertEqual(told("..xxx"), [(3, Change.FIRING)])

    def test_one_failure(self) -> None:
        """One failure between successes is not told."""
        self.assertEqual(told("..x...x..."), [])

    def test_resolved(self) -> None:
        """The second success in a row is told; one alone is not."""
        self.assertEqual(told("xx.x..x"), [(1, Change.FIRING), (5, Change.RESOLVED)])

    def test_failing_from_the_start(self) -> None:
        """What never worked is told like everything else."""
        self.assertEqual(told("xx"), [(1, Change.FIRING)])

    def test_numbers_of_the_rule(self) -> None:
        """How many failures and successes it takes is the rule's."""
        rule = AlertRule(failures=3, successes=1)
        self.assertEqual(told("xxx.", rule), [(2, Change.FIRING), (3, Change.RESOLVED)])
        self.assertEqual(told("x", AlertRule(failures=1)), [(0, Change.FIRING)])

    def test_since(self) -> None:
        """An alert began with the first failure of the row."""
        book = AlertBook(RULE)
        for number, succeeded in enumerate((False, True, False, False)):
            notice = book.observe("a", succeeded=succeeded, now=number * INTERVAL, reason="no")
        self.assertEqual(
            notice,
            Notice(change=Change.FIRING, name="a", since=30.0, at=45.0, reason="no"),
        )

    def test_repeated(self) -> None:
        """What goes on failing is told again every repeat interval, and not in between."""
        runs = told("x" * (2 + 480), AlertRule(repeat_s=3600))
        kinds = [(1, Change.FIRING), (241, Change.REPEATED), (481, Change.REPEATED)]
        self.assertEqual(runs, kinds)

    def test_clock_set_back(self) -> None:
        """A clock that was set back by a day does not silence repeats for a day."""
        state = AlertState(AlertRule(repeat_s=60))
        for at in (100_000.0, 100_015.0):
            state.observe(succeeded=False, now=at)
        self.assertIsNone(state.observe(succeeded=False, now=10_000.0))
        self.assertIs(state.observe(succeeded=False, now=10_060.0), Change.REPEATED)


class FlapTests(SynchronousTestCase):
    """What comes and goes is told, but not each time."""

    def test_every_second_run_fails(self) -> None:
        """Half of the runs failing is told, though there never are two in a row."""
        self.assertEqual(told("x." * 100), [(8, Change.FIRING)])

    def test_flapping_is_marked(self) -> None:
        """The notice says so."""
        book = AlertBook(RULE)
        notices = [
            book.observe("a", succeeded=bool(number % 2), now=number * INTERVAL)
            for number in range(10)
        ]
        self.assertEqual([each.flapping for each in notices if each], [True])

    def test_comes_and_goes(self) -> None:
        """At the fourth time within an hour it is told for a last time, until it is calm."""
        changes = told("xx..." * 40 + "." * 100)
        kinds = [kind for _, kind in changes]
        pair = [Change.FIRING, Change.RESOLVED]
        self.assertEqual(kinds, pair * 4)
        resolved_at, _ = changes[-1]
        last_failure = 39 * 5 + 1
        self.assertEqual(resolved_at, last_failure + 1 + RULE.calm_s / INTERVAL)

    def test_slowly(self) -> None:
        """Four times in many hours is no flapping."""
        hours = "xx" + "." * 478
        changes = told(hours * 6)
        self.assertEqual(len(changes), 12)
        self.assertEqual(changes[-1], (5 * 480 + 3, Change.RESOLVED))

    def test_begins_anew(self) -> None:
        """After it was calm the next failures are told at once, and resolved at once."""
        calm = "." * 200
        changes = told("xx..." * 4 + calm + "xx..")
        self.assertEqual([kind for _, kind in changes[-2:]], [Change.FIRING, Change.RESOLVED])

    def test_forgotten_when_calm(self) -> None:
        """What failed before it was calm does not count any more, however few runs there were."""
        changes = told("x." * 5 + "." + "x..", AlertRule(calm_s=900), interval=1000)
        self.assertEqual([kind for _, kind in changes], [Change.FIRING, Change.RESOLVED])

    @given(st.text("x.", max_size=300), st.integers(1, 4), st.integers(1, 4))
    def test_turns(self, runs: str, failures: int, successes: int) -> None:
        """Whatever comes: firing and resolved take turns, and at most five pairs an hour."""
        rule = AlertRule(failures=failures, successes=successes, repeat_s=1e9)
        changes = [kind for _, kind in told(runs, rule)]
        self.assertEqual(changes, ([Change.FIRING, Change.RESOLVED] * len(changes))[: len(changes)])
        hours = len(runs) * INTERVAL / 3600
        self.assertLessEqual(len(changes), 10 * (hours + 1))


class BookTests(SynchronousTestCase):
    """All probes together."""

    def setUp(self) -> None:
        """Begin with a probe that fails."""
        self.book = AlertBook(RULE)
        for at in (0.0, 15.0):
            self.notice = self.book.observe("a", succeeded=False, now=at, reason="no")

    def test_apart(self) -> None:
        """A failure of each of two probes is not two of one."""
        self.assertIsNone(self.book.observe("b", succeeded=False, now=30.0))
        self.assertEqual(list(self.book.firing()), ["a"])

    def test_forgotten(self) -> None:
        """An alert of what is not probed any more ends, and nothing is kept."""
        notice = self.book.forget("a", 60.0)
        assert notice is not None
        self.assertEqual((notice.change, notice.gone), (Change.RESOLVED, True))
        self.assertEqual(self.book._states, {})
        self.assertIsNone(self.book.forget("a", 75.0))

    def test_forgotten_well(self) -> None:
        """That a healthy probe is gone is nobody's concern."""
        self.book.observe("b", succeeded=True, now=0.0)
        self.assertIsNone(self.book.forget("b", 1.0))

    def test_untold(self) -> None:
        """What could not be delivered is told at the next failure."""
        self.book.untold("a")
        self.book.untold("no such probe")
        notice = self.book.observe("a", succeeded=False, now=30.0, reason="no")
        assert notice is not None
        self.assertIs(notice.change, Change.REPEATED)

    def restarted(self) -> AlertBook:
        assert self.notice is not None
        book = AlertBook(RULE)
        book.restore({"a": AlertState.told(self.notice)})
        return book

    def test_restart_while_failing(self) -> None:
        """After a restart the same failure is not told again before the repeat interval."""
        book = self.restarted()
        for at in (100.0, 115.0, 130.0):
            self.assertIsNone(book.observe("a", succeeded=False, now=at))
        notice = book.observe("a", succeeded=False, now=15.0 + RULE.repeat_s)
        assert notice is not None
        self.assertEqual((notice.change, notice.since), (Change.REPEATED, 0.0))

    def test_restart_after_recovery(self) -> None:
        """What has recovered during a restart is told."""
        book = self.restarted()
        self.assertIsNone(book.observe("a", succeeded=True, now=100.0))
        notice = book.observe("a", succeeded=True, now=115.0)
        assert notice is not None
        self.assertIs(notice.change, Change.RESOLVED)

    def test_bad_restore(self) -> None:
        """What was not saved by us is refused whole."""
        for bad in ({"b": {}}, {"b": None}, {"b": {"since": "x"}}, {"b": []}):
            with self.assertRaises(ValueError):
                self.book.restore(bad)
        self.assertEqual(list(self.book.firing()), ["a"])
