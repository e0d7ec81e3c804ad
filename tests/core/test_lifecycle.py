"""Tests of :mod:`derp.core.lifecycle`."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from derp.core.lifecycle import TRANSITIONS, Event, Lifecycle, Phase, Unfit, always_ready


class PhaseTests(SynchronousTestCase):
    """The table of the module's docstring."""

    def test_table(self) -> None:
        """Every combination does what the table says, or is refused and changes nothing."""
        for phase, event in product(Phase, Event):
            lifecycle = Lifecycle()
            lifecycle.phase = phase
            follows = TRANSITIONS[phase].get(event)
            if follows is None:
                self.assertRaises(ValueError, lifecycle.enter, event)
                self.assertIs(lifecycle.phase, phase)
            else:
                lifecycle.enter(event)
                self.assertIs(lifecycle.phase, follows)

    def test_life(self) -> None:
        """A whole life: the word at each step, and who is told."""
        lifecycle = Lifecycle()
        heard: list[str] = []
        lifecycle.when_changed(lambda: heard.append(lifecycle.word))
        self.assertEqual(lifecycle.word, "starting")
        for event in (Event.STARTED, Event.DRAIN, Event.DRAIN, Event.STOP, Event.STOP, Event.DRAIN):
            lifecycle.enter(event)
        self.assertEqual(heard, ["ready", "draining", "stopped"])

    def test_measurable_only_while_ready(self) -> None:
        """Neither before nor after, so that clients settle elsewhere."""
        measurable = []
        for phase in Phase:
            lifecycle = Lifecycle()
            lifecycle.phase = phase
            self.assertEqual(lifecycle.is_ready, lifecycle.is_measurable)
            if lifecycle.is_measurable:
                measurable.append(phase)
        self.assertEqual(measurable, [Phase.READY])


class UnfitTests(SynchronousTestCase):
    """Reasons against a relay that serves."""

    def test_oldest_is_told(self) -> None:
        """One word, the first trouble's; when it is over, the next one's."""
        lifecycle = always_ready()
        lifecycle.note(Unfit.OVERLOAD, True)
        lifecycle.note(Unfit.QUOTA, True)
        self.assertEqual((lifecycle.word, lifecycle.is_ready), ("overloaded", False))
        lifecycle.note(Unfit.OVERLOAD, False)
        self.assertEqual((lifecycle.word, lifecycle.is_ready), ("over quota", False))
        lifecycle.note(Unfit.QUOTA, False)
        self.assertEqual((lifecycle.word, lifecycle.is_ready), ("ready", True))

    def test_said_again(self) -> None:
        """Counts and listeners see beginnings and ends only."""
        lifecycle = always_ready()
        heard: list[str] = []
        lifecycle.when_changed(lambda: heard.append(lifecycle.word))
        for holds in (False, True, True, False, False, True):
            lifecycle.note(Unfit.CERTIFICATE, holds)
        self.assertEqual(heard, ["certificate invalid", "ready", "certificate invalid"])
        self.assertEqual(lifecycle.unfit_counts[Unfit.CERTIFICATE], 2)
        self.assertEqual(lifecycle.unfit_counts[Unfit.QUOTA], 0)

    def test_phase_comes_first(self) -> None:
        """A relay that drains says so, whatever else ails it."""
        lifecycle = Lifecycle()
        lifecycle.note(Unfit.QUOTA, True)
        self.assertEqual(lifecycle.word, "starting")
        lifecycle.enter(Event.STARTED)
        self.assertEqual(lifecycle.word, "over quota")
        lifecycle.enter(Event.DRAIN)
        self.assertEqual(lifecycle.word, "draining")

    def test_stun(self) -> None:
        """An unfit relay is measurable, unless STUN is to follow."""
        for follows in (False, True):
            lifecycle = Lifecycle(stun_follows_readiness=follows)
            lifecycle.enter(Event.STARTED)
            self.assertTrue(lifecycle.is_measurable)
            lifecycle.note(Unfit.CERTIFICATE, True)
            self.assertEqual(lifecycle.is_measurable, not follows)
            lifecycle.note(Unfit.CERTIFICATE, False)
            self.assertTrue(lifecycle.is_measurable)
