"""Tests of :mod:`derp.net.traffic`: the endless page of who moves how much."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp.core.tls_request_stats import TLSRequestStats
from derp.net.http_deadlines import PLAIN_RESPONSE_S, HTTPTiming
from derp.net.mux import Mux
from derp.net.timer_wheel import TimerWheel
from derp.net.traffic import INTERVAL_S, TrafficBook, TrafficPage
from derp.net.web import WebSite
from derp.wire.frames import encode_send_packet
from derp.wire.keys import format_node_public
from tests.net.sites import AbortableTransport, Visit, get
from tests.shown_relay import ALICE, ALICE_PRIVATE, BOB, FakeClient, exchange, make_sources


class TrafficBookTests(SynchronousTestCase):
    """Which connections get a line."""

    def setUp(self) -> None:
        self.sources = make_sources()
        self.alice, self.bob = exchange(self.sources)
        self.book = TrafficBook()

    def grown(self) -> dict[str, Any]:
        lines = map(json.loads, self.book.grown(self.sources.relay.registry.connections()))
        return {line["Key"]: line for line in lines}

    def test_first_round(self) -> None:
        """All that has moved bytes is reported, in totals of relayed frames."""
        shown = self.grown()
        self.assertEqual(set(shown), {format_node_public(ALICE), format_node_public(BOB)})
        header = 5 + 32
        received = 370 + 4 * header
        self.assertEqual(shown[format_node_public(BOB)]["Sent"], received)
        # Note preferred and ping count as well.
        self.assertEqual(shown[format_node_public(ALICE)]["Recv"], received + 6 + 13)
        self.assertEqual(shown[format_node_public(BOB)]["UniqueSenders"], 1)

    def test_no_senders(self) -> None:
        """Who was sent nothing by anybody has no number of senders."""
        self.assertNotIn("UniqueSenders", self.grown()[format_node_public(ALICE)])

    def test_only_what_grew(self) -> None:
        """Later rounds leave out who moved nothing since."""
        self.grown()
        self.assertEqual(self.grown(), {})
        before = self.bob.conn.sent_bytes
        self.alice.send(encode_send_packet(BOB, bytes(10)))
        self.assertEqual(self.grown()[format_node_public(BOB)]["Sent"], before + 47)
        self.assertEqual(self.grown(), {})

    def test_silent_client(self) -> None:
        """Who never moved a byte is never mentioned."""
        quiet = FakeClient(self.sources.relay, bytes([0x70]) + bytes(30) + bytes([0x71]))
        self.assertNotIn(format_node_public(quiet.conn.key), self.grown())

    def test_every_connection(self) -> None:
        """A key connected twice has two lines."""
        again = FakeClient(self.sources.relay, ALICE_PRIVATE)
        again.send(encode_send_packet(BOB, b"x"))
        lines = list(self.book.grown(self.sources.relay.registry.connections()))
        keys = [json.loads(line)["Key"] for line in lines]
        self.assertEqual(keys.count(format_node_public(ALICE)), 2)

    def test_forgets_who_left(self) -> None:
        """Nothing of a connection is kept when it has gone."""
        self.grown()
        self.alice.session.lost()
        self.bob.session.lost()
        self.grown()
        self.assertEqual(self.book._seen, {})


class TrafficPageTests(SynchronousTestCase):
    """The stream."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sources = make_sources()
        self.alice, _ = exchange(self.sources)
        page = TrafficPage(self.sources.relay, self.clock)
        timing = HTTPTiming(self.clock, TimerWheel(self.clock), PLAIN_RESPONSE_S)
        self.site = WebSite(Mux({"/debug/traffic": page}), timing, TLSRequestStats())

    def start(self) -> tuple[Visit, bytes]:
        visit = Visit(self.site)
        answer = visit.send(get("/debug/traffic"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        return visit, answer

    def chat(self) -> None:
        self.alice.send(encode_send_packet(BOB, bytes(10)))

    def test_rounds(self) -> None:
        """There is a round at once and one every two seconds, each with a blank line behind."""
        visit, answer = self.start()
        self.assertEqual(answer.count(b'{"Sent":'), 2)
        self.assertIn(b"}\n\n\r\n", answer)  # the last is the chunk's end
        self.chat()
        self.clock.advance(INTERVAL_S - 0.1)
        self.assertEqual(visit.take(), b"")
        self.clock.advance(0.1)
        self.assertEqual(visit.take().count(b'{"Sent":'), 2)
        self.clock.advance(INTERVAL_S)
        self.assertEqual(visit.take(), b"1\r\n\n\r\n")

    def test_field_order(self) -> None:
        """Fields have derper's names and order."""
        _, answer = self.start()
        self.assertRegex(
            answer, rb'\{"Sent":\d+,"Recv":\d+,"Key":"nodekey:[0-9a-f]{64}","UniqueSenders":1\}\n'
        )

    def test_ends_with_its_reader(self) -> None:
        """When the reader goes, nothing ticks any more."""
        visit, _ = self.start()
        visit.channel.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(PLAIN_RESPONSE_S + 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_deadline(self) -> None:
        """A response's deadline ends it, as it ends any other."""
        visit, _ = self.start()
        self.clock.pump([1.0] * int(PLAIN_RESPONSE_S + 10))
        self.assertTrue(visit.closing)

    def test_slow_reader(self) -> None:
        """Nothing piles up for a reader that does not read; it misses no bytes."""
        visit, _ = self.start()
        visit.transport.producer.pauseProducing()
        self.chat()
        self.clock.advance(INTERVAL_S)
        self.chat()
        self.clock.advance(INTERVAL_S)
        self.assertEqual(visit.take(), b"")
        visit.transport.producer.resumeProducing()
        self.clock.advance(INTERVAL_S)
        self.assertEqual(visit.take().count(b'{"Sent":'), 2)

    def test_head(self) -> None:
        """HEAD gets the head, and no stream."""
        visit = Visit(self.site, AbortableTransport())
        answer = visit.send(get("/debug/traffic", method="HEAD"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)
        self.clock.advance(INTERVAL_S)
        self.assertEqual(visit.take(), b"")

    def test_failure(self) -> None:
        """A fault of ours is logged and ends the stream."""
        visit, _ = self.start()
        self.sources.relay.registry.active[b"short"] = self.alice.conn
        self.alice.conn.key = b"short"
        self.chat()
        self.clock.advance(INTERVAL_S)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(visit.closing)
