"""Absolute deadlines of HTTP connections."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.http_deadlines import (
    LINGER_S,
    MAIN_RESPONSE_S,
    PLAIN_RESPONSE_S,
    READ_S,
    HTTPDeadlines,
    HTTPTiming,
)
from derp.net.timer_wheel import GRANULARITY_S, TimerWheel
from derp.net.web import build_main_site, build_plain_site
from tests.net.sites import Visit, get, site_parts
from tests.net.upgrade_case import LaterPage

LATE_S = 2 * GRANULARITY_S
"""The wheel's coarseness, with room to spare."""


class HTTPDeadlinesTests(SynchronousTestCase):
    """One connection's deadline."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fired: list[float] = []
        timing = HTTPTiming(self.clock, TimerWheel(self.clock), response_s=300.0)
        self.deadlines = HTTPDeadlines(timing, lambda: self.fired.append(self.clock.seconds()))

    def advance_to(self, seconds: float) -> None:
        while self.clock.seconds() < seconds:
            self.clock.advance(GRANULARITY_S)

    def test_expires(self) -> None:
        """A deadline fires once, when its time has come and not before."""
        self.deadlines.await_request()
        self.advance_to(READ_S - GRANULARITY_S)
        self.assertEqual(self.fired, [])
        self.advance_to(1000.0)
        self.assertEqual(len(self.fired), 1)

    def test_moved_back(self) -> None:
        """A later deadline replaces an earlier one."""
        self.deadlines.await_request()
        self.advance_to(20.0)
        self.deadlines.await_request()
        self.advance_to(20.0 + READ_S - GRANULARITY_S)
        self.assertEqual(self.fired, [])
        self.advance_to(20.0 + READ_S + LATE_S)
        self.assertEqual(len(self.fired), 1)

    def test_moved_forward(self) -> None:
        """An earlier deadline replaces a later one, too."""
        self.deadlines.await_response()
        self.deadlines.await_request()
        self.advance_to(READ_S + LATE_S)
        self.assertEqual(len(self.fired), 1)

    def test_stopped(self) -> None:
        """After the stop nothing fires, and nothing is pending, whatever is asked for."""
        self.deadlines.await_request()
        self.deadlines.stop()
        self.deadlines.await_response()
        self.advance_to(1000.0)
        self.assertEqual(self.fired, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moving_costs_the_wheel_nothing(self) -> None:
        """A thousand quick requests leave one entry, not a thousand."""
        entries: list[float] = []

        class Counting(TimerWheel):
            def schedule(self, delay_s, call):
                entries.append(delay_s)
                return super().schedule(delay_s, call)

        timing = HTTPTiming(self.clock, Counting(self.clock))
        deadlines = HTTPDeadlines(timing, lambda: None)
        for _ in range(1000):
            deadlines.await_request()
            deadlines.await_response()
        self.assertEqual(len(entries), 1)
        deadlines.stop()


class SiteDeadlineTests(SynchronousTestCase):
    """The deadlines of whole connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.later = LaterPage(b"")
        pages = {"/debug/later": self.later}
        parts = site_parts(self.clock, Config(tls=False), debug_pages=pages)
        self.main = build_main_site(parts)
        self.plain = build_plain_site(parts, self.main)

    def advance(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(GRANULARITY_S)

    def test_silence(self) -> None:
        """A connection that never says a word is closed."""
        visit = Visit(self.main)
        self.advance(READ_S - 1)
        self.assertFalse(visit.closing)
        self.advance(1 + LATE_S)
        self.assertTrue(visit.closing)
        self.assertEqual(visit.take(), b"")

    def test_dripping_header(self) -> None:
        """A header sent byte by byte gets no more time than any other."""
        visit = Visit(self.main)
        for byte in get("/", "X-Padding: " + 100 * "x")[: int(READ_S)]:
            visit.channel.dataReceived(bytes([byte]))
            self.assertFalse(visit.closing)
            self.advance(1)
        self.advance(LATE_S)
        self.assertTrue(visit.closing)

    def test_dripping_body(self) -> None:
        """Neither does a body."""
        visit = Visit(self.main)
        visit.send(get("/", "Content-Length: 1000", method="POST"))
        for _ in range(int(READ_S)):
            self.assertFalse(visit.closing)
            visit.send(b"x")
            self.advance(1)
        self.advance(LATE_S)
        self.assertTrue(visit.closing)

    def test_idle(self) -> None:
        """Between requests there is as much time as for one, counted from the last answer."""
        visit = Visit(self.main)
        for _ in range(3):
            self.assertIn(b"200 OK", visit.send(get("/derp/probe")))
            self.advance(READ_S - 1)
        self.assertFalse(visit.closing)
        self.advance(1 + LATE_S)
        self.assertTrue(visit.closing)

    def test_request_after_silence_has_its_own_time(self) -> None:
        """The first byte after a pause starts the request's time."""
        visit = Visit(self.main)
        visit.send(get("/derp/probe"))
        self.advance(READ_S - 1)
        visit.send(b"GET ")
        self.advance(READ_S - 1)
        self.assertFalse(visit.closing)
        self.advance(1 + LATE_S)
        self.assertTrue(visit.closing)

    def _slow_answer(self, site: object, response_s: float) -> None:
        visit = Visit(site)
        visit.send(get("/debug/later"))
        self.advance(response_s - 1)
        self.assertFalse(visit.closing)
        self.advance(1 + LATE_S)
        self.assertTrue(visit.closing)

    def test_slow_answer(self) -> None:
        """An answer that takes too long is cut off on the main port."""
        self._slow_answer(self.main, MAIN_RESPONSE_S)

    def test_slow_answer_on_the_plain_port(self) -> None:
        """There is time for a long profile on the plain port."""
        self._slow_answer(self.plain, PLAIN_RESPONSE_S)

    def test_slow_reader(self) -> None:
        """An answer the peer does not take counts as not answered, then as a dead end."""
        visit = Visit(self.plain)
        visit.send(get("/debug/later"))
        visit.channel.pauseProducing()
        self.later.request.finish()
        self.advance(PLAIN_RESPONSE_S - 1)
        self.assertFalse(visit.closing)
        self.advance(1 + LATE_S)
        self.assertTrue(visit.closing)
        self.assertFalse(visit.transport.aborted)
        self.advance(LINGER_S + LATE_S)
        self.assertTrue(visit.transport.aborted)

    def test_reader_that_caught_up(self) -> None:
        """Once the answer has left, the idle time starts."""
        visit = Visit(self.plain)
        visit.send(get("/debug/later"))
        visit.channel.pauseProducing()
        self.later.request.finish()
        visit.channel.resumeProducing()
        self.advance(READ_S + LATE_S)
        self.assertTrue(visit.closing)

    def test_close_that_does_not_happen(self) -> None:
        """A connection that was to be closed after its answer is cut off in the end."""
        visit = Visit(self.main)
        visit.send(get("/", "Connection: close"))
        self.assertTrue(visit.transport.disconnecting)
        self.advance(MAIN_RESPONSE_S + LATE_S)
        self.assertTrue(visit.transport.aborted)

    def test_nothing_pending_after_the_end(self) -> None:
        """A lost connection leaves no timer."""
        visit = Visit(self.main)
        visit.send(get("/debug/later"))
        visit.channel.connectionLost()
        self.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])
