"""What clients, log and debug page are told of a served certificate."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.core.health import Health
from derp.net.certificate_status import CertificateStatus
from derp.net.certificate_watchdog import LOOK_S, CertificateWatchdog, expiry_note
from tests.wall_clock import WallClock

DAY = 86400.0


class CertificateWatchdogTests(SynchronousTestCase):
    """See :class:`derp.net.certificate_watchdog.CertificateWatchdog`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(5.0)
        self.wall = WallClock(self.clock, 0.0)
        self.status = CertificateStatus("a.test", "acme", 0.0, 90 * DAY)
        self.ticks: list[float] = []
        self.health = Health(tuple)
        self.watchdog = CertificateWatchdog(
            self.clock, self.wall.seconds, lambda: [self.status], self.health, self.tick
        )
        self.said: list[str] = []
        self.set_by: list[float] = []
        from derp.net import certificate_watchdog

        class Log:
            def warn(log, format: str, text: str) -> None:
                self.said.append(text)

            def info(log, format: str, change: float) -> None:
                self.set_by.append(change)

            failure = certificate_watchdog.log.failure

        self.patch(certificate_watchdog, "log", Log())
        self.watchdog.startService()
        self.addCleanup(self.watchdog.stopService)

    def tick(self) -> None:
        """Count, and fail if the test wants it."""
        self.ticks.append(self.wall.seconds())
        if self.wall.seconds() == 7 * LOOK_S:
            raise ZeroDivisionError

    def test_end_of_life(self) -> None:
        """Quiet, then told within a day of the end, logged once a day, mended at once."""
        self.clock.advance(89 * DAY - LOOK_S)
        self.assertEqual((self.health.text, self.said), ("", []))
        self.clock.advance(LOOK_S)
        self.assertIn("(a.test) expires in 24 h and is not renewed", self.health.text)
        self.clock.pump([3600.0] * 23)
        self.assertEqual(len(self.said), 1)
        self.clock.advance(3600)
        self.assertIn("(a.test) has expired", self.health.text)
        self.assertEqual(len(self.said), 2)
        self.status.not_after = 200 * DAY
        self.watchdog.check()
        self.assertEqual(self.health.text, "")

    def test_clock_is_set(self) -> None:
        """A machine that boots in the past is found out of it by the next look, and only then."""
        heard: list[int] = []
        judged: list[bool] = []
        self.watchdog.when_clock_was_set = lambda: heard.append(len(self.ticks))
        self.watchdog.when_judged = judged.append
        self.status.not_before, self.status.not_after = 50 * DAY, 140 * DAY
        self.clock.advance(LOOK_S)
        self.assertIn("is not valid yet", self.health.text)
        self.assertEqual((judged, heard), ([True], []))
        self.wall.set_by(60 * DAY)
        self.clock.advance(LOOK_S)
        self.assertEqual(self.health.text, "")
        self.assertEqual((judged, heard), ([True, False], [2]), "told before that look's tick")
        self.assertEqual(self.set_by, [60 * DAY])
        self.wall.set_by(-60 * DAY)
        self.clock.advance(LOOK_S)
        self.assertIn("is not valid yet", self.health.text)
        self.assertEqual((len(heard), len(self.said)), (2, 2))

    def test_small_steps(self) -> None:
        """A clock that is slewed, or was a second off, is nothing to speak of."""
        self.watchdog.when_clock_was_set = lambda: self.fail("it was not")
        for change in (59.0, -59.0, 1.0):
            self.wall.set_by(change)
            self.clock.advance(LOOK_S)
        self.assertEqual(self.set_by, [])

    def test_repeated_by_elapsed_time(self) -> None:
        """A clock that is set back does not silence the log."""
        self.status.not_after = -1.0
        self.watchdog.check()
        self.wall.set_by(-3000 * DAY)
        self.watchdog.check()
        self.assertEqual(len(self.said), 1)
        self.clock.advance(DAY + LOOK_S)
        self.assertEqual(len(self.said), 2)

    def test_judged(self) -> None:
        """Invalid is one that has ended or not begun, not one that ends soon or is to come."""
        judged: list[bool] = []
        self.watchdog.when_judged = judged.append
        now = self.wall.seconds()
        for begins, ends in (
            (now, now + 1),
            (now - 1, now),
            (now + 1, now + DAY),
            (None, None),
        ):
            self.status.not_before, self.status.not_after = begins, ends
            self.watchdog.check()
        self.assertEqual(judged, [False, True, True, False])

    def test_none_yet(self) -> None:
        """A certificate that was never got is nobody's health: nobody can be connected."""
        self.status.not_before = self.status.not_after = None
        self.watchdog.check()
        self.assertEqual(self.health.text, "")
        self.assertEqual(expiry_note(self.status, 0.0), "")

    def test_self_signed(self) -> None:
        """From 60 days ahead the log and the page say what to do; clients not before the end."""
        self.status.source, self.status.not_after = "self-signed", 3650 * DAY
        self.clock.advance(3589 * DAY)
        self.assertEqual(self.said, [])
        self.clock.advance(1 * DAY + LOOK_S)
        self.assertIn("change CertName in the DERP map", self.said[0])
        self.assertEqual(self.health.text, "")
        self.assertIn("CertName", expiry_note(self.status, self.wall.seconds()))
        self.clock.advance(59.5 * DAY)
        self.assertIn("expires in", self.health.text)
        self.clock.advance(DAY)
        for said in (self.said[-1], expiry_note(self.status, self.wall.seconds())):
            self.assertIn("has expired: move its .crt and .key out of --certdir", said)
        self.assertTrue(self.health.text.endswith("has expired"), "clients cannot mend it")

    def test_a_failing_tick_is_no_end(self) -> None:
        """Whatever goes wrong in looking for due certificates, it is looked again."""
        self.clock.pump([LOOK_S] * 10)
        self.assertEqual(len(self.ticks), 11)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        """Nothing ticks any more."""
        self.watchdog.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
