"""Tests of :mod:`derp.net.outcome`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.net.outcome import Outcome


class OutcomeTests(SynchronousTestCase):
    """Once settled, settled for all."""

    def test_value(self) -> None:
        """Those who asked before and those who ask after get the value, even a false one."""
        for value in ("result", "", None, 0):
            outcome: Outcome[object] = Outcome()
            before = [outcome.when(), outcome.when()]
            self.assertFalse(outcome.settled)
            outcome.succeed(value)
            self.assertTrue(outcome.settled)
            for waiting in (*before, outcome.when()):
                self.assertEqual(self.successResultOf(waiting), value)

    def test_error(self) -> None:
        """An error goes to all, and to nobody if nobody asked."""
        outcome: Outcome[int] = Outcome()
        before = outcome.when()
        outcome.fail(KeyError("x"))
        self.failureResultOf(before, KeyError)
        self.failureResultOf(outcome.when(), KeyError)
        Outcome().fail(KeyError("y"))

    def test_first_counts(self) -> None:
        """What comes later changes nothing."""
        outcome: Outcome[int] = Outcome()
        outcome.succeed(1)
        outcome.succeed(2)
        outcome.fail(KeyError())
        self.assertEqual(self.successResultOf(outcome.when()), 1)

    def test_cancel(self) -> None:
        """Who no longer waits disturbs nobody."""
        outcome: Outcome[int] = Outcome()
        impatient, patient = outcome.when(), outcome.when()
        impatient.cancel()
        outcome.succeed(1)
        self.failureResultOf(impatient)
        self.assertEqual(self.successResultOf(patient), 1)
