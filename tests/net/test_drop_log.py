"""Tests for :mod:`derp.net.drop_log`."""

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.config import DebugKnobs
from derp.core.stats import DropReason, PacketKind
from derp.net.drop_log import TRACKED, DropLog, drop_listener, log_drop
from derp.wire.keys import format_node_public, short_key
from tests.core.fakes import public_key

ALICE, BOB, CAROL = map(public_key, ("alice", "bob", "carol"))
OTHER = PacketKind.OTHER


class DropLogTests(SynchronousTestCase):
    """Five equal lines at once, one more every thirty seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.drops = DropLog(frozenset([BOB, CAROL]), self.clock.seconds)

    def lines(self, times: int, *drop: object, drops: DropLog | None = None) -> list[str]:
        """Drop so many packets; return what is logged."""
        with capturedLogs() as logs:
            for _ in range(times):
                (drops or self.drops)(*drop)  # type: ignore[arg-type]
        for event in logs:
            self.assertEqual(event["log_namespace"], "derp")
        return [event["log_format"].format(**event) for event in logs]

    def test_line(self) -> None:
        """A line says who to whom, and why."""
        self.assertEqual(
            self.lines(1, DropReason.QUEUE_HEAD, OTHER, ALICE, BOB),
            [f"drop ({short_key(ALICE)}) queue_head -> {short_key(BOB)}"],
        )

    def test_only_listed(self) -> None:
        """Drops to other keys are not logged."""
        self.assertEqual(self.lines(3, DropReason.QUEUE_HEAD, OTHER, BOB, ALICE), [])

    def test_rate(self) -> None:
        """A burst of five, then one per thirty seconds, saved up to five again."""
        drop = (DropReason.QUEUE_HEAD, OTHER, ALICE, BOB)
        self.assertEqual(len(self.lines(10, *drop)), 5)
        for waited, allowed in ((29.9, 0), (0.1, 1), (30, 1), (60, 2), (1000, 5)):
            self.clock.advance(waited)
            self.assertEqual(len(self.lines(10, *drop)), allowed, waited)

    def test_lines_do_not_share(self) -> None:
        """Each distinct line has a rate of its own."""
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, OTHER, ALICE, BOB)), 5)
        self.assertEqual(len(self.lines(10, DropReason.UNKNOWN_DEST, OTHER, ALICE, BOB)), 5)
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, OTHER, ALICE, CAROL)), 5)
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, OTHER, CAROL, BOB)), 5)
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, OTHER, ALICE, BOB)), 0)

    def test_bounded(self) -> None:
        """A hundred lines are tracked; the one not seen for longest is forgotten first."""
        first = (DropReason.QUEUE_HEAD, OTHER, public_key("0"), BOB)
        second = (DropReason.QUEUE_HEAD, OTHER, public_key("1"), BOB)
        for n in range(TRACKED):
            self.lines(6, DropReason.QUEUE_HEAD, OTHER, public_key(str(n)), BOB)
        self.assertEqual(len(self.lines(1, *first)), 0)
        self.lines(1, DropReason.QUEUE_HEAD, OTHER, public_key("one more"), BOB)
        self.assertEqual(len(self.drops._buckets), TRACKED)
        self.assertEqual(len(self.lines(1, *first)), 0)
        self.assertEqual(len(self.lines(1, *second)), 1)

    def test_unlimited(self) -> None:
        """``TS_DEBUG_LOG_RATE=all`` logs every one."""
        drops = DropLog(frozenset([BOB]), self.clock.seconds, unlimited=True)
        self.assertEqual(
            len(self.lines(50, DropReason.QUEUE_HEAD, OTHER, ALICE, BOB, drops=drops)), 50
        )


class DropListenerTests(SynchronousTestCase):
    """What the environment asks for."""

    def lines(self, **knobs: Any) -> list[str]:
        """What is logged of one drop to Bob and one to Carol."""
        listener = drop_listener(DebugKnobs(**knobs), Clock().seconds)
        assert listener is not None
        with capturedLogs() as logs:
            listener(DropReason.QUEUE_TAIL, PacketKind.DISCO, ALICE, BOB)
            listener(DropReason.UNKNOWN_DEST, OTHER, ALICE, CAROL)
        return [event["log_format"].format(**event) for event in logs]

    def test_nothing(self) -> None:
        """Without a variable nobody is told of drops."""
        self.assertIsNone(drop_listener(DebugKnobs(prober_debug_logs=True), Clock().seconds))

    def test_every_drop(self) -> None:
        """``DERP_DEBUG_LOGS``: each one, in derper's words."""
        bob, carol = map(format_node_public, (BOB, CAROL))
        every = [
            f"dropping packet reason=queue_tail dst={bob} disco=true",
            f"dropping packet reason=unknown_dest dst={carol} disco=false",
        ]
        self.assertEqual(self.lines(debug_logs=True), every)
        self.assertIs(drop_listener(DebugKnobs(debug_logs=True), Clock().seconds), log_drop)

    def test_both(self) -> None:
        """With ``TS_DEBUG_VERBOSE_DROPS`` beside it there are both lines."""
        lines = self.lines(debug_logs=True, verbose_drops=frozenset([BOB]))
        self.assertEqual(len(lines), 3)
        self.assertTrue(lines[0].startswith("drop ("))
        self.assertEqual(self.lines(verbose_drops=frozenset([BOB])), lines[:1])
