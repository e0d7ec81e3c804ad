"""Tests for :mod:`derp.net.drop_log`."""

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.core.stats import DropReason
from derp.net.drop_log import TRACKED, DropLog
from derp.wire.keys import short_key
from tests.core.fakes import public_key

ALICE, BOB, CAROL = map(public_key, ("alice", "bob", "carol"))


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
            self.lines(1, DropReason.QUEUE_HEAD, ALICE, BOB),
            [f"drop ({short_key(ALICE)}) queue_head -> {short_key(BOB)}"],
        )

    def test_only_listed(self) -> None:
        """Drops to other keys are not logged."""
        self.assertEqual(self.lines(3, DropReason.QUEUE_HEAD, BOB, ALICE), [])

    def test_rate(self) -> None:
        """A burst of five, then one per thirty seconds, saved up to five again."""
        drop = (DropReason.QUEUE_HEAD, ALICE, BOB)
        self.assertEqual(len(self.lines(10, *drop)), 5)
        for waited, allowed in ((29.9, 0), (0.1, 1), (30, 1), (60, 2), (1000, 5)):
            self.clock.advance(waited)
            self.assertEqual(len(self.lines(10, *drop)), allowed, waited)

    def test_lines_do_not_share(self) -> None:
        """Each distinct line has a rate of its own."""
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, ALICE, BOB)), 5)
        self.assertEqual(len(self.lines(10, DropReason.UNKNOWN_DEST, ALICE, BOB)), 5)
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, ALICE, CAROL)), 5)
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, CAROL, BOB)), 5)
        self.assertEqual(len(self.lines(10, DropReason.QUEUE_HEAD, ALICE, BOB)), 0)

    def test_bounded(self) -> None:
        """A hundred lines are tracked; the one not seen for longest is forgotten first."""
        first = (DropReason.QUEUE_HEAD, public_key("0"), BOB)
        second = (DropReason.QUEUE_HEAD, public_key("1"), BOB)
        for n in range(TRACKED):
            self.lines(6, DropReason.QUEUE_HEAD, public_key(str(n)), BOB)
        self.assertEqual(len(self.lines(1, *first)), 0)
        self.lines(1, DropReason.QUEUE_HEAD, public_key("one more"), BOB)
        self.assertEqual(len(self.drops._buckets), TRACKED)
        self.assertEqual(len(self.lines(1, *first)), 0)
        self.assertEqual(len(self.lines(1, *second)), 1)

    def test_unlimited(self) -> None:
        """``TS_DEBUG_LOG_RATE=all`` logs every one."""
        drops = DropLog(frozenset([BOB]), self.clock.seconds, unlimited=True)
        self.assertEqual(len(self.lines(50, DropReason.QUEUE_HEAD, ALICE, BOB, drops=drops)), 50)
